use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use walproto::Lsn;

use super::*;
use crate::archive::identity::ServerFacts;
use crate::archive::position::PublishedPosition;
use crate::disk::os_disk::OsDisk;
use crate::disk::sim::{Fault, SimDisk, Survival};
use crate::error::Damage;
use crate::wal::page::{LONG_HEADER, PageHeader, SegmentHeader};
use crate::wal::sample::{MIB, facts, segment_size as size};
use crate::wal::segment::Encoding;

mod crash;
mod takeover;

const SEGMENT: usize = 1 << 20;

fn options(compression: Compression) -> ArchiveOptions {
    ArchiveOptions {
        directory: PathBuf::from("/a"),
        sync: true,
        compression,
    }
}

fn try_open(disk: &SimDisk) -> Result<Archive, ArchiveError> {
    Archive::open(Arc::new(disk.clone()), options(Compression::NONE))
}

fn open(disk: &SimDisk) -> Archive {
    try_open(disk).unwrap()
}

/// An archive that belongs to the cluster of [`facts`].
fn bound(disk: &SimDisk) -> Archive {
    let mut archive = open(disk);
    archive.bind(&facts()).unwrap();
    archive
}

fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

fn segment(timeline_number: u32, number: u64) -> SegmentFile {
    let lsn = Lsn(number * MIB);
    SegmentFile::complete(SegmentName::of(timeline(timeline_number), lsn, size()))
}

fn partial(timeline_number: u32, number: u64) -> SegmentFile {
    SegmentFile::partial(segment(timeline_number, number).name)
}

/// A whole segment: the header of its first page, then bytes that tell segments apart.
fn wal(timeline_number: u32, number: u64, facts: &ServerFacts) -> Vec<u8> {
    let page = PageHeader {
        magic: 0xD110,
        flags: LONG_HEADER,
        timeline: timeline_number,
        address: Lsn(number * facts.segment_size.bytes()),
        remaining: 0,
    };
    let segment = SegmentHeader {
        system_id: facts.system_id,
        segment_size: u32::try_from(facts.segment_size.bytes()).unwrap(),
        block_size: facts.block_size,
    };
    let mut bytes = page.encode().to_vec();
    bytes.extend(segment.encode());
    let mut rng = fastrand::Rng::with_seed(number);
    bytes.extend(std::iter::repeat_with(|| rng.u8(1..)).take(10_000));
    bytes.resize(usize::try_from(facts.segment_size.bytes()).unwrap(), 0);
    bytes
}

fn history(number: u32, content: &'static str) -> TimelineHistory {
    TimelineHistory::parse(timeline(number), Bytes::from_static(content.as_bytes())).unwrap()
}

const SECOND: &str = "1\t0/3000060\tno recovery target specified\n";

#[test]
fn an_archive_keeps_what_it_was_bound_to() {
    let disk = SimDisk::new("/a");
    let mut archive = open(&disk);
    assert_eq!(archive.identity(), None);
    assert_eq!(archive.system_id(), None);
    assert_eq!(disk.content("/a/.wal-receiver/identity.json"), None);
    archive.bind(&facts()).unwrap();
    archive.learn_page_magic(0xD110).unwrap();
    archive.store_history(&history(2, SECOND)).unwrap();
    let identity = archive.identity().cloned();
    drop(archive);
    disk.reboot(Survival::Nothing);

    let mut archive = open(&disk);
    assert_eq!(archive.identity().cloned(), identity);
    let identity = identity.unwrap();
    assert_eq!(identity.system_id(), facts().system_id);
    assert_eq!(identity.page_magic(), Some(0xD110));
    assert_eq!(archive.history(timeline(2)), Some(&history(2, SECOND)));

    let before = disk.operations();
    archive.bind(&facts()).unwrap();
    assert_eq!(disk.operations(), before, "nothing new, nothing written");
    let newer = ServerFacts {
        server_version_num: 150_019,
        ..facts()
    };
    archive.bind(&newer).unwrap();
    drop(archive);
    assert_eq!(
        open(&disk).identity().unwrap().server_version_num(),
        150_019
    );
}

#[test]
fn another_cluster_is_refused_before_a_byte_is_written() {
    let disk = SimDisk::new("/a");
    let mut archive = bound(&disk);
    let before = disk.operations();
    let other = ServerFacts {
        system_id: SystemId(8),
        ..facts()
    };
    assert_eq!(
        archive.bind(&other).unwrap_err().to_string(),
        "archive \"/a\" holds WAL of the cluster with system identifier 7000000000000000001, but \
         the server's is 8; use an empty directory for another cluster"
    );
    let other = ServerFacts {
        segment_size: SegmentSize::DEFAULT,
        ..facts()
    };
    assert!(matches!(
        archive.bind(&other).unwrap_err(),
        ArchiveError::OtherSegmentSize { expected, found, .. }
            if expected == size() && found == SegmentSize::DEFAULT
    ));
    let other = ServerFacts {
        block_size: 16384,
        ..facts()
    };
    assert!(matches!(
        archive.bind(&other).unwrap_err(),
        ArchiveError::OtherBlockSize {
            expected: 8192,
            found: 16384,
            ..
        }
    ));
    assert_eq!(disk.operations(), before);
}

