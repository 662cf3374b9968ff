//! Servers that look right and are of another past.

use std::fs;
use std::os::unix::fs::chown;

use tests::{ArchiveDirectory, Cluster, Receiver, Version, unprivileged_user, wait_until};

use crate::refused::{archive_of, assert_ends_without_change};

#[test]
fn a_newer_timeline_that_does_not_descend_from_the_archives_is_refused() {
    let primary = Cluster::start_new(Version::V15);
    let first = primary.standby("first");
    let second = primary.standby("second");
    first.promote();
    // A standby that knows of timeline 2 takes the next number, though it never was on it.
    let theirs = second.data_directory().join("pg_wal/00000002.history");
    fs::copy(
        first.data_directory().join("pg_wal/00000002.history"),
        &theirs,
    )
    .unwrap();
    let (user, group) = unprivileged_user().unzip();
    chown(&theirs, user, group).unwrap();
    let end = primary.write_wal(1);
    wait_until("the standby to catch up", || second.flush_lsn() >= end);
    second.promote();
    assert_eq!(second.timeline().number(), 3);
    let archive = archive_of(&first);
    second.write_wal(4);
    let words = [
        "timeline 3",
        "timeline 2",
        "0/",
        "another branch",
        "connect",
    ];
    assert_ends_without_change(Receiver::of(&second, archive.path()), &archive, &words);
}

#[test]
fn a_server_without_the_history_of_its_own_timeline_is_refused() {
    let primary = Cluster::start_new(Version::V15);
    let standby = primary.standby("second");
    standby.promote();
    fs::remove_file(standby.data_directory().join("pg_wal/00000002.history")).unwrap();
    let archive = ArchiveDirectory::new();
    let words = ["history file", "timeline 2", "pg_wal"];
    assert_ends_without_change(Receiver::of(&standby, archive.path()), &archive, &words);
}

#[test]
fn a_lost_history_is_told_and_comes_back_from_a_server_that_has_it() {
    let primary = Cluster::start_new(Version::V15);
    let second = primary.standby("second");
    second.promote();
    let third = second.standby("third");
    third.promote();
    let archive = archive_of(&third);
    let ours = archive.path().join("00000002.history");
    let theirs = third.data_directory().join("pg_wal/00000002.history");
    let kept = fs::read(&ours).unwrap();
    fs::remove_file(&ours).unwrap();
    fs::remove_file(&theirs).unwrap();
    let run = || {
        let mut receiver = Receiver::of(&third, archive.path()).start();
        let end = third.write_wal(1);
        receiver.wait_flushed(&third, "wal_receiver", end);
        assert!(receiver.stop().success(), "{}", receiver.log());
        receiver.log()
    };
    let log = run();
    let told = "wal-receiver: warning: history files are missing in the archive that the server \
                does not have: \"00000002.history\"; put them back";
    assert!(log.contains(told), "{log}");
    assert!(!ours.exists());

    fs::write(&theirs, &kept).unwrap();
    let (user, group) = unprivileged_user().unzip();
    chown(&theirs, user, group).unwrap();
    let log = run();
    assert!(
        log.contains(": warning: the history of timeline 2 was missing"),
        "{log}"
    );
    assert!(!log.contains("history files are missing"), "{log}");
    assert_eq!(fs::read(&ours).unwrap(), kept);
}
