//! The power goes.

use std::time::Duration;

use fastrand::Rng;
use segstore::generator::{AfterSwitch, Generator};
use segstore::sim::{Fault, Survival};
use segstore::{Archive, Compression, Writer};
use walproto::Lsn;

use crate::world::{ROOT, SEGMENT_SIZE, START, World, generator, path, short_wal};

/// Cuts the power at every operation of a life that `prepare` leads up to, then somewhere in the
/// next one, and has a third one finish. `survivals` says for each operation what is left.
pub(crate) fn cut_everywhere<const N: usize>(
    seed: u64,
    prepare: impl Fn() -> World,
    survivals: impl Fn(u64) -> [Survival; N],
) {
    let count = {
        let mut world = prepare();
        let before = world.disk.operations();
        world.live(&mut Rng::with_seed(seed)).unwrap();
        world.assert_complete();
        world.disk.operations() - before
    };
    assert!(count > 30, "{count}");
    for cut in 0..count {
        for survival in survivals(cut) {
            let mut world = prepare();
            let why = format!("seed {seed}, cut {cut}, {survival:?}");
            world.disk.cut_power_at(world.disk.operations() + cut);
            // The last two operations note the clean end and release the lock. No code depends on
            // the release.
            let end = world.live(&mut Rng::with_seed(seed));
            assert!(end.is_err() || cut + 2 >= count, "{why}");
            world.disk.reboot(survival);
            let mut rng = Rng::with_seed(seed ^ cut);
            world.disk.cut_power_at(rng.u64(0..count));
            if let Err(stop) = world.live(&mut rng) {
                assert!(world.disk.is_power_cut(), "{why}: {stop}");
            }
            world.disk.reboot(survival);
            if let Err(stop) = world.live(&mut rng) {
                panic!("{why}: {stop}\n{:#?}", world.disk.log());
            }
            world.assert_complete();
        }
    }
}

/// Each is a test of its own, so that they run side by side.
#[test]
fn nothing_acknowledged_is_lost_if_a_power_cut_takes_all_that_is_not_synced() {
    cut_everywhere(1, || World::new(short_wal(1)), |_| [Survival::Nothing]);
}

#[test]
fn nothing_acknowledged_is_lost_if_a_power_cut_takes_nothing() {
    cut_everywhere(1, || World::new(short_wal(1)), |_| [Survival::Everything]);
}

#[test]
fn nothing_acknowledged_is_lost_if_a_power_cut_takes_some_of_what_is_not_synced() {
    let chance = |cut| [Survival::Chance(cut)];
    cut_everywhere(1, || World::new(short_wal(1)), chance);
}

/// A life that ends cleanly leaves the growing segment compressed. The power goes at each operation
/// of that end, and of the beginning of the next life.
#[test]
fn a_growing_segment_left_compressed_is_never_lost() {
    let middle = Lsn(START.0 + 40_000);
    let wal = || {
        let mut wal = generator(9);
        wal.fill(70_000);
        wal
    };
    let compressed = |method: Compression| {
        let suffix = method.encoding().suffix();
        path(1, START) + suffix + ".partial"
    };
    // It ends in the middle of a record, so that what is left is provisional too.
    let first_life = |method: Compression, cut: Option<u64>| {
        let mut world = World::new(wal());
        let (archive, mut writer) = world.writer().unwrap();
        let mut rng = Rng::with_seed(3);
        world.stream(&mut writer, &mut rng, middle).unwrap();
        world.acknowledge(writer.close().unwrap());
        let before = world.disk.operations();
        if let Some(cut) = cut {
            world.disk.cut_power_at(before + cut);
        }
        let left = archive.compress_growing(method, Duration::MAX);
        assert_eq!(left.is_err(), cut.is_some());
        let count = world.disk.operations() - before;
        (world, count)
    };
    let live_again = |mut world: World, why: &str| {
        if let Err(stop) = world.live(&mut Rng::with_seed(5)) {
            panic!("{why}: {stop}");
        }
        world.assert_complete();
        world
    };
    let gzip = Compression::gzip(Some(1)).unwrap();
    let ending = first_life(gzip, None).1;
    assert!(ending >= 6, "{ending}");
    for cut in 0..ending {
        for survival in [Survival::Nothing, Survival::Chance(cut)] {
            let (world, _) = first_life(gzip, Some(cut));
            world.disk.reboot(survival);
            let world = live_again(world, &format!("end, cut {cut}, {survival:?}"));
            assert_eq!(world.disk.content(compressed(gzip)), None);
        }
    }
    for method in [gzip, Compression::LZ4, Compression::zstd(Some(1)).unwrap()] {
        let (world, _) = first_life(method, None);
        let content = world.disk.content(compressed(method));
        assert!(content.is_some_and(|content| content.len() < 60_000));
        assert_eq!(world.disk.content(path(1, START) + ".partial"), None);
        let before = world.disk.operations();
        drop(world.writer().unwrap());
        let beginning = world.disk.operations() - before;
        for cut in 0..beginning {
            let (mut world, _) = first_life(method, None);
            world.disk.cut_power_at(world.disk.operations() + cut);
            let ended = world.live(&mut Rng::with_seed(4));
            assert!(ended.is_err() || cut + 1 == beginning);
            world.disk.reboot(Survival::Chance(cut));
            let world = live_again(world, &format!("{method:?}, cut {cut}"));
            // The plain file has all of it, so none of it is kept aside.
            assert_eq!(world.disk.content(quarantined(&compressed(method))), None);
            assert_eq!(world.disk.content(compressed(method)), None);
        }
    }
}

