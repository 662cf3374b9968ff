//! The harness itself, with PostgreSQL's own `pg_receivewal` as the receiver: what these tests
//! show of the model, the others ask of ours.

use tests::{ArchiveDirectory, Cluster, Proxy, Receiver, Verdict, Version};
use walproto::TimelineId;

use crate::for_each_version;

for_each_version!(
    a_cluster_starts_crashes_and_starts_again,
    a_standby_is_promoted,
    the_models_archive_compares_equal_and_restores,
);

fn a_cluster_starts_crashes_and_starts_again(version: Version) {
    let mut cluster = Cluster::start_new(version);
    cluster.sql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
    cluster.kill9();
    cluster.start();
    assert_eq!(cluster.text("SELECT i::text FROM t").unwrap(), "1");
    cluster.restart();
    assert_eq!(cluster.timeline(), TimelineId::FIRST);
}

fn a_standby_is_promoted(version: Version) {
    let primary = Cluster::start_new(version);
    let standby = primary.standby("second");
    standby.promote();
    assert_eq!(standby.timeline(), TimelineId::new(2).unwrap());
    assert_eq!(standby.system_id(), primary.system_id());
}

fn the_models_archive_compares_equal_and_restores(version: Version) {
    let mut cluster = Cluster::builder(version).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let start = cluster.segment_size().start_of(cluster.flush_lsn());
    // The newest program of all speaks to every server.
    let mut receiver = Receiver::pg_receivewal(Version::V18, &cluster.conninfo(), archive.path())
        .arg("--synchronous")
        .start();
    cluster.wait_streaming("pg_receivewal");
    let backup = cluster.base_backup();
    cluster.sql("CREATE TABLE t (i int); INSERT INTO t VALUES (7)");
    let end = cluster.write_wal(3);
    receiver.wait_flushed(&cluster, "pg_receivewal", end);
    archive.assert_same_wal(&cluster, TimelineId::FIRST, start, end);
    let size = cluster.segment_size();
    if version >= Version::V15 {
        let records = archive.waldump(version, TimelineId::FIRST, size, backup.start(), end);
        assert!(records.unwrap() > 1000, "{records:?}");
    }
    cluster.kill9();
    assert!(receiver.stop().success());
    let restored = backup.restore_from(archive.path());
    assert_eq!(restored.text("SELECT i::text FROM t").unwrap(), "7");
    assert_eq!(restored.timeline(), TimelineId::new(2).unwrap());
}

#[test]
fn the_proxy_cuts_where_it_is_told() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let cut = cluster.flush_lsn();
    let proxy = Proxy::start(&cluster, move |message| match message.wal_byte(cut) {
        Some(_) => Verdict::Cut,
        None => Verdict::Forward,
    });
    let mut receiver = Receiver::pg_receivewal(Version::V15, &proxy.conninfo(), archive.path())
        .arg("--no-loop")
        .start();
    cluster.wait_streaming("pg_receivewal");
    cluster.write_wal(1);
    assert!(!receiver.wait_exit().success());
    assert_eq!(proxy.connections(), 1);
}
