//! `--on-event`: which commands are run for what, and that none of them holds anything up.

use std::fs;
use std::path::{Path, PathBuf};

use tests::{
    ArchiveDirectory, Cluster, GeneratedArchive, Link, Proxy, Receiver, Relay, Serving, Verdict,
    Version, segment_name, wait_for, wait_until,
};
use walproto::{Lsn, SegmentSize, TimelineId};

use crate::proxied::Proxied;
use crate::serve::Archived;

/// Where commands note what they are told, a line each.
struct Noted {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Noted {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("noted");
        Self {
            _directory: directory,
            path,
        }
    }

    /// A command that notes what it is told, after it has done something else.
    fn command(&self, before: &str) -> String {
        format!(
            "{before} echo \"$WAL_RECEIVER_EVENT|$WAL_RECEIVER_TIMELINE|$WAL_RECEIVER_LSN|\
             $WAL_RECEIVER_DIRECTORY|$WAL_RECEIVER_MESSAGE\" >> '{}'",
            self.path.display()
        )
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits for a note of this event, and gives its parts: timeline, LSN, directory, message.
    #[track_caller]
    fn wait_for(&self, event: &str) -> [String; 4] {
        let start = format!("{event}|");
        let note = wait_for(&format!("a note of {event}"), || {
            let lines = self.lines();
            lines
                .iter()
                .find_map(|line| Some(line.strip_prefix(&start)?.to_owned()))
        });
        let parts: Vec<String> = note.splitn(4, '|').map(str::to_owned).collect();
        parts.try_into().unwrap()
    }
}

#[test]
fn a_full_disk_is_told_of_when_it_begins_and_when_it_ends() {
    let cluster = Cluster::builder(Version::V15)
        .segment_size_mib(1)
        .conf("wal_sender_timeout", "2s")
        .start();
    let archive = ArchiveDirectory::new();
    let noted = Noted::new();
    let mut receiver = Receiver::of(&cluster, archive.path())
        .args(["--on-event", &noted.command("")])
        .with_small_disk(archive.path(), "size=16m")
        .start();
    cluster.wait_streaming("wal_receiver");
    let ballast = receiver.sees(archive.path()).join("ballast");
    fs::write(&ballast, vec![1; 9 << 20]).unwrap();
    cluster.write_wal(9);
    let [timeline, lsn, directory, message] = noted.wait_for("held");
    assert_eq!(timeline, "1");
    let told = cluster.reported_flush("wal_receiver");
    assert!(
        lsn.parse::<Lsn>().unwrap() >= told.unwrap_or(Lsn::INVALID),
        "{lsn}"
    );
    assert_eq!(Path::new(&directory), archive.path());
    assert!(message.contains("disk full"), "{message}");
    // Over the tries that follow it is still the same.
    receiver.wait_for_log("error: disk stayed full");
    wait_until("more tries", || {
        receiver.log().matches("waiting").count() >= 2
    });
    fs::remove_file(&ballast).unwrap();
    noted.wait_for("released");
    let end = cluster.flush_lsn();
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    receiver.wait_for_log("there is room on the disk again");
    assert!(receiver.stop().success(), "{}", receiver.log());
    let events: Vec<String> = noted
        .lines()
        .iter()
        .map(|line| line.split('|').next().unwrap().to_owned())
        .collect();
    assert_eq!(events, ["held", "released"]);
}

#[test]
fn damage_is_told_of_and_a_command_that_hangs_holds_nothing_up() {
    let proxied = Proxied::new(Version::V15);
    let cluster = &proxied.cluster;
    let at = Lsn(cluster.flush_lsn().0 + 300_000);
    let proxy = proxied.trouble_once(at, move |message| {
        *message.wal_byte(at).unwrap() ^= 1;
        Verdict::Forward
    });
    let noted = Noted::new();
    let started = noted.path.with_extension("started");
    let before = format!("echo > '{}'; sleep 30;", started.display());
    let mut receiver = proxied
        .receiver(&proxy)
        .args(["--on-event", &noted.command(&before)])
        .start();
    cluster.wait_streaming("wal_receiver");
    cluster.write_wal(2);
    wait_until("the command", || started.exists());
    let end = cluster.write_wal(2);
    proxied.assert_flushed(&mut receiver, end);
    assert_eq!(noted.lines(), [""; 0]);
    // It is waited for a while at the end, and then left.
    let status = receiver.stop();
    let log = receiver.log();
    assert!(status.success(), "{log}");
    assert!(
        log.contains("warning: command of --on-event has not ended"),
        "{log}"
    );
}

#[test]
fn damage_that_comes_with_every_try_is_told_of_once_more() {
    let proxied = Proxied::new(Version::V15);
    let cluster = &proxied.cluster;
    let page = Lsn((cluster.flush_lsn().0 + 300_000).next_multiple_of(8192));
    let proxy = Proxy::start(cluster, move |message| {
        if let Some(byte) = message.wal_byte(Lsn(page.0 + 8)) {
            *byte ^= 1;
        }
        Verdict::Forward
    });
    let noted = Noted::new();
    let mut receiver = proxied
        .receiver(&proxy)
        .args(["--on-event", &noted.command("")])
        .start();
    cluster.wait_streaming("wal_receiver");
    cluster.write_wal(1);
    let [timeline, lsn, _, message] = noted.wait_for("corruption");
    assert_eq!((timeline.as_str(), lsn), ("1", page.to_string()));
    assert!(
        message.contains(&format!("invalid WAL at {page}")),
        "{message}"
    );
    wait_until("more tries", || proxy.connections() >= 6);
    assert!(receiver.stop().success(), "{}", receiver.log());
    let lines = noted.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].contains("3 times in a row"), "{lines:?}");
    assert!(
        lines.iter().all(|line| line.starts_with("corruption|1|")),
        "{lines:?}"
    );
}