fn quarantined(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap();
    format!("{ROOT}/.wal-receiver/quarantine/{name}.1")
}

#[test]
fn a_batch_over_many_segments_leaves_no_hole_wherever_the_power_is_cut() {
    let prepare = || {
        let world = World::new(short_wal(5));
        let (archive, writer) = world.writer().unwrap();
        (world, archive, writer)
    };
    let append_all = |world: &World, writer: &mut Writer| {
        let batch = world.batch(START, world.wal.end(), &mut Rng::with_seed(5));
        writer.append(START, &batch).map(drop)
    };
    let (world, _archive, mut writer) = prepare();
    let before = world.disk.operations();
    append_all(&world, &mut writer).unwrap();
    for cut in before..world.disk.operations() + 1 {
        for seed in 0..6 {
            let (mut world, archive, mut writer) = prepare();
            world.disk.cut_power_at(cut);
            drop(append_all(&world, &mut writer));
            world.disk.cut_power();
            drop((archive, writer));
            world.disk.reboot(Survival::Chance(seed));
            // What it goes on from is contiguous from the beginning, or files are missing here.
            if let Err(stop) = world.live(&mut Rng::with_seed(seed)) {
                panic!("cut {cut}, seed {seed}: {stop}");
            }
            world.assert_complete();
        }
    }
}

/// WAL with everything that makes it hard to find its end.
fn any_wal(rng: &mut Rng) -> Generator {
    let mut wal = generator(rng.u64(..));
    if rng.bool() {
        wal.rest_of_record(rng.u32(1..30_000));
    }
    for _ in 0..rng.usize(1..6) {
        match rng.u8(..6) {
            0 => wal.switch(AfterSwitch::Zeros),
            1 => wal.switch(AfterSwitch::PageHeaders),
            2 => drop(wal.overwritten_record(rng.u32(1..4))),
            3 => drop(wal.record(rng.u32(0..200_000))),
            _ => wal.fill(rng.u64(1..150_000)),
        }
    }
    wal.any_record();
    wal
}

/// Lives with trouble of all kinds in any order, and a last one without.
fn survive(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut world = World::new(any_wal(&mut rng));
    for _ in 0..rng.usize(1..8) {
        let operation = world.disk.operations() + rng.u64(0..120);
        match rng.u8(..4) {
            0 => world.disk.fail_at(operation, Fault::Io),
            1 => world.disk.fail_at(operation, Fault::NoSpace),
            _ => world.disk.cut_power_at(operation),
        }
        // An error other than those would be a panic in the last life.
        let end = world.live(&mut rng);
        if world.disk.is_power_cut() || end.is_ok() && rng.bool() {
            world.disk.reboot(Survival::Chance(rng.u64(..)));
        }
    }
    world.disk.reboot(Survival::Chance(rng.u64(..)));
    if let Err(stop) = world.live(&mut rng) {
        panic!("seed {seed}: {stop}");
    }
    world.assert_complete();
}

/// With `CRASH_SEED` in the environment that seed alone; with `CRASH_SEEDS` as many of them.
#[test]
fn any_wal_survives_any_trouble_in_any_order() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().unwrap());
    if let Some(seed) = number("CRASH_SEED") {
        return survive(seed);
    }
    for seed in 0..number("CRASH_SEEDS").unwrap_or(100) {
        if std::panic::catch_unwind(|| survive(seed)).is_err() {
            panic!("failed with CRASH_SEED={seed}");
        }
    }
}

#[test]
fn a_record_longer_than_segments_is_looked_for_as_far_back_as_it_takes() {
    let mut wal = generator(3);
    wal.fill(20_000);
    let short = wal.end();
    wal.record(u32::try_from(3 * SEGMENT_SIZE).unwrap());
    let long = wal.end();
    wal.fill(20_000);
    let mut world = World::new(wal);
    let mut rng = Rng::with_seed(3);
    // Most of the long record is there, but not its end: three segments are provisional.
    world
        .live_until(&mut rng, Lsn(START.0 + 3 * SEGMENT_SIZE + 5_000))
        .unwrap();
    let (archive, recovery) = world.recover().unwrap();
    let tip = recovery.tip().unwrap();
    assert_eq!(tip.record_end.lsn(), short);
    assert!(tip.resume_at < short && tip.byte_end > Lsn(START.0 + 3 * SEGMENT_SIZE));
    drop(archive);
    world.live_until(&mut rng, long).unwrap();
    let (archive, recovery) = world.recover().unwrap();
    assert_eq!(recovery.tip().unwrap().record_end.lsn(), long);
    assert!(recovery.tip().unwrap().resume_at <= short);
    drop(archive);
    world.live(&mut rng).unwrap();
    world.assert_complete();
}

