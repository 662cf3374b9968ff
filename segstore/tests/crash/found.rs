//! Directories that another program left.

use fastrand::Rng;
use segstore::sim::Survival;
use segstore::{ArchiveError, Evidence};
use walproto::Lsn;

use crate::world::{SEGMENT_SIZE, START, Stop, World, path, short_wal, timeline};

/// A directory as `pg_receivewal` leaves it that was stopped at `end`.
fn left_by_pg_receivewal(seed: u64, end: Lsn) -> World {
    let world = World::new(short_wal(seed));
    let mut start = START;
    while start < end {
        let filled_end = end.min(Lsn(start.0 + SEGMENT_SIZE));
        let mut content = world.bytes(start, filled_end).to_vec();
        let suffix = if content.len() as u64 == SEGMENT_SIZE {
            ""
        } else {
            ".partial"
        };
        content.resize(usize::try_from(SEGMENT_SIZE).unwrap(), 0);
        world.disk.plant(path(1, start) + suffix, &content).unwrap();
        start = Lsn(start.0 + SEGMENT_SIZE);
    }
    world
}

fn assert_taken_over(mut world: World, tip: Lsn) {
    let (archive, recovery) = world.recover().unwrap();
    assert_eq!(recovery.tip().unwrap().record_end.lsn(), tip);
    drop(archive);
    world.live(&mut Rng::with_seed(5)).unwrap();
    world.assert_complete();
    world.disk.reboot(Survival::Nothing);
    world.live(&mut Rng::with_seed(6)).unwrap();
}

#[test]
fn a_directory_of_pg_receivewal_is_taken_over_as_it_stands() {
    for part in [30, 70, 95] {
        let wal = short_wal(41);
        let record = wal.records()[wal.records().len() * part / 100];
        // In the middle of a record.
        let world = left_by_pg_receivewal(41, Lsn(record.end.0 - 9));
        assert_taken_over(world, record.start.min(record.end));
    }
}

#[test]
fn complete_segments_alone_are_gone_on_from() {
    let border = Lsn(START.0 + SEGMENT_SIZE);
    // The first ends with a switch.
    assert_taken_over(left_by_pg_receivewal(42, border), border);
}

#[test]
fn a_growing_segment_without_content_is_no_end() {
    let border = Lsn(START.0 + SEGMENT_SIZE);
    for content in [vec![], vec![0; 100], vec![0; 1 << 20]] {
        let world = left_by_pg_receivewal(43, border);
        world
            .disk
            .plant(path(1, border) + ".partial", &content)
            .unwrap();
        assert_taken_over(world, border);
        // Also if it is a newer timeline's.
        let mut world = left_by_pg_receivewal(43, border);
        world.wal = world.wal.promoted(timeline(2), border).unwrap();
        world.wal.fill(10_000);
        world
            .disk
            .plant(path(2, border) + ".partial", &content)
            .unwrap();
        assert_taken_over(world, border);
        // And if it is all there is.
        let world = World::new(short_wal(43));
        world
            .disk
            .plant(path(1, START) + ".partial", &content)
            .unwrap();
        assert_taken_over(world, START);
    }
}

#[test]
fn a_growing_segment_that_is_too_short_is_completed() {
    let wal = short_wal(44);
    let record = wal.records()[10];
    let mut world = World::new(wal);
    let bytes = world.bytes(START, record.end).to_vec();
    world
        .disk
        .plant(path(1, START) + ".partial", &bytes)
        .unwrap();
    let (archive, recovery) = world.recover().unwrap();
    assert_eq!(recovery.tip().unwrap().record_end.lsn(), record.end);
    drop(archive);
    world.live(&mut Rng::with_seed(44)).unwrap();
    world.assert_complete();
}

#[test]
fn wal_that_goes_on_behind_a_bad_record_is_not_the_end() {
    let wal = short_wal(45);
    let record = wal.records()[20];
    let world = left_by_pg_receivewal(45, wal.end());
    let border = Lsn(START.0 + 2 * SEGMENT_SIZE);
    let inside = |lsn: Lsn| usize::try_from(lsn.0 % SEGMENT_SIZE).unwrap();
    let later = wal.records().iter().find(|r| r.start.0 > border.0 + 31_000);
    for (place, suffix) in [(record, ""), (*later.unwrap(), ".partial")] {
        let file = path(1, place.start) + suffix;
        let world = left_by_pg_receivewal(
            45,
            if suffix.is_empty() {
                Lsn(START.0 + SEGMENT_SIZE)
            } else {
                wal.end()
            },
        );
        let mut content = world.disk.content(&file).unwrap();
        content[inside(Lsn(place.start.0 + 20))] ^= 1;
        world.disk.plant(&file, &content).unwrap();
        let Err(Stop::Archive(error)) = world.recover().map(drop) else {
            panic!("{} unnoticed", place.start);
        };
        let ArchiveError::Corrupt {
            evidence,
            corruption,
            ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!(corruption.lsn, place.start);
        match evidence {
            Evidence::Complete => assert!(suffix.is_empty()),
            Evidence::LaterPage { lsn } => assert!(!suffix.is_empty() && lsn > place.start),
            other => panic!("{other}"),
        }
    }
    drop(world);
}
