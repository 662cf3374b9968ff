//! `wal-receiver status`: what it says of the processes of an archive, and of the archive alone.
#![expect(
    clippy::indexing_slicing,
    reason = "what a JSON value lacks is null, and fails the comparison"
)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitStatus;

use rustix::process::Signal;
use serde_json::Value;
use tests::{ArchiveDirectory, Cluster, Receiver, Relay, Version, wait_for, wait_until};
use walproto::Lsn;

use crate::for_each_version;
use crate::serve::Archived;

for_each_version!(a_receiver_tells_whom_it_follows_and_how_far_it_is);

/// What `status --json` says, and how it ends. Its last line is what it complains about, if it does.
fn status(archive: &Path) -> (ExitStatus, Value, String) {
    let (status, said) = Receiver::bare()
        .args(["status", "--json", "-D"])
        .arg(archive)
        .run();
    let (document, complaint) = said.split_once('\n').unwrap();
    let document = serde_json::from_str(document);
    assert!(document.is_ok(), "{said}");
    (status, document.unwrap(), complaint.to_owned())
}

/// What `status --json` says of an archive for which a process runs.
#[track_caller]
fn shown(archive: &Path) -> Value {
    let (status, document, complaint) = status(archive);
    assert!(status.success(), "{document}\n{complaint}");
    assert_eq!(complaint, "");
    document
}

fn lsn(value: &Value) -> Option<Lsn> {
    value.as_str().map(|lsn| lsn.parse().unwrap())
}

/// Waits until what is shown of the receiver is as wanted.
#[track_caller]
fn wait_receiver(archive: &Path, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, || {
        let receiver = shown(archive)["receiver"].clone();
        wanted(&receiver).then_some(receiver)
    })
}

fn a_receiver_tells_whom_it_follows_and_how_far_it_is(version: Version) {
    let cluster = Cluster::builder(version).segment_size_mib(1).start();
    cluster.sql("SELECT pg_create_physical_replication_slot('one', true)");
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(&cluster, archive.path())
        .args(["--slot", "one"])
        .start();
    cluster.wait_streaming("wal_receiver");
    cluster.write_wal(2);
    let end = cluster.flush_lsn();
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    // On an idle server there is nothing to wait for, however long that has been so.
    let caught_up = wait_receiver(archive.path(), "no lag", |receiver| {
        lsn(&receiver["acknowledged_lsn"]) >= Some(end) && receiver["lag_bytes"] == 0
    });
    assert_eq!(caught_up["state"], "streaming");
    assert_eq!(caught_up["pid"], receiver.pid());
    assert_eq!(
        caught_up["host"],
        cluster.socket_directory().to_str().unwrap()
    );
    assert_eq!(caught_up["port"], cluster.port());
    let version = version.to_string();
    let told = caught_up["server_version"].as_str().unwrap();
    assert!(told.starts_with(&version), "{told}");
    let system_id = cluster.system_id().to_string();
    assert_eq!(caught_up["system_identifier"], *system_id);
    assert_eq!(caught_up["slot_name"], "one");
    assert_eq!(caught_up["timeline"], 1);
    assert_eq!(caught_up["lag_seconds"], 0.0);
    assert_eq!(caught_up["held"], Value::Array(Vec::new()));
    assert_eq!(caught_up["last_error"], Value::Null);
    for position in ["received_lsn", "durable_lsn", "server_lsn"] {
        assert!(lsn(&caught_up[position]) >= Some(end), "{caught_up}");
    }
    let document = shown(archive.path());
    assert_eq!(document["server"], Value::Null);
    let told = &document["archive"];
    assert_eq!(told["directory"], archive.path().to_str().unwrap());
    assert_eq!(told["system_identifier"], *system_id);
    assert_eq!(told["timeline"], 1);
    assert!(lsn(&told["durable_lsn"]) >= Some(end), "{told}");
}

