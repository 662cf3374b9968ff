use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::disk::sim::{Fault, SimDisk, Survival};

fn directory(disk: &SimDisk) -> ArchiveDirectory {
    let directory = ArchiveDirectory::new(Arc::new(disk.clone()), Path::new("/a"));
    directory.create_own().unwrap();
    directory
}

fn at(timeline: u32, lsn: u64) -> ArchivePosition {
    ArchivePosition {
        timeline: TimelineId::new(timeline).unwrap(),
        record_end: Lsn(lsn),
        byte_end: Lsn(lsn + 7),
    }
}

fn stored(directory: &ArchiveDirectory) -> Option<ArchivePosition> {
    Watermark::open(directory).unwrap().get()
}

#[test]
fn the_watermark_only_rises_but_a_new_timeline_may_begin_below() {
    let directory = directory(&SimDisk::new("/a"));
    let mut watermark = Watermark::open(&directory).unwrap();
    assert_eq!(watermark.get(), None);
    for (raised, expected) in [
        (at(1, 100), at(1, 100)),
        (at(1, 300), at(1, 300)),
        (at(1, 200), at(1, 300)),
        (at(2, 150), at(2, 150)),
        (at(1, 900), at(2, 150)),
        (at(2, 160), at(2, 160)),
    ] {
        watermark.raise(raised).unwrap();
        assert_eq!(watermark.get(), Some(expected));
        assert_eq!(stored(&directory), Some(expected));
    }
}

#[test]
fn a_slot_that_no_writer_numbered_is_not_taken() {
    for (sequence, taken) in [
        (0, false),
        (1, true),
        (u64::MAX - 1, true),
        (u64::MAX, false),
    ] {
        let found = decode(&encode(sequence, at(1, 100)));
        assert_eq!(found, taken.then_some((sequence, at(1, 100))));
    }
}

#[test]
fn after_the_last_number_the_file_is_made_anew() {
    let directory = directory(&SimDisk::new("/a"));
    let mut watermark = Watermark::open(&directory).unwrap();
    watermark.raise(at(1, 100)).unwrap();
    watermark.0.sequence = SEQUENCE_END - 3;
    for lsn in 200..210 {
        watermark.raise(at(1, lsn)).unwrap();
        assert_eq!(stored(&directory), Some(at(1, lsn)));
    }
}

#[test]
fn a_write_torn_at_any_byte_leaves_the_watermark_before() {
    for writes in 1..4 {
        let disk = SimDisk::new("/a");
        let directory = directory(&disk);
        let path = directory.own(Place::Watermark);
        let mut watermark = Watermark::open(&directory).unwrap();
        for write in 1..=writes {
            watermark.raise(at(1, write)).unwrap();
        }
        let before = disk.content(&path).unwrap();
        watermark.raise(at(1, writes + 1)).unwrap();
        let after = disk.content(&path).unwrap();
        // Between the slots there are only zeros.
        for cut in (0..64).chain(4090..4160).chain([FILE_LENGTH]) {
            for (head, tail) in [(&after, &before), (&before, &after)] {
                let torn = [&head[..cut], &tail[cut..]].concat();
                disk.plant(&path, &torn).unwrap();
                let found = stored(&directory).unwrap();
                let new = torn == after;
                assert!(
                    found == at(1, writes + u64::from(new)),
                    "cut at {cut}: {found:?}"
                );
            }
        }
    }
}

#[test]
fn a_crash_at_any_operation_leaves_the_watermark_before_or_the_new_one() {
    let raise = |disk: &SimDisk, cut: Option<u64>| {
        let directory = directory(disk);
        if let Some(cut) = cut {
            disk.cut_power_at(disk.operations() + cut);
        }
        let mut watermark = Watermark::open(&directory).unwrap();
        let mut raised = 0;
        for lsn in 1..=4 {
            if watermark.raise(at(1, lsn)).is_err() {
                break;
            }
            raised = lsn;
        }
        raised
    };
    let disk = SimDisk::new("/a");
    let before = {
        drop(directory(&disk));
        disk.operations()
    };
    raise(&disk, None);
    for cut in 0..disk.operations() - before {
        for seed in 0..40 {
            let disk = SimDisk::new("/a");
            let raised = raise(&disk, Some(cut));
            disk.reboot(Survival::Chance(seed));
            let found = stored(&directory(&disk)).map_or(0, |position| position.record_end.0);
            assert!(
                found == raised || found == raised + 1,
                "cut at {cut}, seed {seed}: {found} after {raised}"
            );
        }
    }
}

#[test]
fn after_a_failed_sync_the_next_write_spares_the_slot_that_is_durable() {
    let disk = SimDisk::new("/a");
    let directory = directory(&disk);
    let mut watermark = Watermark::open(&directory).unwrap();
    watermark.raise(at(1, 1)).unwrap();
    watermark.raise(at(1, 2)).unwrap();
    disk.fail_at(disk.operations() + 1, Fault::Io);
    watermark.raise(at(1, 3)).unwrap_err();
    assert_eq!(watermark.get(), Some(at(1, 2)));
    disk.cut_power_at(disk.operations() + 1);
    watermark.raise(at(1, 4)).unwrap_err();
    disk.reboot(Survival::Nothing);
    assert_eq!(stored(&directory), Some(at(1, 2)));
}