#[test]
fn an_error_that_ends_a_single_try_is_told_of() {
    let proxied = Proxied::new(Version::V15);
    let cluster = &proxied.cluster;
    let page = Lsn((cluster.flush_lsn().0 + 300_000).next_multiple_of(8192));
    let proxy = Proxy::start(cluster, move |message| {
        if let Some(byte) = message.wal_byte(Lsn(page.0 + 8)) {
            *byte ^= 1;
        }
        Verdict::Forward
    });
    let noted = Noted::new();
    let mut once = proxied
        .receiver(&proxy)
        .args(["--no-loop", "--on-event", &noted.command("sleep 1;")])
        .start();
    cluster.wait_streaming("wal_receiver");
    cluster.write_wal(1);
    assert_eq!(once.wait_exit().code(), Some(1), "{}", once.log());
    let lines = noted.lines();
    assert!(
        lines.len() == 1 && lines[0].starts_with("corruption|1|"),
        "{lines:?}"
    );
}

#[test]
fn a_slot_that_the_server_lost_is_told_of() {
    let cluster = Cluster::start_new(Version::V15);
    let archive = ArchiveDirectory::new();
    let noted = Noted::new();
    let receiver = || {
        Receiver::of(&cluster, archive.path()).args([
            "--slot",
            "one",
            "--on-event",
            &noted.command(""),
        ])
    };
    cluster.sql("SELECT pg_create_physical_replication_slot('one', true)");
    let mut first = receiver().start();
    cluster.wait_streaming("wal_receiver");
    let end = cluster.write_wal(1);
    first.wait_flushed(&cluster, "wal_receiver", end);
    assert!(first.stop().success(), "{}", first.log());
    assert_eq!(noted.lines(), [""; 0]);
    // One that reserves nothing yet is as one that is lost.
    cluster.sql(
        "SELECT pg_drop_replication_slot('one');
         SELECT pg_create_physical_replication_slot('one')",
    );
    let (status, log) = receiver().run();
    assert_eq!(status.code(), Some(1), "{log}");
    let [timeline, lsn, _, message] = noted.wait_for("lost_slot");
    assert_eq!(timeline, "1");
    assert!(lsn.parse::<Lsn>().is_ok(), "{lsn}");
    assert!(message.contains("replication slot \"one\""), "{message}");
    assert!(log.contains(&message), "{log}\n{message}");
    // And one that is gone, too.
    cluster.sql("SELECT pg_drop_replication_slot('one')");
    let (status, log) = receiver().run();
    assert_eq!(status.code(), Some(1), "{log}");
    assert_eq!(noted.lines().len(), 2, "{:?}", noted.lines());
}

