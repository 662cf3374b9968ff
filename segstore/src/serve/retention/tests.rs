use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use walproto::TimelineId;

use super::*;
use crate::archive::Archive;
use crate::archive::compression::Compression;
use crate::archive::compressor::compress;
use crate::archive::listing::Listing;
use crate::archive::prepare::Preparation;
use crate::archive::writer::Writer;
use crate::disk::Disk;
use crate::disk::sim::{Fault, SimDisk, Survival};
use crate::disk::tampered::{Tamper, Tampered};
use crate::serve::feed::FeedError;
use crate::serve::slots::{NewSlot, SlotError, SlotLimits, WalStatus};
use crate::serve::view::ArchiveView;
use crate::wal::generator::Generator;
use crate::wal::sample::{MIB, START, archive, bytes, generator, segment_size};
use crate::wal::segment::SegmentName;

const FIRST: u64 = 7;
const UNLIMITED: SlotLimits = SlotLimits {
    max_slots: 10,
    max_keep_bytes: None,
};

fn slot(name: &str) -> Option<Holder> {
    Some(Holder::Slot(name.parse().unwrap()))
}

fn open(disk: &SimDisk) -> Archive {
    archive(disk.clone(), Path::new("/a"), true)
}

fn write(archive: &mut Archive, wal: &Generator, end: Lsn) -> Writer {
    archive.store_history(wal.history()).unwrap();
    let recovery = archive.recover().unwrap();
    let begin = wal.history().begin();
    let start = begin.map_or(START, |begin| segment_size().start_of(begin));
    let writer = archive.writer(recovery, wal.history(), start, Preparation::Inline);
    let mut writer = writer.unwrap();
    writer.append(start, &[bytes(wal, start, end)]).unwrap();
    writer.sync().unwrap();
    writer
}

/// Segments 7 to 9 of timeline 1, which was left in 10; 10 to 12 of timeline 2, and a bit of 13.
fn world() -> SimDisk {
    let disk = SimDisk::new("/a");
    let mut archive = open(&disk);
    let mut first = generator(1);
    first.fill(3 * MIB + 20_000);
    let left = first.records().last().unwrap().end;
    drop(write(&mut archive, &first, left));
    let mut second = first.promoted(TimelineId::new(2).unwrap(), left).unwrap();
    second.fill(3 * MIB);
    drop(write(&mut archive, &second, second.end()));
    disk
}

fn view(disk: &SimDisk) -> ArchiveView {
    ArchiveView::open(Arc::new(disk.clone()), Path::new("/a")).unwrap()
}

fn slots(disk: &SimDisk, limits: SlotLimits) -> SlotStore {
    SlotStore::open(view(disk), limits).unwrap()
}

/// The numbers of the complete segments, and whether all else is as it was.
fn complete(disk: &SimDisk) -> Vec<u64> {
    let listing = view(disk).listing().unwrap();
    assert!(listing.length_of(growing(1, 10)).is_some());
    assert!(listing.length_of(growing(2, 13)).is_some());
    assert_eq!(listing.histories().len(), 1);
    numbers(&listing)
}

fn numbers(listing: &Listing) -> Vec<u64> {
    let files = listing.segments().filter(|(file, _)| !file.partial);
    files
        .map(|(file, _)| file.name.number(segment_size()).unwrap().0)
        .collect()
}

fn growing(timeline: u32, number: u64) -> SegmentFile {
    let lsn = Lsn(number * MIB);
    let timeline = TimelineId::new(timeline).unwrap();
    SegmentFile::partial(SegmentName::of(timeline, lsn, segment_size()))
}

/// Gives the slot `name` a position, which is saved by the next removal.
fn stand(slots: &SlotStore, name: &str, number: u64) {
    let session = slots.session(1);
    let name = name.parse().unwrap();
    session.create(&name, NewSlot::default()).unwrap();
    let held = session.acquire(&name).unwrap();
    let lsn = Lsn(number * MIB + 100);
    held.advance(TimelineId::FIRST, lsn).unwrap();
}

#[test]
fn a_segment_that_is_compressed_meanwhile_goes_too() {
    let disk = world();
    let view = view(&disk);
    let removable = view.removable(Lsn(9 * MIB), None).unwrap();
    let (file, _) = removable.files().next().unwrap();
    let gzip = Compression::gzip(None).unwrap();
    compress(view.files().directory(), gzip, file.name, &|| true).unwrap();
    assert_eq!(numbers(&view.listing().unwrap())[0], FIRST);
    let pruned = removable.remove(|_| {}).unwrap();
    assert_eq!(pruned.files, 2);
    assert_eq!(complete(&disk), [9, 10, 11, 12]);
}