#[test]
fn what_is_told_to_be_removed_is_durable() {
    let disk = SimDisk::new("/a");
    let directory = directory(&disk);
    let mut removed = RemovedPosition::open(&directory).unwrap();
    for lsn in 1..=3 {
        removed.raise(TimelineId::FIRST, Lsn(lsn)).unwrap();
        assert_eq!(RemovedPosition::read(&directory).unwrap(), Some(Lsn(lsn)));
    }
    disk.reboot(Survival::Nothing);
    assert_eq!(RemovedPosition::read(&directory).unwrap(), Some(Lsn(3)));
}

#[test]
fn writes_positions_without_another_file_descriptor_once_the_files_are_kept_open() {
    let disk = SimDisk::new("/a");
    let directory = directory(&disk);
    let mut watermark = Watermark::open(&directory).unwrap();
    watermark.raise(at(1, 100)).unwrap();
    let mut publisher = PublishedPosition::open(&directory).unwrap();
    publisher.publish(at(1, 100)).unwrap();
    // As after a reconnect.
    let mut watermark = Watermark::open(&directory).unwrap();
    let mut publisher = PublishedPosition::open(&directory).unwrap();
    watermark.keep_open().unwrap();
    publisher.keep_open().unwrap();
    disk.use_up_descriptors(true);
    watermark.raise(at(1, 200)).unwrap();
    publisher.publish(at(1, 200)).unwrap();
    disk.use_up_descriptors(false);
    assert_eq!(stored(&directory), Some(at(1, 200)));
    assert_eq!(published(&directory).unwrap(), Some(at(1, 200)));
}

#[test]
fn a_watermark_without_a_valid_slot_is_damaged() {
    let disk = SimDisk::new("/a");
    let directory = directory(&disk);
    for content in [vec![], vec![0; FILE_LENGTH], vec![0xFF; FILE_LENGTH]] {
        disk.plant(directory.own(Place::Watermark), &content)
            .unwrap();
        let error = Watermark::open(&directory).unwrap_err();
        assert!(matches!(
            error,
            ArchiveError::Damaged {
                reason: Damage::Empty,
                ..
            }
        ));
    }
    let long = vec![0; FILE_LENGTH + 1];
    disk.plant(directory.own(Place::Watermark), &long).unwrap();
    assert!(matches!(
        Watermark::open(&directory).unwrap_err(),
        ArchiveError::Damaged {
            reason: Damage::TooLong { .. },
            ..
        }
    ));
}

#[test]
fn a_published_position_is_read_by_others_and_may_go_back() {
    let disk = SimDisk::new("/a");
    let directory = directory(&disk);
    assert_eq!(published(&directory).unwrap(), None);
    let mut publisher = PublishedPosition::open(&directory).unwrap();
    for position in [at(1, 5), at(1, 9), at(1, 9), at(1, 7), at(2, 6)] {
        publisher.publish(position).unwrap();
        assert_eq!(published(&directory).unwrap(), Some(position));
    }
}

#[test]
fn a_published_position_that_a_crash_took_is_published_again() {
    let disk = SimDisk::new("/a");
    let directory = directory(&disk);
    disk.plant(directory.own(Place::Position), &[]).unwrap();
    published(&directory).unwrap_err();
    let mut publisher = PublishedPosition::open(&directory).unwrap();
    publisher.publish(at(1, 5)).unwrap();
    assert_eq!(published(&directory).unwrap(), Some(at(1, 5)));
}

#[test]
fn the_layout_does_not_change() {
    let slot = encode(0x0102, at(3, 0x0A0B_0C0D));
    let expected = b"wrpos\0\0\x01\x02\x01\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\
                     \x0D\x0C\x0B\x0A\0\0\0\0\x14\x0C\x0B\x0A\0\0\0\0";
    assert_eq!(slot[..40], expected[..]);
    assert_eq!(slot[40..], crc32c::crc32c(expected).to_le_bytes());
}

proptest! {
    #[test]
    fn a_slot_is_decoded_as_it_was_encoded(sequence in 1..u64::MAX, timeline in 1u32.., lsn in 0..u64::MAX - 7) {
        let slot = encode(sequence, at(timeline, lsn));
        prop_assert_eq!(decode(&slot), Some((sequence, at(timeline, lsn))));
    }

    #[test]
    fn a_flipped_bit_invalidates_a_slot(lsn in 0..u64::MAX - 7, bit in 0usize..SLOT_LENGTH * 8) {
        let mut slot = encode(1, at(1, lsn));
        slot[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(decode(&slot), None);
    }

    #[test]
    fn arbitrary_content_is_no_position(content: Vec<u8>) {
        prop_assert_eq!(newest_of(&content), None);
    }
}
