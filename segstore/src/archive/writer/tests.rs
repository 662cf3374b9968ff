use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::archive::compression::Compression;
use crate::archive::prepare::Preparation;
use crate::archive::{Archive, ArchiveOptions};
use crate::disk::sim::SimDisk;
use crate::wal::sample::{MIB, START, bytes, facts, generator, options};
use crate::wal::segment::Encoding;

/// Which file of the first segment there is after WAL up to `end` was made durable in an archive
/// that compresses its segments, and all that waited was compressed.
fn first_segment(wal: &crate::wal::generator::Generator, end: Lsn) -> Vec<SegmentFile> {
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
    writer.append(START, &[bytes(wal, START, end)]).unwrap();
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
    let inside = first_segment(&wal, Lsn(START.0 + MIB + 16_384));
    let name = inside[0].name;
    assert_eq!(inside, [plain(name)]);
    // Until the record is complete, its beginning may give way to another one.
    let whole = first_segment(&wal, long.end);
    assert_eq!(whole, [plain(name).encoded(Encoding::Gzip)]);
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