#[test]
fn a_relay_that_waits_for_its_clients_at_a_stop_says_so() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let (archive, copy) = (ArchiveDirectory::new(), ArchiveDirectory::new());
    let mut relay = Relay::start(&cluster.conninfo(), archive.path(), &[]);
    cluster.wait_streaming("wal_receiver");
    let mut client = Receiver::bare()
        .args(["-d", &relay.conninfo(), "-D"])
        .arg(copy.path())
        .start();
    let standby = || shown(archive.path())["server"]["standbys"][0]["state"].clone();
    wait_until("the client to have all", || standby() == "streaming");
    client.signal(Signal::STOP);
    let end = cluster.write_wal(1);
    relay.wait_flushed(&cluster, end);
    relay.signal(Signal::TERM);
    let stopping = wait_receiver(archive.path(), "it to stop", |receiver| {
        receiver["state"] == "stopping" && lsn(&receiver["acknowledged_lsn"]) >= Some(end)
    });
    assert_eq!(stopping["retry_in_seconds"], Value::Null);
    assert_eq!(stopping["lag_bytes"], Value::Null);
    // Receiving has ended by then.
    relay.wait_for_log("receiving has ended, stopping once clients have confirmed all WAL");
    wait_until("the server to stop", || standby() == "stopping");
    let (status, said) = Receiver::bare()
        .args(["status", "-D"])
        .arg(archive.path())
        .run();
    assert!(status.success(), "{said}");
    assert!(said.contains("stopping"), "{said}");
    client.signal(Signal::CONT);
    assert!(relay.wait_exit().success(), "{}", relay.log());
    assert!(client.stop().success(), "{}", client.log());
    // Nobody answers any more.
    assert!(
        !Receiver::bare()
            .args(["status", "-D"])
            .arg(archive.path())
            .run()
            .0
            .success()
    );
}

#[test]
fn a_receiver_that_cannot_connect_says_why_and_what_it_has() {
    let mut archived = Archived::start(Version::V15);
    let end = archived.wait_archived();
    archived.cluster.kill9();
    let path = archived.archive.path();
    let waiting = wait_receiver(path, "the next try", |receiver| {
        receiver["state"] == "waiting"
    });
    let error = waiting["last_error"].as_str().unwrap();
    assert!(!error.is_empty() && !error.contains('\n'), "{error}");
    assert!(waiting["retry_in_seconds"].is_number(), "{waiting}");
    // Nobody knows how far a server is that cannot be asked.
    assert_eq!(waiting["lag_bytes"], Value::Null);
    assert_eq!(waiting["lag_seconds"], Value::Null);
    assert!(lsn(&waiting["acknowledged_lsn"]) >= Some(end), "{waiting}");
    let text = Receiver::bare().args(["status", "-D"]).arg(path).run();
    let (ended, text) = text;
    assert!(ended.success(), "{text}");
    for expected in [
        "-[ ARCHIVE ]--",
        "-[ RECEIVER ]--",
        "last_error ",
        "durable_lsn ",
    ] {
        assert!(
            text.lines().any(|line| line.starts_with(expected)),
            "{text}"
        );
    }
    // All bars are below each other.
    let bars = text.lines().map(|line| line.find(['|', '+']));
    let bars: std::collections::BTreeSet<_> = bars.collect();
    assert_eq!(bars.len(), 1, "{text}");
}

#[test]
fn wal_that_the_disk_has_no_room_for_is_a_lag_and_a_reason() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(&cluster, archive.path())
        .with_small_disk(archive.path(), "size=16m")
        .start();
    cluster.wait_streaming("wal_receiver");
    let disk = receiver.sees(archive.path());
    let ballast = disk.join("ballast");
    fs::write(&ballast, vec![1; 9 << 20]).unwrap();
    cluster.write_wal(9);
    receiver.wait_for_log("disk full");
    let held = wait_receiver(&disk, "the full disk", |receiver| {
        receiver["held"][0]["reason"] == "disk_full" && receiver["lag_bytes"].as_u64() > Some(0)
    });
    let first = held["lag_seconds"].as_f64().unwrap();
    assert!(first > 0.0, "{held}");
    let message = held["held"][0]["message"].as_str().unwrap();
    assert!(message.contains("disk full"), "{message}");
    assert!(lsn(&held["acknowledged_lsn"]) < Some(cluster.flush_lsn()));
    wait_receiver(&disk, "a longer lag", |receiver| {
        receiver["lag_seconds"].as_f64() > Some(first)
    });
    fs::remove_file(&ballast).unwrap();
    let end = cluster.flush_lsn();
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    wait_receiver(&disk, "no lag", |receiver| {
        receiver["lag_seconds"] == 0.0 && receiver["held"] == Value::Array(Vec::new())
    });
}

