//! Called as `pg_receivewal`, the program is PostgreSQL's own: the same words get the same answers.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;
use tests::{ArchiveDirectory, Cluster, Receiver, ReceiverBuilder, Version, wait_for, wait_until};
use walproto::Lsn;

use crate::for_each_version;

for_each_version!(slots_are_made_and_dropped_under_both_names);

/// How a program ended and what it wrote to standard error, where it calls itself by the base
/// name alone.
fn outcome(program: &Path, words: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    let output = command
        .env("LC_ALL", "C")
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let path = program.to_str().unwrap();
    (output.status.code(), stderr.replace(path, "pg_receivewal"))
}

/// Our program under PostgreSQL's name, in a directory that goes with it.
fn linked() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("pg_receivewal");
    std::os::unix::fs::symlink(Receiver::program(), &link).unwrap();
    (directory, link)
}

#[test]
fn mistakes_are_answered_as_by_the_model() {
    let model = Version::V15.client_program("pg_receivewal").unwrap();
    let (directory, ours) = linked();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let archive = directory.path().to_str().unwrap();
    for words in [
        // What getopt_long complains about.
        &["--foo"][..],
        &["--foo=bar"],
        &["x", "--foo"],
        &["--no"],
        &["--no=3"],
        &["--d=3"],
        &["--s"],
        &["--=x"],
        &["--dir"],
        &["--sta"],
        &["--verbose=3"],
        &["--verb=3"],
        &["-x"],
        &["-nvx"],
        &["-n=5"],
        &["-D"],
        &["-vvs"],
        &["-Z"],
        // Arguments that are no options.
        &["a", "b"],
        &["-n", "-"],
        &["--", "-v"],
        &["-v", "--", "x"],
        &[""],
        // Values.
        &["-s", "a"],
        &["-s", "5 x"],
        &["-s", "-1"],
        &["-s", "2147484"],
        &["-s", "99999999999999999999"],
        &["-E", ""],
        &["-E", "x"],
        &["--endpos=1"],
        // What does not go together, in the order in which it is looked at.
        &[],
        &["--"],
        &["--if-not-exists"],
        &["--create-slot", "--drop-slot"],
        &[
            "--create-slot",
            "--drop-slot",
            "-S",
            "x",
            "--no-sync",
            "--sync",
        ],
        &["--drop-slot"],
        &["--create-slot", "--if-n"],
        &["--synchronous", "--no-sync"],
        &["-S", "x", "--sync", "--no-sync", "-D", archive],
        // Compression, after all of these.
        &["-Z", "foo"],
        &["-D", archive, "-Z", "foo"],
        &["-D", archive, "-Z", ":1"],
        &["-D", archive, "-Z", "10"],
        &["-D", archive, "-Z", "gzip:0"],
        &["-D", archive, "-Z", "gzip:10"],
        &["-D", archive, "-Z", "gzip:"],
        &["-D", archive, "-Z", "gzip:level"],
        &["-D", archive, "-Z", "gzip:level=x"],
        &["-D", archive, "-Z", "gzip:level=1,"],
        &["-D", archive, "-Z", "gzip:foo=1"],
        &["-D", archive, "-Z", "gzip:workers=1"],
        &["-D", archive, "-Z", "gzip:level=20,workers=1"],
        &["-D", archive, "-Z", "lz4:13"],
        &["-D", archive, "-Z", "none:5"],
        // The directory.
        &["-D", ""],
        &["-D", "/nonexistent/archive"],
        &["-D", file.to_str().unwrap()],
        // The connection string.
        &["-D", archive, "-p", "abc"],
        &["-D", archive, "-d", "foo=1"],
        &["-D", archive, "-d", "foo"],
    ] {
        let expected = outcome(&model, words);
        assert_eq!(expected.0, Some(1), "{words:?} is no mistake: {expected:?}");
        assert_eq!(outcome(&ours, words), expected, "{words:?}");
    }
}

#[test]
fn the_version_is_told_in_the_form_that_tools_read() {
    let (_directory, ours) = linked();
    let model = Version::V15.client_program("pg_receivewal").unwrap();
    let version = |program: &Path| {
        let output = Command::new(program).arg("--version").output().unwrap();
        assert!(output.status.success());
        let line = String::from_utf8(output.stdout).unwrap();
        let number = line.strip_prefix("pg_receivewal (PostgreSQL) ").unwrap();
        let number = number.split_whitespace().next().unwrap().to_owned();
        number.parse::<f32>().unwrap()
    };
    // Tools compare it with the server's: no supported server may be newer.
    assert!(version(&ours) > version(&model));
    assert!(version(&ours) > 18.0);
}

