//! `wal-receiver verify`, on what servers wrote; `pg_waldump` is the judge of where it ends and
//! what is bad.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

use serde_json::{Value, json};
use tests::{ArchiveDirectory, Cluster, Receiver, Version};
use walproto::{Lsn, SegmentSize, TimelineId};

use crate::for_each_version;
use crate::refused::archive_of;

for_each_version!(
    an_archive_is_good_up_to_where_pg_waldump_ends,
    an_archive_that_is_being_filled_is_good,
);

/// The exit code of a run and what it wrote.
fn verify(archive: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let run = Receiver::bare().args(["verify", "-D"]).arg(archive);
    let (status, text) = run.args(arguments).run();
    (status.code(), text)
}

#[track_caller]
fn verify_json(archive: &Path, arguments: &[&str]) -> (Option<i32>, Value) {
    let arguments = [&["--json"], arguments].concat();
    let (code, text) = verify(archive, &arguments);
    let found = serde_json::from_str(&text);
    assert!(found.is_ok(), "{text}");
    (code, found.unwrap())
}

fn lsn(value: &Value) -> Lsn {
    value.as_str().unwrap().parse().unwrap()
}

fn durable(found: &Value) -> Lsn {
    lsn(found.pointer("/durable/lsn").unwrap())
}

#[track_caller]
fn assert_holds(found: &Value, expected: &[(&str, Value)]) {
    for (place, value) in expected {
        assert_eq!(found.pointer(place), Some(value), "{place} of {found}");
    }
}

/// The only range of one timeline.
#[track_caller]
fn only_range(found: &Value) -> (Lsn, Lsn) {
    assert_eq!(found.pointer("/ranges/1"), None, "{found}");
    let bound = |name: &str| lsn(found.pointer(&format!("/ranges/0/{name}")).unwrap());
    (bound("start"), bound("end"))
}

/// `pg_waldump` reads all of the range and nothing behind it.
#[track_caller]
fn assert_is_all(
    archive: &ArchiveDirectory,
    version: Version,
    size: SegmentSize,
    range: (Lsn, Lsn),
) {
    let (start, end) = range;
    let timeline = TimelineId::FIRST;
    let records = archive.waldump(version, timeline, size, start, end);
    // Past the next record, if there were one.
    let behind = Lsn(end.0 + 0x10_000);
    let error = archive.waldump_error(version, timeline, size, start, behind);
    if version >= Version::V15 {
        assert!(records.unwrap() > 100, "{records:?}");
        assert!(!error.unwrap().is_empty());
    }
}

fn an_archive_is_good_up_to_where_pg_waldump_ends(version: Version) {
    let cluster = Cluster::builder(version).segment_size_mib(1).start();
    let archive = archive_of(&cluster);
    let before = archive.snapshot();
    let (code, one) = verify_json(archive.path(), &[]);
    assert_eq!(code, Some(0), "{one}");
    assert_holds(
        &one,
        &[
            ("/good", json!(true)),
            ("/problems", json!([])),
            ("/system_identifier", json!(cluster.system_id().to_string())),
            ("/segment_size", json!(1 << 20)),
        ],
    );
    let range = only_range(&one);
    assert_eq!(range.1, durable(&one));
    assert_is_all(&archive, version, cluster.segment_size(), range);
    let (code, two) = verify_json(archive.path(), &["--jobs", "2"]);
    assert_eq!((code, two), (Some(0), one));
    assert_eq!(archive.snapshot(), before);
}

fn an_archive_that_is_being_filled_is_good(version: Version) {
    let cluster = Cluster::builder(version).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(&cluster, archive.path())
        .arg("--compress=lz4")
        .start();
    cluster.wait_streaming("wal_receiver");
    let end = cluster.write_wal(1);
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            for _ in 0..10 {
                cluster.write_wal(2);
            }
        });
        let mut ends = Vec::new();
        while !load.is_finished() || ends.is_empty() {
            let (code, found) = verify_json(archive.path(), &["--jobs=2"]);
            assert_eq!(code, Some(0), "{found}");
            let (_, end) = only_range(&found);
            assert!(end >= durable(&found), "{found}");
            ends.push(end);
        }
        assert!(ends.is_sorted(), "{ends:?}");
    });
    assert!(receiver.stop().success(), "{}", receiver.log());
}

