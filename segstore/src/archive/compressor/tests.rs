use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::archive::pipeline::Pipeline;
use crate::disk::sim::{Fault, SimDisk, Survival};

const NAME: &str = "000000010000000000000003";

fn directory(disk: &SimDisk) -> ArchiveDirectory {
    let directory = ArchiveDirectory::new(Arc::new(disk.clone()), Path::new("/a"));
    directory.create_own().unwrap();
    directory
}

fn name() -> SegmentName {
    SegmentName::parse(NAME).unwrap()
}

fn gzip() -> Compression {
    Compression::gzip(None).unwrap()
}

/// The content of the segment, read through whichever file there is.
fn content(directory: &ArchiveDirectory, disk: &SimDisk) -> Option<Vec<u8>> {
    disk.content(format!("/a/{NAME}")).or_else(|| {
        let file = SegmentFile::complete(name()).encoded(gzip().encoding());
        let mut reader = crate::SegmentReader::open(directory, file).ok()?;
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut content).ok()?;
        Some(content)
    })
}

fn pipeline(directory: &ArchiveDirectory, compression: Compression) -> Pipeline {
    let stage = Compressor {
        directory: directory.clone(),
        compression,
    };
    let listing = Listing::read(directory).unwrap();
    Pipeline::start(directory.root(), vec![Box::new(stage)], &listing).unwrap()
}

#[test]
fn segments_are_compressed_in_the_background() {
    for method in [gzip(), Compression::LZ4, Compression::zstd(None).unwrap()] {
        let disk = SimDisk::new("/a");
        let directory = directory(&disk);
        disk.plant(format!("/a/{NAME}"), &[7; 100_000]).unwrap();
        let pipeline = pipeline(&directory, method);
        assert!(pipeline.enqueue(name()));
        // One that is not there any more is nothing to complain about.
        assert!(pipeline.enqueue(name()));
        assert!(pipeline.finish(Duration::MAX).is_none());
        assert_eq!(disk.content(format!("/a/{NAME}")), None);
        let path = format!("/a/{NAME}{}", method.encoding().suffix());
        assert!(disk.content(path).unwrap().len() < 10_000);
        assert_eq!(
            directory
                .list(&directory.own(crate::archive::directory::Place::Temporary))
                .unwrap(),
            []
        );
    }
}

#[test]
fn a_crash_at_any_operation_keeps_the_segment() {
    let bytes: Vec<u8> = (0..5_000u32).flat_map(u32::to_le_bytes).collect();
    let run = |cut: Option<u64>| {
        let disk = SimDisk::new("/a");
        let directory = directory(&disk);
        disk.plant(format!("/a/{NAME}"), &bytes).unwrap();
        let before = disk.operations();
        if let Some(cut) = cut {
            disk.cut_power_at(before + cut);
        }
        let result = compress(&directory, gzip(), name(), &|| true);
        assert_eq!(result.is_err(), cut.is_some());
        let operations = disk.operations() - before;
        (disk, directory, operations)
    };
    let operations = run(None).2;
    assert!(operations >= 5);
    for cut in 0..operations {
        for seed in 0..10 {
            let (disk, directory, _) = run(Some(cut));
            disk.reboot(Survival::Chance(seed));
            assert!(
                content(&directory, &disk) == Some(bytes.clone()),
                "{cut} {seed}"
            );
        }
    }
}

#[test]
fn any_failure_keeps_the_plain_segment_and_is_told() {
    for fault in [Fault::Io, Fault::NoSpace] {
        let disk = SimDisk::new("/a");
        let directory = directory(&disk);
        disk.plant(format!("/a/{NAME}"), &[7; 10_000]).unwrap();
        // Creation, write, sync, rename and the sync of the directory.
        for operation in [0, 1, 2, 3] {
            disk.fail_at(disk.operations() + operation, fault);
            let pipeline = pipeline(&directory, gzip());
            assert!(pipeline.enqueue(name()));
            let failure = pipeline.finish(Duration::MAX).unwrap();
            assert!(
                matches!(failure, ArchiveError::Disk(_)),
                "{operation}: {failure}"
            );
            assert_eq!(disk.content(format!("/a/{NAME}")).unwrap(), [7; 10_000]);
            assert_eq!(disk.content(format!("/a/{NAME}.gz")), None);
        }
    }
}

