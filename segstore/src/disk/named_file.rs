//! Open files that know their path, so that every error names it.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{DiskError, Operation};

/// An open file and the path it was opened by.
#[derive(Debug)]
pub(crate) struct NamedFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
}

impl NamedFile {
    pub(crate) fn open(disk: &dyn Disk, path: PathBuf, mode: OpenMode) -> Result<Self, DiskError> {
        let operation = match mode {
            OpenMode::Read | OpenMode::ReadWrite => Operation::Open,
            OpenMode::CreateNew => Operation::Create,
        };
        match disk.open(&path, mode) {
            Ok(file) => Ok(Self { file, path }),
            Err(source) => Err(DiskError::at(operation, path)(source)),
        }
    }

    /// Opens a file that may not be there.
    pub(crate) fn open_if_exists(
        disk: &dyn Disk,
        path: PathBuf,
        mode: OpenMode,
    ) -> Result<Option<Self>, DiskError> {
        match Self::open(disk, path, mode) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The same file after it got another name.
    pub(crate) fn renamed(self, path: PathBuf) -> Self {
        Self { path, ..self }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn at<T>(&self, operation: Operation, result: io::Result<T>) -> Result<T, DiskError> {
        result.map_err(DiskError::at(operation, &self.path))
    }

    pub(crate) fn length(&self) -> Result<u64, DiskError> {
        self.at(Operation::Read, self.file.length())
    }

    pub(crate) fn set_length(&self, length: u64) -> Result<(), DiskError> {
        self.at(Operation::SetLength, self.file.set_length(length))
    }

    pub(crate) fn allocate(&self, length: u64) -> Result<(), DiskError> {
        self.at(Operation::Allocate, self.file.allocate(length))
    }

    /// Fills `buffer` from `offset` on and returns how many bytes there were; fewer than its
    /// length only at the end of the file.
    pub(crate) fn read_full_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, DiskError> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..)
            && !rest.is_empty()
        {
            let at = offset.saturating_add(done as u64);
            match self.at(Operation::Read, self.file.read_at(rest, at))? {
                0 => break,
                count if count > rest.len() => {
                    let error = io::Error::other("the disk reports more bytes than were asked for");
                    return self.at(Operation::Read, Err(error));
                }
                count => done += count,
            }
        }
        Ok(done)
    }

    /// Fills `buffer` with the bytes from `offset` on.
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), DiskError> {
        if self.read_full_at(buffer, offset)? == buffer.len() {
            return Ok(());
        }
        self.at(Operation::Read, Err(io::ErrorKind::UnexpectedEof.into()))
    }

    /// Reads what one call gives, for a stream that names the path in its errors itself.
    pub(crate) fn read_some_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    pub(crate) fn write_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> Result<(), DiskError> {
        self.at(Operation::Write, self.file.write_at(buffers, offset))
    }

    pub(crate) fn write_bulk_at(
        &self,
        buffers: &[IoSlice<'_>],
        offset: u64,
    ) -> Result<(), DiskError> {
        self.at(Operation::Write, self.file.write_bulk_at(buffers, offset))
    }

    pub(crate) fn sync_data(&self) -> Result<(), DiskError> {
        self.at(Operation::Sync, self.file.sync_data())
    }

    pub(crate) fn try_lock(&self) -> Result<bool, DiskError> {
        self.at(Operation::Lock, self.file.try_lock())
    }

    /// Whether its path is still its name.
    pub(crate) fn is_in_place(&self) -> io::Result<bool> {
        self.file.is_at(&self.path)
    }

    /// The operating system's handle, if there is one.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.file.file_descriptor()
    }

    /// What the operating system knows of the file; `None` on a disk that has no descriptors.
    pub(crate) fn status(&self) -> Result<Option<rustix::fs::Stat>, DiskError> {
        let status = self.descriptor().map(rustix::fs::fstat).transpose();
        self.at(Operation::Read, status.map_err(io::Error::from))
    }

    /// Appends to the file, which is empty.
    pub(crate) fn into_writer(self) -> FileWriter {
        FileWriter {
            file: self,
            offset: 0,
        }
    }
}

/// Reads a file from its beginning to its end.
#[derive(Debug)]
pub(crate) struct FileReader {
    file: Arc<NamedFile>,
    offset: u64,
}

impl FileReader {
    pub(crate) fn new(file: impl Into<Arc<NamedFile>>) -> Self {
        Self {
            file: file.into(),
            offset: 0,
        }
    }
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_some_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Writes a file from its beginning on.
#[derive(Debug)]
pub(crate) struct FileWriter {
    file: NamedFile,
    offset: u64,
}

impl FileWriter {
    pub(crate) fn into_file(self) -> NamedFile {
        self.file
    }
}

impl Write for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let buffers = [IoSlice::new(bytes)];
        self.file.file.write_at(&buffers, self.offset)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
