//! Hot standby feedback through a relay.

use postgres::Client;
use tests::{ArchiveDirectory, Cluster, Relay, Version, wait_for, wait_until};

use crate::for_each_version;

for_each_version!(the_primary_keeps_the_rows_that_a_standby_behind_a_relay_needs);

const FEEDBACK: &str = "hot_standby_feedback = on\n";

/// The oldest transaction that the primary keeps for the relay's slot.
fn xmin(primary: &Cluster) -> Option<u32> {
    let xmin = primary.text("SELECT xmin::text FROM pg_replication_slots");
    xmin.map(|xmin| xmin.parse().unwrap())
}

/// A transaction on a standby that needs the rows as they are now.
fn snapshot(standby: &Cluster) -> Client {
    let mut client = standby.client();
    client
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t")
        .unwrap();
    client
}

fn the_primary_keeps_the_rows_that_a_standby_behind_a_relay_needs(version: Version) {
    let primary = Cluster::builder(version).segment_size_mib(1).start();
    primary.sql("CREATE TABLE t (i int)");
    primary.sql("SELECT pg_create_physical_replication_slot('relay', true)");
    let archive = ArchiveDirectory::new();
    let start = |arguments: &[&str]| {
        let arguments = [&["--slot", "relay", "-s", "1"], arguments].concat();
        Relay::start(&primary.conninfo(), archive.path(), &arguments)
    };
    let mut relay = start(&["--hot-standby-feedback"]);
    primary.wait_streaming("wal_receiver");
    let backup = primary.base_backup();
    let mut standby = relay.standby(&backup, "behind", FEEDBACK);
    standby.start();
    primary.sql("INSERT INTO t VALUES (1)");
    crate::relay::wait_rows(&standby, "1");

    let held = snapshot(&standby);
    let next = |primary: &Cluster| {
        // An assigned transaction, with which the standby's horizon would move on.
        primary.sql("INSERT INTO t VALUES (2)");
        let current = primary.text("SELECT txid_current()::text").unwrap();
        current.parse::<u32>().unwrap()
    };
    let after = next(&primary);
    wait_for("what the standby needs", || {
        xmin(&primary).filter(|xmin| *xmin < after)
    });
    crate::relay::wait_rows(&standby, "2");
    // Told again and again, it stays.
    let later = next(&primary);
    crate::relay::wait_rows(&standby, "3");
    assert!(xmin(&primary).is_some_and(|xmin| xmin < after));
    drop(held);
    wait_until("what is needed to move on", || {
        xmin(&primary).is_some_and(|xmin| xmin >= later)
    });

    // One that is gone needs nothing.
    standby.stop();
    wait_until("nothing to be needed", || xmin(&primary).is_none());
    standby.start();
    wait_until("something to be needed", || xmin(&primary).is_some());
    assert!(relay.stop().success(), "{}", relay.log());
    wait_until("nothing to be needed", || xmin(&primary).is_none());

    // What a relay that was killed has left with its slot is taken back by the next.
    relay.start_again();
    wait_until("something to be needed", || xmin(&primary).is_some());
    relay.kill9();
    assert!(xmin(&primary).is_some());
    let _without = start(&[]);
    wait_until("nothing to be needed", || xmin(&primary).is_none());
}

#[test]
fn a_transaction_counts_no_longer_than_it_may() {
    let primary = Cluster::start_new(Version::V15);
    primary.sql("CREATE TABLE t (i int)");
    let archive = ArchiveDirectory::new();
    let arguments = ["--hot-standby-feedback", "--max-feedback-age", "1"];
    let relay = Relay::start(&primary.conninfo(), archive.path(), &arguments);
    primary.wait_streaming("wal_receiver");
    let backup = primary.base_backup();
    let mut standby = relay.standby(&backup, "behind", FEEDBACK);
    standby.start();
    // The sender's own process keeps it, or the temporary slot of a first start.
    let is_kept = || {
        let kept = "SELECT bool_or(xmin IS NOT NULL)::text FROM (
            SELECT backend_xmin AS xmin FROM pg_stat_replication
            UNION ALL SELECT xmin FROM pg_replication_slots) kept";
        primary.text(kept).as_deref() == Some("true")
    };
    let moved_on = || primary.sql("SELECT txid_current()");
    wait_until("what the standby needs to be kept", || {
        moved_on();
        is_kept()
    });
    let _held = snapshot(&standby);
    wait_until("what the standby needs to be forgotten", || {
        moved_on();
        !is_kept()
    });
}
