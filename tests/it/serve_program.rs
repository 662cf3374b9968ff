//! `wal-receiver serve`, the program.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustix::process::Signal;
use segstore::{OsDisk, published_position};
use tests::{
    ArchiveDirectory, Cluster, GeneratedArchive, Link, Receiver, Serving, Version, wait_until,
};

use crate::serve::Archived;

#[test]
fn the_program_serves_what_another_receives() {
    let mut archived = Archived::start(Version::V15);
    archived.wait_archived();
    let directory = tempfile::tempdir().unwrap();
    let rules = directory.path().join("hba");
    fs::write(&rules, "local replication all trust\n").unwrap();
    let address = format!("{}:5433", directory.path().display());
    let mut serving = Receiver::bare()
        .args(["serve", "-v", "--listen", &address, "-D"])
        .arg(archived.archive.path())
        .arg("--hba-file")
        .arg(&rules)
        .start();
    let socket = directory.path().join(".s.PGSQL.5433");
    serving.wait_for_log(&format!("listening at {}", socket.display()));
    let start = archived.start.to_string();
    serving.wait_for_log(&format!(": from {start} (timeline 1) on, durable up to "));
    serving.wait_for_log("as soon as its receiver has made it durable");

    serving.signal(Signal::HUP);
    serving.wait_for_log("access files read anew");
    fs::write(&rules, "nonsense\n").unwrap();
    serving.signal(Signal::HUP);
    let refused = serving.wait_for_log("access files were not read anew");
    assert!(refused.contains(&*rules.to_string_lossy()), "{refused}");

    // By the rules as they were.
    let copy = ArchiveDirectory::new();
    let conninfo = format!(
        "host={} port=5433 user=any",
        directory.path().to_string_lossy()
    );
    let mut second = Receiver::bare()
        .arg("-D")
        .arg(copy.path())
        .args(["--start", &start, "-d", &conninfo])
        .start();
    let client = "user=\"any\" application_name=\"wal_receiver\" client=[local]";
    serving.wait_for_log(&format!("replication connection authorized: {client}"));
    archived.cluster.write_wal(5);
    let end = archived.wait_archived();
    wait_until("the second archive to be as far as the first", || {
        assert_eq!(second.exit_status(), None, "{}", second.log());
        published_position(Arc::new(OsDisk::new()), copy.path())
            .is_ok_and(|position| position.is_some_and(|position| position.record_end >= end))
    });
    archived.assert_same_wal(&copy, end);
    assert!(second.stop().success(), "{}", second.log());
    serving.wait_for_log(&format!("disconnection: {client}"));
    assert!(serving.stop().success(), "{}", serving.log());
    assert!(!socket.exists());
}

#[test]
fn of_an_archive_of_pg_receivewal_it_is_told_what_is_served() {
    let archived = Archived::start(Version::V15);
    let (cluster, archive) = (&archived.cluster, ArchiveDirectory::new());
    cluster.write_wal(2);
    let end = cluster.switch_wal();
    let (status, log) = Receiver::pg_receivewal(Version::V15, &cluster.conninfo(), archive.path())
        .args(["-n", "-E", &end.to_string()])
        .run();
    assert!(status.success(), "{log}");
    let directory = tempfile::tempdir().unwrap();
    let mut serving = Receiver::bare()
        .arg("serve")
        .arg("--listen")
        .arg(directory.path())
        .arg("-D")
        .arg(archive.path())
        .start();
    serving.wait_for_log("warning: no wal-receiver has written archive");
    serving.wait_for_log("listening at ");
    assert!(serving.stop().success(), "{}", serving.log());
}

