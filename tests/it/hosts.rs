//! Several servers: which one is taken.

use std::net::TcpListener;

use tempfile::TempDir;
use tests::{ArchiveDirectory, Cluster, Link, Receiver, ReceiverBuilder, Version, wait_until};

use crate::for_each_version;
use crate::refused::{archive_of, assert_ends_without_change};

for_each_version!(the_state_of_a_server_is_found_out_without_sql);

fn the_state_of_a_server_is_found_out_without_sql(version: Version) {
    let primary = Cluster::start_new(version);
    let standby = primary.standby("standby");
    primary.wait_streaming("standby");
    let home = TempDir::new().unwrap();
    let (first, second) = (standby.socket_directory(), primary.socket_directory());
    let hosts = format!("host=/missing,{},{}", first.display(), second.display());
    for (wanted, on_primary) in [
        ("any", false),
        ("primary", true),
        ("read-write", true),
        ("standby", false),
        ("read-only", false),
        ("prefer-standby", false),
    ] {
        let conninfo = format!("{hosts} user=postgres target_session_attrs={wanted}");
        let mut link = Link::new(&conninfo, home.path()).unwrap();
        let read_only = link.show("transaction_read_only");
        assert_eq!(read_only == "off", on_primary, "{wanted}");
    }
    let conninfo = format!(
        "host={} user=postgres target_session_attrs=standby",
        second.display()
    );
    let text = Link::new(&conninfo, home.path()).err().unwrap().to_string();
    assert!(text.ends_with("(target_session_attrs=standby)"), "{text}");
}

/// A connection string that names two servers, in this order.
fn both(first: &Cluster, second: &Cluster) -> String {
    format!(
        "host={},{} port={},{} user=postgres",
        first.socket_directory().display(),
        second.socket_directory().display(),
        first.port(),
        second.port()
    )
}

/// A connection string for whichever of the two is the primary.
pub(crate) fn either(one: &Cluster, other: &Cluster) -> String {
    format!("{} target_session_attrs=primary", both(one, other))
}

#[test]
fn a_standby_that_is_behind_does_not_keep_the_receiver_from_the_primary() {
    let primary = Cluster::start_new(Version::V15);
    let standby = primary.standby("standby");
    // It receives nothing any more.
    standby.reload_with("primary_conninfo", "");
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(&primary, archive.path()).start();
    primary.wait_streaming("wal_receiver");
    let end = primary.write_wal(1);
    receiver.wait_flushed(&primary, "wal_receiver", end);
    assert!(receiver.stop().success(), "{}", receiver.log());
    let conninfo = both(&standby, &primary);
    let mut receiver = Receiver::bare()
        .arg("-D")
        .arg(archive.path())
        .args(["-d", &conninfo])
        .start();
    primary.wait_streaming("wal_receiver");
    let end = primary.write_wal(1);
    receiver.wait_flushed(&primary, "wal_receiver", end);
}

#[test]
fn an_old_primary_is_no_end_while_another_host_may_be_the_new_one() {
    let old = Cluster::start_new(Version::V15);
    let mut new = old.standby("standby");
    new.promote();
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(&new, archive.path()).start();
    new.wait_streaming("wal_receiver");
    let end = new.write_wal(1);
    receiver.wait_flushed(&new, "wal_receiver", end);
    assert!(receiver.stop().success(), "{}", receiver.log());
    new.stop();
    let conninfo = both(&old, &new);
    let mut receiver = Receiver::bare()
        .arg("-D")
        .arg(archive.path())
        .args(["-d", &conninfo])
        .start();
    receiver.wait_for_log("older than timeline 2");
    new.start();
    new.wait_streaming("wal_receiver");
    let end = new.write_wal(1);
    receiver.wait_flushed(&new, "wal_receiver", end);
}

/// A receiver of the archive from any of the hosts.
fn of_hosts(archive: &ArchiveDirectory, conninfo: &str) -> ReceiverBuilder {
    Receiver::bare()
        .arg("-D")
        .arg(archive.path())
        .args(["-d", conninfo])
}

fn terminate_walsenders(cluster: &Cluster) {
    cluster.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_replication
         WHERE application_name = 'wal_receiver'",
    );
}

for_each_version!(a_zombie_is_not_followed_once_another_host_forked_off);

