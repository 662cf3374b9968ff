//! Calls to the disk that did not succeed.

use std::fmt;
use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

/// A call to the disk that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("could not {operation} \"{}\"{}", path.display(), Advice(source))]
pub struct DiskError {
    /// What was to be done.
    pub operation: Operation,
    /// The file or directory.
    pub path: PathBuf,
    /// What the operating system said.
    #[source]
    pub source: io::Error,
}

impl DiskError {
    /// For `map_err`: an error of `operation` on `path`.
    pub fn at(operation: Operation, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self {
            operation,
            path,
            source,
        }
    }

    /// Whether the disk, or what the user may have of it, is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }

    /// Whether the process or the system is temporarily out of file descriptors, memory or threads.
    /// Such an error does not affect what is durable. The error of a failed sync is never one of
    /// these.
    #[must_use]
    pub fn is_out_of_resources(&self) -> bool {
        let lacking = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::INTR];
        match (self.operation, Errno::from_io_error(&self.source)) {
            (Operation::Sync, _) | (_, None) => false,
            (Operation::StartThread, Some(Errno::AGAIN)) => true,
            (_, Some(error)) => lacking.contains(&error),
        }
    }

    /// Whether a retry may succeed without a repair of the archive: the disk is full, or the system
    /// lacks resources.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.is_disk_full() || self.is_out_of_resources()
    }

    /// Whether there is no such file.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// What was asked of the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Operation {
    /// Open a file that exists.
    Open,
    /// Create a file or directory.
    Create,
    /// Read a file.
    Read,
    /// Write a file.
    Write,
    /// Reserve the space of a file.
    Allocate,
    /// Set the length of a file.
    SetLength,
    /// Make a file or the names in a directory durable.
    Sync,
    /// Give a file another name.
    Rename,
    /// Remove a file.
    Remove,
    /// List a directory.
    List,
    /// Lock a file.
    Lock,
    /// Set the permissions of a file.
    SetPermissions,
    /// Hear of changes in a directory.
    Watch,
    /// Start a thread that works on a directory.
    StartThread,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Read => "read",
            Self::Write => "write",
            Self::Allocate => "reserve space for",
            Self::SetLength => "set the length of",
            Self::Sync => "fsync",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::List => "list",
            Self::Lock => "lock",
            Self::SetPermissions => "set the permissions of",
            Self::Watch => "watch for changes in",
            Self::StartThread => "start a thread for",
        })
    }
}

/// What to do about an error of the operating system, where its own text does not tell.
struct Advice<'a>(&'a io::Error);

impl fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.kind() {
            io::ErrorKind::PermissionDenied => {
                " (it must be readable and writable by the user that runs this program)"
            }
            io::ErrorKind::ReadOnlyFilesystem => " (mount the file system for writing)",
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                " (make room on the file system)"
            }
            _ => "",
        })
    }
}
