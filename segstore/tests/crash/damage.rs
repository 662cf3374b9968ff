//! Bytes that are not what they were, in the archive and in the stream.

use std::collections::BTreeMap;

use bytes::Bytes;
use fastrand::Rng;
use segstore::sim::Survival;
use segstore::{ArchiveError, Evidence, WriteError};
use walproto::Lsn;

use crate::world::{SEGMENT_SIZE, START, Stop, World, generator, path, short_wal};

/// The segment files and their content.
fn segments(world: &World) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for number in 0..4 {
        for suffix in ["", ".partial"] {
            let path = path(1, Lsn(START.0 + number * SEGMENT_SIZE)) + suffix;
            if let Some(content) = world.disk.content(&path) {
                files.insert(path, content);
            }
        }
    }
    files
}

/// Flips a bit of the byte at `lsn`, and says in which file.
fn flip(world: &World, lsn: Lsn) -> String {
    let growing = path(1, lsn) + ".partial";
    let path = match world.disk.content(&growing) {
        Some(_) => growing,
        None => path(1, lsn),
    };
    let mut content = world.disk.content(&path).unwrap();
    content[usize::try_from(lsn.0 % SEGMENT_SIZE).unwrap()] ^= 0x10;
    world.disk.plant(&path, &content).unwrap();
    path
}

/// An archive after a clean stop, or after the process was killed.
fn archive(seed: u64, clean: bool) -> World {
    let mut world = World::new(short_wal(seed));
    let mut rng = Rng::with_seed(seed);
    let (archive, mut writer) = world.writer().unwrap();
    let end = world.wal.end();
    world.stream(&mut writer, &mut rng, end).unwrap();
    if clean {
        world.acknowledge(writer.close().unwrap());
    } else {
        world.acknowledge(writer.sync().unwrap());
        drop(writer);
    }
    drop(archive);
    world.disk.reboot(Survival::Everything);
    world
}

#[test]
fn damage_to_what_was_acknowledged_is_loud_and_changes_nothing() {
    for clean in [true, false] {
        let mut rng = Rng::with_seed(21);
        let world = archive(21, clean);
        let intact = segments(&world);
        let last_start = world.wal.records().last().unwrap().start;
        let record_end = world.wal.records().last().unwrap().end;
        let border = START.0 + 2 * SEGMENT_SIZE;
        // In the growing segment, in the last record of all, and in the segment before.
        let mut places: Vec<_> = (0..40).map(|_| rng.u64(border..record_end.0)).collect();
        places.extend((0..20).map(|_| rng.u64(border - SEGMENT_SIZE..border)));
        places.push(last_start.0);
        places.push(last_start.0 + 24);
        for place in places {
            for (path, content) in &intact {
                world.disk.plant(path, content).unwrap();
            }
            let path = flip(&world, Lsn(place));
            let damaged = segments(&world);
            let Err(Stop::Archive(error)) = world.recover().map(drop) else {
                panic!("damage at {} went unnoticed", Lsn(place));
            };
            let ArchiveError::Corrupt {
                path: found,
                offset,
                corruption,
                evidence,
            } = error
            else {
                panic!("{error}");
            };
            assert!(corruption.lsn <= Lsn(place), "{corruption}");
            assert_eq!(offset, corruption.lsn.0 % SEGMENT_SIZE);
            if corruption.lsn.0 / SEGMENT_SIZE == place / SEGMENT_SIZE {
                assert_eq!(found.to_str(), Some(path.as_str()));
            }
            if place < border {
                assert!(matches!(evidence, Evidence::LaterSegment { .. }));
            } else {
                let lsn = record_end;
                assert_eq!(evidence, Evidence::Durable { lsn });
            }
            assert_eq!(segments(&world), damaged);
        }
    }
}

