//! A writer did not end cleanly, and nothing says why.

use fastrand::Rng;
use segstore::sim::Survival;
use walproto::Lsn;

use crate::world::{ROOT, SEGMENT_SIZE, START, World, open, path, short_wal};

fn clean_end(world: &World) -> bool {
    let note = format!("{ROOT}/.wal-receiver/clean-end");
    world.disk.content(note).is_some()
}

#[test]
fn after_a_failed_sync_on_a_disk_that_takes_no_marker_nothing_acknowledged_is_lost() {
    let seed = 61;
    let mut world = World::new(short_wal(seed));
    world.live(&mut Rng::with_seed(seed)).unwrap();
    let mut without_marker = 0;
    for operation in 0..world.disk.operations() {
        let mut world = World::new(short_wal(seed));
        world.disk.break_at(operation);
        let lived = world.live(&mut Rng::with_seed(seed));
        let failed = world
            .disk
            .log()
            .into_iter()
            .nth(usize::try_from(operation).unwrap());
        let failed = failed.unwrap();
        world.disk.mend();
        if lived.is_err() && failed.contains("sync") {
            without_marker += 1;
            assert_eq!(open(&world.disk).unwrap().poisoned().unwrap(), []);
            assert!(!clean_end(&world));
        }
        // The next process, under the page cache that shows what the disk never got.
        let mut rng = Rng::with_seed(seed ^ operation);
        let end = world.wal.end();
        let middle = world.wal.records()[world.wal.records().len() * 3 / 4].end;
        let goal = if rng.bool() { middle } else { end };
        let lived = world.live_until(&mut rng, goal);
        lived.unwrap_or_else(|stop| panic!("{failed}: {stop}"));
        world.disk.reboot(Survival::Nothing);
        let lived = world.live(&mut rng);
        lived.unwrap_or_else(|stop| panic!("{failed}: {stop}"));
        world.assert_complete();
    }
    assert!(without_marker > 15, "{without_marker}");
}

#[test]
fn a_failed_sync_of_a_whole_segment_without_a_marker_is_not_forgotten() {
    let seed = 62;
    let end = Lsn(START.0 + SEGMENT_SIZE);
    let whole_segment = |world: &mut World| {
        let (_archive, mut writer) = world.writer()?;
        let at = writer.position();
        let batch = world.batch(at, end, &mut Rng::with_seed(seed));
        writer.append(at, &batch)?;
        world.acknowledge(writer.sync()?);
        Ok::<_, crate::world::Stop>(())
    };
    let mut world = World::new(short_wal(seed));
    whole_segment(&mut world).unwrap();
    for operation in 0..world.disk.operations() {
        let mut world = World::new(short_wal(seed));
        world.disk.break_at(operation);
        drop(whole_segment(&mut world));
        world.disk.mend();
        whole_segment(&mut world).unwrap();
        world.disk.reboot(Survival::Nothing);
        let lived = world.live(&mut Rng::with_seed(seed));
        lived.unwrap_or_else(|stop| panic!("operation {operation}: {stop}"));
        world.assert_complete();
    }
}

#[test]
fn only_after_an_unclean_end_is_the_growing_segment_copied() {
    let seed = 63;
    let growing = |world: &World| path(1, world.wal.end()) + ".partial";
    let copies = |world: &World| {
        let copied = format!("to {}", growing(world));
        let log = world.disk.log();
        log.iter()
            .filter(|line| line.contains("/tmp/") && line.ends_with(&copied))
            .count()
    };
    for clean in [true, false] {
        let mut world = World::new(short_wal(seed));
        let (archive, mut writer) = world.writer().unwrap();
        assert!(!clean_end(&world), "while WAL is written");
        let end = world.wal.end();
        world
            .stream(&mut writer, &mut Rng::with_seed(seed), end)
            .unwrap();
        if clean {
            world.acknowledge(writer.close().unwrap());
        } else {
            world.acknowledge(writer.sync().unwrap());
            drop(writer);
        }
        drop(archive);
        assert_eq!(clean_end(&world), clean);
        let before = copies(&world);
        let (archive, _) = world.recover().unwrap();
        assert_eq!(copies(&world) - before, usize::from(!clean));
        // What recovery has synced need not be copied again.
        assert!(clean_end(&world));
        archive.recover().unwrap();
        assert_eq!(copies(&world) - before, usize::from(!clean));
    }
}

#[test]
fn the_copy_of_a_growing_segment_takes_no_room_for_its_zeros() {
    let seed = 64;
    let world = World::new(short_wal(seed));
    let (archive, mut writer) = world.writer().unwrap();
    let end = world.wal.records()[5].end;
    let batch = world.batch(START, end, &mut Rng::with_seed(seed));
    writer.append(START, &batch).unwrap();
    writer.sync().unwrap();
    drop((writer, archive));
    let before = world.disk.bytes_written();
    let (_archive, recovery) = world.recover().unwrap();
    assert_eq!(recovery.tip().unwrap().record_end.lsn(), end);
    let written = world.disk.bytes_written() - before;
    // One block of what is read at once, and our own small files.
    assert!(written < (256 << 10) + 20_000, "{written}");
}
