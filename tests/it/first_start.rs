//! What the archive of a first start covers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tests::{
    ArchiveDirectory, Cluster, Proxy, Receiver, ReceiverBuilder, Verdict, Version, wait_until,
};
use walproto::{Lsn, SegmentSize, TimelineId};

use crate::for_each_version;

/// The archive's files begin with this segment.
#[track_caller]
fn assert_begins_with(archive: &ArchiveDirectory, lsn: Lsn, size: SegmentSize) {
    let files = archive.files();
    let file = archive.file_of(TimelineId::FIRST, lsn, size);
    assert!(file.is_some(), "nothing of {lsn} in {files:?}");
}

for_each_version!(a_commit_that_waits_is_in_the_archive_that_releases_it);

fn a_commit_that_waits_is_in_the_archive_that_releases_it(version: Version) {
    let cluster = Cluster::builder(version)
        .segment_size_mib(1)
        .conf("wal_keep_size", "32MB")
        .start();
    let size = cluster.segment_size();
    cluster.sql("CREATE TABLE waits (id int)");
    cluster.set_synchronous_standbys("wal_receiver");
    let before = cluster.flush_lsn();
    let mut client = cluster.client();
    let waiting = thread::spawn(move || client.batch_execute("INSERT INTO waits VALUES (1)"));
    let is_waiting = "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    wait_until("the commit to wait", || {
        cluster.text(is_waiting).as_deref() == Some("1")
    });
    let committed = cluster.flush_lsn();
    assert_eq!(size.segment_of(before), size.segment_of(committed));
    // The commits of this session do not wait for a standby.
    let mut client = cluster.client();
    client
        .batch_execute("SET synchronous_commit = local")
        .unwrap();
    for _ in 0..4 {
        client
            .batch_execute("SELECT pg_switch_wal(); INSERT INTO waits VALUES (2); CHECKPOINT")
            .unwrap();
    }
    let current = cluster.flush_lsn();
    assert!(size.segment_of(current).0 > size.segment_of(committed).0 + 3);
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(&cluster, archive.path()).start();
    waiting.join().unwrap().unwrap();
    receiver.wait_flushed(&cluster, "wal_receiver", current);
    assert_begins_with(&archive, before, size);
    assert!(receiver.stop().success(), "{}", receiver.log());
    archive.assert_same_wal(&cluster, TimelineId::FIRST, size.start_of(before), current);
}

for_each_version!(the_oldest_wal_that_the_server_has_is_the_start);

fn the_oldest_wal_that_the_server_has_is_the_start(version: Version) {
    let cluster = Cluster::builder(version)
        .segment_size_mib(1)
        .conf("wal_keep_size", "3MB")
        .conf("min_wal_size", "2MB")
        .start();
    let size = cluster.segment_size();
    cluster.write_wal(8);
    cluster.sql("CHECKPOINT");
    cluster.write_wal(1);
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(&cluster, archive.path()).start();
    receiver.wait_flushed(&cluster, "wal_receiver", cluster.flush_lsn());
    // Recycled segments have names of WAL that is not written yet.
    let oldest = cluster
        .text("SELECT min(name) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'")
        .unwrap();
    let files = archive.files();
    assert_eq!(files.first(), Some(&oldest), "{}", receiver.log());
    assert_ne!(size.segment_of(cluster.flush_lsn()).0, 1);
}

/// A server whose streams stop at a position, each after its first message.
struct Limited {
    proxy: Proxy,
    limit: Arc<AtomicU64>,
}

impl Limited {
    fn start(cluster: &Cluster, limit: Lsn) -> Self {
        let limit = Arc::new(AtomicU64::new(limit.0));
        let passed = Arc::clone(&limit);
        let mut is_first = false;
        let proxy = Proxy::start(cluster, move |message| {
            is_first |= message.tag == b'W';
            match message.wal() {
                Some((start, _)) if !is_first && start.0 >= passed.load(Ordering::Relaxed) => {
                    Verdict::Drop
                }
                Some(_) => {
                    is_first = false;
                    Verdict::Forward
                }
                None => Verdict::Forward,
            }
        });
        Self { proxy, limit }
    }

    fn receiver(&self, archive: &ArchiveDirectory) -> ReceiverBuilder {
        let receiver = Receiver::bare().arg("-D").arg(archive.path());
        receiver.args(["-d", &self.proxy.conninfo()])
    }

    fn lift(&self) {
        self.limit.store(u64::MAX, Ordering::Relaxed);
    }
}

for_each_version!(a_slot_reserves_the_wal_of_a_first_start_from_its_beginning_on);

fn a_slot_reserves_the_wal_of_a_first_start_from_its_beginning_on(version: Version) {
    for slot in [None, Some("archive")] {
        let cluster = Cluster::builder(version)
            .segment_size_mib(1)
            .conf("wal_keep_size", "4MB")
            .conf("min_wal_size", "2MB")
            .start();
        let size = cluster.segment_size();
        cluster.write_wal(8);
        cluster.sql("CHECKPOINT");
        if slot.is_some() {
            cluster.sql("SELECT pg_create_physical_replication_slot('archive', true)");
        }
        cluster.write_wal(1);
        let archive = ArchiveDirectory::new();
        let server = Limited::start(&cluster, Lsn(0));
        let mut receiver = server.receiver(&archive);
        if let Some(slot) = slot {
            receiver = receiver.args(["--slot", slot]);
        }
        let mut receiver = receiver.start();
        cluster.wait_streaming("wal_receiver");
        wait_until("the first segment", || !archive.files().is_empty());
        let first = archive.files().remove(0);
        let oldest = || {
            cluster
                .text("SELECT min(name) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'")
                .unwrap()
        };
        assert_eq!(first.trim_end_matches(".partial"), oldest());
        let restart = "SELECT restart_lsn::text || ' ' || temporary FROM pg_replication_slots";
        let restart = cluster.text(restart).unwrap();
        let (restart, temporary) = restart.split_once(' ').unwrap();
        let restart: Lsn = restart.parse().unwrap();
        assert_eq!(temporary, slot.is_none().to_string());
        assert_eq!(size.start_of(restart), restart);
        assert_begins_with(&archive, restart, size);
        for _ in 0..2 {
            cluster.write_wal(8);
            cluster.sql("CHECKPOINT");
        }
        assert_eq!(first.trim_end_matches(".partial"), oldest());
        assert!(receiver.stop().success(), "{}", receiver.log());
    }
}