#[test]
fn without_syncs_nothing_is_acknowledged_and_that_is_why() {
    let cluster = Cluster::start_new(Version::V15);
    let archive = ArchiveDirectory::new();
    let _receiver = Receiver::of(&cluster, archive.path())
        .arg("--no-sync")
        .start();
    cluster.wait_streaming("wal_receiver");
    let document = shown(archive.path());
    let receiver = &document["receiver"];
    assert_eq!(receiver["held"][0]["reason"], "no_sync", "{document}");
    assert_eq!(receiver["acknowledged_lsn"], Value::Null);
    let error = document["archive"]["error"].as_str().unwrap();
    assert!(error.contains("without fsync"), "{error}");
}

#[test]
fn who_serves_tells_of_standbys_and_slots_beside_the_receiver() {
    let mut archived = Archived::start(Version::V15);
    archived.wait_archived();
    let directory = tempfile::tempdir().unwrap();
    let path = archived.archive.path().to_owned();
    let serve = || {
        Receiver::bare()
            .args(["serve", "--trust-loopback", "--listen", "127.0.0.1:0", "-D"])
            .arg(&path)
            .start()
    };
    let mut serving = serve();
    let start = "listening at 127.0.0.1:";
    let line = serving.wait_for_log(start);
    let (_, port) = line.split_once(start).unwrap();
    let conninfo = format!("host=127.0.0.1 port={port} user=any application_name=second");
    let run = |arguments: &[&str]| {
        let receiver = Receiver::as_pg_receivewal(directory.path()).args(arguments);
        let (status, log) = receiver.args(["-d", &conninfo]).run();
        assert!(status.success(), "{log}");
    };
    run(&["--create-slot", "--slot", "idle"]);
    run(&["--create-slot", "--slot", "used"]);
    let copy = ArchiveDirectory::new();
    let _original = Receiver::pg_receivewal(Version::V15, &conninfo, copy.path())
        .args(["--synchronous", "--slot", "used"])
        .start();
    archived.cluster.write_wal(2);
    let end = archived.cluster.switch_wal();
    archived.wait_archived();
    let document = wait_for("the standby to have flushed", || {
        let document = shown(&path);
        (lsn(&document["server"]["standbys"][0]["flush_lsn"]) >= Some(end)).then_some(document)
    });
    assert_eq!(document["receiver"]["state"], "streaming");
    let server = &document["server"];
    assert_eq!(server["pid"], serving.pid());
    assert_eq!(server["synchronous"], Value::Null);
    let standby = &server["standbys"][0];
    assert_eq!(standby["application_name"], "second");
    assert_eq!(standby["usename"], "any");
    assert_eq!(standby["client_addr"], "127.0.0.1");
    assert_eq!(standby["state"], "streaming");
    assert_eq!(standby["sync_state"], "async");
    assert_eq!(standby["sync_priority"], 0);
    assert_eq!(standby["slot_name"], "used");
    assert_eq!(standby["timeline"], 1);
    assert!(standby["reply_time"].as_str().unwrap().ends_with('Z'));
    assert_eq!(standby["replay_lsn"], Value::Null);
    let slots = server["slots"].as_array().unwrap();
    let named = |name: &str| slots.iter().find(|slot| slot["slot_name"] == name).unwrap();
    let (idle, used) = (named("idle"), named("used"));
    assert_eq!(
        (&idle["active"], &idle["active_pid"]),
        (&Value::Bool(false), &Value::Null)
    );
    assert_eq!(idle["restart_lsn"], Value::Null);
    assert_eq!(used["active_pid"], standby["pid"]);
    assert_eq!(used["slot_type"], "physical");
    assert_eq!(used["wal_status"], "reserved");
    assert!(lsn(&used["restart_lsn"]).is_some(), "{used}");
    let (_, text) = Receiver::bare().args(["status", "-D"]).arg(&path).run();
    for heading in ["RECEIVER", "SERVER", "STANDBY 1", "SLOT 1", "SLOT 2"] {
        assert!(text.contains(&format!("-[ {heading} ]-")), "{text}");
    }

    // What is left of one that was killed does not keep the next from it.
    serving.kill9();
    let after = shown(&path);
    assert_eq!(after["server"], Value::Null);
    let mut serving = serve();
    serving.wait_for_log(start);
    assert_eq!(shown(&path)["server"]["pid"], serving.pid());
}