fn slots_are_made_and_dropped_under_both_names(version: Version) {
    let cluster = Cluster::start_new(version);
    let directory = tempfile::tempdir().unwrap();
    let restart_lsn =
        || cluster.text("SELECT coalesce(restart_lsn::text, 'none') FROM pg_replication_slots");
    for reserves in [true, false] {
        let program = || match reserves {
            true => Receiver::bare(),
            false => Receiver::as_pg_receivewal(directory.path()),
        };
        let run = |words: &[&str]| {
            let (status, log) = program()
                .args(["-d", &cluster.conninfo(), "-S", "a_slot", "-v"])
                .args(words)
                .run();
            (status.code(), log)
        };
        let (code, log) = run(&["--create-slot"]);
        assert_eq!(code, Some(0), "{log}");
        assert!(
            log.contains(": creating replication slot \"a_slot\"\n"),
            "{log}"
        );
        assert_eq!(restart_lsn().unwrap() != "none", reserves);

        let (code, log) = run(&["--create-slot"]);
        assert_eq!(code, Some(1));
        let sent =
            ": error: could not send replication command \"CREATE_REPLICATION_SLOT \"a_slot\"";
        assert!(
            log.contains(sent) && log.contains("already exists"),
            "{log}"
        );
        assert_eq!(run(&["--create-slot", "--if-not-exists"]).0, Some(0));

        let (code, log) = run(&["--drop-slot"]);
        assert_eq!(code, Some(0), "{log}");
        assert!(
            log.contains(": dropping replication slot \"a_slot\"\n"),
            "{log}"
        );
        assert_eq!(restart_lsn(), None);
        let (code, log) = run(&["--drop-slot"]);
        assert_eq!(code, Some(1));
        assert!(log.contains("DROP_REPLICATION_SLOT \"a_slot\""), "{log}");
    }
}

/// Waits until a receiver streams and has written up to `end`.
fn wait_written(cluster: &Cluster, name: &str, end: Lsn) {
    wait_until(&format!("{name} to have written up to {end}"), || {
        cluster
            .text(&format!(
                "SELECT write_lsn::text FROM pg_stat_replication WHERE application_name = '{name}'"
            ))
            .is_some_and(|written| written.parse::<Lsn>().unwrap() >= end)
    });
}

/// What the primary knows of its only receiver: flush, replay and priority.
fn known(cluster: &Cluster, name: &str) -> String {
    cluster
        .text(&format!(
            "SELECT concat_ws(' ', coalesce(flush_lsn::text, '-'), coalesce(replay_lsn::text, '-'),
                              sync_priority)
             FROM pg_stat_replication WHERE application_name = '{name}'"
        ))
        .unwrap()
}

/// Ours under PostgreSQL's name.
fn dropin(cluster: &Cluster, archive: &Path) -> ReceiverBuilder {
    Receiver::as_pg_receivewal(cluster.directory())
        .arg("-D")
        .arg(archive)
        .args(["-d", &cluster.conninfo()])
}

#[test]
fn only_what_the_name_promises_is_acknowledged() {
    let cluster = Cluster::builder(Version::V15)
        .segment_size_mib(1)
        .conf("synchronous_standby_names", "*")
        .conf("synchronous_commit", "local")
        .start();
    cluster.sql("SELECT pg_create_physical_replication_slot('s', true)");
    for (own_face, words, flush, replay) in [
        (false, &["-s", "1"][..], false, false),
        (false, &["-s", "1", "--no-sync"], false, false),
        (false, &["--synchronous"], true, false),
        (true, &[], true, true),
        (true, &["-s", "1", "--no-sync"], false, false),
    ] {
        let archive = ArchiveDirectory::new();
        let (name, receiver) = match own_face {
            true => ("wal_receiver", Receiver::of(&cluster, archive.path())),
            false => ("pg_receivewal", dropin(&cluster, archive.path())),
        };
        let mut receiver = receiver.args(words).start();
        wait_written(&cluster, name, cluster.flush_lsn());
        let end = cluster.write_wal(2);
        if flush {
            receiver.wait_flushed(&cluster, name, end);
        } else {
            wait_written(&cluster, name, end);
        }
        let known = known(&cluster, name);
        let fields: Vec<&str> = known.split(' ').collect();
        assert_eq!(fields[0] != "-", flush, "{name} {words:?}: {known}");
        assert_eq!(fields[1] != "-", replay, "{name} {words:?}: {known}");
        assert_eq!(fields[2] != "0", flush, "{name} {words:?}: {known}");
        assert!(receiver.stop().success(), "{}", receiver.log());
        let warned = receiver
            .log()
            .contains(": warning: WAL is not synced to disk");
        assert_eq!(warned, own_face && !flush, "{}", receiver.log());
        cluster.wait_no_replication();
    }
}