fn a_zombie_is_not_followed_once_another_host_forked_off(version: Version) {
    let old = Cluster::start_new(version);
    let new = old.standby("standby");
    let archive = ArchiveDirectory::new();
    let mut receiver = of_hosts(&archive, &either(&old, &new)).start();
    old.wait_streaming("wal_receiver");
    // It misses what comes now, and is promoted without it.
    new.reload_with("primary_conninfo", "");
    let end = old.write_wal(1);
    receiver.wait_flushed(&old, "wal_receiver", end);
    new.promote();
    terminate_walsenders(&old);
    assert_eq!(receiver.wait_exit().code(), Some(1), "{}", receiver.log());
    let log = receiver.log();
    let socket = new.socket_directory();
    let words = [
        "error: ",
        socket.to_str().unwrap(),
        "timeline 2 left timeline 1",
        "hint: If that host is the right primary",
    ];
    let last = log.lines().rfind(|line| line.contains("error: ")).unwrap();
    assert!(words.iter().all(|word| log.contains(word)), "{log}");
    assert!(last.contains("no host is followed"), "{log}");
    assert!(old.reported_flush("wal_receiver").is_none());
    // Told to follow the fork, it does so, and never the old one.
    let mut receiver = of_hosts(&archive, &either(&old, &new))
        .arg("--follow-fork")
        .start();
    new.wait_streaming("wal_receiver");
    let end = new.write_wal(1);
    receiver.wait_flushed(&new, "wal_receiver", end);
    let line = receiver.wait_for_log("is not followed");
    assert!(
        line.contains(old.socket_directory().to_str().unwrap()),
        "{line}"
    );
    terminate_walsenders(&new);
    let end = new.write_wal(1);
    receiver.wait_flushed(&new, "wal_receiver", end);
    assert_eq!(receiver.log().matches("is not followed").count(), 1);
}

#[test]
fn two_hosts_that_were_promoted_apart_are_not_followed() {
    let primary = Cluster::start_new(Version::V15);
    let (one, other) = (primary.standby("one"), primary.standby("other"));
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(&primary, archive.path()).start();
    primary.wait_streaming("wal_receiver");
    let end = primary.write_wal(1);
    receiver.wait_flushed(&primary, "wal_receiver", end);
    assert!(receiver.stop().success(), "{}", receiver.log());
    for standby in [&one, &other] {
        wait_until("the standby to catch up", || standby.flush_lsn() >= end);
    }
    one.promote();
    let more = primary.write_wal(1);
    wait_until("the standby to catch up", || other.flush_lsn() >= more);
    other.promote();
    let words = ["no host is followed", "timeline 2", "promoted", "remove it"];
    let receiver = of_hosts(&archive, &both(&one, &other));
    assert_ends_without_change(receiver, &archive, &words);
}

#[test]
fn a_host_of_another_cluster_does_not_hinder_the_right_one() {
    let primary = Cluster::start_new(Version::V15);
    let other = Cluster::builder(Version::V15).own_identity().start();
    let archive = archive_of(&primary);
    let mut receiver = of_hosts(&archive, &both(&other, &primary)).start();
    let end = primary.write_wal(1);
    receiver.wait_flushed(&primary, "wal_receiver", end);
    let line = receiver.wait_for_log("is not followed");
    let socket = other.socket_directory();
    let system_id = other.system_id().to_string();
    for word in ["warning: ", socket.to_str().unwrap(), &system_id] {
        assert!(line.contains(word), "{line}");
    }
    // An archive that is still of no cluster cannot tell which is the right one.
    let archive = ArchiveDirectory::new();
    let receiver = of_hosts(&archive, &both(&other, &primary)).arg("--no-loop");
    assert_ends_without_change(receiver, &archive, &["different clusters", &system_id]);
}

/// A server that ends idle sessions is asked before others are waited for.
#[test]
fn a_silent_host_does_not_outlast_the_idle_session_timeout_of_the_other() {
    let primary = Cluster::start_new(Version::V15);
    primary.reload_with("idle_session_timeout", "1s");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let conninfo = format!(
        "host=127.0.0.1,{} port={},{} user=postgres",
        primary.socket_directory().display(),
        silent.local_addr().unwrap().port(),
        primary.port()
    );
    let archive = ArchiveDirectory::new();
    let mut receiver = of_hosts(&archive, &conninfo).arg("--no-loop").start();
    primary.wait_streaming("wal_receiver");
    let end = primary.write_wal(1);
    receiver.wait_flushed(&primary, "wal_receiver", end);
    assert!(receiver.stop().success(), "{}", receiver.log());
}
