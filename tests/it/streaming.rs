//! The main job: what the primary writes is in the archive, and a commit that returned is safe.

use std::fs;
use std::ops::Range;

use tests::{
    ArchiveDirectory, Cluster, Load, Receiver, Version, segment_name, wait_for, wait_until,
};
use walproto::{Lsn, TimelineId};

use crate::for_each_version;

for_each_version!(
    wal_arrives_byte_for_byte,
    every_kind_of_synchronous_commit_returns,
    acknowledged_commits_survive_primary_and_receiver,
    a_receiver_killed_under_load_resumes,
    a_slot_is_created_kept_at_what_is_durable_and_dropped,
    a_primary_can_shut_down,
    segments_of_1_mib,
    segments_of_64_mib,
    a_slot_that_keeps_only_the_next_segment_is_enough,
);

/// Starts our receiver on an empty archive and waits until it streams; gives the position from
/// which on the archive has WAL.
fn streaming(cluster: &Cluster, archive: &ArchiveDirectory) -> (Receiver, Lsn) {
    let start = cluster.segment_size().start_of(cluster.flush_lsn());
    let receiver = Receiver::of(cluster, archive.path()).start();
    cluster.wait_streaming("wal_receiver");
    (receiver, start)
}

/// Makes it the one that commits wait for.
fn make_synchronous(cluster: &Cluster) {
    cluster.set_synchronous_standbys("wal_receiver");
    cluster.wait_sync_state("wal_receiver", "sync");
}

fn assert_archived(archive: &ArchiveDirectory, cluster: &Cluster, range: Range<Lsn>) {
    let (timeline, size) = (TimelineId::FIRST, cluster.segment_size());
    archive.assert_same_wal(cluster, timeline, range.start, range.end);
    let version = cluster.version();
    // `pg_waldump` begins at a record; the first is found by the program itself.
    let records = archive.waldump(version, timeline, size, range.start, range.end);
    if version >= Version::V15 {
        assert!(records.unwrap() > 100, "{records:?}");
    }
}

fn wal_arrives_byte_for_byte(version: Version) {
    let cluster = Cluster::start_new(version);
    let archive = ArchiveDirectory::new();
    let (mut receiver, start) = streaming(&cluster, &archive);
    cluster.write_wal(20);
    let end = cluster.switch_wal();
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    assert_archived(&archive, &cluster, start..end);
    assert!(receiver.stop().success(), "{}", receiver.log());
    let names = archive.files();
    let (last, complete) = names.split_last().unwrap();
    assert!(last.ends_with(".partial"), "{names:?}");
    assert!(complete.iter().all(|name| name.len() == 24), "{names:?}");
}

fn every_kind_of_synchronous_commit_returns(version: Version) {
    let cluster = Cluster::start_new(version);
    let archive = ArchiveDirectory::new();
    let (_receiver, _) = streaming(&cluster, &archive);
    make_synchronous(&cluster);
    for level in ["remote_write", "on", "remote_apply"] {
        cluster.commit(&format!(
            "SET synchronous_commit = {level}; CREATE TABLE {level}_table (i int)"
        ));
    }
    assert!(!cluster.log().contains("canceling wait"));
}

fn acknowledged_commits_survive_primary_and_receiver(version: Version) {
    let mut cluster = Cluster::start_new(version);
    let archive = ArchiveDirectory::new();
    let (mut receiver, _) = streaming(&cluster, &archive);
    let backup = cluster.base_backup();
    make_synchronous(&cluster);
    let load = Load::start(&cluster, 4, "on");
    load.wait_for_commits(200);
    cluster.kill9();
    receiver.kill9();
    let commits = load.finish();
    let restored = backup.restore_from(archive.path());
    assert_eq!(restored.missing(&commits), [].into());
}

fn a_receiver_killed_under_load_resumes(version: Version) {
    let mut cluster = Cluster::builder(version).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let (mut receiver, start) = streaming(&cluster, &archive);
    let backup = cluster.base_backup();
    make_synchronous(&cluster);
    let load = Load::start(&cluster, 4, "on");
    for _ in 0..3 {
        load.wait_for_commits(300);
        receiver.kill9();
        receiver = Receiver::of(&cluster, archive.path()).start();
        cluster.wait_sync_state("wal_receiver", "sync");
    }
    load.wait_for_commits(300);
    let commits = load.finish();
    let end = cluster.flush_lsn();
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    assert_archived(&archive, &cluster, start..end);
    cluster.kill9();
    receiver.kill9();
    let restored = backup.restore_from(archive.path());
    assert_eq!(restored.missing(&commits), [].into());
}

fn a_slot_is_created_kept_at_what_is_durable_and_dropped(version: Version) {
    let cluster = Cluster::builder(version).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let manage = |action: &str| {
        let conninfo = cluster.conninfo();
        Receiver::bare()
            .args([action, "--slot", "archive", "-d", &conninfo])
            .run()
    };
    let (status, log) = manage("--create-slot");
    assert!(status.success(), "{log}");
    let restart_lsn = || {
        let query =
            "SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = 'archive'";
        cluster.text(query).map(|lsn| lsn.parse::<Lsn>().unwrap())
    };
    let reserved = restart_lsn().unwrap();
    let end = cluster.write_wal(3);
    let mut receiver = Receiver::of(&cluster, archive.path())
        .args(["--slot", "archive"])
        .start();
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    wait_until("the slot to move on", || restart_lsn().unwrap() >= end);
    // From 15 on the server tells where the slot begins; before, a first start is where it is now.
    if version >= Version::V15 {
        let start = cluster.segment_size().start_of(reserved);
        archive.assert_same_wal(&cluster, TimelineId::FIRST, start, end);
    }
    assert!(receiver.stop().success(), "{}", receiver.log());
    let (status, log) = manage("--drop-slot");
    assert!(status.success(), "{log}");
    assert_eq!(restart_lsn(), None);
}