#[test]
fn what_is_saved_of_a_slot_is_kept_until_its_later_position_is_saved() {
    let disk = world();
    let slots = slots(&disk, UNLIMITED);
    let session = slots.session(1);
    let name = "a".parse().unwrap();
    session.create(&name, NewSlot::default()).unwrap();
    let held = session.acquire(&name).unwrap();
    let stand = |number| held.advance(TimelineId::FIRST, Lsn(number * MIB + 100));
    let needed = || {
        let required = slots.decide_removal(SegmentNumber(12));
        required.map(|(segment, _)| segment.0)
    };
    stand(8).unwrap();
    slots.save().unwrap();
    stand(11).unwrap();
    // A crash now takes it back to 8.
    assert_eq!(needed(), Some(8));
    slots.save().unwrap();
    assert_eq!(needed(), Some(11));
}

#[test]
fn what_lies_before_what_is_asked_for_goes() {
    let disk = world();
    let slots = slots(&disk, UNLIMITED);
    let all = [7, 8, 9, 10, 11, 12];
    assert_eq!(complete(&disk), all);
    for (keep_from, left) in [
        (0, 0),
        (START.0 + 5, 0),
        (9 * MIB - 1, 1),
        (9 * MIB, 2),
        (8 * MIB, 2),
        // Of the end nothing goes.
        (u64::MAX, 5),
    ] {
        let before = complete(&disk).len();
        let pruned = prune(&slots, Lsn(keep_from)).unwrap();
        assert_eq!(complete(&disk), all[left..], "{keep_from}");
        let removed = before - complete(&disk).len();
        assert_eq!(pruned.files, removed as u64);
        assert_eq!(pruned.bytes, removed as u64 * MIB);
        let more = keep_from > 12 * MIB;
        assert_eq!(pruned.kept_by, more.then_some(Holder::Recovery));
    }
    let pruned = prune(&slots, Lsn(u64::MAX)).unwrap();
    assert_eq!(pruned.kept_from, Lsn(12 * MIB));
    // What is left is enough to go on from.
    let archive = open(&disk);
    let tip = archive.recover().unwrap().tip().unwrap();
    assert_eq!(
        tip.record_end.lsn(),
        view(&disk).durable().unwrap().record_end
    );
    // The growing one that the old timeline left is no reason to take the others for missing.
    for number in [FIRST, 11] {
        let start = Lsn(number * MIB);
        let error = view(&disk).feed(None, start).unwrap().next_step();
        let error = error.unwrap_err();
        assert!(matches!(error, FeedError::Removed { .. }), "{error}");
    }
}

#[test]
fn what_a_slot_needs_stays() {
    let disk = world();
    let slots = slots(&disk, UNLIMITED);
    stand(&slots, "a", 11);
    stand(&slots, "b", 9);
    let session = slots.session(2);
    // These keep nothing, or what they keep does not matter.
    session
        .create(&"c".parse().unwrap(), NewSlot::default())
        .unwrap();
    let new = NewSlot {
        temporary: true,
        reserve_wal: true,
    };
    session.create(&"d".parse().unwrap(), new).unwrap();
    let pruned = prune(&slots, Lsn(12 * MIB)).unwrap();
    assert_eq!(complete(&disk), [9, 10, 11, 12]);
    assert_eq!(pruned.kept_by, slot("b"));
    assert_eq!(pruned.kept_from, Lsn(9 * MIB));
    session.drop_slot(&"b".parse().unwrap()).unwrap();
    let pruned = prune(&slots, Lsn(12 * MIB)).unwrap();
    assert_eq!(complete(&disk), [11, 12]);
    assert_eq!(pruned.kept_by, slot("a"));
    let status = slots
        .get(&"a".parse().unwrap())
        .unwrap()
        .unwrap()
        .wal_status;
    assert_eq!(status, Some(WalStatus::Reserved));
    // It does not keep more than is asked for.
    let pruned = prune(&slots, Lsn(9 * MIB)).unwrap();
    assert_eq!((pruned.files, pruned.kept_by), (0, None));
}

