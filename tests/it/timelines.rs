//! Promotions: followed when they carry on what the archive has, refused when they do not.

use std::fs;

use tests::{ArchiveDirectory, Cluster, Receiver, Version, segment_name, wait_until};
use walproto::{Lsn, TimelineId};

use crate::for_each_version;
use crate::hosts::either;
use crate::refused::assert_ends_without_change;

for_each_version!(
    a_promotion_is_followed_on_the_same_connection,
    a_promotion_is_followed_to_another_host,
    a_timeline_that_the_server_lacks_is_passed_over,
);

fn second() -> TimelineId {
    TimelineId::new(2).unwrap()
}

/// The archive has the second timeline, and the first up to where it was left, as the server has.
fn assert_followed(archive: &ArchiveDirectory, promoted: &Cluster, mut receiver: Receiver) {
    promoted.sql("CREATE TABLE after_the_promotion (i int)");
    let end = promoted.write_wal(2);
    receiver.wait_flushed(promoted, "wal_receiver", end);
    let history = fs::read_to_string(archive.path().join("00000002.history")).unwrap();
    let theirs = promoted.data_directory().join("pg_wal/00000002.history");
    assert_eq!(history, fs::read_to_string(theirs).unwrap());
    let switch_point: Lsn = history.split_whitespace().nth(1).unwrap().parse().unwrap();
    let size = promoted.segment_size();
    let start = size.start_of(switch_point);
    archive.assert_same_wal(promoted, second(), start, end);
    archive.assert_same_wal(promoted, TimelineId::FIRST, start, switch_point);
    let records = archive.waldump(promoted.version(), second(), size, switch_point, end);
    if promoted.version() >= Version::V15 {
        assert!(records.unwrap() > 100, "{records:?}");
    }
    assert!(receiver.stop().success(), "{}", receiver.log());
    let told = format!(": switched to timeline 2 at {switch_point}\n");
    assert!(receiver.log().contains(&told), "{}", receiver.log());
}

fn a_promotion_is_followed_on_the_same_connection(version: Version) {
    let primary = Cluster::builder(version).segment_size_mib(1).start();
    let standby = primary.standby("second");
    let archive = ArchiveDirectory::new();
    let receiver = Receiver::of(&standby, archive.path()).arg("-v").start();
    standby.wait_streaming("wal_receiver");
    let end = primary.write_wal(2);
    wait_until("the standby to catch up", || standby.flush_lsn() >= end);
    standby.promote();
    let log = receiver.log();
    assert!(!log.contains("disconnected"), "{log}");
    assert_followed(&archive, &standby, receiver);
}

fn a_promotion_is_followed_to_another_host(version: Version) {
    let mut primary = Cluster::builder(version).segment_size_mib(1).start();
    let standby = primary.standby("second");
    let archive = ArchiveDirectory::new();
    let receiver = Receiver::bare()
        .arg("-D")
        .arg(archive.path())
        .args(["-v", "-d", &either(&primary, &standby)])
        .start();
    primary.wait_streaming("wal_receiver");
    primary.write_wal(2);
    // A clean shutdown waits for both to have everything.
    primary.stop();
    standby.promote();
    standby.wait_streaming("wal_receiver");
    assert_followed(&archive, &standby, receiver);
}

/// Two promotions in one segment, of which the server has the first in its history only.
fn a_timeline_that_the_server_lacks_is_passed_over(version: Version) {
    let primary = Cluster::builder(version).start();
    let second = primary.standby("second");
    let third = primary.standby("third");
    let archive = archive_of(&primary, "t");
    let before = archive.snapshot();
    let end = primary.write_wal(1);
    wait_until("the standbys to catch up", || {
        second.flush_lsn() >= end && third.flush_lsn() >= end
    });
    // Behind the second before it is promoted: the primary writes records at any time, and a
    // standby that has one more than the promoted one cannot follow it.
    let upstream = format!("{} application_name=third", second.conninfo());
    third.reload_with("primary_conninfo", &upstream);
    second.wait_streaming("third");
    wait_until("the second to have what the third has", || {
        second.flush_lsn() >= third.flush_lsn()
    });
    second.promote();
    second.wait_streaming("third");
    let end = second.write_wal(1);
    wait_until("the third to catch up", || third.flush_lsn() >= end);
    third.promote();
    drop((primary, second));
    let size = third.segment_size();
    let start = size.start_of(end);
    let lacking = segment_name(TimelineId::new(2).unwrap(), start, size);
    fs::remove_file(third.data_directory().join("pg_wal").join(lacking)).unwrap();

    let mut receiver = Receiver::of(&third, archive.path()).arg("-v").start();
    receiver.wait_for_log(": switched to timeline 3 at ");
    let end = third.write_wal(1);
    receiver.wait_flushed(&third, "wal_receiver", end);
    archive.assert_same_wal(&third, TimelineId::new(3).unwrap(), start, end);
    assert!(receiver.stop().success(), "{}", receiver.log());
    let after = archive.snapshot();
    for (name, content) in before {
        assert!(after.get(&name) == Some(&content), "{name} has changed");
    }
}