#[test]
fn what_cannot_be_served_is_told_in_a_line() {
    let empty = ArchiveDirectory::new();
    let directory = empty.path().to_string_lossy();
    let at = ["--listen", "127.0.0.1:0"];
    for (words, expected) in [
        (
            &["-D", "/nonexistent/wal"][..],
            "wal-receiver: error: could not open directory \"/nonexistent/wal\": No such file or \
             directory\n",
        ),
        (
            &["-D", &directory, "--max-slots", "x"],
            "wal-receiver serve: error: invalid value \"x\" for option --max-slots, expected a \
             whole number\n",
        ),
        (
            &[],
            "wal-receiver serve: error: no target directory specified\n\
             wal-receiver serve: hint: Try \"wal-receiver serve --help\" for more information.\n",
        ),
    ] {
        let program = Receiver::bare().arg("serve").args(at).args(words);
        let (status, log) = program.run();
        assert_eq!((status.code(), log.as_str()), (Some(1), expected));
    }
}

#[test]
fn an_archive_that_has_not_begun_is_waited_for() {
    let archive = ArchiveDirectory::new();
    let serve = || {
        Receiver::bare()
            .args(["serve", "--listen", "127.0.0.1:0", "--trust-loopback", "-D"])
            .arg(archive.path())
            .start()
    };
    let mut serving = serve();
    let line = serving.wait_for_log("waiting for a receiver to begin the archive");
    assert!(line.contains(&*archive.path().to_string_lossy()), "{line}");
    assert!(serving.stop().success(), "{}", serving.log());
    let mut serving = serve();
    serving.wait_for_log("waiting for a receiver to begin the archive");
    let cluster = Cluster::start_new(Version::V15);
    let _receiver = Receiver::of(&cluster, archive.path()).start();
    serving.wait_for_log("listening at 127.0.0.1:");
    serving.signal(Signal::HUP);
    serving.wait_for_log("access files read anew");
    let log = serving.log();
    // Told at the start and not again.
    assert_eq!(log.matches("without a password").count(), 1, "{log}");
    assert!(serving.stop().success(), "{}", serving.log());
}

#[test]
fn pg_receivewal_does_not_serve() {
    let directory = tempfile::tempdir().unwrap();
    let (status, log) = Receiver::as_pg_receivewal(directory.path())
        .args(["serve", "-D", "wal"])
        .run();
    assert_eq!(status.code(), Some(1));
    let expected = "error: too many command-line arguments (first is \"serve\")";
    assert!(log.contains(expected), "{log}");
}

/// As after a crash of the machine, which takes what was told before and the primary with it.
#[test]
fn a_receiver_that_reaches_no_server_tells_what_is_durable() {
    let mut cluster = Cluster::start_new(Version::V15);
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(&cluster, archive.path()).start();
    cluster.wait_streaming("wal_receiver");
    let end = cluster.write_wal(1);
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    assert!(receiver.stop().success(), "{}", receiver.log());
    cluster.stop();
    fs::remove_file(archive.path().join(".wal-receiver/position")).unwrap();

    let mut receiver = Receiver::of(&cluster, archive.path()).start();
    wait_until("the durable position to be told", || {
        let told = published_position(Arc::new(OsDisk::new()), archive.path()).unwrap();
        told.is_some_and(|told| told.record_end >= end)
    });
    assert!(receiver.stop().success(), "{}", receiver.log());
}

#[test]
fn what_cannot_be_read_for_a_command_is_logged_with_the_command_and_the_cause() {
    let archive = GeneratedArchive::new(300_000, 150_018);
    let mut serving = Serving::start(archive.path());
    fs::create_dir(archive.path().join("00000002.history")).unwrap();
    let mut link = Link::new(&serving.conninfo(), Path::new("/")).unwrap();
    let refused = link.execute("TIMELINE_HISTORY 2").unwrap_err();
    assert_eq!(refused.sqlstate.as_str(), "XX000");
    let line = serving.wait_for_log("TIMELINE_HISTORY 2 for client 127.0.0.1:");
    let end = format!(" failed: {}: Is a directory", refused.message);
    assert!(line.ends_with(&end), "{line}\n{end}");
}
