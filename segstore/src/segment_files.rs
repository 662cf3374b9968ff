//! The segments of an archive, by position: finding and opening the files that hold them.

use walproto::{Lsn, SegmentSize, TimelineId};

use crate::directory::ArchiveDirectory;
use crate::disk::OpenMode;
use crate::error::DiskError;
use crate::named_file::NamedFile;
use crate::segment::{Encoding, SegmentFile, SegmentName};

/// The segments in an archive's directory. Clones are the same ones.
#[derive(Clone, Debug)]
pub(crate) struct SegmentFiles {
    directory: ArchiveDirectory,
    size: SegmentSize,
}

impl SegmentFiles {
    pub(crate) const fn new(directory: ArchiveDirectory, size: SegmentSize) -> Self {
        Self { directory, size }
    }

    pub(crate) const fn directory(&self) -> &ArchiveDirectory {
        &self.directory
    }

    pub(crate) const fn size(&self) -> SegmentSize {
        self.size
    }

    /// The name of the segment that holds the byte at `lsn`.
    pub(crate) fn name_of(&self, timeline: TimelineId, lsn: Lsn) -> SegmentName {
        SegmentName::of(timeline, lsn, self.size)
    }

    /// The end of the segment that holds the byte at `lsn`; the last position there is for the
    /// last segment.
    pub(crate) fn end_of(&self, lsn: Lsn) -> Lsn {
        let start = self.size.start_of(lsn);
        let end = start.checked_add(self.size.bytes());
        end.unwrap_or(Lsn(u64::MAX))
    }

    /// Opens the file that holds a segment, `None` when there is none.
    ///
    /// A growing file is looked for before the complete one that it is renamed to, and a plain
    /// one before the compressed one that takes its place, so that none is missed because it got
    /// another name in between.
    pub(crate) fn find(
        &self,
        name: SegmentName,
    ) -> Result<Option<(SegmentFile, NamedFile)>, DiskError> {
        let growing = Encoding::ALL.map(|e| SegmentFile::partial(name).encoded(e));
        let complete = Encoding::ALL.map(|e| SegmentFile::complete(name).encoded(e));
        for file in growing.into_iter().chain(complete) {
            if let Some(opened) = self.open(file, OpenMode::Read)? {
                return Ok(Some((file, opened)));
            }
        }
        Ok(None)
    }

    /// Opens a segment file, `None` when there is none of that name.
    pub(crate) fn open(
        &self,
        file: SegmentFile,
        mode: OpenMode,
    ) -> Result<Option<NamedFile>, DiskError> {
        let path = self.directory.path(file);
        NamedFile::open_if_exists(self.directory.disk(), path, mode)
    }
}
