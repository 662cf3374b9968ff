//! A receiver that serves what it receives: to PostgreSQL's standbys and receivers, and to ours.

use std::net::TcpListener;
use std::sync::Arc;

use segstore::{OWN_DIRECTORY, OsDisk, published_position};
use tests::{
    ArchiveDirectory, Cluster, Receiver, Relay, Signal, Version, segment_name, wait_until,
};
use walproto::{Lsn, TimelineId};

use crate::for_each_version;

for_each_version!(a_standby_behind_a_relay_catches_up_goes_live_and_survives_its_crash);

#[track_caller]
pub(crate) fn wait_rows(standby: &Cluster, expected: &str) {
    wait_until(&format!("{expected} rows on the standby"), || {
        standby.text("SELECT count(*)::text FROM t").as_deref() == Some(expected)
    });
}

/// Waits until a standby's own view of its connection says so.
#[track_caller]
pub(crate) fn wait_receives(standby: &Cluster, column: &str, expected: &str) {
    wait_until(&format!("{column} to be {expected} on the standby"), || {
        let query = format!("SELECT {column}::text FROM pg_stat_wal_receiver");
        standby.text(&query).as_deref() == Some(expected)
    });
}

/// Waits until an archive is durable up to a position.
#[track_caller]
pub(crate) fn wait_archived(archive: &ArchiveDirectory, end: Lsn) {
    wait_until(&format!("the archive to be durable up to {end}"), || {
        published_position(Arc::new(OsDisk::new()), archive.path())
            .is_ok_and(|position| position.is_some_and(|position| position.record_end >= end))
    });
}

fn a_standby_behind_a_relay_catches_up_goes_live_and_survives_its_crash(version: Version) {
    let primary = Cluster::builder(version).segment_size_mib(1).start();
    primary.sql("CREATE TABLE t (i int)");
    let archive = ArchiveDirectory::new();
    let mut relay = Relay::start(&primary.conninfo(), archive.path(), &[]);
    primary.wait_streaming("wal_receiver");
    let create = "CREATE_REPLICATION_SLOT behind PHYSICAL RESERVE_WAL";
    let (status, said) = Receiver::psql(Version::V15, &relay.conninfo(), create).run();
    assert!(status.success(), "{said}");
    let backup = primary.base_backup();
    primary.write_wal(5);
    primary.sql("INSERT INTO t VALUES (1)");

    let mut standby = relay.standby(&backup, "behind", "primary_slot_name = 'behind'\n");
    standby.start();
    wait_rows(&standby, "1");
    relay.wait_for_log(
        "replication connection authorized: user=\"any\" application_name=\"behind\"",
    );
    wait_receives(&standby, "status", "streaming");
    wait_receives(&standby, "slot_name", "behind");
    primary.set_synchronous_standbys("wal_receiver");
    primary.wait_sync_state("wal_receiver", "sync");
    primary.commit("INSERT INTO t VALUES (2)");
    wait_rows(&standby, "2");

    relay.kill9();
    relay.start_again();
    primary.wait_sync_state("wal_receiver", "sync");
    primary.commit("INSERT INTO t VALUES (3)");
    wait_rows(&standby, "3");
    wait_receives(&standby, "slot_name", "behind");
    assert!(relay.stop().success(), "{}", relay.log());
    let stopped = "receiving has ended, stopping once clients have confirmed all WAL";
    assert!(relay.log().contains(stopped), "{}", relay.log());
}

#[test]
fn three_deep_the_archives_have_the_same_bytes() {
    let primary = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let start = primary.segment_size().start_of(primary.flush_lsn());
    let archives = [(); 4].map(|()| ArchiveDirectory::new());
    let from = ["--start", &start.to_string()];
    let mut first = Relay::start(&primary.conninfo(), archives[0].path(), &from);
    let mut second = Relay::start(&first.conninfo(), archives[1].path(), &from);
    let mut third = Receiver::bare()
        .arg("-D")
        .arg(archives[2].path())
        .args(["-d", &second.conninfo()])
        .args(from)
        .start();
    // It begins where its server is.
    let begin = primary.write_wal(3);
    wait_archived(&archives[1], begin);
    let mut original =
        Receiver::pg_receivewal(Version::V15, &second.conninfo(), archives[3].path())
            .arg("--synchronous")
            .start();
    wait_until("pg_receivewal to begin", || !archives[3].files().is_empty());
    primary.write_wal(3);
    let end = primary.switch_wal();
    for archive in &archives[..3] {
        wait_archived(archive, end);
        archive.assert_same_wal(&primary, TimelineId::FIRST, start, end);
    }
    // It does not tell how far its growing segment is.
    let size = primary.segment_size();
    let (begin, whole) = (size.start_of(begin), size.start_of(end));
    let last = segment_name(TimelineId::FIRST, Lsn(whole.0 - 1), size);
    wait_until("pg_receivewal to have the last whole segment", || {
        archives[3].files().contains(&last)
    });
    archives[3].assert_same_wal(&primary, TimelineId::FIRST, begin, whole);
    assert!(original.stop().success(), "{}", original.log());
    // Each gives those behind it the last of what it has before it goes.
    assert!(first.stop().success(), "{}", first.log());
    assert!(second.stop().success(), "{}", second.log());
    assert!(third.stop().success(), "{}", third.log());
}