#[test]
fn a_slot_that_needs_more_than_it_may_keep_is_lost() {
    let disk = world();
    let limits = SlotLimits {
        max_keep_bytes: Some(2 * MIB),
        ..UNLIMITED
    };
    let slots = slots(&disk, limits);
    stand(&slots, "a", 8);
    stand(&slots, "b", 12);
    let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
    let session = slots.session(3);
    let held = session.acquire(&a).unwrap();
    let status = |name| slots.get(name).unwrap().unwrap().wal_status;
    assert_eq!(status(&a), Some(WalStatus::Unreserved));
    let pruned = prune(&slots, Lsn(12 * MIB)).unwrap();
    assert_eq!(pruned.kept_by, Some(Holder::Slot(a.clone())));
    assert_eq!(complete(&disk), [11, 12]);
    assert_eq!(status(&a), Some(WalStatus::Lost));
    assert_eq!(status(&b), Some(WalStatus::Reserved));
    // Who used it hears of it.
    let error = held.advance(TimelineId::FIRST, Lsn(9 * MIB));
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("can no longer access")
    );
    drop(held);
    session.acquire(&a).unwrap_err();
    // It keeps nothing any more.
    let pruned = prune(&slots, Lsn(u64::MAX)).unwrap();
    assert_eq!(complete(&disk), [12]);
    assert_eq!(pruned.kept_by, Some(Holder::Recovery));
    drop((session, slots));
    let slots = self::slots(&disk, limits);
    let status = slots.get(&a).unwrap().unwrap().wal_status;
    assert_eq!(status, Some(WalStatus::Lost));
}

#[test]
fn nothing_is_removed_when_slots_cannot_be_saved() {
    let disk = world();
    let slots = slots(&disk, UNLIMITED);
    stand(&slots, "a", 9);
    disk.fail_at(disk.operations(), Fault::NoSpace);
    prune(&slots, Lsn(12 * MIB)).unwrap_err();
    assert_eq!(complete(&disk), [7, 8, 9, 10, 11, 12]);
}

#[test]
fn compressed_segments_go_with_all_their_files() {
    let disk = world();
    let files = open(&disk).segment_files().unwrap();
    let name = files.name_of(TimelineId::FIRST, START);
    let plain = disk.content(format!("/a/{name}")).unwrap();
    compress(files.directory(), Compression::LZ4, name, &|| true).unwrap();
    // Left by a crash.
    disk.plant(format!("/a/{name}"), &plain).unwrap();
    let slots = slots(&disk, UNLIMITED);
    let pruned = prune(&slots, Lsn(8 * MIB)).unwrap();
    assert_eq!(pruned.files, 2);
    assert_eq!(complete(&disk), [8, 9, 10, 11, 12]);
}

/// What another process finds that may be removed, as the numbers of the segments.
fn removable(disk: &SimDisk, keep_from: u64, max_keep_bytes: Option<u64>) -> (Removable, Vec<u64>) {
    let found = view(disk).removable(Lsn(keep_from * MIB), max_keep_bytes);
    let found = found.unwrap();
    let numbers = found
        .files()
        .map(|(file, _)| file.name.number(segment_size()).unwrap().0)
        .collect();
    (found, numbers)
}

#[test]
fn another_process_removes_what_no_slot_needs() {
    let disk = world();
    let before = disk.operations();
    // There are no slots, nor a place for them.
    assert_eq!(removable(&disk, 9, None).1, [7, 8]);
    assert_eq!(removable(&disk, 99, None).1, [7, 8, 9, 10, 11]);
    assert_eq!(disk.operations(), before);
    let slots = slots(&disk, UNLIMITED);
    stand(&slots, "a", 9);
    slots.save().unwrap();
    let session = slots.session(2);
    let temporary = NewSlot {
        temporary: true,
        reserve_wal: true,
    };
    session.create(&"t".parse().unwrap(), temporary).unwrap();
    let held = session.acquire(&"t".parse().unwrap()).unwrap();
    let lsn = Lsn(8 * MIB);
    held.advance(TimelineId::FIRST, lsn).unwrap();
    slots.save().unwrap();
    let (found, numbers) = removable(&disk, 12, None);
    assert_eq!(numbers, [7]);
    assert_eq!(found.kept_by(), slot("t").as_ref());
    assert_eq!(found.kept_from(), lsn);
    drop((held, session));
    slots.save().unwrap();
    let (found, numbers) = removable(&disk, 12, None);
    assert_eq!(numbers, [7, 8]);
    let mut told = Vec::new();
    let pruned = found.remove(|file| told.push(file.name.number(segment_size()).unwrap().0));
    let pruned = pruned.unwrap();
    assert_eq!(told, [7, 8]);
    assert_eq!((pruned.files, pruned.bytes), (2, 2 * MIB));
    assert_eq!(pruned.kept_by, slot("a"));
    assert_eq!(complete(&disk), [9, 10, 11, 12]);
    let status = slots.get(&"a".parse().unwrap()).unwrap().unwrap();
    assert_eq!(status.wal_status, Some(WalStatus::Reserved));
}