#[test]
fn timelines_follow_one_another() {
    let primary = Cluster::builder(Version::V17).segment_size_mib(1).start();
    let standby = primary.standby("second");
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(&standby, archive.path()).start();
    standby.wait_streaming("wal_receiver");
    let end = primary.write_wal(2);
    tests::wait_until("the standby to catch up", || standby.flush_lsn() >= end);
    standby.promote();
    let end = standby.write_wal(2);
    receiver.wait_flushed(&standby, "wal_receiver", end);
    assert!(receiver.stop().success(), "{}", receiver.log());

    let (code, found) = verify_json(archive.path(), &[]);
    assert_eq!((code, &found["problems"]), (Some(0), &json!([])), "{found}");
    let history = fs::read_to_string(archive.path().join("00000002.history")).unwrap();
    let switch_point = history.split_whitespace().nth(1).unwrap();
    let [first, second] = found["ranges"].as_array().unwrap().as_slice() else {
        panic!("{found}");
    };
    assert_eq!(
        (&first["timeline"], &second["timeline"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(second["start"], json!(switch_point));
    assert!(
        lsn(&first["end"]) >= switch_point.parse().unwrap(),
        "{found}"
    );
    assert!(lsn(&second["end"]) >= end, "{found}");

    fs::remove_file(archive.path().join("00000002.history")).unwrap();
    let (code, text) = verify(archive.path(), &[]);
    assert_eq!(code, Some(1));
    // All segments are checked without it.
    assert!(text.ends_with(": 1 problem\n"), "{text}");
    assert!(text.contains("\ngood: timeline 2 from "), "{text}");
    assert!(text.contains("bad: timeline 2"), "{text}");
    assert!(
        text.contains("the history of timeline 2 is not in the archive"),
        "{text}"
    );
}

#[test]
fn an_archive_of_pg_receivewal_is_good_up_to_where_pg_waldump_ends() {
    let version = Version::V16;
    let cluster = Cluster::builder(version).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let arguments = ["--synchronous", "--no-loop"];
    let mut theirs = Receiver::pg_receivewal(version, &cluster.conninfo(), archive.path())
        .args(arguments)
        .start();
    cluster.wait_streaming("pg_receivewal");
    let end = cluster.write_wal(3);
    theirs.wait_flushed(&cluster, "pg_receivewal", end);
    theirs.stop();
    let (code, found) = verify_json(archive.path(), &[]);
    assert_eq!(
        (code, &found["durable"]),
        (Some(0), &Value::Null),
        "{found}"
    );
    assert_is_all(
        &archive,
        version,
        cluster.segment_size(),
        only_range(&found),
    );
}

/// A record of `pg_waldump`'s that lies on one page and has a hundred bytes after its header.
fn record_in(archive: &ArchiveDirectory, range: (Lsn, Lsn), size: SegmentSize) -> Lsn {
    let (start, end) = range;
    let lines = archive.waldump_lines(Version::V15, TimelineId::FIRST, size, start, end);
    let lines = lines.unwrap();
    let later = lines.iter().skip(lines.len() / 2);
    let found = later.into_iter().find_map(|line| {
        let (_, lengths) = line.split_once("len (rec/tot):")?;
        let (_, total) = lengths.split_once('/')?;
        let (total, rest) = total.split_once(',')?;
        let total: u64 = total.trim().parse().ok()?;
        let (_, at) = rest.split_once("lsn: ")?;
        let at: Lsn = at.split_once(',')?.0.parse().ok()?;
        (total > 124 && at.0 % 8192 + total < 8192).then_some(at)
    });
    found.unwrap()
}

fn flip(path: &Path, offset: u64) {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&byte.map(|byte| byte ^ 0x40), offset)
        .unwrap();
}

#[test]
fn a_flipped_bit_is_where_pg_waldump_finds_it() {
    let version = Version::V15;
    let cluster = Cluster::builder(version).segment_size_mib(1).start();
    let archive = archive_of(&cluster);
    let size = cluster.segment_size();
    let (_, found) = verify_json(archive.path(), &[]);
    let range = only_range(&found);
    let bad = record_in(&archive, range, size);
    let path = archive.file_of(TimelineId::FIRST, bad, size).unwrap();
    let offset = size.offset_of(bad);
    flip(&path, offset + 100);

    let (code, text) = verify(archive.path(), &["--jobs=2"]);
    assert_eq!(code, Some(1), "{text}");
    let place = format!("(\"{}\", offset {offset})", path.display());
    let told = text.lines().find(|line| line.starts_with("bad:")).unwrap();
    assert!(told.starts_with(&format!(
        "bad: timeline 1, {bad}: record checksum: expected 0x"
    )));
    assert!(told.ends_with(&place), "{told}");
    let good = format!("good: timeline 1 from {} to {bad}", range.0);
    assert_eq!(text.lines().next(), Some(&*good), "{text}");
    let error = archive.waldump_error(version, TimelineId::FIRST, size, range.0, range.1);
    assert!(
        error
            .unwrap()
            .contains(&format!("checksum in record at {bad}"))
    );

    let (code, found) = verify_json(archive.path(), &[]);
    assert_eq!(code, Some(1), "{found}");
    let problem = &found["problems"][0];
    assert_eq!(problem["kind"], json!("corrupt"));
    assert_eq!(
        (lsn(&problem["lsn"]), &problem["offset"]),
        (bad, &json!(offset))
    );
    assert_eq!(problem["file"], json!(path));
}

#[test]
fn compressed_segments_are_checked_and_a_damaged_one_is_named() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    for (method, suffix) in [("gzip", "gz"), ("lz4", "lz4"), ("zstd", "zst")] {
        let archive = ArchiveDirectory::new();
        let mut receiver = Receiver::of(&cluster, archive.path())
            .args(["--compress", method])
            .start();
        cluster.wait_streaming("wal_receiver");
        let end = cluster.write_wal(3);
        receiver.wait_flushed(&cluster, "wal_receiver", end);
        assert!(receiver.stop().success(), "{}", receiver.log());
        let compressed = archive.files();
        let name = compressed
            .iter()
            .find(|name| name.ends_with(suffix))
            .unwrap();
        let (code, found) = verify_json(archive.path(), &["-j2"]);
        assert_eq!((code, &found["problems"]), (Some(0), &json!([])), "{found}");
        assert!(only_range(&found).1 >= end);

        let path = archive.path().join(name);
        flip(&path, fs::metadata(&path).unwrap().len() / 2);
        let (code, text) = verify(archive.path(), &[]);
        assert_eq!(code, Some(1), "{text}");
        let bad: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("bad:"))
            .collect();
        assert_eq!(bad.len(), 1, "{text}");
        assert!(bad[0].contains(&**name), "{text}");
    }
}

