//! A flipped bit in a file is never given.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

use super::*;
use crate::archive::segment_reader::SegmentReader;
use crate::serve::ledger::{FileId, Ledger};
use crate::wal::segment::Encoding;
use crate::wal::validator::Validator;

/// Where the record begins that crosses into the third segment, and how long it is.
const CROSSING: u64 = 2 * MIB - 30_000;

/// Gives all that `feed` gives before it fails, and why it does.
fn until_damage(mut feed: Feed) -> (Vec<u8>, FeedError) {
    let mut taken = BytesMut::new();
    for _ in 0..1000 {
        match feed.next_step() {
            Ok(FeedStep::Chunk(chunk)) => chunk.append_to(&mut taken).unwrap(),
            Ok(step) => panic!("{step:?} at {}", feed.position()),
            Err(error) => return (taken.to_vec(), error),
        }
    }
    panic!("no end at {}", feed.position());
}

fn flipped(content: &[u8], at: Lsn) -> Vec<u8> {
    let mut content = content.to_vec();
    let offset = usize::try_from(segment_size().offset_of(at)).unwrap();
    content[offset] ^= 0x10;
    content
}

/// That what is given from `start` on is what was written, and ends before the damage at `bad` with
/// an error that names a place no later.
#[track_caller]
fn assert_ends_before(view: &ArchiveView, wal: &Generator, start: Lsn, bad: Lsn) {
    let (taken, error) = until_damage(view.feed(None, start).unwrap());
    let end = Lsn(start.0 + taken.len() as u64);
    assert!(end <= bad, "{end} was given, {bad} is damaged");
    assert!(taken == bytes(wal, start, end));
    let FeedError::Archive(ArchiveError::Corrupt {
        path,
        offset,
        corruption,
        ..
    }) = &error
    else {
        panic!("{error}");
    };
    assert!(corruption.lsn <= bad, "{corruption}");
    assert!(
        end >= corruption.lsn.min(bad) || end == start,
        "{end}: {error}"
    );
    assert_eq!(*offset, segment_size().offset_of(corruption.lsn));
    let name = name(1, corruption.lsn).to_string();
    assert!(path.to_str().unwrap().contains(&name), "{error}");
    assert_eq!(
        error.damaged_at(),
        Some((corruption.timeline, corruption.lsn))
    );
}

#[test]
fn a_flipped_bit_in_a_plain_segment_is_not_given_and_a_repaired_file_is() {
    let wal = wal(31);
    for at in [
        41,
        1000,
        300_000,
        399_000,
        CROSSING + 5000,
        2 * MIB + 200,
        2 * MIB + 200_000,
    ] {
        let world = World::with(&wal);
        let bad = Lsn(START.0 + at);
        let growing = segment_size().start_of(wal.end()) <= bad;
        let name = name(1, bad);
        let file = if growing {
            SegmentFile::partial(name)
        } else {
            SegmentFile::complete(name)
        };
        let content = world.disk.content(path(file)).unwrap();
        let views = world.views();
        world
            .disk
            .plant(path(file), &flipped(&content, bad))
            .unwrap();
        for view in &views {
            assert_ends_before(view, &wal, START, bad);
            let own_start = segment_size().start_of(bad);
            assert_ends_before(view, &wal, own_start, bad);
        }
        world.disk.plant(path(file), &content).unwrap();
        for view in &views {
            let mut feed = view.feed(None, START).unwrap();
            assert_goes_on(&mut feed, &wal, wal.end(), Pause::CaughtUp);
        }
    }
}

/// A length that is damaged upwards makes the last record look unfinished.
#[test]
fn a_flipped_bit_in_the_header_of_the_last_record_is_not_given() {
    for (seed, to_the_end_of_a_segment) in [(33, false), (34, true)] {
        let mut wal = wal(seed);
        if to_the_end_of_a_segment {
            let end = wal.end().0.next_multiple_of(MIB);
            wal.fill(end - 7000 - wal.end().0);
            while end - wal.end().0 > 5000 {
                wal.record(500);
            }
            wal.switch(AfterSwitch::Zeros);
        }
        let record = wal.records().last().unwrap();
        let world = World::with(&wal);
        let file = [SegmentFile::partial, SegmentFile::complete]
            .map(|file| file(name(1, record.start)))
            .into_iter()
            .find(|file| world.disk.content(path(*file)).is_some())
            .unwrap();
        let content = world.disk.content(path(file)).unwrap();
        for offset in (0..24).filter(|offset| !(18..20).contains(offset)) {
            let bad = Lsn(record.start.0 + offset);
            world
                .disk
                .plant(path(file), &flipped(&content, bad))
                .unwrap();
            for view in world.views() {
                assert_ends_before(&view, &wal, START, bad);
            }
        }
    }
}

