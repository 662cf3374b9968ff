//! The narrow interface through which all file access goes.
//!
//! It exists because it has two implementations: the operating system's ([`OsDisk`](crate::OsDisk))
//! and, in tests, a simulated disk that keeps written and durable images apart and cuts the power
//! at any operation.

use std::ffi::OsString;
use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// For reading; the file must exist.
    Read,
    /// For reading and writing; the file must exist.
    ReadWrite,
    /// For reading and writing; the file must not exist.
    CreateNew,
}

/// One entry of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectoryEntry {
    /// The name, without the directory.
    pub name: OsString,
    /// The length in bytes; of no meaning for what is not a file.
    pub length: u64,
    /// Whether it is a regular file.
    pub is_file: bool,
}

/// Directories and the names in them.
///
/// A name that was created, renamed or removed is durable only after [`Disk::sync_directory`].
pub trait Disk: Send + Sync + Debug {
    /// Opens a file.
    ///
    /// # Errors
    /// The operating system's.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name, replacing what has that name.
    ///
    /// # Errors
    /// The operating system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name.
    ///
    /// # Errors
    /// The operating system's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Creates a directory; one that exists is an error of kind `AlreadyExists`.
    ///
    /// # Errors
    /// The operating system's.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// The entries of a directory, in no order.
    ///
    /// # Errors
    /// The operating system's.
    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// The operating system's; after one, nothing that was not durable before may be trusted.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
}

/// An open file. Positions are bytes from its beginning.
///
/// What was written is durable only after [`DiskFile::sync_data`].
pub trait DiskFile: Send + Sync + Debug {
    /// The length in bytes.
    ///
    /// # Errors
    /// The operating system's.
    fn length(&self) -> io::Result<u64>;

    /// Sets the length; new bytes are zero.
    ///
    /// # Errors
    /// The operating system's.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// Reads up to `buffer.len()` bytes; 0 only at the end of the file.
    ///
    /// # Errors
    /// The operating system's.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `buffers`, one after the other.
    ///
    /// # Errors
    /// The operating system's; what is in the range written to is unknown after one.
    fn write_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// Makes the file's bytes and its length durable (`fdatasync`).
    ///
    /// # Errors
    /// The operating system's. A failed sync is final: the page cache may have dropped what it
    /// could not write, and the next call would succeed without it.
    fn sync_data(&self) -> io::Result<()>;
}