#[test]
fn who_keeps_the_slots_hears_that_another_process_made_one_lose_its_wal() {
    let disk = world();
    let slots = slots(&disk, UNLIMITED);
    stand(&slots, "a", 8);
    stand(&slots, "b", 12);
    slots.save().unwrap();
    let status = |name: &str| {
        let slot = slots.get(&name.parse().unwrap()).unwrap();
        slot.unwrap().wal_status
    };
    assert_eq!(status("a"), Some(WalStatus::Reserved));
    let (found, numbers) = removable(&disk, 12, Some(2 * MIB));
    assert_eq!(numbers, [7, 8, 9, 10]);
    found.remove(|_| {}).unwrap();
    assert_eq!(status("a"), Some(WalStatus::Lost));
    assert_eq!(status("b"), Some(WalStatus::Reserved));
    let refused = slots.session(4).acquire(&"a".parse().unwrap());
    assert!(matches!(refused, Err(SlotError::Lost { .. })));
    // It keeps nothing any more, here or there.
    let (found, numbers) = removable(&disk, 99, None);
    assert_eq!(found.kept_by(), Some(&Holder::Recovery));
    assert_eq!(numbers, [11]);
}

#[test]
fn a_slot_that_is_set_back_after_the_look_keeps_its_wal() {
    let disk = world();
    let slots = slots(&disk, UNLIMITED);
    stand(&slots, "a", 12);
    slots.save().unwrap();
    let (name, lsn) = ("a".parse().unwrap(), Lsn(9 * MIB + 100));
    let session = slots.session(2);
    let held = session.acquire(&name).unwrap();
    let restart = || slots.get(&name).unwrap().unwrap().restart.unwrap().lsn;
    let (found, numbers) = removable(&disk, 12, None);
    assert_eq!(numbers, [7, 8, 9, 10, 11]);
    held.set_back(TimelineId::FIRST, lsn).unwrap();
    assert_eq!(restart(), lsn);
    let pruned = found.remove(|_| {}).unwrap();
    assert_eq!(pruned.kept_by, Some(Holder::Slot(name.clone())));
    assert_eq!(pruned.kept_from, Lsn(9 * MIB));
    assert_eq!(complete(&disk), [9, 10, 11, 12]);
    let status = slots.get(&name).unwrap().unwrap().wal_status;
    assert_eq!(status, Some(WalStatus::Reserved));
    // It does not forget what it keeps, and is not set back to what is gone.
    held.set_back(TimelineId::FIRST, Lsn(10 * MIB)).unwrap();
    held.set_back(TimelineId::FIRST, Lsn(8 * MIB)).unwrap();
    assert_eq!(restart(), lsn);
    drop((held, session, slots));
    let slots = self::slots(&disk, UNLIMITED);
    let slot = slots.get(&"a".parse().unwrap()).unwrap().unwrap();
    assert_eq!(slot.restart.unwrap().lsn, lsn);
}

#[test]
fn once_removal_is_decided_no_slot_is_set_back_to_what_goes() {
    let disk = world();
    let slots = slots(&disk, UNLIMITED);
    stand(&slots, "a", 11);
    slots.save().unwrap();
    let name = "a".parse().unwrap();
    let session = slots.session(2);
    let held = session.acquire(&name).unwrap();
    let required = slots.decide_removal(SegmentNumber(12));
    assert_eq!(required, Some((SegmentNumber(11), name.clone())));
    held.advance(TimelineId::FIRST, Lsn(10 * MIB)).unwrap();
    held.set_back(TimelineId::FIRST, Lsn(10 * MIB)).unwrap();
    let slot = slots.get(&name).unwrap().unwrap();
    assert_eq!(slot.restart.unwrap().lsn, Lsn(11 * MIB + 100));
    assert_eq!(slot.wal_status, Some(WalStatus::Reserved));
}