/// An archive of a primary's WAL, with nobody writing it any more.
fn archive_of(cluster: &Cluster, name: &str) -> ArchiveDirectory {
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(cluster, archive.path()).start();
    cluster.wait_streaming("wal_receiver");
    cluster.sql(&format!("CREATE TABLE {name} (i int)"));
    let end = cluster.write_wal(2);
    receiver.wait_flushed(cluster, "wal_receiver", end);
    assert!(receiver.stop().success(), "{}", receiver.log());
    archive
}

#[track_caller]
fn assert_refused(cluster: &Cluster, archive: &ArchiveDirectory, words: &[&str]) {
    assert_ends_without_change(Receiver::of(cluster, archive.path()), archive, words);
}

#[test]
fn a_primary_on_an_older_timeline_is_refused() {
    let primary = Cluster::start_new(Version::V15);
    let standby = primary.standby("second");
    standby.promote();
    let archive = archive_of(&standby, "t");
    // It goes on writing, and soon has more WAL than the new primary.
    primary.write_wal(8);
    assert_refused(&primary, &archive, &["timeline 1", "timeline 2", "promot"]);
}

#[test]
fn a_timeline_of_the_same_number_with_another_history_is_refused() {
    let primary = Cluster::start_new(Version::V15);
    let first = primary.standby("first");
    let second = primary.standby("second");
    first.promote();
    let end = primary.write_wal(1);
    wait_until("the standby to catch up", || second.flush_lsn() >= end);
    second.promote();
    let archive = archive_of(&first, "t");
    second.write_wal(4);
    assert_refused(&second, &archive, &["timeline 2", "00000002.history"]);
}

/// A promoted standby that lacks WAL which an archive of its primary's has.
fn forked() -> (ArchiveDirectory, Cluster) {
    let primary = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let mut standby = primary.standby("second");
    let end = primary.write_wal(1);
    wait_until("the standby to catch up", || standby.flush_lsn() >= end);
    standby.stop();
    let archive = archive_of(&primary, "only_on_the_old_timeline");
    drop(primary);
    standby.start();
    standby.promote();
    (archive, standby)
}

#[test]
fn a_promotion_that_lacks_archived_wal_is_refused() {
    let (archive, promoted) = forked();
    let words = ["timeline 1", "timeline 2", "lacks", "--follow-fork"];
    assert_refused(&promoted, &archive, &words);
}

#[test]
fn a_promotion_that_lacks_archived_wal_is_followed_when_told_to() {
    let (archive, promoted) = forked();
    let before = archive.snapshot();
    let mut receiver = Receiver::of(&promoted, archive.path())
        .args(["-v", "--follow-fork"])
        .start();
    receiver.wait_for_log("lacks");
    promoted.wait_streaming("wal_receiver");
    assert_followed(&archive, &promoted, receiver);
    let after = archive.snapshot();
    for (name, content) in before {
        assert!(after.get(&name) == Some(&content), "{name} has changed");
    }
}

#[test]
fn a_primary_that_lost_acknowledged_wal_is_refused() {
    let mut primary = Cluster::start_new(Version::V15);
    primary.stop();
    let mut snapshot = primary.snapshot();
    primary.start();
    let archive = archive_of(&primary, "t");
    primary.stop();
    snapshot.start();
    assert_refused(&snapshot, &archive, &["timeline 1", "lost"]);
}