#[test]
fn for_a_slot_whole_segments_are_acknowledged() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    cluster.sql("SELECT pg_create_physical_replication_slot('s', true)");
    let mut receiver = dropin(&cluster, archive.path())
        .args(["-S", "s", "-s", "1"])
        .start();
    let end = cluster.write_wal(3);
    wait_written(&cluster, "pg_receivewal", end);
    let last = cluster.segment_size().start_of(end);
    let flushed = || {
        let known = known(&cluster, "pg_receivewal");
        let flush = known.split(' ').next().unwrap();
        (flush != "-").then(|| flush.parse::<Lsn>().unwrap())
    };
    wait_until("the last whole segment to be acknowledged", || {
        flushed() >= Some(last)
    });
    cluster.sql("CREATE TABLE small (i int)");
    let end = cluster.flush_lsn();
    wait_written(&cluster, "pg_receivewal", end);
    assert!(
        flushed() < Some(end),
        "acknowledged without a whole segment"
    );
    assert!(receiver.stop().success(), "{}", receiver.log());
}

#[test]
fn a_new_slot_keeps_wal_from_the_start_as_the_models_does() {
    // A server that never asks for a reply, and writes nothing.
    let cluster = Cluster::builder(Version::V15)
        .conf("wal_sender_timeout", "0")
        .start();
    let conninfo = cluster.conninfo();
    let (model_archive, archive) = (ArchiveDirectory::new(), ArchiveDirectory::new());
    let model = Receiver::pg_receivewal(Version::V15, &conninfo, model_archive.path());
    for (slot, receiver) in [("model", model), ("ours", dropin(&cluster, archive.path()))] {
        cluster.sql(&format!(
            "SELECT pg_create_physical_replication_slot('{slot}')"
        ));
        let end = cluster.flush_lsn();
        let mut receiver = receiver.args(["-S", slot]).start();
        let kept = wait_for("the slot to keep WAL", || {
            let query = format!(
                "SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = '{slot}'"
            );
            cluster.text(&query)
        });
        let start = cluster.segment_size().start_of(end);
        let kept: Lsn = kept.parse().unwrap();
        assert!(
            start <= kept && kept <= cluster.flush_lsn(),
            "{slot}: {kept}"
        );
        assert!(receiver.stop().success(), "{}", receiver.log());
    }
}

/// The lines of a log, each once.
fn lines(log: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in log.lines() {
        if !lines.iter().any(|other| other == line) {
            lines.push(line.to_owned());
        }
    }
    lines
}

/// Names, modes and sizes of what is in a directory, but for what is ours alone.
fn listing(directory: &Path) -> BTreeMap<String, (u32, u64)> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let metadata = entry.metadata().unwrap();
            (name, (metadata.mode() & 0o7777, metadata.len()))
        })
        .filter(|(name, _)| name != ".wal-receiver")
        .collect()
}

#[test]
fn the_own_face_warns_of_a_slot_that_can_fill_the_servers_disk() {
    let cluster = Cluster::start_new(Version::V15);
    cluster.sql("SELECT pg_create_physical_replication_slot('s', true)");
    for (own_face, archive) in [
        (true, ArchiveDirectory::new()),
        (false, ArchiveDirectory::new()),
    ] {
        let (name, receiver) = match own_face {
            true => ("wal_receiver", Receiver::of(&cluster, archive.path())),
            false => ("pg_receivewal", dropin(&cluster, archive.path())),
        };
        let mut receiver = receiver.args(["-S", "s", "-s", "1"]).start();
        wait_written(&cluster, name, cluster.flush_lsn());
        assert!(receiver.stop().success());
        let log = receiver.log();
        assert_eq!(
            log.contains(": warning: max_slot_wal_keep_size is -1"),
            own_face,
            "{log}"
        );
    }
}

