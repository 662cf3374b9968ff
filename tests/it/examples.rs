//! The library's example programs do what they say.

use tests::{ArchiveDirectory, Cluster, GeneratedArchive, Receiver, Serving, Version};
use walproto::TimelineId;

#[test]
fn the_smallest_receiver_keeps_wal_and_goes_on_where_it_was() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let start = cluster.segment_size().start_of(cluster.flush_lsn());
    cluster.sql("CREATE TABLE t (i int)");
    for _ in 0..2 {
        let mut receiver = Receiver::example("archive")
            .arg(archive.path())
            .arg(cluster.conninfo())
            .start();
        cluster.wait_streaming("archive");
        cluster.set_synchronous_standbys("archive");
        cluster.wait_sync_state("archive", "sync");
        cluster.commit("INSERT INTO t VALUES (1)");
        let end = cluster.flush_lsn();
        receiver.wait_flushed(&cluster, "archive", end);
        assert!(receiver.stop().success(), "{}", receiver.log());
        archive.assert_same_wal(&cluster, TimelineId::FIRST, start, end);
        cluster.set_synchronous_standbys("");
        cluster.write_wal(2);
    }
}

/// The numbers of the transactions of which a log has a `commit` line.
fn commits(log: &str) -> Vec<&str> {
    log.lines()
        .filter_map(|line| line.strip_prefix("commit "))
        .map(|line| line.split(' ').next().unwrap())
        .collect()
}

#[test]
fn commits_are_printed_once_over_two_runs() {
    let cluster = Cluster::start_new(Version::V15);
    let archive = ArchiveDirectory::new();
    cluster.sql("CREATE TABLE t (i int)");
    let apply = || {
        Receiver::example("apply")
            .arg(archive.path())
            .arg(cluster.conninfo())
    };
    let commit = || {
        let xid = "INSERT INTO t VALUES (1) RETURNING xmin::text";
        cluster.text(xid).unwrap()
    };
    let mut receiver = apply().start();
    cluster.wait_streaming("apply");
    let first = commit();
    receiver.wait_for_log(&format!("commit {first} 1 "));
    assert!(receiver.stop().success(), "{}", receiver.log());
    let log = receiver.log();
    assert_eq!(commits(&log).last(), Some(&first.as_str()));
    assert!(log.lines().any(|line| line.ends_with(" Heap")), "{log}");
    let applied = log.lines().find_map(|line| line.strip_prefix("applied "));
    let (timeline, lsn) = applied.unwrap().split_once(' ').unwrap();
    assert_eq!(timeline, "1");
    let between = commit();
    let mut receiver = apply().args([timeline, lsn]).start();
    cluster.wait_streaming("apply");
    let second = commit();
    receiver.wait_for_log(&format!("commit {second} 1 "));
    assert!(receiver.stop().success(), "{}", receiver.log());
    assert_eq!(commits(&receiver.log()), [&between, &second]);
}

#[test]
fn the_smallest_server_serves() {
    let archive = GeneratedArchive::new(300_000, 150_018);
    let program = Receiver::example("serve").arg(archive.path());
    let mut serving = Serving::listening(program.arg("127.0.0.1:0"));
    let command = Receiver::psql(Version::V15, &serving.conninfo(), "IDENTIFY_SYSTEM");
    let (status, said) = command.run();
    assert!(status.success(), "{said}");
    let identity = format!("{}|1|{}|\n", GeneratedArchive::SYSTEM_ID, archive.end());
    assert_eq!(said, identity);
    assert!(serving.stop().success(), "{}", serving.log());
}