#[test]
fn a_directory_that_does_not_exist_is_not_made() {
    let disk = SimDisk::new("/b");
    let error = try_open(&disk).unwrap_err();
    assert_eq!(error.to_string(), "could not list \"/a\"");
    assert_eq!(disk.operations(), 0);
}

#[test]
fn the_second_writer_is_told_who_is_the_first() {
    let disk = SimDisk::new("/a");
    let archive = open(&disk);
    let error = try_open(&disk).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "archive \"/a\" is locked by process {}, which streams into it; stop that one, or use \
             another directory",
            std::process::id()
        )
    );
    drop(archive);
    drop(open(&disk));
}

#[test]
fn the_lock_of_another_process_is_seen_and_ends_with_it() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let options = ArchiveOptions {
            directory: directory.path().to_owned(),
            ..options(Compression::NONE)
        };
        Archive::open(Arc::new(OsDisk::new()), options)
    };
    drop(open().unwrap());
    let lock = directory.path().join(".wal-receiver/stream.lock");
    let script = "exec 9<>\"$0\"; flock 9; echo $$ >&9; echo ready; read line";
    let mut child = Command::new("bash")
        .args(["-c", script])
        .arg(&lock)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    match open().unwrap_err() {
        ArchiveError::Locked { pid, .. } => assert_eq!(pid, Some(child.id())),
        error => panic!("{error}"),
    }
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"\n").unwrap();
    assert!(child.wait().unwrap().success());
    drop(open().unwrap());
}

#[test]
fn a_history_with_other_content_is_refused() {
    let disk = SimDisk::new("/a");
    let mut archive = bound(&disk);
    archive.store_history(&history(2, SECOND)).unwrap();
    archive.store_history(&history(2, SECOND)).unwrap();
    let other = history(2, "1\t0/3000060\tno recovery target specified");
    let error = archive.store_history(&other).unwrap_err();
    assert!(matches!(error, ArchiveError::OtherHistory { timeline: t, .. } if t == timeline(2)));
    assert_eq!(
        disk.content("/a/00000002.history").unwrap(),
        SECOND.as_bytes()
    );

    // The first timeline has no file.
    let first = TimelineHistory::without_ancestors(TimelineId::FIRST);
    archive.store_history(&first).unwrap();
    assert_eq!(disk.content("/a/00000001.history"), None);
    assert_eq!(archive.histories().count(), 1);
}

#[test]
fn a_history_that_was_moved_away_is_taken_again_if_it_is_the_same() {
    let disk = SimDisk::new("/a");
    let mut archive = bound(&disk);
    archive.store_history(&history(2, SECOND)).unwrap();
    drop(archive);
    disk.remove(Path::new("/a/00000002.history")).unwrap();
    let mut archive = open(&disk);
    assert_eq!(archive.history(timeline(2)), None);
    let other = history(2, "1\t0/4000060\tno recovery target specified\n");
    archive.store_history(&other).unwrap_err();
    archive.store_history(&history(2, SECOND)).unwrap();
    assert_eq!(
        disk.content("/a/00000002.history").unwrap(),
        SECOND.as_bytes()
    );
}

#[test]
fn only_a_history_that_is_gone_is_put_back_and_only_the_same_one() {
    let disk = SimDisk::new("/a");
    let mut archive = bound(&disk);
    assert!(!archive.restore_history(&history(2, SECOND)).unwrap());
    assert_eq!(archive.history(timeline(2)), None);
    archive.store_history(&history(2, SECOND)).unwrap();
    assert!(!archive.restore_history(&history(2, SECOND)).unwrap());
    drop(archive);
    disk.remove(Path::new("/a/00000002.history")).unwrap();

    let mut archive = open(&disk);
    let other = history(2, "1\t0/4000060\tno recovery target specified\n");
    let error = archive.restore_history(&other).unwrap_err();
    assert!(
        matches!(error, ArchiveError::OtherHistory { .. }),
        "{error}"
    );
    assert_eq!(disk.content("/a/00000002.history"), None);
    assert_eq!(archive.lost_histories(), [timeline(2)]);
    assert!(archive.restore_history(&history(2, SECOND)).unwrap());
    assert_eq!(archive.lost_histories(), []);
    assert_eq!(archive.history(timeline(2)), Some(&history(2, SECOND)));
    drop(archive);
    disk.reboot(Survival::Nothing);
    assert_eq!(open(&disk).history(timeline(2)), Some(&history(2, SECOND)));
}

