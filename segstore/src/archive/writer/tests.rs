use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::archive::compression::Compression;
use crate::archive::prepare::Preparation;
use crate::archive::{Archive, ArchiveOptions};
use crate::disk::sim::SimDisk;
use crate::wal::sample::{MIB, START, bytes, facts, generator, options};
use crate::wal::segment::Encoding;

/// Which file of the first segment there is after WAL up to each of `ends` was made durable in an
/// archive that compresses its segments, and all that waited was compressed.
fn first_segment(wal: &crate::wal::generator::Generator, ends: &[Lsn]) -> Vec<SegmentFile> {
    let disk = SimDisk::new("/a");
    let options = ArchiveOptions {
        compression: Compression::gzip(None).unwrap(),
        ..options(Path::new("/a"), true)
    };
    let mut archive = Archive::open(Arc::new(disk), options).unwrap();
    archive.bind(&facts()).unwrap();
    let recovery = archive.recover().unwrap();
    let writer = archive.writer(recovery, wal.history(), START, Preparation::Inline);
    let mut writer = writer.unwrap();
    for end in ends {
        let at = writer.position();
        writer.append(at, &[bytes(wal, at, *end)]).unwrap();
        writer.sync().unwrap();
    }
    writer.close().unwrap();
    let name = SegmentName::of(wal.history().timeline(), START, facts().segment_size);
    let directory = archive.directory().clone();
    assert!(archive.close(Duration::MAX).is_none());
    let listing = crate::archive::listing::Listing::read(&directory).unwrap();
    listing.of_segment(name).collect()
}

#[test]
fn a_segment_that_ends_inside_a_record_is_not_compressed() {
    let mut wal = generator(1);
    wal.fill(MIB - 30_000);
    let long = wal.record(60_000);
    let plain = |name| SegmentFile::complete(name);
    let torn = Lsn(START.0 + MIB + 16_384);
    let inside = first_segment(&wal, &[torn]);
    let name = inside[0].name;
    assert_eq!(inside, [plain(name)]);
    // Until the record is complete, its beginning may give way to another one.
    for ends in [&[long.end][..], &[torn, long.end]] {
        let whole = first_segment(&wal, ends);
        assert_eq!(whole, [plain(name).encoded(Encoding::Gzip)]);
    }
}

#[test]
fn a_writer_stops_whose_lock_was_lost() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("archive");
    std::fs::create_dir(&path).unwrap();
    let archive = crate::wal::sample::archive(crate::disk::os_disk::OsDisk::new(), &path, true);
    let mut wal = generator(2);
    let first = wal.record(100).end;
    let second = wal.record(100).end;
    wal.fill(2 * MIB);
    let recovery = archive.recover().unwrap();
    let writer = archive.writer(recovery, wal.history(), START, Preparation::Inline);
    let mut writer = writer.unwrap();
    writer.append(START, &[bytes(&wal, START, first)]).unwrap();
    writer.check_lock().unwrap();
    std::fs::rename(&path, parent.path().join("aside")).unwrap();
    std::fs::create_dir(&path).unwrap();
    // The next segment would get its name in the other directory.
    let error = writer
        .append(first, &[bytes(&wal, first, wal.end())])
        .unwrap_err();
    let lost = |error: &WriteError| {
        matches!(error, WriteError::Archive(ArchiveError::LockLost { path: lost, .. })
            if *lost == path)
    };
    assert!(lost(&error), "{error}");
    let refused = writer.append(first, &[bytes(&wal, first, second)]);
    assert!(matches!(refused, Err(WriteError::Stopped)));
    assert!(lost(&writer.check_lock().unwrap_err()));
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
}