#[test]
fn the_rest_of_a_record_is_checked_though_it_began_in_the_segment_before() {
    let wal = wal(32);
    let third = Lsn(START.0 + 2 * MIB);
    let world = World::with(&wal);
    let before = path(SegmentFile::complete(name(1, Lsn(third.0 - 1))));
    let content = world.disk.content(&before).unwrap();
    // A record of the segment before, and the beginning of the one that crosses.
    for at in [600_000, MIB - 5000] {
        let bad = Lsn(START.0 + MIB + at);
        world.disk.plant(&before, &flipped(&content, bad)).unwrap();
        for view in world.views() {
            let mut feed = view.feed(None, third).unwrap();
            let crosses = bad.0 > START.0 + CROSSING;
            if crosses {
                assert_ends_before(&view, &wal, third, bad.max(third));
            } else {
                assert_goes_on(&mut feed, &wal, wal.end(), Pause::CaughtUp);
            }
        }
    }
}

#[test]
fn a_flipped_bit_in_what_a_compressed_segment_holds_is_not_given() {
    let wal = wal(33);
    let world = World::with(&wal);
    let bad = Lsn(START.0 + 250_000);
    let plain = path(SegmentFile::complete(name(1, START)));
    let content = world.disk.content(&plain).unwrap();
    for method in [
        Compression::gzip(None).unwrap(),
        Compression::LZ4,
        Compression::zstd(None).unwrap(),
    ] {
        world.disk.plant(&plain, &flipped(&content, bad)).unwrap();
        world.compress(name(1, START), method);
        for view in world.views() {
            assert_ends_before(&view, &wal, START, bad);
        }
        let file = SegmentFile::complete(name(1, START)).encoded(method.encoding());
        world.disk.remove(Path::new(&path(file))).unwrap();
    }
}

#[test]
fn a_record_that_crosses_out_of_a_compressed_segment_is_given() {
    let wal = wal(36);
    for method in [Compression::gzip(None).unwrap(), Compression::LZ4] {
        let world = World::with(&wal);
        world.compress(name(1, Lsn(START.0 + MIB)), method);
        for view in world.views() {
            let mut feed = view.feed(None, START).unwrap();
            assert_goes_on(&mut feed, &wal, wal.end(), Pause::CaughtUp);
        }
    }
}

#[test]
fn a_record_over_several_segments_is_checked_from_any_of_them() {
    let mut wal = generator(34);
    wal.fill(900_000);
    wal.record(3_500_000);
    wal.fill(100_000);
    let world = World::with(&wal);
    for view in world.views() {
        for segment in 0..4 {
            let start = Lsn(START.0 + segment * MIB);
            let mut feed = view.feed(None, start).unwrap();
            assert_goes_on(&mut feed, &wal, wal.end(), Pause::CaughtUp);
        }
    }
    let bad = Lsn(START.0 + 2 * MIB + 500_000);
    let file = path(SegmentFile::complete(name(1, bad)));
    let content = world.disk.content(&file).unwrap();
    world.disk.plant(&file, &flipped(&content, bad)).unwrap();
    for view in world.views() {
        for segment in 0..4 {
            let start = Lsn(START.0 + segment * MIB);
            let (taken, error) = until_damage(view.feed(None, start).unwrap());
            assert!(taken.len() as u64 <= 900_000 + 8192, "{}", taken.len());
            assert!(error.damaged_at().is_some_and(|(_, lsn)| lsn < bad));
        }
    }
}

/// Flips a bit of a file, which keeps its time.
fn flip_unnoticed(path: &Path, offset: u64, time: SystemTime) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    file.set_modified(time).unwrap();
}