/// A cluster with some segments of WAL that two slots, `model` and `ours`, hold back, and a
/// position in the middle of them. `mode` is that of its data directory.
fn cluster_with_wal(mode: u32) -> (Cluster, Lsn) {
    let mut cluster = Cluster::builder(Version::V15)
        .segment_size_mib(1)
        .conf("max_slot_wal_keep_size", "4GB")
        .start();
    cluster.stop();
    fs::set_permissions(cluster.data_directory(), fs::Permissions::from_mode(mode)).unwrap();
    cluster.start();
    cluster.sql(
        "SELECT pg_create_physical_replication_slot('model', true);
         SELECT pg_create_physical_replication_slot('ours', true)",
    );
    let start = cluster.segment_size().start_of(cluster.flush_lsn());
    cluster.write_wal(4);
    (cluster, Lsn(start.0 + (5 << 19) + 100))
}

#[test]
fn the_messages_and_files_of_a_run_to_a_position_are_the_models() {
    // A server that lets its group read lets its receivers' files be read too.
    for mode in [0o700, 0o750] {
        let (cluster, middle) = cluster_with_wal(mode);
        let (model_archive, archive) = (ArchiveDirectory::new(), ArchiveDirectory::new());
        let conninfo = cluster.conninfo();
        let model = Receiver::pg_receivewal(Version::V15, &conninfo, model_archive.path());
        let end = middle.to_string();
        let words = ["-v", "-n", "-E", &end];
        let (status, model_log) = model.args(words).args(["-S", "model"]).run();
        assert_eq!(status.code(), Some(0), "{model_log}");
        let (status, log) = dropin(&cluster, archive.path())
            .args(words)
            .args(["-S", "ours"])
            .run();
        assert_eq!(status.code(), Some(0), "{log}");
        assert_eq!(lines(&log), lines(&model_log));
        assert!(
            log.contains("stopped log streaming at") && log.contains("not renaming"),
            "{log}"
        );
        assert_eq!(listing(archive.path()), listing(model_archive.path()));
    }
}

#[test]
fn an_end_before_the_start_needs_no_wal_as_with_the_model() {
    let (cluster, middle) = cluster_with_wal(0o700);
    let (model_archive, archive) = (ArchiveDirectory::new(), ArchiveDirectory::new());
    let conninfo = cluster.conninfo();
    // With nothing to begin with, both begin with the segment that the server writes.
    cluster.sql("CHECKPOINT");
    let start = cluster.segment_size().start_of(cluster.flush_lsn());
    let words = ["-v", "-n", "-E", &Lsn(start.0 - 1).to_string()];
    let model = Receiver::pg_receivewal(Version::V15, &conninfo, model_archive.path());
    let (status, model_log) = model.args(words).run();
    assert_eq!(status.code(), Some(0), "{model_log}");
    let (status, log) = dropin(&cluster, archive.path()).args(words).run();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(log, model_log);
    assert!(log.contains(": stopped log streaming at "), "{log}");
    assert_eq!(listing(archive.path()), listing(model_archive.path()));

    // Nor when the archive has what lies before the end already, and the server writes no more.
    let end = middle.to_string();
    for end in [&end, &end, "0/1"] {
        let words = ["-n", "-S", "ours", "-E", end];
        let (status, log) = dropin(&cluster, archive.path()).args(words).run();
        assert_eq!(status.code(), Some(0), "{end}: {log}");
    }
}

#[test]
fn a_switch_of_timelines_is_told_as_by_the_model() {
    let primary = Cluster::start_new(Version::V15);
    let standby = primary.standby("second");
    let end = primary.write_wal(1);
    wait_until("the standby to catch up", || standby.flush_lsn() >= end);
    drop(primary);
    let (model_archive, archive) = (ArchiveDirectory::new(), ArchiveDirectory::new());
    let conninfo = standby.conninfo();
    let mut model = Receiver::pg_receivewal(Version::V15, &conninfo, model_archive.path())
        .env("PGAPPNAME", "model")
        .args(["-v", "-s", "1"])
        .start();
    let mut ours = dropin(&standby, archive.path())
        .env("PGAPPNAME", "ours")
        .args(["-v", "-s", "1"])
        .start();
    wait_written(&standby, "model", end);
    wait_written(&standby, "ours", end);
    standby.promote();
    standby.sql("CREATE TABLE after_the_promotion (i int)");
    let end = standby.flush_lsn();
    wait_written(&standby, "model", end);
    wait_written(&standby, "ours", end);
    assert!(model.stop().success() && ours.stop().success());
    assert_eq!(lines(&ours.log()), lines(&model.log()));
    assert!(
        ours.log().contains(": switched to timeline 2 at "),
        "{}",
        ours.log()
    );
}