#[test]
fn a_relay_reads_its_access_files_anew_and_refuses_what_it_cannot_listen_at() {
    let primary = Cluster::start_new(Version::V15);
    let archive = ArchiveDirectory::new();
    let directory = tempfile::tempdir().unwrap();
    let rules = directory.path().join("hba");
    std::fs::write(&rules, "local replication all trust\n").unwrap();
    let relay = || {
        Receiver::of(&primary, archive.path())
            .arg("--hba-file")
            .arg(&rules)
            .arg("--listen")
            .arg(directory.path())
    };
    let mut first = relay().start();
    first.wait_for_log("the archive is new, it is served after the first connection");
    first.wait_for_log("listening at ");
    std::fs::write(&rules, "nonsense\n").unwrap();
    first.signal(Signal::HUP);
    first.wait_for_log("access files were not read anew");
    assert!(first.stop().success(), "{}", first.log());
    let (status, log) = relay().run();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(&*rules.to_string_lossy()), "{log}");

    std::fs::write(&rules, "local replication all trust\n").unwrap();
    let (status, log) = relay().args(["--listen", "192.0.2.1:1"]).run();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("error: listening at 192.0.2.1:1: "), "{log}");
}

#[test]
fn a_relay_that_cannot_serve_receives_nothing_into_a_new_archive() {
    let primary = Cluster::start_new(Version::V15);
    let archive = ArchiveDirectory::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let listening = format!("error: listening at {address}: ");
    let free = ["--listen", "127.0.0.1:0", "--hba-file", "/nowhere/hba.conf"];
    for (options, line) in [
        (&["--trust-loopback", "--listen", &address][..], &*listening),
        (&free, "error: reading access rules \"/nowhere/hba.conf\": "),
    ] {
        let receiver = Receiver::of(&primary, archive.path()).args(options);
        let (status, log) = receiver.run();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains(line), "{log}");
        // It has not even begun: nothing that the primary may have counted on.
        assert_eq!(archive.files(), [""; 0]);
        assert!(!archive.path().join(OWN_DIRECTORY).exists());
    }
}

#[test]
fn options_of_a_relay_are_refused_where_they_mean_nothing() {
    let archive = ArchiveDirectory::new();
    let directory = archive.path().to_string_lossy();
    for (words, expected) in [
        (
            &["--sync-downstream", "s1"][..],
            "--sync-downstream needs an address to listen at, specified using --listen",
        ),
        (
            &["--listen", "/run/wal", "--no-sync"],
            "cannot use --listen together with --no-sync",
        ),
        (
            &["--listen", "/run/wal", "--sync-downstream", "ANY 2 (s1)"],
            "invalid value for option --sync-downstream: number of synchronous standbys (2) is \
             greater than the number of names (1): each name counts once",
        ),
    ] {
        let (status, log) = Receiver::bare().args(["-D", &directory]).args(words).run();
        assert_eq!(status.code(), Some(1), "{log}");
        let line = format!("wal-receiver: error: {expected}\n");
        assert!(log.starts_with(&line), "{log}");
    }
    let own = [
        "-D",
        &directory,
        "-h",
        "localhost",
        "-p",
        "5433",
        "--listen",
        "*:5433",
    ];
    let (status, log) = Receiver::bare().args(own).run();
    assert_eq!(status.code(), Some(1));
    let line = "wal-receiver: error: host localhost port 5433 is where this program itself listens \
                (*:5433), name the server to receive from\n";
    assert_eq!(log, line);
    let links = tempfile::tempdir().unwrap();
    let (status, log) = Receiver::as_pg_receivewal(links.path())
        .args(["-D", &directory, "--listen", "/run/wal"])
        .run();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("unrecognized option '--listen'"), "{log}");
}