#[test]
fn a_relay_tells_of_both_its_sides_and_of_the_standbys_that_it_waits_for() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let mut relay = Receiver::of(&cluster, archive.path())
        .args(["--trust-loopback", "--listen", "127.0.0.1:0"])
        .args(["--sync-downstream", "ANY 1 (s1, s2)"])
        .start();
    cluster.wait_streaming("wal_receiver");
    let start = "listening at 127.0.0.1:";
    let line = relay.wait_for_log(start);
    let (_, port) = line.split_once(start).unwrap();
    let held = wait_receiver(archive.path(), "the missing standbys", |receiver| {
        receiver["held"][0]["reason"] == "downstream"
    });
    let message = &held["held"][0]["message"];
    assert_eq!(message, "0 of 1 synchronous standbys are streaming");
    assert_eq!(held["acknowledged_lsn"], Value::Null);
    let end = cluster.write_wal(1);
    let copy = ArchiveDirectory::new();
    let conninfo = format!("host=127.0.0.1 port={port} user=any application_name=s2");
    let _second = Receiver::bare()
        .args(["-d", &conninfo, "-D"])
        .arg(copy.path())
        .start();
    let document = wait_for("an acknowledgement", || {
        let document = shown(archive.path());
        let receiver = &document["receiver"];
        let is_told = lsn(&receiver["acknowledged_lsn"]) >= Some(end);
        (is_told && receiver["held"] == Value::Array(Vec::new())).then_some(document)
    });
    assert_eq!(document["receiver"]["pid"], document["server"]["pid"]);
    let server = &document["server"];
    assert_eq!(server["synchronous"]["met"], true);
    assert!(
        lsn(&server["synchronous"]["flush_lsn"]) >= Some(end),
        "{server}"
    );
    assert!(lsn(&server["durable_lsn"]) >= Some(end), "{server}");
    assert_eq!(server["standbys"][0]["application_name"], "s2");
    assert_eq!(server["standbys"][0]["sync_state"], "quorum");
    let (status, said) = Receiver::bare()
        .args(["await-standby", "s2", "-D"])
        .arg(archive.path())
        .run();
    assert!(status.success(), "{said}");
}

#[test]
fn called_as_pg_receivewal_it_tells_why_nothing_is_acknowledged() {
    let cluster = Cluster::start_new(Version::V15);
    let archive = ArchiveDirectory::new();
    let directory = tempfile::tempdir().unwrap();
    let _receiver = Receiver::as_pg_receivewal(directory.path())
        .args(["-d", &cluster.conninfo(), "-D"])
        .arg(archive.path())
        .start();
    cluster.wait_streaming("pg_receivewal");
    let receiver = wait_receiver(archive.path(), "the stream", |receiver| {
        receiver["state"] == "streaming"
    });
    assert_eq!(receiver["held"][0]["reason"], "not_asked", "{receiver}");
}

