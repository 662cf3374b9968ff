//! Records for whoever embeds the receiver: all of them, once, in order, and in nobody's way.

use std::error::Error as _;
use std::sync::Arc;

use segstore::{ArchiveView, OsDisk};
use tests::{ArchiveDirectory, Cluster, Embedded, Receiver, Records, Version, wait_until};
use walproto::Major;
use walproto::{Lsn, TimelineId};
use walreceiver::{
    ApplyError, OnFork, PieceEnd, ReceiveError, ReceiverConfig, RecordPiece, WalPosition,
};

use crate::for_each_version;

for_each_version!(
    records_are_those_that_pg_waldump_lists,
    records_go_on_across_a_promotion,
    remote_apply_waits_for_the_applier_and_flush_does_not,
);

/// Where a record starts, of which resource manager it is, and how long.
type Listed = (Lsn, String, u32);

/// What `pg_waldump` says of the records of a timeline in the archive, from `start` up to `end`.
fn listed(
    archive: &ArchiveDirectory,
    cluster: &Cluster,
    timeline: TimelineId,
    start: Lsn,
    end: Lsn,
) -> Option<Vec<Listed>> {
    let size = cluster.segment_size();
    let lines = archive.waldump_lines(cluster.version(), timeline, size, start, end)?;
    let records = lines.iter().map(|line| {
        let after = |mark: &str| line.split_once(mark).unwrap().1.trim_start();
        let word = |text: &str| text.split([' ', ',']).next().unwrap().to_owned();
        let total = after("len (rec/tot):").split_once('/').unwrap().1;
        (
            word(after("lsn: ")).parse().unwrap(),
            word(after("rmgr:")),
            word(total.trim_start()).parse().unwrap(),
        )
    });
    // It lists the record that begins at the end, too.
    Some(records.filter(|record: &Listed| record.0 < end).collect())
}

fn listed_of(record: &RecordPiece) -> Listed {
    let header = record.header;
    let name = Major::resource_manager_name(header.resource_manager).unwrap();
    (record.start, name.to_owned(), header.total_length)
}

/// Asserts that each record names the one before as its predecessor: none is missing, none is
/// there twice.
#[track_caller]
fn assert_chain(records: &[RecordPiece]) {
    for pair in records.windows(2) {
        let [before, after] = pair else { continue };
        assert_eq!(after.header.previous, before.start, "at {}", after.start);
    }
}

/// Asserts that the records from the first one on are those that `pg_waldump` lists; of a version
/// without the program, that they follow each other.
#[track_caller]
fn assert_complete(archive: &ArchiveDirectory, cluster: &Cluster, records: &Records) {
    let records = records.complete();
    assert_chain(&records);
    let (first, last) = (records.first().unwrap(), records.last().unwrap());
    let PieceEnd::Complete(end) = last.end else {
        unreachable!("{last:?}");
    };
    let found: Vec<_> = records.iter().map(listed_of).collect();
    if let Some(listed) = listed(archive, cluster, last.timeline, first.start, end) {
        assert!(listed.len() > 100, "{}", listed.len());
        assert!(listed == found, "{} and {}", listed.len(), found.len());
    }
}

fn records_are_those_that_pg_waldump_lists(version: Version) {
    let cluster = Cluster::builder(version).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let records = Records::default();
    let receiver = Embedded::of(&cluster, archive.path(), &records, None);
    cluster.wait_streaming(Embedded::NAME);
    cluster.write_wal(2);
    cluster.switch_wal();
    // Longer than a segment.
    cluster.sql("SELECT pg_logical_emit_message(true, 'long', repeat('x', 1500000))");
    let end = cluster.write_wal(1);
    records.wait_for(end);
    receiver.stop();
    assert_complete(&archive, &cluster, &records);
}

#[test]
fn records_are_read_from_a_view_beside_a_receiver() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(&cluster, archive.path())
        .args(["--compress", "lz4"])
        .start();
    let start = cluster.write_wal(1);
    receiver.wait_flushed(&cluster, "wal_receiver", start);
    let view = ArchiveView::open(Arc::new(OsDisk::new()), archive.path()).unwrap();
    let _follower = view.follow().unwrap();
    let mut feed = view.records(start, 1 << 20).unwrap();
    let mut records = Vec::new();
    for _ in 0..3 {
        let end = cluster.write_wal(1);
        cluster.switch_wal();
        receiver.wait_flushed(&cluster, "wal_receiver", end);
        wait_until("the records to arrive", || {
            while let Some(record) = feed.next_piece().unwrap() {
                records.push(record);
            }
            records
                .last()
                .and_then(RecordPiece::applied)
                .is_some_and(|a| a.lsn >= end)
        });
    }
    assert_chain(&records);
    assert!(receiver.stop().success(), "{}", receiver.log());
    // What the receiver has compressed meanwhile is read like the rest.
    assert!(archive.files().iter().any(|name| name.ends_with(".lz4")));
    let mut again = view.records(start, 1 << 20).unwrap();
    for record in &records {
        assert_eq!(again.next_piece().unwrap().as_ref(), Some(record));
    }
}

