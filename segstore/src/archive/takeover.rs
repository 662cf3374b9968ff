//! What others, or an interrupted run, left in an archive directory is put in order.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use walproto::SegmentSize;

use crate::archive::compression::{Compression, Digest, is_disk_error};
use crate::archive::directory::ArchiveDirectory;
use crate::archive::listing::Listing;
use crate::archive::segment_reader::{SegmentReader, unreadable};
use crate::disk::named_file::NamedFile;
use crate::disk::{OpenMode, filled};
use crate::error::{ArchiveError, DiskError, Operation};
use crate::wal::segment::{Encoding, SegmentFile};

/// What is read and compared at once.
const CHUNK: usize = 128 << 10;

/// What is read at once of a file that may be damaged.
const PAGE: usize = 8 << 10;

/// Makes plain growing segments of the compressed ones that `pg_receivewal` leaves when it is
/// stopped. Such a file ends in the middle, or has the rest of an older one behind its end, so what
/// decompresses of it is taken. The file itself goes into quarantine: whether it ends there or is
/// damaged there cannot be told.
///
/// A file that holds a whole segment, as [`Archive::compress_growing`](crate::Archive) leaves it,
/// is removed: its checksum shows that nothing of it is missing in the plain one.
///
/// Under another compression than before it begins its last segment anew in another file, and
/// leaves the old one for ever beside what it completes. Those go into quarantine.
///
/// Source: src/bin/pg_basebackup/walmethods.c, `dir_open_for_write` and `dir_close` (PG 15).
pub(crate) fn import_partials(
    directory: &ArchiveDirectory,
    listing: &Listing,
    size: SegmentSize,
) -> Result<(), ArchiveError> {
    for (file, _) in listing.segments() {
        if !file.partial {
            continue;
        }
        let complete = listing.of_segment(file.name).find(|other| !other.partial);
        match complete {
            Some(complete) => set_aside(directory, file, complete, size)?,
            None if file.encoding != Encoding::Plain => import_partial(directory, file, size)?,
            None => {}
        }
    }
    Ok(())
}

/// Puts a growing segment that was completed in another file into quarantine, if all that is in
/// it is in the complete one too.
fn set_aside(
    directory: &ArchiveDirectory,
    growing: SegmentFile,
    complete: SegmentFile,
    size: SegmentSize,
) -> Result<(), ArchiveError> {
    let path = directory.path(growing);
    if let Some(offset) = difference_within(directory, growing, complete, size)? {
        return Err(ArchiveError::Conflict {
            path,
            other: directory.path(complete),
            offset,
        });
    }
    directory.quarantine(&path)?;
    Ok(())
}

/// The first offset at which a growing segment, up to its trailing zeros, differs from a
/// complete one.
pub(crate) fn difference_within(
    directory: &ArchiveDirectory,
    growing: SegmentFile,
    complete: SegmentFile,
    size: SegmentSize,
) -> Result<Option<u64>, ArchiveError> {
    let mut input = SegmentReader::open(directory, growing)?.take(size.bytes());
    let mut whole = SegmentReader::open(directory, complete)?;
    let (mut a, mut b) = (vec![0; CHUNK], vec![0; CHUNK]);
    let (mut offset, mut content_end, mut difference) = (0, 0, None);
    loop {
        let count = match input.read(&mut a) {
            Ok(count) => count,
            Err(error) if is_disk_error(&error) => {
                return Err(DiskError::at(Operation::Read, directory.path(growing))(error).into());
            }
            // The end of what was flushed.
            Err(_) => 0,
        };
        let bytes = filled(&a, count);
        if bytes.is_empty() {
            return Ok(difference.filter(|at| *at < content_end));
        }
        let expected = b.get_mut(..count).unwrap_or_default();
        let found = whole.read_full(expected)?;
        let expected = filled(expected, found);
        if let Some(index) = bytes.iter().rposition(|byte| *byte != 0) {
            content_end = offset + index as u64 + 1;
        }
        if difference.is_none() && bytes != expected {
            let same = bytes.iter().zip(expected).take_while(|(x, y)| x == y);
            difference = Some(offset + same.count() as u64);
        }
        offset += count as u64;
    }
}

