//! Errors that a test injects.

use std::io;

use rustix::io::Errno;

/// What an injected error does to an operation that changes something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The operation fails with `EIO`. If it is a sync, what it was to make durable is dropped.
    Io,
    /// The operation fails with `ENOSPC`; a write may have written its first half.
    NoSpace,
}

impl Fault {
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::Io => Errno::IO.into(),
            Self::NoSpace => Errno::NOSPC.into(),
        }
    }
}

/// Why nothing can be opened, listed or read. Nothing is changed by it, on the disk or in the
/// cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessFault {
    /// The process has no file descriptor left (`EMFILE`); a read, which needs none, lacks memory
    /// instead.
    TooManyFiles,
    /// The system has none left (`ENFILE`), with the same exception.
    TooManyFilesInSystem,
    /// There is no memory for it (`ENOMEM`).
    NoMemory,
    /// A signal came (`EINTR`).
    Interrupted,
}

impl AccessFault {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::TooManyFiles,
        Self::TooManyFilesInSystem,
        Self::NoMemory,
        Self::Interrupted,
    ];

    pub(super) fn error(self, opens: bool) -> io::Error {
        match self {
            Self::TooManyFiles if opens => Errno::MFILE.into(),
            Self::TooManyFilesInSystem if opens => Errno::NFILE.into(),
            Self::Interrupted => Errno::INTR.into(),
            Self::TooManyFiles | Self::TooManyFilesInSystem | Self::NoMemory => Errno::NOMEM.into(),
        }
    }
}