/// Starts a transaction that waits for its standby, and waits until it does.
fn waiting_commit(cluster: &Cluster) -> std::thread::JoinHandle<()> {
    let mut client = cluster.client();
    let commit = std::thread::spawn(move || {
        client
            .batch_execute("SET synchronous_commit = remote_apply; INSERT INTO t VALUES (1)")
            .unwrap();
    });
    wait_until("the commit to wait", || {
        cluster
            .text("SELECT 'yes' FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
            .is_some()
    });
    commit
}

fn remote_apply_waits_for_the_applier_and_flush_does_not(version: Version) {
    let cluster = Cluster::start_new(version);
    let archive = ArchiveDirectory::new();
    let records = Records::default();
    let receiver = Embedded::of(&cluster, archive.path(), &records, None);
    cluster.wait_streaming(Embedded::NAME);
    cluster.sql("CREATE TABLE t (i int)");
    cluster.set_synchronous_standbys(Embedded::NAME);
    cluster.wait_sync_state(Embedded::NAME, "sync");
    cluster.commit("SET synchronous_commit = remote_apply; INSERT INTO t VALUES (0)");
    records.hold();
    let commit = waiting_commit(&cluster);
    // These are durable here while nothing is applied.
    for _ in 0..10 {
        cluster.commit("SET synchronous_commit = on; INSERT INTO t VALUES (2)");
    }
    assert!(!commit.is_finished());
    records.go_on();
    wait_until("the commit to return", || commit.is_finished());
    commit.join().unwrap();
    // And with nothing else to come.
    cluster.commit("SET synchronous_commit = remote_apply; INSERT INTO t VALUES (3)");
    receiver.stop();
    assert_complete(&archive, &cluster, &records);
}

fn records_go_on_across_a_promotion(version: Version) {
    let primary = Cluster::builder(version).segment_size_mib(1).start();
    let standby = primary.standby("second");
    let archive = ArchiveDirectory::new();
    let records = Records::default();
    let receiver = Embedded::of(&standby, archive.path(), &records, None);
    standby.wait_streaming(Embedded::NAME);
    // It is behind when the timeline changes.
    records.hold();
    let old_end = primary.write_wal(2);
    wait_until("the standby to catch up", || standby.flush_lsn() >= old_end);
    standby.promote();
    let end = standby.write_wal(1);
    Embedded::wait_flushed(&standby, end);
    records.go_on();
    let applied = records.wait_for(end);
    receiver.stop();
    assert_eq!(applied.timeline.number(), 2);
    let records = records.complete();
    assert_chain(&records);
    let history = std::fs::read_to_string(archive.path().join("00000002.history")).unwrap();
    let switch_point: Lsn = history.split_whitespace().nth(1).unwrap().parse().unwrap();
    for record in &records {
        let expected = if record.start < switch_point { 1 } else { 2 };
        assert_eq!(record.timeline.number(), expected, "at {}", record.start);
    }
    let (old, new) =
        records.split_at(records.partition_point(|record| record.start < switch_point));
    assert!(old.len() > 100 && new.len() > 100);
    for (part, end) in [(old, switch_point), (new, applied.lsn)] {
        let first = part.first().unwrap();
        let found: Vec<_> = part.iter().map(listed_of).collect();
        if let Some(listed) = listed(&archive, &standby, first.timeline, first.start, end) {
            assert!(listed == found, "{} and {}", listed.len(), found.len());
        }
    }
}

#[test]
fn a_restart_goes_on_without_a_gap_or_repetition() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let records = Records::default();
    let start = |from| Embedded::of(&cluster, archive.path(), &records, from);
    let mut receiver = start(None);
    cluster.wait_streaming(Embedded::NAME);
    records.wait_for(cluster.write_wal(1));
    for _ in 0..3 {
        records.hold();
        // More than it has applied when it stops, and more that it has not even received.
        let end = cluster.write_wal(1);
        Embedded::wait_flushed(&cluster, end);
        assert!(records.applied().unwrap().lsn < end);
        let stopped = std::thread::spawn(move || receiver.stop());
        wait_until("the connection to end", || {
            cluster.reported_flush(Embedded::NAME).is_none()
        });
        records.go_on();
        stopped.join().unwrap();
        let end = cluster.write_wal(1);
        receiver = start(records.applied());
        records.wait_for(end);
    }
    receiver.stop();
    assert_complete(&archive, &cluster, &records);
}

#[test]
fn an_archive_is_applied_from_its_beginning() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let all = Records::default();
    let receiver = Embedded::of(&cluster, archive.path(), &all, None);
    cluster.wait_streaming(Embedded::NAME);
    let end = cluster.write_wal(3);
    all.wait_for(end);
    receiver.stop();
    let first = all.complete().first().unwrap().start;
    let again = Records::default();
    let from = WalPosition {
        timeline: TimelineId::FIRST,
        lsn: first,
    };
    let receiver = Embedded::of(&cluster, archive.path(), &again, Some(from));
    again.wait_for(end);
    receiver.stop();
    let all = all.complete();
    assert_eq!(again.complete().get(..all.len()), Some(all.as_slice()));
}

