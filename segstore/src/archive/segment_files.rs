//! The segments of an archive, by position: finding and opening the files that hold them.

use std::sync::Arc;

use walproto::{Lsn, SegmentSize, TimelineHistory, TimelineId};

use crate::archive::directory::ArchiveDirectory;
use crate::archive::segment_reader::SegmentReader;
use crate::disk::named_file::NamedFile;
use crate::disk::{OpenMode, filled};
use crate::error::DiskError;
use crate::wal::segment::{Encoding, SegmentFile, SegmentName};

/// What is read at once.
const BLOCK: usize = 128 << 10;

/// In which order the files that may hold a segment are tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FileOrder {
    /// A growing file before the complete one that it is renamed to, and a plain one before the
    /// compressed one that takes its place, so that none is missed because it got another name in
    /// between.
    GrowingFirst,
    /// The complete plain file, then the growing one, then compressed ones: first the complete
    /// segment, last the growing one, which a receiver compresses when it ends. A file may get
    /// another name in between: try twice.
    CompleteFirst,
    /// The same without the growing file.
    CompleteOnly,
}

impl FileOrder {
    /// The files that may hold the segment.
    pub(crate) fn files(self, name: SegmentName) -> Vec<SegmentFile> {
        let (growing, complete) = (SegmentFile::partial(name), SegmentFile::complete(name));
        let every = |file: SegmentFile| Encoding::ALL.into_iter().map(move |e| file.encoded(e));
        let compressed = |file| every(file).filter(|file| file.encoding != Encoding::Plain);
        match self {
            Self::GrowingFirst => every(growing).chain(every(complete)).collect(),
            Self::CompleteFirst => [complete, growing]
                .into_iter()
                .chain(compressed(complete))
                .chain(compressed(growing))
                .collect(),
            Self::CompleteOnly => every(complete).collect(),
        }
    }
}

/// A file that was found for a position.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) reader: SegmentReader,
    /// The start of its segment.
    pub(crate) start: Lsn,
    /// Up to where it is read: the end of its segment, or where its timeline was left.
    pub(crate) end: Lsn,
}

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

    /// The timelines of whose segments one may hold `position` on the way along `history`, the
    /// newest first, and up to where.
    ///
    /// A timeline's first segment begins with a copy of what its parent had there, so that the
    /// newest one's is to be preferred.
    pub(crate) fn candidates(
        &self,
        history: &TimelineHistory,
        position: Lsn,
    ) -> Vec<(TimelineId, Lsn)> {
        let segment_end = self.end_of(position);
        let ancestors = history.ancestors();
        let mut candidates = Vec::new();
        if history.begin().is_none_or(|begin| begin < segment_end) {
            candidates.push((history.timeline(), segment_end));
        }
        for (index, ancestor) in ancestors.iter().enumerate().rev() {
            let before = index
                .checked_sub(1)
                .and_then(|before| ancestors.get(before));
            let begins_here = before.is_none_or(|parent| parent.switch_point < segment_end);
            if begins_here && position < ancestor.switch_point {
                let end = ancestor.switch_point.min(segment_end);
                candidates.push((ancestor.timeline, end));
            }
        }
        candidates
    }

    /// Opens the file that holds the byte at `position` on the way along `history`, `None` when there
    /// is none.
    pub(crate) fn locate(
        &self,
        history: &TimelineHistory,
        position: Lsn,
        order: FileOrder,
    ) -> Result<Option<Located>, DiskError> {
        for (timeline, end) in self.candidates(history, position) {
            if let Some(reader) = self.find(self.name_of(timeline, position), order)? {
                let start = self.size.start_of(position);
                return Ok(Some(Located { reader, start, end }));
            }
        }
        Ok(None)
    }

    /// Opens the file that holds a segment, `None` when there is none.
    pub(crate) fn find(
        &self,
        name: SegmentName,
        order: FileOrder,
    ) -> Result<Option<SegmentReader>, DiskError> {
        for file in order.files(name) {
            if let Some(opened) = self.open(file, OpenMode::Read)? {
                return Ok(Some(SegmentReader::over(Arc::new(opened), file)));
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

    /// Whether a growing segment holds nothing but zeros; one that is not plain, or gone, does not.
    pub(crate) fn is_empty(&self, file: SegmentFile) -> Result<bool, DiskError> {
        let empty = file.partial && file.encoding == Encoding::Plain;
        let Some(opened) = self.open(file, OpenMode::Read)?.filter(|_| empty) else {
            return Ok(false);
        };
        let mut block = vec![0; BLOCK];
        let mut offset = 0;
        loop {
            let count = opened.read_full_at(&mut block, offset)?;
            let bytes = filled(&block, count);
            if length_without_zeros(bytes).is_some() {
                return Ok(false);
            }
            if count < block.len() {
                return Ok(true);
            }
            offset += count as u64;
        }
    }
}

/// The length up to the last byte that is not zero, `None` when all are.
pub(crate) fn length_without_zeros(bytes: &[u8]) -> Option<usize> {
    static ZEROS: [u8; 4096] = [0; 4096];
    let mut end = bytes.len();
    // Whole steps at once: most of a growing segment is zeros.
    for step in bytes.rchunks(ZEROS.len()) {
        if ZEROS.get(..step.len()) != Some(step) {
            let last = step.iter().rposition(|byte| *byte != 0);
            return last.map(|index| end - step.len() + index + 1);
        }
        end -= step.len();
    }
    None
}
