//! Several files of one segment.

use crate::archive::directory::ArchiveDirectory;
use crate::archive::segment_reader::SegmentReader;
use crate::archive::takeover::difference_within;
use crate::disk::filled;
use crate::error::ArchiveError;
use crate::wal::segment::SegmentFile;
use walproto::SegmentSize;

/// What is read and compared at once.
const BLOCK: usize = 128 << 10;

/// Checks that `copy` holds what the preferred file of its segment does: all of it, or as a growing
/// segment the first part. A file that is gone was replaced by the other one meanwhile.
pub(super) fn check(
    directory: &ArchiveDirectory,
    copy: SegmentFile,
    preferred: SegmentFile,
    size: SegmentSize,
) -> Result<(), ArchiveError> {
    let difference = match (copy.partial, preferred.partial) {
        (true, true) => difference_of_growing(directory, copy, preferred, size),
        (true, false) => difference_within(directory, copy, preferred, size),
        (false, _) => first_difference(directory, copy, preferred),
    };
    match difference {
        Ok(None) => Ok(()),
        Ok(Some(offset)) => Err(ArchiveError::Conflict {
            path: directory.path(copy),
            other: directory.path(preferred),
            offset,
        }),
        Err(ArchiveError::Disk(error)) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// The first offset at which two growing segments differ, none of which begins with all of the
/// other.
fn difference_of_growing(
    directory: &ArchiveDirectory,
    copy: SegmentFile,
    preferred: SegmentFile,
    size: SegmentSize,
) -> Result<Option<u64>, ArchiveError> {
    let difference = difference_within(directory, copy, preferred, size)?;
    if difference.is_none() {
        return Ok(None);
    }
    match difference_within(directory, preferred, copy, size) {
        // The copy is compressed and ends before the preferred file does.
        Err(ArchiveError::Damaged { .. }) => Ok(difference),
        other => Ok(other?.and(difference)),
    }
}

/// The first offset at which two files of a complete segment differ.
fn first_difference(
    directory: &ArchiveDirectory,
    copy: SegmentFile,
    preferred: SegmentFile,
) -> Result<Option<u64>, ArchiveError> {
    let mut one = SegmentReader::open(directory, copy)?;
    let mut other = SegmentReader::open(directory, preferred)?;
    let (mut a, mut b) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut offset = 0;
    loop {
        let (count, expected) = (one.read_full(&mut a)?, other.read_full(&mut b)?);
        let a = filled(&a, count);
        let b = filled(&b, expected);
        let same = a.iter().zip(b).take_while(|(x, y)| x == y).count();
        if same < count || same < expected {
            return Ok(Some(offset + same as u64));
        }
        if count < BLOCK {
            return Ok(None);
        }
        offset += count as u64;
    }
}
