//! Reading the bytes of a segment, however they are stored.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::archive::compression::{self, is_disk_error};
use crate::archive::directory::ArchiveDirectory;
use crate::disk::OpenMode;
use crate::disk::named_file::NamedFile;
use crate::error::{ArchiveError, Damage, DiskError, Operation};
use crate::wal::segment::SegmentFile;

/// The bytes of a segment from its beginning on, without their compression. Memory is bounded by
/// the compression method's window, whatever the file holds.
pub struct SegmentReader {
    input: Box<dyn Read + Send>,
    file: SegmentFile,
    path: PathBuf,
}

impl SegmentReader {
    pub(crate) fn open(
        directory: &ArchiveDirectory,
        file: SegmentFile,
    ) -> Result<Self, ArchiveError> {
        let path = directory.path(file);
        Self::over(directory.open(path, OpenMode::Read)?, file)
    }

    /// Reads `file`, which was opened.
    pub(crate) fn over(opened: NamedFile, file: SegmentFile) -> Result<Self, ArchiveError> {
        let path = opened.path().to_owned();
        match compression::decoder(file.encoding, opened.into_reader()) {
            Ok(input) => Ok(Self { input, file, path }),
            Err(error) => Err(unreadable(&path, error)),
        }
    }

    /// Which file it is.
    #[must_use]
    pub const fn file(&self) -> SegmentFile {
        self.file
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `buffer` and returns how many bytes there were; fewer than its length only at the
    /// end.
    ///
    /// # Errors
    /// When the disk refuses or the file does not decompress. A compressed growing segment that
    /// pg_receivewal left may well end like that.
    pub fn read_full(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        compression::read_full(&mut self.input, buffer)
            .map_err(|error| unreadable(&self.path, error))
    }
}

impl std::fmt::Debug for SegmentReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentReader")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Read for SegmentReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer)
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