fn import_partial(
    directory: &ArchiveDirectory,
    file: SegmentFile,
    size: SegmentSize,
) -> Result<(), ArchiveError> {
    let plain = file.encoded(Encoding::Plain);
    let (source, target) = (directory.path(file), directory.path(plain));
    let (decoded, whole) = decode(directory, file, size)?;
    let existing = NamedFile::open_if_exists(directory.disk(), target.clone(), OpenMode::Read)?;
    if let Some(existing) = existing {
        // Both were written from the segment's beginning, so one continues the other.
        let continued = match compare(&existing, &decoded, size)? {
            Comparison::Same | Comparison::FirstIsLonger => true,
            Comparison::SecondIsLonger => false,
            Comparison::DiffersAt(offset) => {
                directory.remove(decoded.path())?;
                return Err(ArchiveError::Conflict {
                    path: target,
                    other: source,
                    offset,
                });
            }
        };
        if continued {
            directory.remove(decoded.path())?;
            return put_away(directory, &source, whole);
        }
        directory.quarantine(&target)?;
    }
    directory.finish_temporary(&decoded, &target)?;
    put_away(directory, &source, whole)
}

/// Removes a compressed file of which a plain one holds all, or else puts it into quarantine;
/// durably, for the plain one may get other bytes behind its last record.
fn put_away(directory: &ArchiveDirectory, path: &Path, whole: bool) -> Result<(), ArchiveError> {
    if whole {
        directory.remove(path)?;
        directory.sync_root()?;
    } else {
        directory.quarantine(path)?;
    }
    Ok(())
}

/// What decompresses of a file, as a temporary file of the size of a segment, and whether the file
/// holds just as much, with the right checksum.
fn decode(
    directory: &ArchiveDirectory,
    file: SegmentFile,
    size: SegmentSize,
) -> Result<(NamedFile, bool), ArchiveError> {
    let target = directory.create_temporary(file.encoded(Encoding::Plain))?;
    let mut input = SegmentReader::open(directory, file)?;
    // In small pieces: what is good of one that has an error in it is not given.
    let mut buffer = vec![0; PAGE];
    let mut offset = 0;
    let whole = loop {
        match input.read(&mut buffer) {
            // The checksum was right.
            Ok(0) => break offset == size.bytes(),
            Ok(count) => {
                let left = usize::try_from(size.bytes() - offset).unwrap_or(count);
                let bytes = buffer.get(..count.min(left)).unwrap_or_default();
                target.write_at(&[std::io::IoSlice::new(bytes)], offset)?;
                offset += bytes.len() as u64;
                if count > left {
                    break false;
                }
            }
            Err(error) if is_disk_error(&error) => {
                return Err(DiskError::at(Operation::Read, directory.path(file))(error).into());
            }
            // The end of what was flushed, or damage. Whether it is WAL is checked by recovery.
            Err(_) => break false,
        }
    };
    target.allocate(size.bytes())?;
    Ok((target, whole))
}

/// How the contents of two growing segments, up to their trailing zeros, are to each other.
#[derive(PartialEq, Eq, Debug)]
enum Comparison {
    Same,
    FirstIsLonger,
    SecondIsLonger,
    DiffersAt(u64),
}

fn compare(
    first: &NamedFile,
    second: &NamedFile,
    size: SegmentSize,
) -> Result<Comparison, DiskError> {
    let (mut a, mut b) = (vec![0; CHUNK], vec![0; CHUNK]);
    let (mut first_end, mut second_end, mut difference) = (0, 0, None);
    let mut offset = 0;
    while offset < size.bytes() {
        for (file, buffer) in [(first, &mut a), (second, &mut b)] {
            let count = file.read_full_at(buffer, offset)?;
            buffer.iter_mut().skip(count).for_each(|byte| *byte = 0);
        }
        for (at, (x, y)) in (offset..).zip(a.iter().zip(&b)) {
            if *x != 0 {
                first_end = at + 1;
            }
            if *y != 0 {
                second_end = at + 1;
            }
            if x != y && difference.is_none() {
                difference = Some(at);
            }
        }
        offset += CHUNK as u64;
    }
    Ok(match difference {
        None => Comparison::Same,
        Some(at) if at >= second_end => Comparison::FirstIsLonger,
        Some(at) if at >= first_end => Comparison::SecondIsLonger,
        Some(at) => Comparison::DiffersAt(at),
    })
}