#[test]
fn a_damaged_history_is_noticed_on_opening() {
    let disk = SimDisk::new("/a");
    let mut archive = bound(&disk);
    archive.store_history(&history(2, SECOND)).unwrap();
    drop(archive);
    let damaged = SECOND.replace("3000060", "3000061");
    disk.plant("/a/00000002.history", damaged.as_bytes())
        .unwrap();
    let error = try_open(&disk).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("\"/a/00000002.history\" is damaged: checksum is ")
    );
    disk.plant("/a/00000002.history", b"").unwrap();
    assert_eq!(
        try_open(&disk).unwrap_err().to_string(),
        "\"/a/00000002.history\" is damaged: it has 0 bytes, expected 41; put back a good \
         copy, or move it away if there is none"
    );
}

#[test]
fn what_needs_a_cluster_is_refused_without_one() {
    let disk = SimDisk::new("/a");
    let mut archive = open(&disk);
    for error in [
        archive.store_history(&history(2, SECOND)).unwrap_err(),
        archive.learn_page_magic(0xD110).unwrap_err(),
    ] {
        assert!(matches!(error, ArchiveError::NoIdentity { .. }), "{error}");
    }
    assert_eq!(disk.content("/a/00000002.history"), None);
}

#[test]
fn files_go_into_quarantine_without_overwriting_one_another() {
    let disk = SimDisk::new("/a");
    let archive = bound(&disk);
    let path = format!("/a/{}", segment(1, 5));
    for content in [b"one", b"two", b"six"] {
        disk.plant(&path, content).unwrap();
        let to = archive.quarantine(segment(1, 5)).unwrap();
        assert_eq!(disk.content(&path), None);
        assert_eq!(disk.content(to).unwrap(), content);
    }
    drop(archive);
    disk.reboot(Survival::Nothing);
    let kept = [1, 2, 3].map(|number| {
        disk.content(format!(
            "/a/.wal-receiver/quarantine/{}.{number}",
            segment(1, 5)
        ))
        .unwrap()
    });
    assert_eq!(kept, [b"one", b"two", b"six"]);
}

#[test]
fn a_poison_marker_survives_until_it_is_cleared() {
    let disk = SimDisk::new("/a");
    let archive = bound(&disk);
    archive.poison(partial(1, 5)).unwrap();
    archive.poison(partial(1, 5)).unwrap();
    drop(archive);
    disk.reboot(Survival::Nothing);
    let archive = open(&disk);
    assert_eq!(archive.poisoned().unwrap(), [partial(1, 5)]);
    archive.clear_poison(partial(1, 5)).unwrap();
    drop(archive);
    disk.reboot(Survival::Nothing);
    assert_eq!(open(&disk).poisoned().unwrap(), []);
}

#[test]
fn a_poison_marker_needs_no_room() {
    let disk = SimDisk::new("/a");
    let archive = bound(&disk);
    disk.set_full(true);
    archive.poison(partial(1, 5)).unwrap();
    archive.poison(partial(1, 5)).unwrap();
    // There is one to spare; the next start makes another.
    archive.poison(partial(1, 6)).unwrap_err();
    drop(archive);
    disk.reboot(Survival::Nothing);
    let archive = open(&disk);
    assert_eq!(archive.poisoned().unwrap(), [partial(1, 5)]);
    disk.set_full(true);
    archive.poison(partial(1, 6)).unwrap();
    assert_eq!(archive.poisoned().unwrap(), [partial(1, 5), partial(1, 6)]);
}

#[test]
fn the_newest_timeline_is_the_greatest_with_a_segment() {
    let disk = SimDisk::new("/a");
    let mut archive = bound(&disk);
    assert_eq!(archive.newest_timeline().unwrap(), None);
    archive.store_history(&history(3, SECOND)).unwrap();
    disk.plant(format!("/a/{}", segment(1, 9)), &[]).unwrap();
    disk.plant(format!("/a/{}", partial(2, 4)), &[]).unwrap();
    assert_eq!(archive.newest_timeline().unwrap(), Some(timeline(2)));
    let listing = archive.listing().unwrap();
    let files: Vec<_> = listing.of_timeline(timeline(1)).collect();
    assert_eq!(files, [(segment(1, 9), 0)]);
}

