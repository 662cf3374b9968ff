//! A primary is lost: what it had acknowledged is with the relay, and with those behind it before
//! one of them takes its place.

use std::sync::Arc;

use segstore::{OsDisk, published_position};
use tests::{ArchiveDirectory, BaseBackup, Cluster, Load, Relay, Version, wait_until};

use crate::for_each_version;
use crate::hosts::either;

for_each_version!(
    a_standby_behind_a_relay_takes_over_from_a_lost_primary,
    a_cascade_loses_nothing_with_its_primary_and_its_relay,
);

/// A primary, a relay behind it, and two standbys behind the relay, which are not started: one to
/// be the next primary, which the relay receives from as well, and one to follow it.
pub(crate) struct Family {
    pub(crate) primary: Cluster,
    pub(crate) backup: BaseBackup,
    pub(crate) heir: Cluster,
    pub(crate) other: Cluster,
    pub(crate) archive: ArchiveDirectory,
    pub(crate) relay: Relay,
}

impl Family {
    /// One with a table `t`, and more arguments for the relay.
    pub(crate) fn new(version: Version, arguments: &[&str]) -> Self {
        let primary = Cluster::builder(version).segment_size_mib(1).start();
        primary.sql("CREATE TABLE t (i int)");
        let backup = primary.base_backup();
        let [heir, other] = [(); 2].map(|()| backup.unpack("standby.signal", ""));
        let archive = ArchiveDirectory::new();
        let start = backup.start().to_string();
        let arguments = [&["--start", &start], arguments].concat();
        let relay = Relay::start(&either(&primary, &heir), archive.path(), &arguments);
        relay.lead(&heir, "heir");
        relay.lead(&other, "other");
        Self {
            primary,
            backup,
            heir,
            other,
            archive,
            relay,
        }
    }
}

fn a_standby_behind_a_relay_takes_over_from_a_lost_primary(version: Version) {
    let Family {
        mut primary,
        mut heir,
        mut other,
        archive,
        mut relay,
        ..
    } = Family::new(version, &[]);
    heir.start();
    other.start();
    primary.set_synchronous_standbys("wal_receiver");
    primary.wait_sync_state("wal_receiver", "sync");

    let load = Load::start(&primary, 4, "on");
    load.wait_for_commits(200);
    // From here on only the relay has what is acknowledged.
    heir.stop();
    other.stop();
    load.wait_for_commits(200);
    primary.kill9();
    let commits = load.finish();
    relay.kill9();
    // Nobody is there whom it could receive from.
    relay.start_again();
    heir.start();
    other.start();
    let position = published_position(Arc::new(OsDisk::new()), archive.path());
    let acknowledged = position.unwrap().unwrap().record_end;
    wait_until("the standby to have all that was acknowledged", || {
        heir.flush_lsn() >= acknowledged
    });
    heir.promote();
    assert_eq!(heir.missing(&commits), [].into());
    heir.wait_streaming("wal_receiver");
    heir.set_synchronous_standbys("wal_receiver");
    heir.wait_sync_state("wal_receiver", "sync");
    heir.commit("INSERT INTO t VALUES (1)");
    crate::relay::wait_rows(&other, "1");
    crate::relay::wait_receives(&other, "received_tli", "2");
    assert_eq!(other.missing(&commits), [].into());
    let end = heir.write_wal(2);
    relay.wait_flushed(&heir, end);
    assert!(relay.stop().success(), "{}", relay.log());
}

/// What commits waited for is with the standby that they waited for, however often the relay was
/// killed meanwhile; and after the failover they wait for the next one.
fn a_cascade_loses_nothing_with_its_primary_and_its_relay(version: Version) {
    let Family {
        mut primary,
        mut heir,
        mut other,
        archive,
        mut relay,
        ..
    } = Family::new(
        version,
        &[
            "--sync-downstream",
            "heir, other",
            // The relay may have more than the standby, of which nothing was acknowledged.
            "--follow-fork",
        ],
    );
    heir.start();
    primary.set_synchronous_standbys("wal_receiver");
    primary.wait_sync_state("wal_receiver", "sync");

    let load = Load::start(&primary, 4, "on");
    for _ in 0..3 {
        load.wait_for_commits(100);
        relay.kill9();
        relay.start_again();
    }
    load.wait_for_commits(100);
    heir.freeze();
    primary.wait_commits_waiting(4);
    primary.kill9();
    relay.kill9();
    let commits = load.finish();
    heir.thaw();
    heir.promote();
    assert_eq!(heir.missing(&commits), [].into());

    relay.start_again();
    other.start();
    heir.set_synchronous_standbys("wal_receiver");
    heir.wait_sync_state("wal_receiver", "sync");
    for inserted in 1..=5 {
        heir.commit("SET synchronous_commit = remote_apply; INSERT INTO t VALUES (1)");
        let rows = other.text("SELECT count(*)::text FROM t");
        assert_eq!(rows, Some(inserted.to_string()));
    }
    assert_eq!(other.missing(&commits), [].into());
    other.freeze();
    let waiting = heir.begin_commit("INSERT INTO t VALUES (1)");
    heir.wait_commits_waiting(1);
    crate::relay::wait_archived(&archive, heir.flush_lsn());
    assert_eq!(heir.commits_waiting(), 1);
    other.thaw();
    waiting.wait();
}