#[test]
fn of_an_archive_that_nobody_fills_it_says_what_the_archive_says() {
    let mut archived = Archived::start(Version::V15);
    let end = archived.wait_archived();
    archived.kill_receiver();
    let path = archived.archive.path();
    let (ended, document, complaint) = status(path);
    assert_eq!(ended.code(), Some(1));
    let expected = format!(
        "wal-receiver: error: no wal-receiver is running for archive \"{}\"; start one, or look \
         at its service's log\n",
        path.display()
    );
    assert_eq!(complaint, expected);
    assert_eq!(document["receiver"], Value::Null);
    assert!(lsn(&document["archive"]["durable_lsn"]) >= Some(end));

    let mut again = Receiver::of(&archived.cluster, path).start();
    archived.cluster.wait_streaming("wal_receiver");
    assert_eq!(shown(path)["receiver"]["pid"], again.pid());
    // A second one is refused, and takes nothing from the first.
    let (refused, log) = Receiver::of(&archived.cluster, path).run();
    assert_eq!(refused.code(), Some(1), "{log}");
    assert_eq!(shown(path)["receiver"]["pid"], again.pid());
    assert!(again.stop().success(), "{}", again.log());
    assert_eq!(status(path).0.code(), Some(1));
}

#[test]
fn whoever_asks_nonsense_or_nothing_holds_nobody_up() {
    let mut archived = Archived::start(Version::V15);
    let socket = archived.archive.path().join(".wal-receiver/receiver.sock");
    wait_until("the socket", || socket.exists());
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let connect = || UnixStream::connect(&socket).unwrap();
    let _silent: Vec<_> = (0..20).map(|_| connect()).collect();
    let mut never_reads = connect();
    never_reads.write_all(b"watch\n").unwrap();
    let garbage = [0x16; 1 << 16];
    for _ in 0..20 {
        let mut client = connect();
        // It may be closed before it has said all.
        let _ = client.write_all(&garbage);
        let _ = client.read_to_end(&mut Vec::new());
    }
    archived.cluster.write_wal(2);
    archived.wait_archived();
    assert_eq!(
        shown(archived.archive.path())["receiver"]["state"],
        "streaming"
    );
}

#[test]
fn a_process_that_is_stopped_does_not_hang_who_asks() {
    let mut archived = Archived::start(Version::V15);
    archived.wait_archived();
    archived.signal_receiver(Signal::STOP);
    let (ended, document, complaint) = status(archived.archive.path());
    archived.signal_receiver(Signal::CONT);
    assert_eq!(ended.code(), Some(1));
    assert!(
        complaint.contains("receiver.sock\" does not answer"),
        "{complaint}"
    );
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    assert_eq!(document["archive"]["timeline"], 1);
}

#[test]
fn an_archive_may_lie_deeper_than_a_socket_s_address_reaches() {
    let cluster = Cluster::start_new(Version::V15);
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("x".repeat(120)).join("y".repeat(120));
    fs::create_dir_all(&archive).unwrap();
    let _receiver = Receiver::of(&cluster, &archive).start();
    cluster.wait_streaming("wal_receiver");
    assert_eq!(shown(&archive)["receiver"]["state"], "streaming");
}

#[test]
fn what_cannot_be_shown_is_told_in_a_line() {
    for (words, expected) in [
        (
            &["-D", "/nonexistent/wal"][..],
            "wal-receiver: error: could not open directory \"/nonexistent/wal\": No such file or \
             directory\n",
        ),
        (
            &[],
            "wal-receiver status: error: no target directory specified\n\
             wal-receiver status: hint: Try \"wal-receiver status --help\" for more information.\n",
        ),
        (
            &["--jason"],
            "wal-receiver status: unrecognized option '--jason'\n\
             wal-receiver status: hint: Try \"wal-receiver status --help\" for more information.\n",
        ),
    ] {
        let (status, said) = Receiver::bare().arg("status").args(words).run();
        assert_eq!((status.code(), said.as_str()), (Some(1), expected));
    }
    let empty = ArchiveDirectory::new();
    let (ended, document, complaint) = status(empty.path());
    assert_eq!(ended.code(), Some(1));
    assert!(
        complaint.contains("no wal-receiver is running"),
        "{complaint}"
    );
    assert!(document["archive"]["error"].is_string(), "{document}");
}