#[test]
fn a_file_is_checked_once_for_all_feeds_and_again_when_it_has_changed() {
    let wal = wal(35);
    let directory = tempfile::tempdir().unwrap();
    let mut world = World {
        disk: SimDisk::new(ROOT),
        archive: sample::archive(OsDisk::new(), directory.path(), true),
    };
    let mut writer = world.writer(&wal);
    write(&mut writer, &wal, wal.end());
    writer.close().unwrap();
    let view = world.archive.view().unwrap();
    let mut feed = view.feed(None, START).unwrap();
    assert_goes_on(&mut feed, &wal, wal.end(), Pause::CaughtUp);
    let first = directory.path().join(name(1, START).to_string());
    let time = File::open(&first)
        .unwrap()
        .metadata()
        .unwrap()
        .modified()
        .unwrap();
    flip_unnoticed(&first, 250_000, time);
    let mut feed = view.feed(None, START).unwrap();
    let (taken, _) = take_all(&mut feed).unwrap();
    assert!(
        taken != bytes(&wal, START, wal.end()),
        "it was checked again"
    );
    // The same with another time is another file.
    flip_unnoticed(&first, 251_000, time + std::time::Duration::from_secs(1));
    assert_ends_before(&view, &wal, START, Lsn(START.0 + 250_000));
}

#[test]
fn keeps_open_the_files_of_the_newest_growing_segments_only() {
    let directory = tempfile::tempdir().unwrap();
    let archive = sample::archive(OsDisk::new(), directory.path(), true);
    let files = archive.segment_files().unwrap();
    let ledger = Ledger::default();
    let mut opened = Vec::new();
    for segment in 0..50 {
        let start = Lsn(START.0 + segment * MIB);
        let file = SegmentFile::partial(name(1, start));
        std::fs::write(files.directory().path(file), [0]).unwrap();
        let reader = SegmentReader::open(files.directory(), file).unwrap();
        let id = FileId::of(&reader).unwrap();
        opened.push((file.name, id, Arc::downgrade(reader.opened())));
        let format = archive.view().unwrap().identity().wal_format();
        let path = TimelineHistory::without_ancestors(timeline(1));
        let validator = Validator::new(format, Arc::new(path), start).unwrap();
        ledger.insert(&reader, id, validator, start);
    }
    for (index, (name, id, growing)) in opened.iter().enumerate() {
        assert_eq!(growing.strong_count() > 0, index >= 48, "{name}");
        assert_eq!(ledger.get(*name, *id).is_some(), index >= 48, "{name}");
    }
}

#[test]
fn serves_a_segment_though_the_one_before_cannot_be_read() {
    let wal = wal(37);
    let third = Lsn(START.0 + 2 * MIB);
    let before = name(1, Lsn(third.0 - 1));
    let gzip = Compression::gzip(None).unwrap();
    let world = World::with(&wal);
    world.compress(before, gzip);
    let file = path(SegmentFile::complete(before).encoded(Encoding::Gzip));
    let content = world.disk.content(&file).unwrap();
    let mut flipped = content.clone();
    flipped[content.len() / 2] ^= 0x10;
    for damaged in [
        &content[..0],
        &content[..10],
        &content[..content.len() / 2],
        &content[..content.len() - 8],
        &flipped[..],
    ] {
        world.disk.plant(&file, damaged).unwrap();
        for view in world.views() {
            let mut feed = view.feed(None, third).unwrap();
            assert_goes_on(&mut feed, &wal, wal.end(), Pause::CaughtUp);
        }
    }
    world.disk.plant(&file, &content).unwrap();
    for view in world.views() {
        let mut feed = view.feed(None, third).unwrap();
        world.disk.use_up_descriptors(true);
        assert!(feed.next_step().is_err(), "a lack of descriptors passes");
        world.disk.use_up_descriptors(false);
        assert_goes_on(&mut feed, &wal, wal.end(), Pause::CaughtUp);
    }
}

#[test]
fn ignores_a_truncated_growing_file_beside_the_complete_segment() {
    let wal = wal(38);
    let third = Lsn(START.0 + 2 * MIB);
    let before = name(1, Lsn(third.0 - 1));
    let world = World::with(&wal);
    let complete = path(SegmentFile::complete(before));
    let content = world.disk.content(&complete).unwrap();
    // The beginning of the record that crosses is checked in the complete file.
    let bad = Lsn(START.0 + CROSSING + 5000);
    let stray = SegmentFile::partial(before).encoded(Encoding::Gzip);
    world.disk.plant(path(stray), &[0x1f, 0x8b, 8, 0]).unwrap();
    for view in world.views() {
        let mut feed = view.feed(None, third).unwrap();
        assert_goes_on(&mut feed, &wal, wal.end(), Pause::CaughtUp);
    }
    world
        .disk
        .plant(&complete, &flipped(&content, bad))
        .unwrap();
    for view in world.views() {
        assert_ends_before(&view, &wal, third, third);
    }
}