for_each_version!(a_first_start_that_connects_again_acknowledges_nothing_that_it_has_not_compared);

fn a_first_start_that_connects_again_acknowledges_nothing_that_it_has_not_compared(
    version: Version,
) {
    let cluster = Cluster::builder(version)
        .segment_size_mib(1)
        .conf("wal_keep_size", "64MB")
        .start();
    cluster.sql("CREATE TABLE waits (id int)");
    cluster.set_synchronous_standbys("wal_receiver");
    let mut client = cluster.client();
    let waiting = thread::spawn(move || client.batch_execute("INSERT INTO waits VALUES (1)"));
    let is_waiting = || {
        let waiting = "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        cluster.text(waiting).as_deref() == Some("1")
    };
    wait_until("the commit to wait", is_waiting);
    let committed = cluster.flush_lsn();
    let mut client = cluster.client();
    client
        .batch_execute("SET synchronous_commit = local")
        .unwrap();
    for _ in 0..6 {
        client
            .batch_execute("SELECT pg_switch_wal(); INSERT INTO waits VALUES (2)")
            .unwrap();
    }
    let size = cluster.segment_size();
    let limit = Lsn(size.start_of(committed).0 + 3 * size.bytes());
    let server = Limited::start(&cluster, limit);
    let archive = ArchiveDirectory::new();
    let mut receiver = server.receiver(&archive).start();
    let later = Lsn(limit.0 - size.bytes());
    let has_it = || archive.file_of(TimelineId::FIRST, later, size).is_some();
    wait_until("what the proxy lets through", has_it);
    // Resumed behind the commit, which is in the archive and has not been acknowledged.
    let slot = || cluster.text("SELECT slot_name::text FROM pg_replication_slots");
    let first_slot = slot().unwrap();
    cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication");
    wait_until("another slot", || {
        slot().is_some_and(|name| name != first_slot)
    });
    cluster.wait_streaming("wal_receiver");
    let reported = "SELECT (flush_lsn IS NULL)::text FROM pg_stat_replication";
    wait_until("a status update", || {
        cluster.text(reported).as_deref() == Some("true")
    });
    assert!(is_waiting(), "{}", receiver.log());
    // That is what was reported to reserve WAL. A server that is not behind would release by it.
    let restart = cluster.text("SELECT restart_lsn::text FROM pg_replication_slots");
    let restart: Lsn = restart.unwrap().parse().unwrap();
    assert!(restart < committed, "{restart}, {committed}");
    server.lift();
    cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication");
    waiting.join().unwrap().unwrap();
    assert!(receiver.stop().success(), "{}", receiver.log());
}

#[test]
fn with_a_downstream_policy_no_position_is_reported_to_reserve_wal() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    cluster.write_wal(4);
    let archive = ArchiveDirectory::new();
    let run = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::of(&cluster, archive.path())
        .args(["--sync-downstream", "s1", "--trust-loopback", "--listen"])
        .arg(run.path())
        .start();
    cluster.wait_streaming("wal_receiver");
    wait_until("the first segment", || !archive.files().is_empty());
    assert_eq!(
        cluster.text("SELECT slot_name FROM pg_replication_slots"),
        None
    );
    assert!(receiver.stop().success(), "{}", receiver.log());
}

for_each_version!(a_first_start_without_a_free_slot_warns_and_receives);

fn a_first_start_without_a_free_slot_warns_and_receives(version: Version) {
    let cluster = Cluster::builder(version)
        .segment_size_mib(1)
        .conf("max_replication_slots", "1")
        .start();
    cluster.sql("SELECT pg_create_physical_replication_slot('taken')");
    let end = cluster.write_wal(3);
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(&cluster, archive.path()).start();
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    assert!(receiver.stop().success(), "{}", receiver.log());
    let warned = receiver
        .log()
        .matches("could not reserve WAL on the server")
        .count();
    assert_eq!(warned, 1, "{}", receiver.log());
}

#[test]
fn called_as_pg_receivewal_the_start_is_the_servers_flush_position() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let size = cluster.segment_size();
    cluster.write_wal(3);
    let archive = ArchiveDirectory::new();
    let start = size.start_of(cluster.flush_lsn());
    let link = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::as_pg_receivewal(link.path())
        .arg("-D")
        .arg(archive.path())
        .args(["-d", &cluster.conninfo()])
        .start();
    cluster.wait_streaming("pg_receivewal");
    wait_until("the first segment", || {
        archive.file_of(TimelineId::FIRST, start, size).is_some()
    });
    let before = Lsn(start.0 - 1);
    assert!(archive.file_of(TimelineId::FIRST, before, size).is_none());
    assert!(receiver.stop().success(), "{}", receiver.log());
}