#[test]
fn a_slot_whose_wal_left_the_archive_is_told_of_by_who_serves_it() {
    let mut archived = Archived::start(Version::V15);
    archived.wait_archived();
    let path = archived.archive.path().to_owned();
    let noted = Noted::new();
    let serve = || {
        let mut process = Receiver::bare()
            .args(["serve", "--trust-loopback", "--listen", "127.0.0.1:0", "-D"])
            .arg(&path)
            .args(["--on-event", &noted.command("")])
            .start();
        let start = "listening at 127.0.0.1:";
        let line = process.wait_for_log(start);
        let port = line.split_once(start).unwrap().1.to_owned();
        (process, port)
    };
    let (mut serving, port) = serve();
    let conninfo = format!("host=127.0.0.1 port={port} user=any");
    let (status, log) = Receiver::bare()
        .args(["--create-slot", "--slot", "one", "-d", &conninfo])
        .run();
    assert!(status.success(), "{log}");
    assert!(serving.stop().success(), "{}", serving.log());
    assert_eq!(noted.lines(), [""; 0]);
    let oldest = archived.archive.files();
    archived.cluster.write_wal(3);
    archived.cluster.switch_wal();
    archived.wait_archived();
    for name in oldest {
        let complete = path.join(name.trim_end_matches(".partial"));
        fs::remove_file(complete).unwrap();
    }
    let (mut serving, _) = serve();
    let [timeline, lsn, directory, message] = noted.wait_for("lost_slot");
    assert_eq!(timeline, "1");
    assert!(lsn.parse::<Lsn>().unwrap() >= archived.start, "{lsn}");
    assert_eq!(Path::new(&directory), path);
    assert!(message.contains("\"one\" is lost"), "{message}");
    serving.wait_for_log(&format!("error: {message}"));
    archived.cluster.write_wal(1);
    archived.wait_archived();
    assert!(serving.stop().success(), "{}", serving.log());
    // Once is enough.
    assert_eq!(noted.lines().len(), 1);
}

#[test]
fn a_slot_whose_wal_another_process_removes_is_told_of_while_nothing_is_written() {
    let mut archive = GeneratedArchive::new(300_000, 150_018);
    let noted = Noted::new();
    let options = ["--trust-loopback", "--on-event", &noted.command("")];
    let mut serving = Serving::start_with(archive.path(), 0, &options);
    let conninfo = serving.conninfo();
    let mut link = Link::new(&conninfo, Path::new("/")).unwrap();
    link.begin_stream(GeneratedArchive::START);
    assert!(link.receive(archive.wal().len()) == archive.wal());
    // Where each slot stands, with more WAL behind it than it may keep.
    let [one, two] = ["one", "two"].map(|slot| {
        let (status, log) = Receiver::bare()
            .args(["--create-slot", "--slot", slot, "-d", &conninfo])
            .run();
        assert!(status.success(), "{log}");
        let (lsn, before) = (archive.end(), archive.wal().len());
        archive.write(5 << 20);
        // Once it has sent all it hears of nothing more.
        let new = archive.wal().len() - before;
        assert!(link.receive(new) == archive.wal()[before..]);
        lsn
    });
    let prune_before = |lsn| {
        let size = SegmentSize::new(1 << 20).unwrap();
        let (status, said) = Receiver::bare()
            .args(["prune", "--max-slot-keep-size=1MB", "-D"])
            .arg(archive.path())
            .arg(segment_name(TimelineId::FIRST, lsn, size))
            .run();
        assert!(status.success(), "{said}");
    };
    // The first loss may be seen by a look for what was written; there is none left after it.
    for (number, (slot, lsn, oldest)) in [("one", one, two), ("two", two, archive.end())]
        .into_iter()
        .enumerate()
    {
        prune_before(oldest);
        let line = wait_for(&format!("a note of slot {slot}"), || {
            noted.lines().get(number).cloned()
        });
        assert!(line.starts_with(&format!("lost_slot|1|{lsn}|")), "{line}");
        assert!(line.contains(&format!("\"{slot}\" is lost")), "{line}");
    }
    drop(link);
    assert!(serving.stop().success(), "{}", serving.log());
}