#[test]
fn after_many_syncs_of_a_segment_the_next_one_is_ready() {
    let mut wal = generator(4);
    for _ in 0..300 {
        wal.record(100);
    }
    wal.switch(AfterSwitch::Zeros);
    wal.fill(20_000);
    let mut world = World::new(wal);
    let (_archive, mut writer) = world.writer().unwrap();
    let mut rng = Rng::with_seed(4);
    let ends: Vec<Lsn> = world.wal.records()[..300].iter().map(|r| r.end).collect();
    for end in ends {
        let at = writer.position();
        let batch = world.batch(at, end, &mut rng);
        writer.append(at, &batch).unwrap();
        writer.sync().unwrap();
    }
    let end = world.wal.end();
    world.stream(&mut writer, &mut rng, end).unwrap();
    world.acknowledge(writer.close().unwrap());
    world.assert_complete();
    let log = world.disk.log();
    assert!(!log.iter().any(|line| line.contains("allocate")));
    let second = path(1, Lsn(START.0 + SEGMENT_SIZE)) + ".partial";
    let place = |words: &str| log.iter().position(|line| line.contains(words));
    let synced = log
        .iter()
        .position(|line| line.ends_with("prepared/1") && line.contains("sync"));
    assert!(synced.is_some() && synced < place(&format!("to {second}")));
}

/// A writer that has synced its first segment once, too seldom for the next one to be made ready,
/// and WAL with so many small records in that one.
fn at_a_reserved_segment(records: usize, rng: &mut Rng) -> (World, Archive, Writer) {
    let mut wal = generator(5);
    wal.fill(SEGMENT_SIZE - 20_000);
    wal.switch(AfterSwitch::Zeros);
    let second = wal.end();
    for _ in 0..records {
        wal.record(100);
    }
    let world = World::new(wal);
    let (archive, mut writer) = world.writer().unwrap();
    let batch = world.batch(START, second, rng);
    writer.append(START, &batch).unwrap();
    writer.sync().unwrap();
    (world, archive, writer)
}

#[test]
fn a_little_wal_in_a_file_that_was_only_reserved_brings_zeros_for_many_blocks() {
    let mut rng = Rng::with_seed(5);
    let (world, _archive, mut writer) = at_a_reserved_segment(40, &mut rng);
    let second = writer.position();
    for end in world.wal.records().iter().map(|record| record.end) {
        let at = writer.position();
        if end > at {
            writer.append(at, &world.batch(at, end, &mut rng)).unwrap();
            writer.sync().unwrap();
        }
    }
    let path = path(1, second) + ".partial";
    let log = world.disk.log();
    assert!(log.iter().any(|line| line.contains("allocate")));
    let write = format!("write {path}: ");
    let writes: Vec<_> = log
        .iter()
        .filter_map(|line| line.split_once(&write))
        .map(|(_, change)| change)
        .collect();
    let [first, zeros, others @ ..] = writes.as_slice() else {
        panic!("{writes:?}");
    };
    // The long page header and the first record, and the rest of 256 KiB.
    assert_eq!(*first, "168 bytes at 0");
    assert_eq!(*zeros, "261976 bytes at 168");
    assert!(
        others.len() > 30
            && others
                .iter()
                .all(|write| write.starts_with("128 bytes at "))
    );
    let content = world.disk.content(&path).unwrap();
    let valid = world.bytes(second, world.wal.end());
    assert!(content.starts_with(valid));
    assert!(content[valid.len()..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_disk_without_room_for_more_than_the_wal_takes_the_wal() {
    let mut rng = Rng::with_seed(6);
    let (mut world, _archive, mut writer) = at_a_reserved_segment(2, &mut rng);
    let second = writer.position();
    let [.., first, last] = world.wal.records() else {
        panic!("two records at least");
    };
    let (first, last) = (first.end, last.end);
    // The file is created, given its space and its name, and the WAL written.
    let zeros = world.disk.operations() + 4;
    world.disk.fail_at(zeros, Fault::NoSpace);
    writer
        .append(second, &world.batch(second, first, &mut rng))
        .unwrap();
    writer.sync().unwrap();
    let log = world.disk.log();
    assert!(log[usize::try_from(zeros).unwrap()].ends_with("261976 bytes at 168"));
    writer
        .append(first, &world.batch(first, last, &mut rng))
        .unwrap();
    // They are tried again with what comes next.
    let log = world.disk.log();
    assert!(log.iter().any(|line| line.ends_with("261848 bytes at 296")));
    world.acknowledge(writer.close().unwrap());
    world.assert_complete();
}