#[test]
fn segments_that_are_missing_between_others_are_named() {
    let disk = SimDisk::new("/a");
    let mut archive = bound(&disk);
    assert_eq!(archive.missing_segments().unwrap(), []);
    let plant = |file: SegmentFile| disk.plant(format!("/a/{file}"), b"").unwrap();
    // Timeline 1 ends inside segment 3; its beginning was removed in good order.
    for file in [segment(1, 1), partial(1, 3), segment(2, 4), segment(2, 8)] {
        plant(file);
    }
    plant(partial(2, 10));
    let missing = |archive: &Archive| -> Vec<_> {
        let missing = archive.missing_segments().unwrap();
        let told = missing.iter();
        told.map(|m| (m.first, m.last, m.start.0 / MIB, m.end.0 / MIB))
            .collect()
    };
    let (own, after) = (
        (segment(2, 5).name, segment(2, 7).name, 5, 8),
        (segment(2, 9).name, segment(2, 9).name, 9, 10),
    );
    // What leads to timeline 2 is not known yet.
    assert_eq!(missing(&archive), [own, after]);
    let left_in_3 = history(2, "1\t0/300060\tno recovery target specified\n");
    archive.store_history(&left_in_3).unwrap();
    let before = (segment(1, 2).name, segment(2, 3).name, 2, 4);
    assert_eq!(missing(&archive), [before, own, after]);
    // Another encoding is the same segment.
    plant(segment(1, 2).encoded(Encoding::Gzip));
    plant(segment(2, 3).encoded(Encoding::Zstd));
    plant(segment(2, 9));
    assert_eq!(missing(&archive), [own]);
    for number in 5..8 {
        plant(segment(2, number));
    }
    assert_eq!(missing(&archive), []);
}

#[test]
fn modes_follow_the_server_from_the_first_binding_on() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let options = ArchiveOptions {
        directory: directory.path().to_owned(),
        ..options(Compression::NONE)
    };
    let mut archive = Archive::open(Arc::new(OsDisk::new()), options.clone()).unwrap();
    let mode_of = |name: &str| {
        let metadata = std::fs::metadata(directory.path().join(name)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode_of(".wal-receiver"), 0o700);
    assert_eq!(mode_of(".wal-receiver/stream.lock"), 0o600);
    let group = ServerFacts {
        data_directory_mode: 0o750,
        ..facts()
    };
    archive.bind(&group).unwrap();
    assert_eq!(mode_of(".wal-receiver"), 0o750);
    assert_eq!(mode_of(".wal-receiver/quarantine"), 0o750);
    assert_eq!(mode_of(".wal-receiver/stream.lock"), 0o640);
    assert_eq!(mode_of(".wal-receiver/identity.json"), 0o640);
    drop(archive);
    let mut archive = Archive::open(Arc::new(OsDisk::new()), options).unwrap();
    archive.store_history(&history(2, SECOND)).unwrap();
    assert_eq!(mode_of("00000002.history"), 0o640);
}

#[test]
fn without_sync_nothing_is_synced() {
    let disk = SimDisk::new("/a");
    let options = ArchiveOptions {
        sync: false,
        ..options(Compression::NONE)
    };
    let mut archive = Archive::open(Arc::new(disk.clone()), options).unwrap();
    archive.bind(&facts()).unwrap();
    archive.store_history(&history(2, SECOND)).unwrap();
    assert!(!archive.is_synced());
    assert!(disk.log().iter().all(|line| !line.contains("sync")));
    assert!(disk.content("/a/00000002.history").is_some());
}

#[test]
fn the_published_position_is_read_without_the_lock() {
    let disk = SimDisk::new("/a");
    let archive = bound(&disk);
    let read = || published_position(Arc::new(disk.clone()), Path::new("/a")).unwrap();
    assert_eq!(read(), None);
    let position = ArchivePosition {
        timeline: timeline(1),
        record_end: Lsn(100),
        byte_end: Lsn(120),
    };
    let mut published = PublishedPosition::open(&archive.directory).unwrap();
    published.publish(position).unwrap();
    assert_eq!(read(), Some(position));
}

#[test]
fn a_segment_is_read_whatever_its_compression() {
    let content = wal(1, 3, &facts());
    for method in [
        Compression::NONE,
        Compression::gzip(None).unwrap(),
        Compression::LZ4,
        Compression::zstd(None).unwrap(),
    ] {
        let disk = SimDisk::new("/a");
        drop(bound(&disk));
        disk.plant(format!("/a/{}", segment(1, 3)), &content)
            .unwrap();
        let archive = Archive::open(Arc::new(disk.clone()), options(method)).unwrap();
        archive.compress(segment(1, 3).name);
        assert!(archive.close(Duration::MAX).is_none());
        let archive = open(&disk);
        let file = segment(1, 3).encoded(method.encoding());
        assert_eq!(
            archive
                .listing()
                .unwrap()
                .of_segment(file.name)
                .collect::<Vec<_>>(),
            [file]
        );
        let mut read = Vec::new();
        archive
            .read_segment(file)
            .unwrap()
            .read_to_end(&mut read)
            .unwrap();
        assert!(read == content);
        archive.verify_segment(file).unwrap();
    }
}