#[test]
fn a_record_longer_than_is_taken_whole_comes_in_pieces_of_a_page() {
    const LENGTH: usize = 5_000_000;
    let cluster = Cluster::start_new(Version::V15);
    let archive = ArchiveDirectory::new();
    let records = Records::default();
    let receiver = Embedded::of(&cluster, archive.path(), &records, None);
    cluster.wait_streaming(Embedded::NAME);
    cluster.sql(&format!(
        "SELECT pg_logical_emit_message(false, 'long', repeat('x', {LENGTH}))"
    ));
    cluster.sql("CREATE TABLE t (i int)");
    records.wait_for(cluster.flush_lsn());
    receiver.stop();
    let pieces = records.pieces();
    let long: Vec<_> = pieces
        .iter()
        .filter(|piece| piece.header.body_length() > u32::try_from(LENGTH).unwrap())
        .collect();
    let first = long.first().unwrap();
    assert_eq!(
        Major::resource_manager_name(first.header.resource_manager),
        Some("LogicalMessage")
    );
    let mut body = Vec::new();
    for piece in &long {
        assert_eq!(piece.start, first.start);
        assert!(piece.bytes.len() <= 8192, "{}", piece.bytes.len());
        body.extend_from_slice(&piece.bytes);
    }
    let text = body.split_off(body.len() - LENGTH);
    assert!(text.iter().all(|byte| *byte == b'x'));
    // All records around it are there, whole.
    assert_chain(&records.complete());
}

#[track_caller]
fn assert_told_to_fail(error: &ReceiveError) {
    let ReceiveError::Apply(ApplyError::Refused { lsn, source, .. }) = error else {
        unreachable!("{error:?}");
    };
    assert_eq!(source.to_string(), Records::FAILURE);
    let text = error.to_string();
    assert!(text.contains(&lsn.to_string()), "{text}");
    assert!(error.source().is_some());
}

#[test]
fn an_error_of_the_applier_ends_the_receiver() {
    let cluster = Cluster::start_new(Version::V15);
    let archive = ArchiveDirectory::new();
    let records = Records::default();
    let receiver = Embedded::of(&cluster, archive.path(), &records, None);
    cluster.wait_streaming(Embedded::NAME);
    records.wait_for(cluster.write_wal(1));
    records.fail();
    cluster.sql("CREATE TABLE t (i int)");
    assert_told_to_fail(&receiver.fail());
}

#[test]
fn an_error_of_the_applier_ends_the_receiver_while_there_is_no_server() {
    let mut cluster = Cluster::start_new(Version::V15);
    let archive = ArchiveDirectory::new();
    let records = Records::default();
    let receiver = Embedded::of(&cluster, archive.path(), &records, None);
    cluster.wait_streaming(Embedded::NAME);
    records.hold();
    let end = cluster.write_wal(1);
    Embedded::wait_flushed(&cluster, end);
    cluster.stop();
    records.fail();
    assert_told_to_fail(&receiver.fail());
}

#[test]
fn what_was_applied_and_is_not_on_the_followed_timeline_is_an_error() {
    let primary = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let mut standby = primary.standby("second");
    standby.stop();
    let archive = ArchiveDirectory::new();
    let records = Records::default();
    let receiver = Embedded::of(&primary, archive.path(), &records, None);
    primary.wait_streaming(Embedded::NAME);
    let applied = records.wait_for(primary.write_wal(1));
    receiver.stop();
    drop(primary);
    standby.start();
    standby.promote();
    let start = |records: &Records, from| {
        let config = ReceiverConfig {
            fork: OnFork::Follow,
            ..ReceiverConfig::new(archive.path())
        };
        Embedded::start(config, &standby.conninfo(), records, Some(from))
    };
    let receiver = start(&records, applied);
    let error = receiver.fail();
    let ReceiveError::Apply(ApplyError::Forked { switch_point, .. }) = error else {
        unreachable!("{error:?}");
    };
    assert!(switch_point < applied.lsn);
    // Made anew up to the switch point, it goes on from there.
    let records = Records::default();
    let from = WalPosition {
        timeline: TimelineId::FIRST,
        lsn: switch_point,
    };
    let receiver = start(&records, from);
    standby.wait_streaming(Embedded::NAME);
    let applied = records.wait_for(standby.write_wal(1));
    receiver.stop();
    assert_eq!(applied.timeline.number(), 2);
    let first = records.complete().first().unwrap().clone();
    // There may be a page header between.
    let skipped = first.start.checked_sub(switch_point).unwrap();
    assert!(skipped <= 40 && first.timeline.number() == 2, "{first:?}");
    assert_complete(&archive, &standby, &records);
}