#[test]
fn being_told_to_stop_leaves_the_plain_segment() {
    let disk = SimDisk::new("/a");
    let directory = directory(&disk);
    disk.plant(format!("/a/{NAME}"), &[7; 10_000]).unwrap();
    compress(&directory, gzip(), name(), &|| false).unwrap();
    assert!(disk.content(format!("/a/{NAME}")).is_some());
    assert_eq!(disk.content(format!("/a/{NAME}.gz")), None);
}

#[test]
fn a_segment_that_is_removed_meanwhile_does_not_come_back_compressed() {
    let disk = SimDisk::new("/a");
    let directory = directory(&disk);
    let plain = format!("/a/{NAME}");
    disk.plant(&plain, &[7; 10_000]).unwrap();
    let removed = || {
        directory.remove(Path::new(&plain)).unwrap();
        directory.sync_root().unwrap();
        true
    };
    compress(&directory, gzip(), name(), &removed).unwrap();
    assert_eq!(disk.content(&plain), None);
    assert_eq!(disk.content(format!("{plain}.gz")), None);
    disk.reboot(Survival::Nothing);
    assert_eq!(disk.content(format!("{plain}.gz")), None);
}

#[test]
fn plain_segments_after_the_last_compressed_one_wait_for_a_later_segment() {
    let disk = SimDisk::new("/a");
    let directory = directory(&disk);
    let parsed = |text: &str| SegmentName::parse(text).unwrap();
    let later = parsed("000000010000000000000004");
    let older = parsed("000000010000000000000001");
    for name in [older, name(), later] {
        disk.plant(format!("/a/{name}"), &[7; 10_000]).unwrap();
    }
    // None is compressed yet, so that none of them was to be.
    assert!(pipeline(&directory, gzip()).finish(Duration::MAX).is_none());
    let compressed = "/a/000000010000000000000002.gz";
    disk.plant(compressed, &[7; 100]).unwrap();

    let first = pipeline(&directory, gzip());
    assert!(first.enqueue(name()));
    assert!(first.finish(Duration::MAX).is_none());
    assert_eq!(disk.content(format!("/a/{NAME}")), None);
    assert!(disk.content(format!("/a/{later}")).is_some());
    let second = pipeline(&directory, gzip());
    assert!(second.enqueue(parsed("000000010000000000000005")));
    assert!(second.finish(Duration::MAX).is_none());
    assert_eq!(disk.content(format!("/a/{later}")), None);
    assert!(disk.content(format!("/a/{older}")).is_some());
}

#[test]
fn the_newest_growing_segment_with_content_is_compressed() {
    let size = SegmentSize::new(1 << 20).unwrap();
    let older = "000000010000000000000003.partial";
    let growing = "000000020000000000000004.partial";
    let begun = "000000020000000000000005.partial";
    let disk = SimDisk::new("/a");
    let directory = directory(&disk);
    disk.plant(format!("/a/{older}"), &[7; 5_000]).unwrap();
    disk.plant(format!("/a/{growing}"), &[7; 5_000]).unwrap();
    disk.plant(format!("/a/{begun}"), &[0; 5_000]).unwrap();
    let marked = SegmentFile::partial(SegmentName::parse("000000020000000000000004").unwrap());
    directory.poison(marked).unwrap();
    compress_growing(&directory, gzip(), size, &|| true).unwrap();
    assert!(
        disk.content(format!("/a/{growing}")).is_some(),
        "its sync failed"
    );

    directory.clear_poison(marked).unwrap();
    compress_growing(&directory, gzip(), size, &|| false).unwrap();
    assert!(disk.content(format!("/a/{growing}")).is_some(), "no time");

    compress_growing(&directory, gzip(), size, &|| true).unwrap();
    disk.reboot(Survival::Nothing);
    let names: Vec<_> = directory.list(Path::new("/a")).unwrap();
    let mut names: Vec<_> = names.into_iter().map(|entry| entry.name).collect();
    names.sort();
    assert_eq!(
        names,
        [
            ".wal-receiver",
            older,
            "000000020000000000000004.gz.partial",
            begun
        ]
    );

    // Nothing is left to do where the last segment is complete.
    let disk = SimDisk::new("/a");
    let directory = self::directory(&disk);
    disk.plant(format!("/a/{older}"), &[7; 5_000]).unwrap();
    disk.plant("/a/000000010000000000000004", &[7; 5_000])
        .unwrap();
    compress_growing(&directory, gzip(), size, &|| true).unwrap();
    assert!(disk.content(format!("/a/{older}")).is_some());
}
