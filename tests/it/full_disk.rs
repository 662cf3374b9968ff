//! No room on the archive's disk: what is told to the primary stays true, and it is not held up
//! for longer than it would wait by itself.

use std::fs;
use std::path::{Path, PathBuf};

use tests::{ArchiveDirectory, Cluster, Load, Receiver, Version, wait_until};
use walproto::{Lsn, TimelineId};

/// A receiver on a disk of 16 MiB of which a file takes 9, and the path of the file.
fn on_a_small_disk(cluster: &Cluster, archive: &ArchiveDirectory) -> (Receiver, PathBuf) {
    let receiver = Receiver::of(cluster, archive.path())
        .with_small_disk(archive.path(), "size=16m")
        .start();
    cluster.wait_streaming("wal_receiver");
    let ballast = receiver.sees(archive.path()).join("ballast");
    fs::write(&ballast, vec![1; 9 << 20]).unwrap();
    (receiver, ballast)
}

/// What the primary was told is on the disk.
#[track_caller]
fn assert_told_the_truth(cluster: &Cluster, disk: &Path, start: Lsn) {
    let told = cluster.reported_flush("wal_receiver");
    if let Some(told) = told.filter(|told| *told > start) {
        ArchiveDirectory::at(disk).assert_same_wal(cluster, TimelineId::FIRST, start, told);
    }
}

#[test]
fn a_disk_that_stays_full_is_tried_again_until_there_is_room() {
    let cluster = Cluster::builder(Version::V15)
        .segment_size_mib(1)
        .conf("wal_sender_timeout", "2s")
        .start();
    let archive = ArchiveDirectory::new();
    let start = cluster.segment_size().start_of(cluster.flush_lsn());
    let (mut receiver, ballast) = on_a_small_disk(&cluster, &archive);
    let disk = receiver.sees(archive.path());
    cluster.write_wal(9);
    let line = receiver.wait_for_log("error: disk stayed full");
    let words = [
        "0/",
        "timeline 1",
        archive.path().to_str().unwrap(),
        "make room",
    ];
    assert!(words.iter().all(|word| line.contains(word)), "{line}");
    assert_told_the_truth(&cluster, &disk, start);
    // More than once: what a start writes has no room either.
    wait_until("more tries", || {
        receiver.log().matches("waiting").count() >= 2
    });
    assert_eq!(receiver.exit_status(), None, "{}", receiver.log());
    assert_told_the_truth(&cluster, &disk, start);
    fs::remove_file(&ballast).unwrap();
    let end = cluster.flush_lsn();
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    ArchiveDirectory::at(&disk).assert_same_wal(&cluster, TimelineId::FIRST, start, end);
}

#[test]
fn a_primary_can_shut_down_while_the_disk_is_full() {
    let mut cluster = Cluster::builder(Version::V15)
        .segment_size_mib(1)
        .conf("wal_sender_timeout", "4s")
        .start();
    let archive = ArchiveDirectory::new();
    let (mut receiver, _) = on_a_small_disk(&cluster, &archive);
    cluster.write_wal(9);
    receiver.wait_for_log("disk full");
    cluster.stop();
}

#[test]
fn an_interrupt_while_the_disk_is_full_ends_the_receiver_with_an_error() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let start = cluster.segment_size().start_of(cluster.flush_lsn());
    let (mut receiver, _) = on_a_small_disk(&cluster, &archive);
    cluster.write_wal(9);
    receiver.wait_for_log("disk full");
    assert_told_the_truth(&cluster, &receiver.sees(archive.path()), start);
    let status = receiver.stop();
    let log = receiver.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.lines().last().unwrap().contains("disk full"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_disk_without_any_room_is_refused_at_the_start() {
    let cluster = Cluster::start_new(Version::V15);
    let archive = ArchiveDirectory::new();
    let path = archive.path().to_str().unwrap();
    // Three files, whatever their size.
    let (status, log) = Receiver::of(&cluster, archive.path())
        .with_small_disk(archive.path(), "nr_inodes=3")
        .run();
    assert_eq!(status.code(), Some(1), "{log}");
    let words = [
        "error: could not create",
        path,
        "No space left",
        "make room",
    ];
    assert!(
        words.iter().all(|word| log.contains(word)),
        "{words:?}\n{log}"
    );
}

#[test]
fn a_full_disk_holds_commits_until_there_is_room() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let start = cluster.segment_size().start_of(cluster.flush_lsn());
    let mut receiver = Receiver::of(&cluster, archive.path())
        .with_small_disk(archive.path(), "size=12m")
        .start();
    cluster.wait_streaming("wal_receiver");
    let disk = receiver.sees(archive.path());
    let ballast = disk.join("ballast");
    fs::write(&ballast, vec![1; 5 << 20]).unwrap();
    cluster.set_synchronous_standbys("wal_receiver");
    let load = Load::start(&cluster, 4, "on");
    receiver.wait_for_log("disk full");
    // What it has told the primary is on the disk, and no more.
    let told = cluster.reported_flush("wal_receiver").unwrap();
    let on_disk = ArchiveDirectory::at(&disk);
    on_disk.assert_same_wal(&cluster, TimelineId::FIRST, start, told);
    assert!(cluster.flush_lsn() > told);
    fs::remove_file(&ballast).unwrap();
    load.wait_for_commits(100);
    load.finish();
    let end = cluster.flush_lsn();
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    on_disk.assert_same_wal(&cluster, TimelineId::FIRST, start, end);
}
