//! The program as the first process of a container (PID 1).

use std::fs;

use tests::{ArchiveDirectory, Cluster, Receiver, Version, children_of, wait_for, wait_until};
use walproto::TimelineId;

#[test]
fn orphans_of_a_command_do_not_stay_as_zombies() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(&cluster, archive.path()).start();
    cluster.wait_streaming("wal_receiver");
    let start = cluster.flush_lsn();
    let end = cluster.write_wal(4);
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    assert!(receiver.stop().success(), "{}", receiver.log());
    // A gap runs the command at each start.
    let size = cluster.segment_size();
    let inside = walproto::Lsn(size.start_of(start).0 + 2 * (1 << 20));
    fs::remove_file(archive.file_of(TimelineId::FIRST, inside, size).unwrap()).unwrap();
    let ended = tempfile::NamedTempFile::new().unwrap();
    // The background processes outlive the shell, whose own end the receiver has to learn.
    let command = format!(
        "for i in 1 2 3; do (sleep 0.2; echo $i >> '{}') & done; exit 3",
        ended.path().display()
    );
    let mut receiver = Receiver::of(&cluster, archive.path())
        .args(["--on-event", &command])
        .as_first_process()
        .start();
    receiver.wait_for_log("command of --on-event for \"gap\" failed: exit status: 3");
    let first = wait_for("the receiver's process", || {
        children_of(receiver.pid()).first().copied()
    });
    wait_until("the background processes to end", || {
        fs::read_to_string(ended.path()).unwrap().lines().count() == 3
    });
    wait_until("no process to be left of the command", || {
        children_of(first).is_empty()
    });
}
