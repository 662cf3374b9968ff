//! What is archived is served: to PostgreSQL's own standbys and receivers, and to ours.

use tests::{
    ArchiveDirectory, Cluster, EmbeddedServer, Receiver, Serving, Signal, Version, wait_until,
};
use walproto::{Lsn, TimelineId};

use crate::for_each_version;

for_each_version!(a_standby_catches_up_goes_live_and_survives_a_restart_of_the_server);

/// A primary, and an archive that our receiver fills with its WAL.
pub(crate) struct Archived {
    pub(crate) cluster: Cluster,
    pub(crate) archive: ArchiveDirectory,
    receiver: Receiver,
    /// From where on there is WAL.
    pub(crate) start: Lsn,
}

impl Archived {
    pub(crate) fn start(version: Version) -> Self {
        let cluster = Cluster::builder(version).segment_size_mib(1).start();
        let archive = ArchiveDirectory::new();
        let start = cluster.segment_size().start_of(cluster.flush_lsn());
        let receiver = Receiver::of(&cluster, archive.path()).start();
        cluster.wait_streaming("wal_receiver");
        Self {
            cluster,
            archive,
            receiver,
            start,
        }
    }

    /// Waits until the archive has all that the primary has, and says up to where.
    #[track_caller]
    pub(crate) fn wait_archived(&mut self) -> Lsn {
        let (cluster, end) = (&self.cluster, self.cluster.flush_lsn());
        self.receiver.wait_flushed(cluster, "wal_receiver", end);
        end
    }

    /// SIGKILLs the receiver.
    pub(crate) fn kill_receiver(&mut self) {
        self.receiver.kill9();
    }

    pub(crate) fn signal_receiver(&self, signal: Signal) {
        self.receiver.signal(signal);
    }

    pub(crate) fn assert_same_wal(&self, copy: &ArchiveDirectory, end: Lsn) {
        copy.assert_same_wal(&self.cluster, TimelineId::FIRST, self.start, end);
    }
}

/// Waits until a client of that name is streamed to.
#[track_caller]
fn wait_sent(server: &EmbeddedServer, name: &str) {
    wait_until(&format!("{name} to be streamed to"), || {
        server
            .standby(name)
            .is_some_and(|standby| standby.sent.is_some())
    });
}

#[track_caller]
fn wait_rows(standby: &Cluster, expected: &str) {
    wait_until(&format!("{expected} rows on the standby"), || {
        standby.text("SELECT count(*)::text FROM t").as_deref() == Some(expected)
    });
}

fn a_standby_catches_up_goes_live_and_survives_a_restart_of_the_server(version: Version) {
    let mut archived = Archived::start(version);
    archived.cluster.sql("CREATE TABLE t (i int)");
    let backup = archived.cluster.base_backup();
    archived.cluster.write_wal(5);
    archived.cluster.sql("INSERT INTO t VALUES (1)");
    archived.wait_archived();
    let mut serving = Serving::start(archived.archive.path());
    let mut standby = backup.unpack(
        "standby.signal",
        &format!("primary_conninfo = '{}'\n", serving.conninfo()),
    );
    standby.start();
    wait_rows(&standby, "1");
    archived.cluster.sql("INSERT INTO t VALUES (2)");
    wait_rows(&standby, "2");
    serving.kill9_and_restart(archived.archive.path());
    archived.cluster.sql("INSERT INTO t VALUES (3)");
    wait_rows(&standby, "3");
    assert!(serving.stop().success(), "{}", serving.log());
}

#[test]
fn pg_receivewal_gets_the_same_bytes() {
    let mut archived = Archived::start(Version::V15);
    let server = EmbeddedServer::start(EmbeddedServer::config(), archived.archive.path());
    let copy = ArchiveDirectory::new();
    let mut original = Receiver::pg_receivewal(Version::V15, &server.conninfo(), copy.path())
        .arg("--synchronous")
        .start();
    wait_sent(&server, "pg_receivewal");
    archived.cluster.write_wal(5);
    let end = archived.cluster.switch_wal();
    server.wait_flushed("pg_receivewal", end);
    assert!(original.stop().success(), "{}", original.log());
    archived.wait_archived();
    archived.assert_same_wal(&copy, end);
}

#[test]
fn three_archives_in_a_row_have_the_same_bytes() {
    let mut archived = Archived::start(Version::V15);
    let start = archived.start.to_string();
    let follow = |server: &EmbeddedServer, archive: &ArchiveDirectory| {
        Receiver::bare()
            .arg("-D")
            .arg(archive.path())
            .args(["--start", &start, "-d", &server.conninfo()])
            .start()
    };
    let first = EmbeddedServer::start(EmbeddedServer::config(), archived.archive.path());
    let second_archive = ArchiveDirectory::new();
    let _second_receiver = follow(&first, &second_archive);
    wait_sent(&first, "wal_receiver");
    let second = EmbeddedServer::start(EmbeddedServer::config(), second_archive.path());
    let third_archive = ArchiveDirectory::new();
    let _third_receiver = follow(&second, &third_archive);
    archived.cluster.write_wal(5);
    let end = archived.wait_archived();
    first.wait_flushed("wal_receiver", end);
    second.wait_flushed("wal_receiver", end);
    archived.assert_same_wal(&second_archive, end);
    archived.assert_same_wal(&third_archive, end);
}
