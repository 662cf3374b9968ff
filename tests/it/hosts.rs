//! Several servers: which one is taken.

use tempfile::TempDir;
use tests::{ArchiveDirectory, Cluster, Link, Receiver, Version};

use crate::for_each_version;

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
