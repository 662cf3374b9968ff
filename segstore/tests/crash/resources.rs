//! File descriptors or memory are lacking, which says nothing about what is durable.

use bytes::Bytes;
use fastrand::Rng;
use segstore::WriteError;
use segstore::sim::{AccessFault, Survival};
use walproto::Lsn;

use crate::world::{SEGMENT_SIZE, START, Stop, World, open, short_wal};

fn is_temporary(stop: &Stop) -> bool {
    match stop {
        Stop::Archive(error) => error.is_temporary(),
        Stop::Write(error) => error.is_temporary(),
    }
}

/// Lives with `fault` at the access of this number, once more without, and after a power cut.
fn live_with_fault(seed: u64, prepare: impl Fn() -> World, access: u64, fault: AccessFault) {
    let why = format!("access {access}: {fault:?}");
    let mut world = prepare();
    world.disk.fail_access_at(access, fault);
    if let Err(stop) = world.live(&mut Rng::with_seed(seed)) {
        assert!(is_temporary(&stop), "{why}: {stop}");
    }
    let archive = open(&world.disk).unwrap();
    assert_eq!(archive.poisoned().unwrap(), [], "{why}");
    drop(archive);
    let lived = world.live(&mut Rng::with_seed(seed));
    lived.unwrap_or_else(|stop| panic!("{why}: {stop}"));
    world.assert_complete();
    world.disk.reboot(Survival::Nothing);
    let lived = world.live(&mut Rng::with_seed(seed));
    lived.unwrap_or_else(|stop| panic!("{why}: {stop}"));
    world.assert_complete();
}

fn with_a_fault_at_every_access(seed: u64, prepare: impl Fn() -> World) {
    let mut world = prepare();
    let before = world.disk.accesses();
    world.live(&mut Rng::with_seed(seed)).unwrap();
    let accesses = before..world.disk.accesses();
    assert!(accesses.end - accesses.start > 30, "{accesses:?}");
    let faults = AccessFault::ALL.iter().cycle();
    for (access, &fault) in accesses.zip(faults) {
        live_with_fault(seed, &prepare, access, fault);
    }
}

#[test]
fn a_lack_of_descriptors_or_memory_loses_nothing_and_poisons_nothing() {
    with_a_fault_at_every_access(51, || World::new(short_wal(51)));
}

#[test]
fn neither_does_it_where_an_archive_is_resumed_whose_tail_gives_way() {
    let prepare = || {
        let mut lost = short_wal(52);
        let mut kept = lost.clone();
        lost.record(40_000);
        kept.overwritten_record(2);
        kept.fill(50_000);
        let mut world = World::new(lost);
        let end = Lsn(world.wal.end().0 - 9);
        world.live_until(&mut Rng::with_seed(52), end).unwrap();
        world.wal = kept;
        world
    };
    with_a_fault_at_every_access(52, prepare);
}

#[test]
fn the_end_of_a_segment_is_synced_without_another_descriptor() {
    let mut world = World::new(short_wal(53));
    let (_archive, mut writer) = world.writer().unwrap();
    let end = Lsn(START.0 + SEGMENT_SIZE);
    let batch = world.batch(START, end, &mut Rng::with_seed(53));
    writer.append(START, &batch).unwrap();
    world.disk.use_up_descriptors(true);
    let durable = writer.sync().unwrap();
    assert_eq!(durable.record_end.lsn(), end);
    world.acknowledge(durable);
}

#[test]
fn what_was_refused_for_want_of_descriptors_is_appended_when_there_are_some() {
    let mut world = World::new(short_wal(54));
    let (archive, mut writer) = world.writer().unwrap();
    let at = writer.position();
    let bytes = Bytes::copy_from_slice(world.bytes(at, world.wal.end()));
    let batch = [bytes];
    world.disk.use_up_descriptors(true);
    for _ in 0..3 {
        let error = writer.append(at, &batch).unwrap_err();
        assert!(matches!(error, WriteError::OutOfResources(_)), "{error}");
        assert_eq!(writer.appended().byte_end, at);
        assert_eq!(writer.sync().unwrap().byte_end, at);
    }
    world.disk.use_up_descriptors(false);
    writer.append(at, &batch).unwrap();
    world.acknowledge(writer.close().unwrap());
    assert_eq!(archive.poisoned().unwrap(), []);
    world.assert_complete();
}