/// Finishes compressions that were interrupted between the appearance of the compressed file and
/// the removal of the plain one: both are read, and the plain one goes if they are the same and
/// the compressed one is what is wanted and, whoever wrote it, durable. A compressed file that does
/// not decompress goes into quarantine.
///
/// Of a file in which a sync failed the cache shows what the disk may not have, and another sync
/// succeeds without it. Where one of the two is marked both stay: recovery builds what is marked
/// anew, and the next opening finishes this.
pub(crate) fn finish_compressions(
    directory: &ArchiveDirectory,
    listing: &Listing,
    compression: Compression,
    size: SegmentSize,
) -> Result<(), ArchiveError> {
    let marked: BTreeSet<_> = directory.poisoned()?.iter().map(|file| file.name).collect();
    for (file, _) in listing.segments() {
        let plain = SegmentFile::complete(file.name);
        if file.partial || file == plain || listing.length_of(plain).is_none() {
            continue;
        }
        if marked.contains(&file.name) {
            continue;
        }
        let path = directory.path(file);
        match first_difference(directory, plain, file, size) {
            Ok(None) if file.encoding == compression.encoding() => {
                make_durable(directory, &path)?;
                directory.remove(&directory.path(plain))?;
            }
            Ok(None) => {}
            Ok(Some(offset)) => {
                return Err(ArchiveError::Conflict {
                    path: directory.path(plain),
                    other: path,
                    offset,
                });
            }
            Err(ArchiveError::Damaged { .. }) => {
                directory.quarantine(&path)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Syncs a file that is to stay in place of another one, and its name.
fn make_durable(directory: &ArchiveDirectory, path: &Path) -> Result<(), DiskError> {
    let file = directory.open(path.to_owned(), OpenMode::Read)?;
    let synced = file.sync_data().and_then(|()| directory.sync_root());
    if synced.is_err() {
        // The page cache may show what the disk does not have, to the next process too. This
        // error is the one that says what is wrong.
        drop(directory.quarantine(path));
    }
    synced
}

/// The first offset at which the bytes of two files of a segment differ; the end of the shorter
/// one if they do nowhere before.
fn first_difference(
    directory: &ArchiveDirectory,
    first: SegmentFile,
    second: SegmentFile,
    size: SegmentSize,
) -> Result<Option<u64>, ArchiveError> {
    let mut first = SegmentReader::open(directory, first)?;
    let mut second = SegmentReader::open(directory, second)?;
    let (mut a, mut b) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut digest = Digest::default();
    while digest.length <= size.bytes() {
        let (count_a, count_b) = (first.read_full(&mut a)?, second.read_full(&mut b)?);
        let x = filled(&a, count_a);
        let y = filled(&b, count_b);
        if x != y {
            let same = x.iter().zip(y).take_while(|(x, y)| x == y).count();
            return Ok(Some(digest.length + same as u64));
        }
        if x.is_empty() {
            return Ok(None);
        }
        digest.add(x);
    }
    Ok(None)
}

/// Checks that a complete compressed segment decompresses to a whole segment.
pub(crate) fn verify(
    directory: &ArchiveDirectory,
    file: SegmentFile,
    size: SegmentSize,
) -> Result<(), ArchiveError> {
    let path = directory.path(file);
    let opened = directory.open(path.clone(), OpenMode::Read)?;
    let digest = crate::archive::compression::digest(file.encoding, opened, size.bytes())
        .map_err(|error| unreadable(&path, error))?;
    if digest.length == size.bytes() {
        return Ok(());
    }
    Err(ArchiveError::WrongLength {
        path,
        found: digest.length,
        expected: size.bytes(),
        partial: false,
    })
}