/// A segment that is damaged and one that is missing, by whom they are served, to a client that
/// begins before them and tries again and again. Gives what was told.
#[track_caller]
fn assert_damage_is_told(
    archive: &ArchiveDirectory,
    start: Lsn,
    conninfo: &str,
    noted: &Noted,
) -> [String; 2] {
    let mut complete = archive.files();
    complete.retain(|name| name.len() == 24);
    let mut names = complete.iter().skip(1);
    let (damaged, missing) = (names.next().unwrap(), names.next().unwrap());
    let damaged_path = archive.path().join(damaged);
    let kept = fs::read(&damaged_path).unwrap();
    let mut bytes = kept.clone();
    let offset = bytes.len() / 2;
    *bytes.get_mut(offset).unwrap() ^= 1;
    fs::write(&damaged_path, bytes).unwrap();
    let copy = ArchiveDirectory::new();
    let mut client = Receiver::bare()
        .args(["--start", &start.to_string(), "-d", conninfo, "-D"])
        .arg(copy.path())
        .start();
    let [timeline, lsn, directory, message] = noted.wait_for("corruption");
    // The record or page that is damaged, which begins no later.
    let at = Lsn(start.0 + (1 << 20));
    let lsn: Lsn = lsn.parse().unwrap();
    assert!(at <= lsn && lsn <= Lsn(at.0 + offset as u64), "{lsn}");
    assert!(message.contains(&lsn.to_string()), "{message}");
    assert_eq!(timeline, "1");
    assert_eq!(Path::new(&directory), archive.path());
    assert!(message.contains(damaged.as_str()), "{message}");
    wait_until("another try", || {
        client.log().matches(damaged.as_str()).count() >= 2
    });
    fs::rename(archive.path().join(missing), copy.path().join("aside")).unwrap();
    fs::write(&damaged_path, kept).unwrap();
    let [timeline, lsn, _, gap] = noted.wait_for("gap");
    let at = Lsn(at.0 + (1 << 20));
    assert_eq!((timeline.as_str(), lsn), ("1", at.to_string()));
    assert!(gap.contains(missing.as_str()), "{gap}");
    client.kill9();
    // Once is enough.
    assert_eq!(noted.lines().len(), 2, "{:?}", noted.lines());
    [message, gap]
}

#[test]
fn damage_that_is_met_while_serving_is_told_of() {
    let mut archived = Archived::start(Version::V15);
    archived.cluster.write_wal(4);
    archived.wait_archived();
    let noted = Noted::new();
    let options = ["--trust-loopback", "--on-event", &noted.command("")];
    let mut serving = Serving::start_with(archived.archive.path(), 0, &options);
    let conninfo = serving.conninfo();
    let told = assert_damage_is_told(&archived.archive, archived.start, &conninfo, &noted);
    for message in told {
        serving.wait_for_log(&format!(" failed: {message}"));
    }
    assert!(serving.stop().success(), "{}", serving.log());
}

#[test]
fn damage_that_a_relay_meets_while_serving_is_told_of() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let noted = Noted::new();
    let start = cluster.segment_size().start_of(cluster.flush_lsn());
    let options = ["--on-event", &noted.command("")];
    let mut relay = Relay::start(&cluster.conninfo(), archive.path(), &options);
    cluster.wait_streaming("wal_receiver");
    let end = cluster.write_wal(4);
    relay.wait_flushed(&cluster, end);
    let told = assert_damage_is_told(&archive, start, &relay.conninfo(), &noted);
    for message in told {
        relay.wait_for_log(&format!(" failed: {message}"));
    }
    assert!(relay.stop().success(), "{}", relay.log());
}

#[test]
fn where_no_command_can_be_run_it_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let command = ["--on-event", "true", "-D", "wal"];
    for (program, words, expected) in [
        (
            Receiver::as_pg_receivewal(directory.path()),
            &[][..],
            "pg_receivewal: error: --on-event is for the program by its own name, wal-receiver\n",
        ),
        (
            Receiver::bare(),
            &["--create-slot", "--slot", "one"],
            "wal-receiver: error: cannot use --on-event together with --create-slot\n",
        ),
        (
            Receiver::bare(),
            &["--drop-slot", "--slot", "one"],
            "wal-receiver: error: cannot use --on-event together with --drop-slot\n",
        ),
    ] {
        let (status, said) = program.args(command).args(words).run();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.starts_with(expected), "{said}");
    }
}
