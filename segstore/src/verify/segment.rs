//! A segment to be checked, and why its check can end early.

use walproto::Lsn;

use crate::archive::segment_files::{FileOrder, SegmentFiles};
use crate::archive::segment_reader::SegmentReader;
use crate::disk::OpenMode;
use crate::error::ArchiveError;
use crate::wal::corruption::Corruption;
use crate::wal::segment::SegmentFile;

/// A segment and the file that is read of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) start: Lsn,
    pub(super) file: SegmentFile,
}

/// Why the check of a segment ended before the segment.
#[derive(Debug)]
pub(super) enum Why {
    /// The WAL is not valid.
    Corrupt(Corruption),
    /// The file ends before its segment.
    Ends,
    /// The file cannot be read.
    Unreadable(ArchiveError),
    /// The file is compressed by a method that cannot be read here.
    Compressed(&'static str),
    /// There is no longer any file of the segment.
    Gone,
}

impl Segment {
    /// Opens the file, or the one that has taken its place.
    pub(super) fn open(&self, files: &SegmentFiles) -> Result<SegmentReader, Why> {
        let listed = self.file;
        let unreadable = |error| Why::Unreadable(ArchiveError::Disk(error));
        let opened = files.open(listed, OpenMode::Read).map_err(unreadable)?;
        let Some(opened) = opened else {
            let found = files.find(listed.name, FileOrder::GrowingFirst);
            return found.map_err(unreadable)?.ok_or(Why::Gone);
        };
        let recognized = SegmentReader::recognizing(opened, listed).map_err(unreadable)?;
        let reader = recognized.map_err(Why::Compressed)?;
        if reader.is_plain() {
            let (found, expected) = (
                reader.opened().length().map_err(unreadable)?,
                files.size().bytes(),
            );
            if found > expected {
                return Err(Why::Unreadable(ArchiveError::WrongLength {
                    path: reader.path().to_owned(),
                    found,
                    expected,
                    partial: listed.partial,
                }));
            }
        }
        Ok(reader)
    }
}
