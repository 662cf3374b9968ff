//! Reading the bytes of a segment by offset, however they are stored.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use walproto::SegmentSize;

use super::compression::{self, Recognized, is_disk_error};
use super::directory::ArchiveDirectory;
use crate::disk::OpenMode;
use crate::disk::named_file::{FileReader, NamedFile};
use crate::error::{ArchiveError, Damage, DiskError, Operation};
use crate::wal::segment::{Encoding, SegmentFile};

/// The bytes of a segment's file, without its compression. All that is read of segments is read
/// through it.
///
/// A compressed file is decoded forwards: to read at an offset before the last one starts again at
/// the beginning of the file. Memory is bounded by the compression method's window, whatever the
/// file holds.
pub struct SegmentReader {
    file: SegmentFile,
    opened: Arc<NamedFile>,
    /// Only of a compressed file, once it was read.
    decoding: Option<Decoding>,
    /// Where [`Read`] continues.
    offset: u64,
}

/// A decoder and how far it has come.
struct Decoding {
    input: Box<dyn Read + Send>,
    offset: u64,
}

impl SegmentReader {
    pub(crate) fn open(
        directory: &ArchiveDirectory,
        file: SegmentFile,
    ) -> Result<Self, ArchiveError> {
        let path = directory.path(file);
        let opened = directory.open(path, OpenMode::Read)?;
        Ok(Self::over(Arc::new(opened), file))
    }

    /// Reads a file that is open.
    pub(crate) const fn over(opened: Arc<NamedFile>, file: SegmentFile) -> Self {
        Self {
            file,
            opened,
            decoding: None,
            offset: 0,
        }
    }

    /// Reads a file that is open and may be compressed although its name does not say so, as those
    /// of barman are. An unknown compression method is given by its name.
    pub(crate) fn recognizing(
        opened: NamedFile,
        file: SegmentFile,
    ) -> Result<Result<Self, &'static str>, DiskError> {
        let recognized = match file.encoding {
            Encoding::Plain => compression::recognize_file(&opened)?,
            encoding => Some(Recognized::Known(encoding)),
        };
        let encoding = match recognized {
            None => Encoding::Plain,
            Some(Recognized::Known(encoding)) => encoding,
            Some(Recognized::Unknown(method)) => return Ok(Err(method)),
        };
        Ok(Ok(Self::over(Arc::new(opened), file.encoded(encoding))))
    }

    /// A second reader of the same open file, which may have lost its name. A compressed file is
    /// decoded by each on its own.
    pub(crate) fn again(&self) -> Self {
        Self::over(Arc::clone(&self.opened), self.file)
    }

    /// Which file it is.
    #[must_use]
    pub const fn file(&self) -> SegmentFile {
        self.file
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.opened.path()
    }

    pub(crate) const fn opened(&self) -> &Arc<NamedFile> {
        &self.opened
    }

    /// Whether the file's offsets are those of the segment.
    pub(crate) fn is_plain(&self) -> bool {
        self.file.encoding == Encoding::Plain
    }

    /// Fills `buffer` with the bytes from `offset` on and returns how many bytes there were; fewer
    /// than its length only at the end.
    ///
    /// # Errors
    /// When the disk refuses or the file does not decompress.
    pub fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize, ArchiveError> {
        if self.is_plain() {
            return Ok(self.opened.read_full_at(buffer, offset)?);
        }
        self.decode(offset, |input| compression::read_full(input, buffer))
            .map_err(|error| self.unreadable(error))
    }

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// As for [`read_at`](Self::read_at), and when the file ends before.
    pub fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), ArchiveError> {
        if self.is_plain() {
            return Ok(self.opened.read_exact_at(buffer, offset)?);
        }
        if self.read_at(buffer, offset)? == buffer.len() {
            return Ok(());
        }
        Err(self.unreadable(io::ErrorKind::UnexpectedEof.into()))
    }

    /// Fills `buffer` and returns how many bytes there were; fewer than its length only at the
    /// end. The next call continues there.
    ///
    /// # Errors
    /// When the disk refuses or the file does not decompress. A compressed growing segment that
    /// pg_receivewal left may well end like that.
    pub fn read_full(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        let count = self.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }

    /// Checks that nothing follows the last byte of a segment of this size, and a compressed file's
    /// own checksum. All bytes of the segment have been read.
    pub(crate) fn check_end(&mut self, size: SegmentSize) -> Result<(), ArchiveError> {
        if self.read_at(&mut [0], size.bytes())? == 0 {
            return Ok(());
        }
        Err(ArchiveError::WrongLength {
            path: self.path().to_owned(),
            found: size.bytes() + 1,
            expected: size.bytes(),
            partial: self.file.partial,
        })
    }

    /// Reads what is decoded from `offset` on; nothing if the file ends before. After an error the
    /// next call decodes from the beginning of the file.
    fn decode(
        &mut self,
        offset: u64,
        read: impl FnOnce(&mut dyn Read) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut decoding = match self.decoding.take() {
            Some(decoding) if decoding.offset <= offset => decoding,
            _ => Decoding::begin(self.file.encoding, &self.opened)?,
        };
        let is_there = decoding.skip_to(offset)?;
        let count = if is_there {
            read(&mut *decoding.input)?
        } else {
            0
        };
        decoding.offset += count as u64;
        self.decoding = Some(decoding);
        Ok(count)
    }

    fn unreadable(&self, error: io::Error) -> ArchiveError {
        unreadable(self.path(), error)
    }
}

impl Decoding {
    fn begin(encoding: Encoding, opened: &Arc<NamedFile>) -> io::Result<Self> {
        let input = compression::decoder(encoding, FileReader::new(Arc::clone(opened)))?;
        Ok(Self { input, offset: 0 })
    }

    /// Decodes up to `offset`; `false` if the file ends before.
    fn skip_to(&mut self, offset: u64) -> io::Result<bool> {
        let skip = offset.saturating_sub(self.offset);
        let skipped = io::copy(&mut self.input.by_ref().take(skip), &mut io::sink())?;
        self.offset += skipped;
        Ok(skipped == skip)
    }
}

impl std::fmt::Debug for SegmentReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentReader")
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

impl Read for SegmentReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = if self.is_plain() {
            self.opened.read_some_at(buffer, self.offset)?
        } else {
            self.decode(self.offset, |input| input.read(buffer))?
        };
        self.offset += count as u64;
        Ok(count)
    }
}

/// What it means that a file, which may be compressed, cannot be read.
pub(crate) fn unreadable(path: &Path, error: io::Error) -> ArchiveError {
    if is_disk_error(&error) {
        DiskError::at(Operation::Read, path)(error).into()
    } else {
        ArchiveError::Damaged {
            path: path.to_owned(),
            reason: Damage::Compression(error),
        }
    }
}
