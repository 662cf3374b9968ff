//! The narrow interface through which all file access goes.
//!
//! It exists because it has two implementations: the operating system's ([`OsDisk`](crate::OsDisk))
//! and, for tests, a simulated disk that keeps written and durable images apart and cuts the power
//! at any operation ([`SimDisk`](crate::disk::sim::SimDisk)).

use std::ffi::OsString;
use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::Path;

pub(crate) mod aligned;
pub(crate) mod named_file;
pub(crate) mod os_disk;
pub mod sim;
#[cfg(test)]
pub(crate) mod tampered;
pub(crate) mod unsynced;

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
    /// Whether it is a regular file, or a symbolic link to one.
    pub is_file: bool,
}

/// Who may read what is created.
///
/// Source: src/include/common/file_perm.h, `PG_FILE_MODE_OWNER` and its neighbours (PG 15).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Access {
    /// The owner alone: directories 0700, files 0600.
    #[default]
    Owner,
    /// The group may read: directories 0750, files 0640.
    Group,
}

impl Access {
    /// The access that fits a server's `data_directory_mode`: the group's when the group may read
    /// and enter the data directory.
    ///
    /// Source: src/common/file_perm.c, `SetDataDirectoryCreatePerm` (PG 15).
    #[must_use]
    pub const fn of_data_directory(mode: u32) -> Self {
        if mode & 0o750 == 0o750 {
            Self::Group
        } else {
            Self::Owner
        }
    }

    /// The permission bits of a directory.
    #[must_use]
    pub const fn directory_mode(self) -> u32 {
        match self {
            Self::Owner => 0o700,
            Self::Group => 0o750,
        }
    }

    /// The permission bits of a file.
    #[must_use]
    pub const fn file_mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Group => 0o640,
        }
    }
}

/// Directories and the names in them.
///
/// A name that was created, renamed or removed is durable only after [`DiskDirectory::sync`].
pub trait Disk: Send + Sync + Debug {
    /// Opens a file.
    ///
    /// # Errors
    /// The operating system's.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name, replacing the file that has that name; or a directory, together
    /// with what is in it, a name that nothing has.
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

    /// Opens a directory, to make the names in it durable.
    ///
    /// # Errors
    /// The operating system's. They say nothing about what is durable.
    fn open_directory(&self, directory: &Path) -> io::Result<Box<dyn DiskDirectory>>;

    /// Sets who may read the files and directories that are created from now on.
    fn set_access(&self, access: Access);

    /// Gives a file or directory that exists the access last set.
    ///
    /// # Errors
    /// The operating system's.
    fn apply_access(&self, path: &Path) -> io::Result<()>;
}

/// An open directory.
pub trait DiskDirectory: Send + Sync + Debug {
    /// Makes the names in it durable.
    ///
    /// # Errors
    /// The operating system's; after one, nothing that was not durable before may be trusted.
    fn sync(&self) -> io::Result<()>;

    /// Takes the directory's exclusive lock, which is held until this handle is dropped. Returns
    /// `false` if another handle holds the lock. Unlike a lock file, it cannot be removed.
    ///
    /// # Errors
    /// Of kind [`Unsupported`](io::ErrorKind::Unsupported) where the file system cannot lock
    /// directories, as network file systems cannot; otherwise the operating system's.
    fn try_lock(&self) -> io::Result<bool>;

    /// Whether `path` is still the name of this directory.
    ///
    /// # Errors
    /// The operating system's, other than that nothing has that name.
    fn is_at(&self, path: &Path) -> io::Result<bool>;
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

    /// Makes the file at least `length` long, new bytes being zero, and reserves the space of
    /// all of it where the file system can, so that a full disk shows here and not in a later
    /// write.
    ///
    /// # Errors
    /// The operating system's; the length is unknown after one.
    fn allocate(&self, length: u64) -> io::Result<()>;

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

    /// Writes as [`write_at`](Self::write_at) does, and spares the operating system's cache
    /// where it can: for much at once that is not read back soon.
    ///
    /// # Errors
    /// As of [`write_at`](Self::write_at).
    fn write_bulk_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.write_at(buffers, offset)
    }

    /// Makes the file's bytes and its length durable (`fdatasync`).
    ///
    /// # Errors
    /// The operating system's. A failed sync is final: the page cache may have dropped what it
    /// could not write, and the next call would succeed without it.
    fn sync_data(&self) -> io::Result<()>;

    /// Takes the file's exclusive lock if nobody else has it, until this handle is dropped;
    /// `false` when somebody has.
    ///
    /// # Errors
    /// The operating system's.
    fn try_lock(&self) -> io::Result<bool>;

    /// Whether `path` is still the name of this file.
    ///
    /// # Errors
    /// The operating system's, other than that nothing has that name.
    fn is_at(&self, path: &Path) -> io::Result<bool>;

    /// The operating system's handle, with which the file's bytes can be sent without passing
    /// through this process; `None` where there is none.
    fn file_descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// The first `count` bytes of a buffer, which a read has filled.
pub(crate) fn filled(buffer: &[u8], count: usize) -> &[u8] {
    debug_assert!(count <= buffer.len(), "{count} of {} bytes", buffer.len());
    buffer.get(..count).unwrap_or(buffer)
}