fn a_primary_can_shut_down(version: Version) {
    let mut cluster = Cluster::start_new(version);
    let archive = ArchiveDirectory::new();
    let (mut receiver, start) = streaming(&cluster, &archive);
    make_synchronous(&cluster);
    cluster.write_wal(1);
    // It waits until the receiver has flushed all of it, the last checkpoint included.
    cluster.stop();
    cluster.start();
    cluster.wait_streaming("wal_receiver");
    let end = cluster.flush_lsn();
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    assert_archived(&archive, &cluster, start..end);
}

/// A slot at the border of two segments keeps nothing of the first one, in which the archive's
/// last record lies.
fn a_slot_that_keeps_only_the_next_segment_is_enough(version: Version) {
    let cluster = Cluster::builder(version)
        .segment_size_mib(1)
        .conf("wal_keep_size", "0")
        .conf("min_wal_size", "2MB")
        .start();
    cluster.sql("SELECT pg_create_physical_replication_slot('archive', true)");
    let archive = ArchiveDirectory::new();
    let start_receiver = || {
        let receiver = Receiver::of(&cluster, archive.path()).args(["-v", "--slot", "archive"]);
        receiver.start()
    };
    let size = cluster.segment_size();
    let slot_at = |lsn: Lsn| {
        let found = cluster.text("SELECT restart_lsn::text FROM pg_replication_slots");
        found.unwrap().parse::<Lsn>().unwrap() == lsn
    };
    let border = wait_for("a receiver that stops at a segment's end", || {
        let mut receiver = start_receiver();
        let written = cluster.write_wal(1);
        receiver.wait_flushed(&cluster, "wal_receiver", written);
        let border = Lsn(size.start_of(cluster.flush_lsn()).0 + size.bytes());
        cluster.sql("SELECT pg_switch_wal()");
        receiver.wait_flushed(&cluster, "wal_receiver", border);
        assert!(receiver.stop().success(), "{}", receiver.log());
        // The server may have written something of its own meanwhile.
        slot_at(border).then_some(border)
    });
    let removed = segment_name(TimelineId::FIRST, Lsn(border.0 - 1), size);
    let removed = cluster.data_directory().join("pg_wal").join(removed);
    wait_until("the segment before to be removed", || {
        cluster.write_wal(2);
        cluster.sql("CHECKPOINT");
        !removed.exists()
    });
    let mut receiver = start_receiver();
    let end = cluster.write_wal(1);
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    let expected = format!("starting log streaming at {border}");
    assert!(receiver.log().contains(&expected), "{}", receiver.log());
    archive.assert_same_wal(&cluster, TimelineId::FIRST, border, end);
}

fn segments_of_1_mib(version: Version) {
    segments_of(version, 1, 6);
}

fn segments_of_64_mib(version: Version) {
    segments_of(version, 64, 70);
}

fn segments_of(version: Version, segment_mib: u64, written_mib: u64) {
    let cluster = Cluster::builder(version)
        .segment_size_mib(segment_mib)
        .start();
    let archive = ArchiveDirectory::new();
    let (mut receiver, start) = streaming(&cluster, &archive);
    let end = cluster.write_wal(written_mib);
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    assert_archived(&archive, &cluster, start..end);
    let size = cluster.segment_size();
    assert!(size.segment_of(end) > size.segment_of(start));
}

#[test]
fn segments_of_1_gib() {
    let cluster = Cluster::builder(Version::V15)
        .segment_size_mib(1024)
        // Not one that is kept as a model: it would take a gigabyte for good.
        .own_identity()
        .conf("wal_init_zero", "off")
        .start();
    let archive = ArchiveDirectory::new();
    let (mut receiver, start) = streaming(&cluster, &archive);
    cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) i");
    let switched = cluster.text("SELECT pg_switch_wal()::text").unwrap();
    let switched: Lsn = switched.parse().unwrap();
    cluster.sql("INSERT INTO t SELECT generate_series(1, 1000)");
    let end = cluster.flush_lsn();
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    assert!(receiver.stop().success(), "{}", receiver.log());
    let size = cluster.segment_size();
    let second = size.start_of(end);
    assert_eq!(second.0 - start.0, 1 << 30);
    let names = [start, second].map(|lsn| segment_name(TimelineId::FIRST, lsn, size));
    assert_eq!(
        archive.files(),
        [names[0].clone(), format!("{}.partial", names[1])]
    );
    // Between the two there are zeros.
    assert_archived(&archive, &cluster, start..switched);
    assert_archived(&archive, &cluster, second..end);
    let first = fs::metadata(archive.path().join(&names[0])).unwrap();
    assert_eq!(first.len(), 1 << 30);
}

#[test]
fn a_first_start_is_where_it_is_told() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let begin = cluster.flush_lsn();
    let end = cluster.write_wal(3);
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(&cluster, archive.path())
        .args(["--start", &begin.to_string()])
        .start();
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    let start = cluster.segment_size().start_of(begin);
    assert_archived(&archive, &cluster, start..end);
    let first = segment_name(TimelineId::FIRST, begin, cluster.segment_size());
    assert_eq!(archive.files().first(), Some(&first));
}
