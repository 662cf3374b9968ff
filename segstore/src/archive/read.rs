//! Reading WAL back from the archive along the path of a timeline.

use std::io::{self, Read};
use std::sync::Arc;

use walproto::{Lsn, TimelineHistory};

use crate::archive::segment_files::{FileOrder, SegmentFiles};
use crate::archive::segment_reader::{SegmentReader, unreadable};
use crate::disk::named_file::NamedFile;
use crate::error::ArchiveError;
use crate::wal::segment::{Encoding, SegmentFile};

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
    file: SegmentFile,
    source: Source,
    /// The positions that are read from this file: to the end of its segment, or to where its
    /// timeline was left.
    start: Lsn,
    end: Lsn,
    generation: u64,
}

#[derive(Debug)]
enum Source {
    Plain(NamedFile),
    /// Decoded from the beginning; `position` is that of the next byte.
    Decoded {
        bytes: SegmentReader,
        position: Lsn,
    },
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
        self.open.as_ref().map(|open| open.file)
    }

    /// Reads bytes from [`position`](Self::position) on, none of them at `end` or after it, and
    /// none of a second file. 0 bytes mean that `end` is reached, or that the archive holds
    /// nothing here.
    ///
    /// # Errors
    /// When a file cannot be opened, read or decompressed.
    pub fn read(&mut self, buffer: &mut [u8], end: Lsn) -> Result<usize, ArchiveError> {
        if self.position >= end || buffer.is_empty() || !self.open_here()? {
            return Ok(0);
        }
        let Some(open) = &mut self.open else {
            return Ok(0);
        };
        let wanted = open.end.min(end).bytes_since(self.position);
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(wanted);
        let Some(buffer) = buffer.get_mut(..wanted) else {
            return Ok(0);
        };
        let count = match &mut open.source {
            Source::Plain(file) => {
                file.read_full_at(buffer, self.position.bytes_since(open.start))?
            }
            Source::Decoded { bytes, position } => {
                let result = read_decoded(bytes, position, self.position, buffer);
                if result.is_err() {
                    // Where the decoder is now nobody knows.
                    self.open = None;
                }
                result?
            }
        };
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

    /// Sees to it that the open file is the one for the current position; `false` when there is
    /// none.
    fn open_here(&mut self) -> Result<bool, ArchiveError> {
        let generation = self.files.directory().generation();
        if let Some(open) = &self.open
            && open.generation == generation
            && (open.start..open.end).contains(&self.position)
            && !matches!(open.source, Source::Decoded { position, .. } if position > self.position)
        {
            return Ok(true);
        }
        self.open = None;
        for (timeline, end) in self.files.candidates(&self.history, self.position) {
            let name = self.files.name_of(timeline, self.position);
            if let Some((file, opened)) = self.files.find_among(self.order.files(name))? {
                let start = self.files.size().start_of(self.position);
                let source = match file.encoding {
                    Encoding::Plain => Source::Plain(opened),
                    Encoding::Gzip | Encoding::Lz4 | Encoding::Zstd => Source::Decoded {
                        bytes: SegmentReader::over(opened, file)?,
                        position: start,
                    },
                };
                self.open = Some(OpenFile {
                    file,
                    source,
                    start,
                    end,
                    generation,
                });
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Reads the bytes at `wanted`, to which those before it are skipped.
fn read_decoded(
    bytes: &mut SegmentReader,
    position: &mut Lsn,
    wanted: Lsn,
    buffer: &mut [u8],
) -> Result<usize, ArchiveError> {
    let skip = wanted.bytes_since(*position);
    let skipped = io::copy(&mut bytes.by_ref().take(skip), &mut io::sink())
        .map_err(|error| unreadable(bytes.path(), error))?;
    *position = Lsn(position.0.saturating_add(skipped));
    if skipped < skip {
        return Ok(0);
    }
    let count = bytes.read_full(buffer)?;
    *position = Lsn(position.0.saturating_add(count as u64));
    Ok(count)
}