#[test]
fn completed_segments_are_compressed_when_a_run_ends_as_the_models_are() {
    let complete = |directory: &Path| -> Vec<String> {
        let names = listing(directory).into_keys();
        names.filter(|name| !name.ends_with(".partial")).collect()
    };
    for method in ["gzip", "lz4"] {
        // Its slots are moved on by each run.
        let (cluster, middle) = cluster_with_wal(0o700);
        let (model_archive, archive) = (ArchiveDirectory::new(), ArchiveDirectory::new());
        let conninfo = cluster.conninfo();
        let model = Receiver::pg_receivewal(Version::V15, &conninfo, model_archive.path());
        let end = middle.to_string();
        let words = ["-n", "-E", &end, "-Z", method];
        let (status, log) = model.args(words).args(["-S", "model"]).run();
        assert_eq!(status.code(), Some(0), "{log}");
        let expected = complete(model_archive.path());
        assert!(expected.len() > 1 && expected.iter().all(|name| name.contains('.')));
        let (status, log) = dropin(&cluster, archive.path())
            .args(words)
            .args(["-S", "ours"])
            .run();
        assert_eq!(status.code(), Some(0), "{log}");
        assert_eq!(complete(archive.path()), expected);
    }
}

#[test]
fn segments_that_are_moved_away_are_missed_only_by_the_own_face() {
    let (cluster, _) = cluster_with_wal(0o700);
    let archive = ArchiveDirectory::new();
    let words = ["-S", "ours", "--synchronous"];
    let take_all = || {
        for name in archive.files() {
            fs::remove_file(archive.path().join(name)).unwrap();
        }
    };
    for _ in 0..2 {
        let mut receiver = dropin(&cluster, archive.path()).args(words).start();
        let end = cluster.write_wal(1);
        receiver.wait_flushed(&cluster, "pg_receivewal", end);
        receiver.kill9();
        take_all();
    }
    let (status, log) = Receiver::of(&cluster, archive.path()).args(words).run();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("put back the missing segments"), "{log}");
    assert_eq!(archive.files(), [""; 0]);
}

#[test]
fn the_messages_of_an_interrupted_run_are_the_models() {
    let (cluster, _) = cluster_with_wal(0o700);
    let (model_archive, archive) = (ArchiveDirectory::new(), ArchiveDirectory::new());
    let conninfo = cluster.conninfo();
    let interrupted = |receiver: ReceiverBuilder| {
        let mut receiver = receiver.arg("-v").start();
        wait_written(&cluster, "pg_receivewal", cluster.flush_lsn());
        assert_eq!(receiver.stop().code(), Some(0), "{}", receiver.log());
        cluster.wait_no_replication();
        lines(&receiver.log())
    };
    let model = Receiver::pg_receivewal(Version::V15, &conninfo, model_archive.path());
    let expected = interrupted(model.args(["-S", "model", "-s", "1"]));
    let ours = dropin(&cluster, archive.path()).args(["-S", "ours", "-s", "1"]);
    assert_eq!(interrupted(ours), expected);
    assert_eq!(listing(archive.path()), listing(model_archive.path()));
}

#[test]
fn a_lost_server_is_tried_again_after_five_seconds_or_with_no_loop_not_at_all() {
    let mut cluster = Cluster::start_new(Version::V15);
    let (archive, other) = (ArchiveDirectory::new(), ArchiveDirectory::new());
    let mut receiver = dropin(&cluster, archive.path()).start();
    let mut once = dropin(&cluster, other.path()).arg("--no-loop").start();
    wait_until("both to stream", || {
        let count = "SELECT count(*)::text FROM pg_stat_replication WHERE state = 'streaming'";
        cluster.text(count).unwrap() == "2"
    });
    cluster.kill9();
    assert_eq!(once.wait_exit().code(), Some(1));
    assert!(
        once.log().ends_with("pg_receivewal: error: disconnected\n"),
        "{}",
        once.log()
    );
    receiver.wait_for_log("pg_receivewal: disconnected; waiting 5 seconds to try again");
    cluster.start();
    wait_written(&cluster, "pg_receivewal", cluster.flush_lsn());
    assert!(receiver.stop().success(), "{}", receiver.log());
}