#[test]
fn missing_segments_are_bad_and_other_files_are_not() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let archive = archive_of(&cluster);
    fs::write(archive.path().join("notes.txt"), "not WAL").unwrap();
    let (code, text) = verify(archive.path(), &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("\nignored: \"notes.txt\"\n"), "{text}");
    assert!(text.ends_with(": all good\n"), "{text}");

    let files = archive.files();
    let name = &files[files
        .iter()
        .position(|name| name.ends_with(".partial"))
        .unwrap()
        - 1];
    fs::remove_file(archive.path().join(name)).unwrap();
    let (code, text) = verify(archive.path(), &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains(&format!(": segment {name} is missing, WAL up to 0/")),
        "{text}"
    );
    assert!(text.ends_with(": 1 problem\n"), "{text}");
}

#[test]
fn what_cannot_be_checked_is_neither_good_nor_bad() {
    let empty = ArchiveDirectory::new();
    let absent = empty.path().join("absent");
    for (arguments, words) in [
        (&["verify"][..], "no target directory specified"),
        (
            &["verify", "-D", "x", "y"],
            "too many command-line arguments (first is \"y\")",
        ),
        (
            &["verify", "-D", "x", "--jobs=none"],
            "invalid value \"none\" for option --jobs",
        ),
        (&["verify", "--fast"], "unrecognized option '--fast'"),
        (
            &["verify", "-D", absent.to_str().unwrap()],
            "No such file or directory",
        ),
        (
            &["verify", "-D", empty.path().to_str().unwrap()],
            "has no identity yet",
        ),
    ] {
        let (status, text) = Receiver::bare().args(arguments).run();
        assert_eq!(status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(words), "{text}");
    }
}

/// As barman archives: what is complete goes to a directory named by the first digits, with histories
/// beside these directories.
#[test]
fn the_directories_of_barman_are_checked_one_by_one() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let archive = archive_of(&cluster);
    let wals = ArchiveDirectory::new();
    let part = wals.path().join("0000000100000000");
    fs::create_dir(&part).unwrap();
    fs::write(wals.path().join("xlog.db"), "").unwrap();
    let segments = archive.files().into_iter().filter(|name| name.len() == 24);
    for (number, name) in segments.enumerate() {
        let path = part.join(&name);
        fs::rename(archive.path().join(&name), &path).unwrap();
        if number % 2 == 1 {
            // Compressed under the same name.
            let gzip = std::process::Command::new("gzip").arg(&path).status();
            assert!(gzip.unwrap().success());
            fs::rename(part.join(format!("{name}.gz")), &path).unwrap();
        }
    }
    let (code, text) = verify(wals.path(), &[]);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("contains no WAL segments, only directories of segments such as \"00000001"),
        "{text}"
    );
    let hint = format!(
        "hint: Check each of these directories, for example with -D {}.",
        part.display()
    );
    assert!(text.contains(&hint), "{text}");
    let (code, text) = verify(&part, &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("good: timeline 1 from 0/"), "{text}");
}
