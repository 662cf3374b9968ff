//! Compressions that were interrupted, or made by others.

use std::io::IoSlice;

use super::*;
use crate::disk::OpenMode;

fn open_compressing(disk: &SimDisk) -> Result<Archive, ArchiveError> {
    let compression = Compression::gzip(None).unwrap();
    Archive::open(Arc::new(disk.clone()), options(compression))
}

#[test]
fn an_interrupted_compression_is_finished() {
    let whole = wal(1, 3, &facts());
    let compressed = segment(1, 3).encoded(Encoding::Gzip);
    let prepared = |gz: &[u8]| {
        let disk = SimDisk::new("/a");
        drop(bound(&disk));
        plant(&disk, segment(1, 3), &whole);
        plant(&disk, compressed, gz);
        disk
    };
    // Wanted: the plain one goes.
    let disk = prepared(&gzip(&whole));
    drop(open_compressing(&disk).unwrap());
    assert_eq!(content(&disk, segment(1, 3)), None);
    assert!(content(&disk, compressed).is_some());

    // Not wanted any more: both stay.
    let disk = prepared(&gzip(&whole));
    drop(open(&disk));
    assert!(content(&disk, segment(1, 3)).is_some() && content(&disk, compressed).is_some());

    // One that does not decompress is of no use.
    let cut = gzip(&whole);
    let disk = prepared(&cut[..cut.len() - 1]);
    drop(open(&disk));
    assert!(content(&disk, segment(1, 3)).unwrap() == whole);
    assert_eq!(content(&disk, compressed), None);
    assert!(content(&disk, format!(".wal-receiver/quarantine/{compressed}.1")).is_some());

    // One of the two is wrong.
    let mut other = whole.clone();
    other[300_000] ^= 1;
    for other in [&other[..], &whole[..300_000]] {
        let disk = prepared(&gzip(other));
        match open_compressing(&disk).unwrap_err() {
            ArchiveError::Conflict { offset, .. } => assert_eq!(offset, 300_000),
            error => panic!("{error}"),
        }
        assert!(content(&disk, segment(1, 3)).is_some() && content(&disk, compressed).is_some());
    }
}

/// A whole plain segment, and beside it the same one compressed by somebody who synced nothing.
fn compressed_without_a_sync() -> (SimDisk, SegmentFile) {
    let disk = SimDisk::new("/a");
    drop(bound(&disk));
    plant(&disk, segment(1, 3), &wal(1, 3, &facts()));
    let compressed = segment(1, 3).encoded(Encoding::Gzip);
    let path = format!("/a/{compressed}");
    let file = disk.open(Path::new(&path), OpenMode::CreateNew).unwrap();
    let bytes = gzip(&wal(1, 3, &facts()));
    file.write_at(&[IoSlice::new(&bytes)], 0).unwrap();
    (disk, compressed)
}

#[track_caller]
fn assert_whole(disk: &SimDisk, compressed: SegmentFile, context: &str) {
    let whole = wal(1, 3, &facts());
    let plain = content(disk, segment(1, 3));
    let kept = plain.is_some_and(|plain| plain == whole)
        || content(disk, compressed).is_some_and(|bytes| bytes == gzip(&whole));
    assert!(kept, "{context}: {:#?}", disk.log());
}

#[test]
fn a_plain_segment_goes_only_when_the_compressed_one_is_durable() {
    let (disk, compressed) = compressed_without_a_sync();
    let before = disk.operations();
    drop(open_compressing(&disk).unwrap());
    assert_eq!(content(&disk, segment(1, 3)), None);
    for cut in before..=disk.operations() {
        for survival in (0..8)
            .map(Survival::Chance)
            .chain([Survival::Nothing, Survival::Everything])
        {
            let (disk, _) = compressed_without_a_sync();
            disk.cut_power_at(cut);
            drop(open_compressing(&disk));
            disk.reboot(survival);
            assert_whole(&disk, compressed, &format!("{cut} {survival:?}"));
        }
    }
}