#[test]
fn a_first_connection_that_fails_ends_pg_receivewal_and_not_wal_receiver() {
    let archive = ArchiveDirectory::new();
    let directory = tempfile::tempdir().unwrap();
    let words = ["-h", "/nonexistent", "-D", archive.path().to_str().unwrap()];
    let (status, log) = Receiver::as_pg_receivewal(directory.path())
        .args(words)
        .run();
    assert_eq!(status.code(), Some(1), "{log}");
    // The model's message goes on in a second line.
    let failed = "pg_receivewal: error: connection to server on socket \
                  \"/nonexistent/.s.PGSQL.5432\" failed: No such file or directory";
    assert!(log.starts_with(failed) && log.lines().count() == 1, "{log}");
    let conninfo = "host=/nonexistent";
    for no_loop in [&[][..], &["--no-loop"]] {
        let model = Receiver::pg_receivewal(Version::V15, conninfo, archive.path());
        let (status, expected) = model.args(no_loop).run();
        assert_eq!(status.code(), Some(1), "{expected}");
        assert!(expected.starts_with(failed), "{expected}");
        let ours = Receiver::as_pg_receivewal(directory.path()).args(words);
        assert_eq!(ours.args(no_loop).run(), (status, log.clone()));
    }
    let mut receiver = Receiver::bare().args(words).start();
    receiver.wait_for_log("wal-receiver: disconnected; waiting ");
    assert!(receiver.stop().success(), "{}", receiver.log());
}

#[test]
fn hangup_changes_nothing_and_terminate_ends_cleanly() {
    let cluster = Cluster::start_new(Version::V15);
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(&cluster, archive.path()).start();
    receiver.wait_flushed(&cluster, "wal_receiver", cluster.flush_lsn());
    receiver.signal(Signal::HUP);
    let end = cluster.write_wal(1);
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    receiver.signal(Signal::TERM);
    assert_eq!(receiver.wait_exit().code(), Some(0), "{}", receiver.log());
}

#[test]
fn a_second_signal_ends_at_once_whichever_the_first_was() {
    let cluster = Cluster::start_new(Version::V15);
    for (first, second) in [
        (Signal::INT, Signal::INT),
        (Signal::INT, Signal::TERM),
        (Signal::TERM, Signal::INT),
    ] {
        let archive = ArchiveDirectory::new();
        let mut receiver = Receiver::of(&cluster, archive.path()).arg("-v").start();
        receiver.wait_flushed(&cluster, "wal_receiver", cluster.flush_lsn());
        // A server that does not answer is waited for, but not when asked twice.
        let sender = cluster
            .text("SELECT pid::text FROM pg_stat_replication")
            .unwrap();
        let sender = rustix::process::Pid::from_raw(sender.parse().unwrap()).unwrap();
        rustix::process::kill_process(sender, Signal::STOP).unwrap();
        receiver.signal(first);
        receiver.wait_for_log("received interrupt signal, exiting");
        receiver.signal(second);
        let status = receiver.wait_exit();
        rustix::process::kill_process(sender, Signal::CONT).unwrap();
        let expected = 128 + second.as_raw();
        assert_eq!(status.code(), Some(expected), "{}", receiver.log());
        wait_until("the server to notice", || {
            let count = "SELECT count(*)::text FROM pg_stat_replication";
            cluster.text(count).unwrap() == "0"
        });
    }
}

#[test]
fn json_messages_are_objects_with_the_position_in_fields() {
    let (cluster, middle) = cluster_with_wal(0o700);
    let archive = ArchiveDirectory::new();
    let (status, log) = Receiver::of(&cluster, archive.path())
        .args([
            "-S",
            "ours",
            "-v",
            "--log-format=json",
            "-E",
            &middle.to_string(),
        ])
        .run();
    assert!(status.success(), "{log}");
    let mut events = Vec::new();
    for line in log.lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(object["level"], "INFO", "{line}");
        assert!(
            object["timestamp"].is_string() && object["message"].is_string(),
            "{line}"
        );
        let event = object["event"].as_str().unwrap().to_owned();
        if event != "segment_left_partial" {
            assert_eq!(object["timeline"], 1, "{line}");
            object["lsn"].as_str().unwrap().parse::<Lsn>().unwrap();
        }
        events.push(event);
    }
    events.dedup();
    assert_eq!(
        events,
        [
            "streaming_started",
            "segment_finished",
            "end_reached",
            "segment_left_partial"
        ]
    );
}
