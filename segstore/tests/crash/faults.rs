//! The disk fails, or is full.

use bytes::Bytes;
use fastrand::Rng;
use segstore::WriteError;
use segstore::sim::{Fault, Survival};
use walproto::Lsn;

use crate::world::{ROOT, SEGMENT_SIZE, START, Stop, World, open, short_wal, timeline};

/// The size of a WAL page in bytes.
const BLOCK_SIZE: u64 = 8192;

/// A whole life, and the operations of it that `wanted` picks, by the log's words.
fn operations(seed: u64, wanted: impl Fn(&str) -> bool) -> Vec<u64> {
    let mut world = World::new(short_wal(seed));
    world.live(&mut Rng::with_seed(seed)).unwrap();
    let log = world.disk.log();
    let numbered = (0..).zip(&log);
    let operation = |line: &str| line.split_once(": ").unwrap().1.to_owned();
    let picked = numbered.filter(|(_, line)| wanted(&operation(line)));
    picked.map(|(number, _)| number).collect()
}

#[test]
fn after_a_failed_sync_nothing_that_was_acknowledged_is_lost() {
    let seed = 11;
    let syncs = operations(seed, |line| line.starts_with("sync"));
    assert!(syncs.len() > 20, "{}", syncs.len());
    let mut latched = 0;
    for &sync in &syncs {
        let mut world = World::new(short_wal(seed));
        world.disk.fail_at(sync, Fault::Io);
        let stop = world.live(&mut Rng::with_seed(seed));
        // A prepared segment that could not be made is made when it is needed.
        let Err(stop) = stop else { continue };
        if let Stop::Write(WriteError::SyncFailed { marker, .. }) = &stop {
            latched += 1;
            assert!(marker.is_none(), "{stop}");
            let archive = open(&world.disk).unwrap();
            assert_eq!(archive.poisoned().unwrap().len(), 1);
        }
        // The next process, under the page cache that shows what the disk never got.
        let mut rng = Rng::with_seed(seed ^ sync);
        let end = world.wal.end();
        let middle = world.wal.records()[world.wal.records().len() * 3 / 4].end;
        let goal = if rng.bool() { middle } else { end };
        world.live_until(&mut rng, goal).unwrap();
        let archive = open(&world.disk).unwrap();
        assert_eq!(archive.poisoned().unwrap(), []);
        drop(archive);
        world.disk.reboot(Survival::Nothing);
        world
            .live(&mut rng)
            .unwrap_or_else(|stop| panic!("sync {sync}: {stop}"));
        world.assert_complete();
    }
    assert!(latched > 10, "{latched}");
}

#[test]
fn a_failed_sync_where_a_segment_ends_loses_no_segment() {
    let seed = 15;
    // A switch of segments ends the first one, with nothing after it.
    let end = Lsn(START.0 + SEGMENT_SIZE);
    let whole_segment = |world: &mut World| -> Result<(), Stop> {
        let (_archive, mut writer) = world.writer()?;
        let at = writer.position();
        let batch = world.batch(at, end, &mut Rng::with_seed(seed));
        writer.append(at, &batch)?;
        world.acknowledge(writer.sync()?);
        Ok(())
    };
    let mut world = World::new(short_wal(seed));
    whole_segment(&mut world).unwrap();
    for sync in 0..world.disk.operations() {
        let mut world = World::new(short_wal(seed));
        world.disk.fail_at(sync, Fault::Io);
        drop(whole_segment(&mut world));
        // The next process, under the page cache that shows what the disk never got.
        whole_segment(&mut world).unwrap();
        world.disk.reboot(Survival::Nothing);
        let lived = world.live(&mut Rng::with_seed(seed));
        lived.unwrap_or_else(|stop| panic!("operation {sync}: {stop}"));
        world.assert_complete();
    }
}

#[test]
fn a_sync_that_fails_while_an_archive_is_opened_is_not_forgotten() {
    let seed = 16;
    // What a process left that was killed before it synced anything.
    let killed = || {
        let world = World::new(short_wal(seed));
        let (_archive, mut writer) = world.writer().unwrap();
        let end = world.wal.records()[50].end;
        let batch = world.batch(START, end, &mut Rng::with_seed(seed));
        writer.append(START, &batch).unwrap();
        world
    };
    let world = killed();
    let before = world.disk.operations();
    drop(world.writer().unwrap());
    for operation in before..world.disk.operations() {
        let mut world = killed();
        world.disk.fail_at(operation, Fault::Io);
        drop(world.writer());
        // The next process, under the page cache that shows what the disk never got.
        let (archive, writer) = world.writer().unwrap();
        world.acknowledge(writer.close().unwrap());
        drop(archive);
        world.disk.reboot(Survival::Nothing);
        let lived = world.live(&mut Rng::with_seed(seed));
        lived.unwrap_or_else(|stop| panic!("operation {operation}: {stop}"));
        world.assert_complete();
    }
}