#[test]
fn a_plain_segment_stays_when_the_compressed_one_cannot_be_synced() {
    let (disk, compressed) = compressed_without_a_sync();
    drop(open_compressing(&disk).unwrap());
    // Of the file, and then of its name.
    let log = disk.log();
    let sync = format!("sync /a/{compressed}");
    let first = log.iter().position(|line| line.ends_with(&sync)).unwrap();
    assert!(log[first + 1].ends_with("sync directory /a"), "{log:#?}");
    for operation in [first, first + 1] {
        let operation = operation as u64;
        let (disk, _) = compressed_without_a_sync();
        disk.fail_at(operation, Fault::Io);
        open_compressing(&disk).unwrap_err();
        // The page cache still has what the disk does not.
        drop(open_compressing(&disk));
        disk.reboot(Survival::Nothing);
        assert_whole(&disk, compressed, &operation.to_string());
    }
}

#[test]
fn a_plain_segment_stays_until_a_marked_compressed_one_is_built_anew() {
    for recovers in [false, true] {
        let (disk, compressed) = compressed_without_a_sync();
        let archive = bound(&disk);
        let path = format!("/a/{compressed}");
        disk.fail_at(disk.operations(), Fault::Io);
        let file = disk.open(Path::new(&path), OpenMode::ReadWrite).unwrap();
        file.sync_data().unwrap_err();
        archive.poison(compressed).unwrap();
        drop(archive);

        let archive = open_compressing(&disk).unwrap();
        assert!(content(&disk, segment(1, 3)).is_some());
        if recovers {
            // That this is no WAL it says only after what concerns us here.
            archive.recover().unwrap_err();
            assert_eq!(archive.poisoned().unwrap(), []);
            drop(archive);
            drop(open_compressing(&disk).unwrap());
            assert_eq!(content(&disk, segment(1, 3)), None);
        }
        disk.reboot(Survival::Nothing);
        assert_whole(&disk, compressed, &recovers.to_string());
    }
}

#[test]
fn segments_that_the_run_before_had_no_time_to_compress_are_compressed() {
    let disk = SimDisk::new("/a");
    drop(bound(&disk));
    for number in 1..=5 {
        plant(&disk, segment(1, number), &wal(1, number, &facts()));
    }
    // Nothing was ever compressed here: what lies there was wanted plain.
    let queue_a_sixth = || {
        plant(&disk, segment(1, 6), &wal(1, 6, &facts()));
        let archive = open_compressing(&disk).unwrap();
        archive.compress(segment(1, 6).name);
        assert!(archive.close(Duration::MAX).is_none());
        assert_eq!(content(&disk, segment(1, 6)), None);
    };
    queue_a_sixth();
    assert!((1..=5).all(|number| content(&disk, segment(1, number)).is_some()));
    disk.remove(&Path::new("/a").join(segment(1, 6).encoded(Encoding::Gzip).to_string()))
        .unwrap();

    disk.remove(&Path::new("/a").join(segment(1, 3).to_string()))
        .unwrap();
    plant(
        &disk,
        segment(1, 3).encoded(Encoding::Gzip),
        &gzip(&wal(1, 3, &facts())),
    );
    let plain = || {
        (1..=5)
            .filter(|&n| content(&disk, segment(1, n)).is_some())
            .collect::<Vec<_>>()
    };
    // Recovery may yet find that one of them is bad.
    assert!(
        open_compressing(&disk)
            .unwrap()
            .close(Duration::MAX)
            .is_none()
    );
    assert_eq!(plain(), [1, 2, 4, 5]);
    queue_a_sixth();
    assert_eq!(plain(), [1, 2]);
}

#[test]
fn a_whole_compressed_segment_is_told_from_a_short_one() {
    let disk = SimDisk::new("/a");
    let archive = bound(&disk);
    let file = segment(1, 3).encoded(Encoding::Gzip);
    let whole = wal(1, 3, &facts());
    plant(&disk, file, &gzip(&whole));
    archive.verify_segment(file).unwrap();
    plant(&disk, file, &gzip(&whole[..5000]));
    assert!(matches!(
        archive.verify_segment(file).unwrap_err(),
        ArchiveError::WrongLength { found: 5000, .. }
    ));
    plant(&disk, file, &unfinished_gzip(&whole));
    assert!(matches!(
        archive.verify_segment(file).unwrap_err(),
        ArchiveError::Damaged {
            reason: Damage::Compression(_),
            ..
        }
    ));
}
