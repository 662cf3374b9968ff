//! Commits on the primary that wait for standbys behind a relay.

use tests::{ArchiveDirectory, BaseBackup, Cluster, Relay, Version, wait_until};

use crate::for_each_version;
use crate::relay::wait_archived;

for_each_version!(
    any_one_of_two_standbys_is_enough_and_none_is_not,
    a_primary_can_stop_while_too_few_standbys_are_present,
);

/// A primary whose commits wait for a relay that waits for others.
struct Cascade {
    primary: Cluster,
    archive: ArchiveDirectory,
    relay: Relay,
    backup: BaseBackup,
}

impl Cascade {
    fn start(version: Version, policy: &str) -> Self {
        let primary = Cluster::builder(version).segment_size_mib(1).start();
        primary.sql("CREATE TABLE t (i int)");
        let archive = ArchiveDirectory::new();
        let arguments = ["--sync-downstream", policy];
        let relay = Relay::start(&primary.conninfo(), archive.path(), &arguments);
        primary.wait_streaming("wal_receiver");
        let backup = primary.base_backup();
        Self {
            primary,
            archive,
            relay,
            backup,
        }
    }

    fn standby(&self, name: &str) -> Cluster {
        let mut standby = self.relay.standby(&self.backup, name, "");
        standby.start();
        standby
    }

    /// Waits until the relay has all that the primary has, whatever it says of it.
    #[track_caller]
    fn wait_archived(&self) {
        wait_archived(&self.archive, self.primary.flush_lsn());
    }
}

fn rows(standby: &Cluster) -> usize {
    let count = standby.text("SELECT count(*)::text FROM t");
    count.unwrap().parse().unwrap()
}

fn any_one_of_two_standbys_is_enough_and_none_is_not(version: Version) {
    let mut cascade = Cascade::start(version, "ANY 1 (s1, s2)");
    cascade
        .relay
        .wait_for_log("warning: 0 of 1 standbys present");
    let standbys = ["s1", "s2"].map(|name| cascade.standby(name));
    cascade.relay.wait_for_log("1 of 1 standbys present");
    let primary = &cascade.primary;
    primary.set_synchronous_standbys("ANY 1 (wal_receiver)");
    primary.wait_sync_state("wal_receiver", "quorum");
    for level in ["remote_write", "on"] {
        primary.commit(&format!(
            "SET synchronous_commit = {level}; CREATE TABLE {level}_table (i int)"
        ));
    }
    // What has been applied by one of them can be seen there at once.
    for inserted in 1..=20 {
        primary.commit("SET synchronous_commit = remote_apply; INSERT INTO t VALUES (1)");
        assert!(standbys.iter().any(|standby| rows(standby) == inserted));
    }
    standbys[0].freeze();
    for inserted in 21..=25 {
        primary.commit("SET synchronous_commit = remote_apply; INSERT INTO t VALUES (1)");
        assert_eq!(rows(&standbys[1]), inserted);
    }
    standbys[1].freeze();
    let first = primary.begin_commit("INSERT INTO t VALUES (1)");
    primary.wait_commits_waiting(1);
    let second = primary.begin_commit("INSERT INTO t VALUES (1)");
    primary.wait_commits_waiting(2);
    let end = primary.flush_lsn();
    cascade.wait_archived();
    // It has them, and must not say so.
    primary.sql("SET synchronous_commit = local; INSERT INTO t VALUES (1)");
    cascade.wait_archived();
    assert_eq!(primary.commits_waiting(), 2);
    assert!(
        primary
            .reported_flush("wal_receiver")
            .is_some_and(|flushed| flushed < end)
    );
    standbys[0].thaw();
    first.wait();
    second.wait();
    assert!(!primary.log().contains("canceling wait"));
    standbys[1].thaw();
    assert!(cascade.relay.stop().success(), "{}", cascade.relay.log());
}

fn a_primary_can_stop_while_too_few_standbys_are_present(version: Version) {
    let mut cascade = Cascade::start(version, "s1");
    cascade.primary.set_synchronous_standbys("wal_receiver");
    cascade
        .relay
        .wait_for_log("0 of 1 standbys present on timeline 1");
    let waiting = cascade.primary.begin_commit("INSERT INTO t VALUES (1)");
    cascade.primary.wait_commits_waiting(1);
    cascade.wait_archived();
    assert_eq!(cascade.primary.reported_flush("wal_receiver"), None);
    cascade.primary.stop();
    // It ends with the server.
    assert!(waiting.wait_end().is_err());
    cascade.primary.start();
    let standby = cascade.standby("s1");
    cascade.primary.wait_sync_state("wal_receiver", "sync");
    cascade.primary.commit("INSERT INTO t VALUES (2)");
    cascade
        .relay
        .wait_for_log("1 of 1 standbys present, WAL is acknowledged as they have it");

    // A standby that leaves is not waited for, nor is it counted.
    drop(standby);
    wait_until("the relay to be no candidate", || {
        cascade.primary.reported_flush("wal_receiver").is_none()
    });
    let waiting = cascade.primary.begin_commit("INSERT INTO t VALUES (3)");
    cascade.primary.wait_commits_waiting(1);
    let _standby = cascade.standby("s1");
    waiting.wait();
}

#[test]
fn a_policy_behind_a_policy_reaches_the_last_standby() {
    let cascade = Cascade::start(Version::V15, "wal_receiver");
    let archive = ArchiveDirectory::new();
    let start = cascade.backup.start().to_string();
    let arguments = ["--start", &start, "--sync-downstream", "s1"];
    let mut inner = Relay::start(&cascade.relay.conninfo(), archive.path(), &arguments);
    let mut last = inner.standby(&cascade.backup, "s1", "");
    last.start();
    let primary = &cascade.primary;
    primary.set_synchronous_standbys("wal_receiver");
    primary.wait_sync_state("wal_receiver", "sync");
    for inserted in 1..=10 {
        primary.commit("SET synchronous_commit = remote_apply; INSERT INTO t VALUES (1)");
        assert_eq!(rows(&last), inserted);
    }
    last.freeze();
    let waiting = primary.begin_commit("INSERT INTO t VALUES (1)");
    primary.wait_commits_waiting(1);
    wait_archived(&archive, primary.flush_lsn());
    inner.kill9();
    inner.start_again();
    assert_eq!(primary.commits_waiting(), 1);
    last.thaw();
    waiting.wait();
}