/// Tells when the lock of who decides what is removed is asked for.
#[derive(Debug)]
struct AsksForLock(mpsc::Sender<()>);

impl Tamper for AsksForLock {
    fn before_open(&self, path: &Path) -> io::Result<()> {
        if path.ends_with("removal.lock") {
            // Who has heard it once listens no longer.
            let _ = self.0.send(());
        }
        Ok(())
    }
}

#[test]
fn who_decides_what_is_removed_waits_for_who_has_a_slot_keep_wal() {
    let disk = world();
    let slots = slots(&disk, UNLIMITED);
    stand(&slots, "a", 12);
    slots.save().unwrap();
    let directory = slots.view().files().directory().clone();
    let removal = RemovalLock::take(&directory).unwrap();
    let (told, asked) = mpsc::channel();
    let tampered = Tampered {
        disk: disk.clone(),
        tamper: AsksForLock(told),
    };
    let view = ArchiveView::open(Arc::new(tampered), Path::new("/a")).unwrap();
    let found = view.removable(Lsn(12 * MIB), None).unwrap();
    let removing = std::thread::spawn(move || found.remove(|_| {}).unwrap());
    asked.recv_timeout(Duration::from_secs(60)).unwrap();
    // What it would see if it did not wait is that nobody needs them.
    let held = SlotStore::session(&slots, 2);
    let held = held.acquire(&"a".parse().unwrap()).unwrap();
    held.advance(TimelineId::FIRST, Lsn(8 * MIB)).unwrap();
    slots.save().unwrap();
    assert!(!removing.is_finished());
    drop(removal);
    let pruned = removing.join().unwrap();
    assert_eq!(pruned.kept_from, Lsn(8 * MIB));
    assert_eq!(complete(&disk), [8, 9, 10, 11, 12]);
}

/// A disk with the same files, all of them durable.
fn copy(disk: &SimDisk) -> SimDisk {
    let copy = SimDisk::new("/a");
    let mut directories = vec![PathBuf::from("/a")];
    while let Some(directory) = directories.pop() {
        for entry in disk.list(&directory).unwrap() {
            let path = directory.join(entry.name);
            if entry.is_file {
                copy.plant(&path, &disk.content(&path).unwrap()).unwrap();
            } else {
                copy.create_directory(&path).unwrap();
                directories.push(path);
            }
        }
    }
    copy.reboot(Survival::Everything);
    copy
}

/// Moves the slot on, and removes what it no longer needs.
fn live(disk: &SimDisk) -> Result<(), SlotError> {
    let view = ArchiveView::open(Arc::new(disk.clone()), Path::new("/a"))?;
    let slots = SlotStore::open(view, UNLIMITED)?;
    let session = slots.session(1);
    let held = session.acquire(&"a".parse().unwrap())?;
    held.advance(TimelineId::FIRST, Lsn(11 * MIB))?;
    prune(&slots, Lsn(12 * MIB))?;
    Ok(())
}

#[test]
fn no_crash_leaves_a_gap_or_takes_what_is_needed() {
    let world = world();
    {
        let slots = slots(&world, UNLIMITED);
        stand(&slots, "a", 8);
        slots.save().unwrap();
    }
    let disk = copy(&world);
    live(&disk).unwrap();
    let operations = disk.operations();
    assert!(operations > 15, "{operations}");
    for cut in 0..operations {
        for seed in 0..6 {
            let disk = copy(&world);
            disk.cut_power_at(cut);
            // The last operation is that of the lock, whose release nobody waits for.
            assert!(live(&disk).is_err() || cut + 1 == operations);
            disk.reboot(Survival::Chance(seed));
            let left = complete(&disk);
            let gapless = left.windows(2).all(|pair| pair[0] + 1 == pair[1]);
            let needed = left.ends_with(&[11, 12]);
            assert!(gapless && needed, "cut {cut}, seed {seed}: {left:?}");
            // Its file says no less than what was removed.
            let slots = slots(&disk, UNLIMITED);
            let slot = slots.get(&"a".parse().unwrap()).unwrap().unwrap();
            assert_eq!(slot.wal_status, Some(WalStatus::Reserved));
        }
    }
}