#[test]
fn notes_an_acknowledged_position_at_most_once_a_second() {
    let mut wal = generator(3);
    let ends = [100; 3].map(|length| wal.record(length).end);
    let archive = crate::wal::sample::archive(SimDisk::new("/a"), Path::new("/a"), true);
    let recovery = archive.recover().unwrap();
    let writer = archive.writer(recovery, wal.history(), START, Preparation::Inline);
    let mut writer = writer.unwrap();
    let noted = || {
        let watermark = Watermark::open(archive.directory()).unwrap();
        watermark.get().unwrap().record_end
    };
    let begun = Instant::now();
    let mut at = START;
    for (end, after, is_noted) in [
        (ends[0], Duration::ZERO, true),
        (ends[1], Duration::from_millis(999), false),
        (ends[2], Duration::from_secs(1), true),
    ] {
        writer.append(at, &[bytes(&wal, at, end)]).unwrap();
        let durable = writer.sync().unwrap();
        let before = noted();
        assert_eq!(
            writer.acknowledged(durable, begun + after).unwrap(),
            is_noted
        );
        assert_eq!(noted(), if is_noted { end } else { before });
        at = end;
    }
    let other = Durable {
        timeline: TimelineId::new(2).unwrap(),
        ..writer.durable()
    };
    let later = begun + Duration::from_secs(3600);
    writer.acknowledged(other, later).unwrap();
    let watermark = Watermark::open(archive.directory()).unwrap();
    assert_eq!(watermark.get().unwrap().timeline, TimelineId::FIRST);
}

#[test]
fn notes_a_clean_end_only_if_the_archive_is_synced() {
    for sync in [true, false] {
        let mut wal = generator(4);
        let end = wal.record(100).end;
        let archive = crate::wal::sample::archive(SimDisk::new("/a"), Path::new("/a"), sync);
        let recovery = archive.recover().unwrap();
        let writer = archive.writer(recovery, wal.history(), START, Preparation::Inline);
        let mut writer = writer.unwrap();
        writer.append(START, &[bytes(&wal, START, end)]).unwrap();
        writer.close().unwrap();
        let watermark = Watermark::open(archive.directory()).unwrap();
        assert_eq!(watermark.get().unwrap().record_end, end);
        assert_eq!(archive.directory().is_clean_end().unwrap(), sync);
    }
}

/// A writer that has appended one record and made it durable, and appended a second one.
fn with_two_records() -> (Archive, Writer, Lsn, crate::wal::generator::Generator) {
    let disk = SimDisk::new("/a");
    let archive = crate::wal::sample::archive(disk, Path::new("/a"), true);
    let mut wal = generator(3);
    let first = wal.record(100).end;
    let second = wal.record(100).end;
    let recovery = archive.recover().unwrap();
    let writer = archive.writer(recovery, wal.history(), START, Preparation::Inline);
    let mut writer = writer.unwrap();
    writer.append(START, &[bytes(&wal, START, first)]).unwrap();
    writer.sync().unwrap();
    writer.append(first, &[bytes(&wal, first, second)]).unwrap();
    (archive, writer, first, wal)
}

#[test]
fn a_writer_that_finds_a_fault_of_its_own_acknowledges_nothing_more() {
    let (archive, mut writer, first, _) = with_two_records();
    // As if the second record had not been stored.
    writer.stored.byte_end = first;
    let error = writer.sync().unwrap_err();
    assert!(matches!(error, WriteError::Internal { .. }), "{error}");
    assert_eq!(writer.durable().record_end.lsn(), first);
    let position = writer.position();
    let more = [Bytes::from_static(&[0; 8])];
    let error = writer.append(position, &more).unwrap_err();
    assert!(matches!(error, WriteError::Latched), "{error}");
    let error = writer.sync().unwrap_err();
    assert!(matches!(error, WriteError::Latched), "{error}");
    assert_eq!(archive.view().unwrap().durable().unwrap().record_end, first);
}

#[test]
fn fewer_bytes_than_are_to_be_written_are_not_written() {
    let (_archive, mut writer, ..) = with_two_records();
    let position = writer.position();
    let pieces = [Bytes::from_static(&[1; 8])];
    let end = Lsn(position.0 + 16);
    let error = writer.write(Batch::new(position, &pieces), position, end);
    assert!(
        matches!(error, Err(WriteError::Internal { .. })),
        "{error:?}"
    );
    assert_eq!(writer.stored.byte_end, position);
}