#[test]
fn a_segment_that_went_missing_is_loud() {
    let world = archive(22, true);
    let last = path(1, world.wal.end()) + ".partial";
    let disk = std::sync::Arc::new(world.disk.clone());
    segstore::Disk::remove(&*disk, last.as_ref()).unwrap();
    let Err(Stop::Archive(error)) = world.recover().map(drop) else {
        panic!("unnoticed");
    };
    let expected_end = world.wal.records().last().unwrap().end;
    let ArchiveError::Lost {
        timeline,
        found,
        expected,
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((timeline.number(), expected), (1, expected_end));
    assert!(found <= Lsn(START.0 + 2 * SEGMENT_SIZE), "{found}");
}

#[test]
fn a_segment_that_is_missing_before_the_last_is_not_taken_for_the_end() {
    for clean in [true, false] {
        let mut world = archive(22, clean);
        let (_, recovery) = world.recover().unwrap();
        let tip = recovery.tip().unwrap();
        drop(recovery);
        let hole = Lsn(START.0 + SEGMENT_SIZE);
        let path = path(1, hole);
        segstore::Disk::remove(&world.disk, path.as_ref()).unwrap();

        let archive = crate::world::open(&world.disk).unwrap();
        let missing = archive.missing_segments().unwrap();
        let missing: Vec<_> = missing.iter().map(|m| (m.start, m.end)).collect();
        assert_eq!(missing, [(hole, Lsn(hole.0 + SEGMENT_SIZE))]);
        let recovery = archive.recover().unwrap();
        assert_eq!(recovery.tip(), Some(tip));
        // It goes on where it would have gone on.
        let mut longer = short_wal(22);
        longer.fill(50_000);
        let history = longer.history().clone();
        let preparation = segstore::Preparation::Inline;
        let mut writer = archive
            .writer(recovery, &history, tip.resume_at, preparation)
            .unwrap();
        world.wal = longer;
        let end = world.wal.end();
        world
            .stream(&mut writer, &mut Rng::with_seed(1), end)
            .unwrap();
        let durable = writer.close().unwrap();
        let last = world.wal.records().last().unwrap();
        assert_eq!(durable.record_end.lsn(), last.end);
    }
}

#[test]
fn other_bytes_than_the_archives_stop_the_stream_and_change_nothing() {
    let world = archive(23, true);
    let before = segments(&world);
    let (archive, recovery) = world.recover().unwrap();
    let tip = recovery.tip().unwrap();
    let record_end = tip.record_end.lsn();
    // The padding and header of a page aside, any byte that is not the last one's is compared.
    let different = Lsn(record_end.0 - 1);
    let mut bytes = world.bytes(tip.resume_at, world.wal.end()).to_vec();
    let other = other_record(&world, tip.resume_at);
    bytes.truncate(usize::try_from(other.0.0 - tip.resume_at.0).unwrap());
    bytes.extend_from_slice(&other.1);
    let history = world.wal.history();
    let preparation = segstore::Preparation::Inline;
    let mut writer = archive
        .writer(recovery, history, tip.resume_at, preparation)
        .unwrap();
    let sent = Bytes::from(bytes);
    let error = writer
        .append(tip.resume_at, std::slice::from_ref(&sent))
        .unwrap_err();
    let WriteError::Diverged {
        timeline,
        lsn,
        file,
        offset,
        expected,
        found,
        record_end: archives,
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((timeline.number(), archives), (1, record_end));
    assert!(lsn >= other.0 && lsn <= different, "{lsn}");
    assert_eq!(expected, world.bytes(lsn, world.wal.end())[0]);
    assert_eq!(
        found,
        sent[usize::try_from(lsn.0 - tip.resume_at.0).unwrap()]
    );
    assert_ne!(expected, found);
    assert_eq!(offset, lsn.0 % SEGMENT_SIZE);
    assert_eq!(
        format!("{}/{file}", crate::world::ROOT),
        path(1, lsn) + ".partial"
    );
    assert_eq!(writer.sync().unwrap().byte_end, tip.resume_at);
    let refused = writer.append(tip.resume_at, &[]);
    assert!(matches!(refused, Err(WriteError::Stopped)));
    drop((writer, archive));
    assert_eq!(segments(&world), before);
}

/// As above, but the other WAL is not even valid there: the bytes of another history need not make
/// sense after the archive's.
#[test]
fn bytes_that_are_not_valid_below_the_record_end_are_another_history() {
    let world = archive(23, true);
    let before = segments(&world);
    let (archive, recovery) = world.recover().unwrap();
    let tip = recovery.tip().unwrap();
    let record_end = tip.record_end.lsn();
    let last = world.wal.records().last().unwrap();
    // In the header of the last record, the length and the link to the one before.
    for at in [last.start, Lsn(last.start.0 + 8)] {
        let recovery = archive.recover().unwrap();
        let mut bytes = world.bytes(tip.resume_at, world.wal.end()).to_vec();
        let offset = usize::try_from(at.0 - tip.resume_at.0).unwrap();
        bytes[offset] ^= 1;
        // More than the archive has.
        bytes.extend_from_slice(&[1; 64]);
        let history = world.wal.history();
        let preparation = segstore::Preparation::Inline;
        let mut writer = archive
            .writer(recovery, history, tip.resume_at, preparation)
            .unwrap();
        let error = writer.append(tip.resume_at, &[Bytes::from(bytes)]);
        let Err(WriteError::Diverged {
            lsn,
            record_end: archives,
            ..
        }) = error
        else {
            panic!("{error:?}");
        };
        assert_eq!((lsn, archives), (at, record_end));
        assert_eq!(writer.sync().unwrap().byte_end, tip.resume_at);
    }
    drop((recovery, archive));
    assert_eq!(segments(&world), before);
}

/// Valid WAL that is not the world's from some record's start on: the position and the bytes.
fn other_record(world: &World, resume_at: Lsn) -> (Lsn, Vec<u8>) {
    let last = world.wal.records().last().unwrap();
    assert!(last.start >= resume_at);
    // The same WAL up to the record before, and then another record of the same length.
    let before = world.wal.records().iter().rev().nth(1).unwrap();
    let mut other = world
        .wal
        .promoted(crate::world::timeline(2), before.end)
        .unwrap();
    other.record(last.header.total_length - 24);
    let index = usize::try_from(last.start.0 - START.0).unwrap();
    (last.start, other.bytes()[index..].to_vec())
}

#[test]
fn what_a_crash_left_of_a_record_gives_way_to_the_record_that_replaces_it() {
    for pages in 1..4 {
        let mut lost = generator(24);
        lost.fill(100_000);
        let mut kept = lost.clone();
        let end = lost.end();
        // What the primary sent before it crashed, and what it had after.
        lost.record((pages + 1) * 8192);
        lost.fill(50_000);
        kept.overwritten_record(pages);
        kept.fill(20_000);
        let mut rng = Rng::with_seed(24);
        let mut world = World::new(lost);
        let sent = Lsn(end.0 + u64::from(pages + 1) * 8192);
        world.live_until(&mut rng, sent).unwrap();
        assert_eq!(world.acknowledged, end);
        world.wal = kept;
        world.live(&mut rng).unwrap();
        world.assert_complete();
    }
}

#[test]
fn a_tail_over_several_segments_gives_way_wherever_the_power_is_cut() {
    let prepare = || {
        let mut lost = generator(25);
        lost.fill(SEGMENT_SIZE - 60_000);
        let mut kept = lost.clone();
        lost.record(u32::try_from(2 * SEGMENT_SIZE).unwrap());
        kept.fill(100_000);
        let mut world = World::new(lost);
        world.batch_max = 500_000;
        let end = Lsn(START.0 + 2 * SEGMENT_SIZE + 70_000);
        world.live_until(&mut Rng::with_seed(25), end).unwrap();
        // It was complete, and must not stay so.
        assert!(world.disk.content(path(1, START)).is_some());
        world.wal = kept;
        world
    };
    crate::power::cut_everywhere(25, prepare, |cut| [Survival::Chance(cut)]);
}

#[test]
fn corrupt_wal_is_refused_and_what_came_before_is_kept() {
    let mut rng = Rng::with_seed(26);
    for _ in 0..20 {
        let mut world = World::new(short_wal(26));
        let (archive, mut writer) = world.writer().unwrap();
        let second = START.0 + SEGMENT_SIZE;
        let wrong = Lsn(rng.u64(second..world.wal.end().0));
        let good = world.wal.records().iter().rev().find(|r| r.end <= wrong);
        let good = good.unwrap().end;
        let mut bytes = world.bytes(START, world.wal.end()).to_vec();
        bytes[usize::try_from(wrong.0 - START.0).unwrap()] ^= 1;
        let error = writer.append(START, &[Bytes::from(bytes)]).unwrap_err();
        let WriteError::Corrupt {
            corruption,
            file,
            offset,
            record_end,
        } = error
        else {
            panic!("{error}");
        };
        assert!(corruption.lsn <= wrong);
        assert_eq!(record_end, good, "{corruption}");
        assert_eq!(offset, corruption.lsn.0 % SEGMENT_SIZE);
        assert_eq!(
            format!("{}/{}", crate::world::ROOT, file.name),
            path(1, corruption.lsn)
        );
        let durable = writer.sync().unwrap();
        assert_eq!(durable.record_end.lsn(), good);
        world.acknowledge(durable);
        let more = writer.append(writer.position(), &[]);
        assert!(matches!(more, Err(WriteError::Stopped)));
        drop((writer, archive));
        world.disk.reboot(Survival::Nothing);
        world.live(&mut rng).unwrap();
        world.assert_complete();
    }
}

#[test]
fn a_hole_or_a_step_back_in_the_stream_is_refused() {
    for step in [-8i64, 8] {
        let world = World::new(short_wal(27));
        let (_archive, mut writer) = world.writer().unwrap();
        let bytes = Bytes::copy_from_slice(world.bytes(START, Lsn(START.0 + 8192)));
        writer.append(START, std::slice::from_ref(&bytes)).unwrap();
        let position = writer.position();
        let found = Lsn(position.0.checked_add_signed(step).unwrap());
        let error = writer.append(found, &[bytes]).unwrap_err();
        assert!(
            matches!(error, WriteError::Hole { expected, found: f, .. }
                if expected == position && f == found),
            "{error}"
        );
    }
}
