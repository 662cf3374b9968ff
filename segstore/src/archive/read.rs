//! Reading WAL back from the archive along the path of a timeline.

use std::sync::Arc;

use walproto::{Lsn, TimelineHistory};

use super::segment_files::{FileOrder, Located, SegmentFiles};
use crate::error::ArchiveError;
use crate::wal::segment::SegmentFile;

/// Reads the bytes of a timeline and of its ancestors, each up to where the next one left it,
/// from growing, complete and compressed segments alike.
///
/// Where several files hold a position, the newest timeline's is read: its first segment begins
/// with a copy of what its parent had there.
///
/// It does not know how far WAL is valid: a growing segment goes on with zeros, or with bytes
/// that may yet be replaced. Whoever reads passes the end that recovery or a writer vouched for.
#[derive(Debug)]
pub struct WalReader {
    files: SegmentFiles,
    order: FileOrder,
    history: Arc<TimelineHistory>,
    position: Lsn,
    open: Option<OpenFile>,
}

#[derive(Debug)]
struct OpenFile {
    located: Located,
    generation: u64,
}

impl WalReader {
    pub(crate) fn new(files: SegmentFiles, history: Arc<TimelineHistory>, start: Lsn) -> Self {
        Self {
            files,
            order: FileOrder::GrowingFirst,
            history,
            position: start,
            open: None,
        }
    }

    /// Tries the files of a segment in another order.
    pub(crate) fn in_order(self, order: FileOrder) -> Self {
        Self { order, ..self }
    }

    /// The position of the next byte to be read.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        self.position
    }

    /// Goes on reading at `position`.
    pub const fn seek(&mut self, position: Lsn) {
        self.position = position;
    }

    /// The file that the last byte was read from.
    #[must_use]
    pub fn file(&self) -> Option<SegmentFile> {
        self.open.as_ref().map(|open| open.located.reader.file())
    }

    /// Reads bytes from [`position`](Self::position) on, none of them at `end` or after it, and
    /// none of a second file. 0 bytes mean that `end` is reached, or that the archive holds
    /// nothing here.
    ///
    /// # Errors
    /// When a file cannot be opened, read or decompressed.
    pub fn read(&mut self, buffer: &mut [u8], end: Lsn) -> Result<usize, ArchiveError> {
        if self.position >= end || buffer.is_empty() {
            return Ok(0);
        }
        let position = self.position;
        let Some(open) = self.open_here()? else {
            return Ok(0);
        };
        let wanted = open.end.min(end).bytes_since(position);
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(wanted);
        let Some(buffer) = buffer.get_mut(..wanted) else {
            return Ok(0);
        };
        let offset = position.bytes_since(open.start);
        let count = open.reader.read_at(buffer, offset)?;
        self.position = Lsn(self.position.0.saturating_add(count as u64));
        Ok(count)
    }

    /// Reads until `buffer` is full, or [`read`](Self::read) has nothing more.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn read_full(&mut self, buffer: &mut [u8], end: Lsn) -> Result<usize, ArchiveError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..) {
            match self.read(rest, end)? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    }

    /// The file for the current position, which is opened unless it is open; `None` when there is
    /// none.
    fn open_here(&mut self) -> Result<Option<&mut Located>, ArchiveError> {
        let generation = self.files.directory().generation();
        let position = self.position;
        let is_current = |open: &OpenFile| {
            open.generation == generation
                && (open.located.start..open.located.end).contains(&position)
        };
        if !self.open.as_ref().is_some_and(is_current) {
            self.open = None;
            let located = self.files.locate(&self.history, position, self.order)?;
            self.open = located.map(|located| OpenFile {
                located,
                generation,
            });
        }
        Ok(self.open.as_mut().map(|open| &mut open.located))
    }
}
