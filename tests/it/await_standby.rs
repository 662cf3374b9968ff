//! `wal-receiver await-standby`: when a standby may be promoted.

use std::path::Path;

use tests::{Cluster, Receiver, ReceiverBuilder, Version, wait_until};
use walproto::Lsn;

use crate::serve::Archived;

/// The program `serve` at a TCP port, which it goes on using when it is started again.
struct Served {
    process: Receiver,
    port: String,
}

impl Served {
    fn start(archive: &Path, port: &str) -> Self {
        let mut process = Receiver::bare()
            .args(["serve", "--trust-loopback", "--listen"])
            .arg(format!("127.0.0.1:{port}"))
            .arg("-D")
            .arg(archive)
            .start();
        let start = "listening at 127.0.0.1:";
        let line = process.wait_for_log(start);
        let (_, port) = line.split_once(start).unwrap();
        let port = port.to_owned();
        Self { process, port }
    }
}

fn await_standby(archive: &Path, arguments: &[&str]) -> ReceiverBuilder {
    let program = Receiver::bare().args(["await-standby", "-D"]).arg(archive);
    program.args(arguments)
}

/// What it said that it waits for.
fn awaited(said: &str) -> Lsn {
    let (lsn, _) = said.split_once(" (timeline 1)\n").unwrap();
    lsn.parse().unwrap()
}

fn rows(cluster: &Cluster) -> Option<String> {
    cluster.text("SELECT count(*)::text FROM t")
}

#[test]
fn a_standby_that_has_everything_may_be_promoted_and_one_that_has_not_is_waited_for() {
    let mut archived = Archived::start(Version::V15);
    let path = archived.archive.path().to_owned();
    archived.cluster.sql("CREATE TABLE t (i int)");
    let backup = archived.cluster.base_backup();
    archived
        .cluster
        .sql("INSERT INTO t SELECT generate_series(1, 1000)");
    let end = archived.wait_archived();
    let mut served = Served::start(&path, "0");
    let conf = format!(
        "primary_conninfo = 'host=127.0.0.1 port={} user=any application_name=s1'\n",
        served.port
    );
    let mut standby = backup.unpack("standby.signal", &conf);
    standby.start();
    // Case does not matter, as for synchronous_standby_names.
    let (status, said) = await_standby(&path, &["S1"]).run();
    assert!(status.success(), "{said}");
    assert!(awaited(&said) >= end, "{said}");

    let (status, said) = await_standby(&path, &["s2", "--timeout", "1"]).run();
    assert_eq!(status.code(), Some(1), "{said}");
    let target = awaited(&said);
    let expected = format!(
        "wal-receiver: waiting: standby \"s2\" is not connected\n\
         wal-receiver: error: standby \"s2\" does not have {target} (timeline 1) after 1 seconds: \
         standby \"s2\" is not connected\n"
    );
    assert!(said.ends_with(&expected), "{said}");

    // The standby and whoever serves it are away while the primary writes its last WAL.
    standby.stop();
    served.process.kill9();
    archived
        .cluster
        .sql("INSERT INTO t SELECT generate_series(1, 1000)");
    let end = archived.wait_archived();
    archived.cluster.kill9();
    let mut waiting = await_standby(&path, &["s1"]).start();
    waiting.wait_for_log("waiting: no process serves the archive");
    let served = Served::start(&path, &served.port);
    waiting.wait_for_log("waiting: standby \"s1\" is not connected");
    assert_eq!(waiting.exit_status(), None);
    standby.spawn();
    let status = waiting.wait_exit();
    let said = waiting.log();
    assert!(status.success(), "{said}");
    assert!(awaited(&said) >= end, "{said}");
    for once in ["no process serves", "is not connected"] {
        assert_eq!(said.matches(once).count(), 1, "{said}");
    }
    standby.wait_ready();
    standby.promote();
    assert_eq!(rows(&standby).as_deref(), Some("2000"));
    drop(served);
}

#[test]
fn a_standby_that_stands_still_is_waited_for_until_it_goes_on() {
    let mut archived = Archived::start(Version::V15);
    let path = archived.archive.path().to_owned();
    archived.cluster.sql("CREATE TABLE t (i int)");
    let backup = archived.cluster.base_backup();
    let served = Served::start(&path, "0");
    let conf = format!(
        "primary_conninfo = 'host=127.0.0.1 port={} user=any application_name=s1'\n",
        served.port
    );
    let mut standby = backup.unpack("standby.signal", &conf);
    standby.start();
    wait_until("the table on the standby", || rows(&standby).is_some());
    let walreceiver = standby.text("SELECT pid::text FROM pg_stat_wal_receiver");
    let walreceiver: u32 = walreceiver.unwrap().parse().unwrap();
    tests::signal(walreceiver, tests::Signal::STOP);
    archived
        .cluster
        .sql("INSERT INTO t SELECT generate_series(1, 1000)");
    archived.wait_archived();
    let mut waiting = await_standby(&path, &["s1"]).start();
    waiting.wait_for_log("waiting: standby \"s1\" has WAL up to ");
    assert_eq!(waiting.exit_status(), None);
    tests::signal(walreceiver, tests::Signal::CONT);
    assert!(waiting.wait_exit().success(), "{}", waiting.log());
}

#[test]
fn a_position_from_before_the_machine_started_is_not_believed() {
    let mut archived = Archived::start(Version::V15);
    archived.wait_archived();
    let path = archived.archive.path().to_owned();
    archived.kill_receiver();
    let position = path.join(".wal-receiver").join("position");
    let position = std::fs::File::options().write(true).open(position).unwrap();
    position.set_modified(std::time::UNIX_EPOCH).unwrap();
    let (status, said) = await_standby(&path, &["--timeout=1", "s1"]).run();
    assert_eq!(status.code(), Some(1));
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("older than the start of this machine"),
        "{said}"
    );
}

#[test]
fn what_cannot_be_waited_for_is_told_in_a_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (status, said) = await_standby(path, &["s1"]).run();
    assert_eq!(status.code(), Some(1));
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(path.to_str().unwrap()), "{said}");
    for (words, expected) in [
        (
            &["-D", "/nonexistent/wal", "s1"][..],
            "wal-receiver: error: could not open directory \"/nonexistent/wal\": No such file or \
             directory\n",
        ),
        (
            &["-D", "/nonexistent/wal"],
            "wal-receiver await-standby: error: no standby specified\n\
             wal-receiver await-standby: hint: Try \"wal-receiver await-standby --help\" for more \
             information.\n",
        ),
    ] {
        let (status, said) = Receiver::bare().arg("await-standby").args(words).run();
        assert_eq!((status.code(), said.as_str()), (Some(1), expected));
    }
}