#[test]
fn a_sync_that_fails_in_an_archive_that_was_never_synced_is_not_forgotten() {
    let seed = 17;
    // Segments of two timelines, and a history, of which nobody has synced even the names.
    let written = || {
        let mut world = World::new(short_wal(seed));
        world.sync = false;
        let switch_point = world.wal.records()[world.wal.records().len() / 2].end;
        world
            .live_until(&mut Rng::with_seed(seed), switch_point)
            .unwrap();
        world.wal = world.wal.promoted(timeline(2), switch_point).unwrap();
        world.wal.fill(3 * SEGMENT_SIZE);
        world.live(&mut Rng::with_seed(seed)).unwrap();
        world.sync = true;
        world
    };
    let history = format!("{ROOT}/00000002.history");
    let world = written();
    let before = world.disk.operations();
    let content = world.disk.content(&history);
    assert!(content.is_some());
    drop(world.writer().unwrap());
    let syncs = (0..)
        .zip(world.disk.log())
        .skip(usize::try_from(before).unwrap());
    let syncs: Vec<u64> = syncs
        .filter(|(_, line)| line.contains(": sync"))
        .map(|(number, _)| number)
        .collect();
    assert!(syncs.len() > 12, "{}", syncs.len());
    for sync in syncs {
        let mut world = written();
        world.disk.fail_at(sync, Fault::Io);
        drop(world.writer());
        // The next process, under the page cache that shows what the disk never got.
        let (archive, writer) = world.writer().unwrap();
        world.acknowledge(writer.close().unwrap());
        drop(archive);
        world.disk.reboot(Survival::Nothing);
        assert_eq!(world.disk.content(&history), content, "operation {sync}");
        let lived = world.live(&mut Rng::with_seed(seed));
        lived.unwrap_or_else(|stop| panic!("operation {sync}: {stop}"));
        world.assert_complete();
    }
}

#[test]
fn a_writer_whose_sync_failed_does_nothing_more() {
    let mut world = World::new(short_wal(12));
    let mut rng = Rng::with_seed(12);
    let (_archive, mut writer) = world.writer().unwrap();
    let middle = world.wal.records()[50].end;
    world.stream(&mut writer, &mut rng, middle).unwrap();
    world.acknowledge(writer.sync().unwrap());
    let before = writer.durable();
    let next = world.wal.records()[60].end;
    let rest = Bytes::copy_from_slice(world.bytes(middle, next));
    writer.append(middle, std::slice::from_ref(&rest)).unwrap();
    world.disk.fail_at(world.disk.operations(), Fault::Io);
    let error = writer.sync().unwrap_err();
    assert!(matches!(error, WriteError::SyncFailed { .. }), "{error}");
    assert!(matches!(writer.sync(), Err(WriteError::Latched)));
    let again = writer.append(next, &[rest]);
    assert!(matches!(again, Err(WriteError::Latched)));
    assert_eq!(writer.durable(), before);
}

/// What the page cache shows of a file after a failed sync is compared with the server's WAL once
/// more: the copy may be valid, but only the note says what was durable.
#[test]
fn after_a_failed_sync_all_after_the_noted_position_is_compared_again() {
    let seed = 19;
    let mut world = World::new(short_wal(seed));
    let record_end_after = |offset| {
        let mut records = world.wal.records().iter();
        records
            .find(|record| record.end.0 >= START.0 + offset)
            .unwrap()
            .end
    };
    let (noted, written) = (record_end_after(20_000), record_end_after(50_000));
    let (archive, mut writer) = world.writer().unwrap();
    let mut rng = Rng::with_seed(seed);
    world.stream(&mut writer, &mut rng, noted).unwrap();
    world.acknowledge(writer.sync().unwrap());
    writer
        .append(noted, &world.batch(noted, written, &mut rng))
        .unwrap();
    world.disk.fail_at(world.disk.operations(), Fault::Io);
    writer.sync().unwrap_err();
    drop((writer, archive));
    let resume_at = || {
        let (_archive, recovery) = world.recover().unwrap();
        let tip = recovery.tip().unwrap();
        assert_eq!(tip.record_end.lsn(), written);
        tip.resume_at
    };
    assert_eq!(resume_at(), noted.align_down(BLOCK_SIZE));
    // A copy that was synced is a file like any other.
    assert!(resume_at() > noted);
}

#[test]
fn a_final_name_that_the_disk_refuses_is_given_later_and_not_told_before() {
    let seed = 18;
    let is_final = |line: &str| line.starts_with("rename") && line.contains(".partial to");
    let renames = operations(seed, is_final);
    assert_eq!(renames.len(), 2);
    for &rename in &renames {
        for fault in [Fault::NoSpace, Fault::Io] {
            let mut world = World::new(short_wal(seed));
            world.disk.fail_at(rename, fault);
            // What is acknowledged meanwhile is looked at.
            let lived = world.live(&mut Rng::with_seed(seed));
            assert_eq!(lived.is_ok(), fault == Fault::NoSpace);
            world.live(&mut Rng::with_seed(seed)).unwrap();
            world.assert_complete();
        }
    }
}

#[test]
fn a_full_disk_stops_nothing_for_good() {
    let seed = 13;
    let writes = operations(seed, |line| {
        let ours = line.contains(".partial") || line.contains("prepared/");
        ours && !line.starts_with("sync")
    });
    assert!(writes.len() > 20, "{}", writes.len());
    for &write in &writes {
        let mut world = World::new(short_wal(seed));
        world.disk.fail_at(write, Fault::NoSpace);
        let mut rng = Rng::with_seed(seed);
        if let Err(stop) = world.live(&mut rng) {
            panic!("write {write}: {stop}\n{:#?}", world.disk.log());
        }
        world.assert_complete();
    }
}

#[test]
fn what_a_full_disk_refused_is_appended_when_there_is_room() {
    let mut world = World::new(short_wal(14));
    let mut rng = Rng::with_seed(14);
    let (_archive, mut writer) = world.writer().unwrap();
    let at = writer.position();
    let batch = world.batch(at, world.wal.end(), &mut rng);
    world.disk.set_full(true);
    for _ in 0..3 {
        let error = writer.append(at, &batch).unwrap_err();
        assert!(matches!(error, WriteError::DiskFull(_)), "{error}");
        assert_eq!(writer.appended().byte_end, at);
        let durable = writer.sync().unwrap();
        assert_eq!(durable.byte_end, at);
    }
    world.disk.set_full(false);
    writer.append(at, &batch).unwrap();
    world.acknowledge(writer.close().unwrap());
    world.assert_complete();
}
