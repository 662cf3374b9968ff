//! The kind of an error, by which a receiver decides whether it exits.
//!
//! The matches have no wildcard arm, so the compiler demands a kind for each new error.

use super::{ArchiveError, DiskError};
use crate::archive::writer::WriteError;

/// What an error of an archive or its writer is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// The archive's own: its files, its lock, or the disk below them. Nothing that an upstream
    /// sends changes it.
    Archive,
    /// The upstream is another cluster, or its WAL is not the continuation of the archive's.
    Lineage,
    /// The archive is intact, and so is its lineage: what was received does not fit, or there is
    /// no room, or no file descriptor or memory, at the moment. Another try may succeed.
    Passing,
}

impl DiskError {
    /// What it is about: only a lack of room or of resources passes.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        if self.is_temporary() {
            ErrorKind::Passing
        } else {
            ErrorKind::Archive
        }
    }
}

impl ArchiveError {
    /// What it is about.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Disk(error) => error.kind(),
            Self::Locked { .. }
            | Self::LockLost { .. }
            | Self::Unmarked { .. }
            | Self::SlotsLocked { .. }
            | Self::MixedClusters { .. }
            | Self::UnknownFormat { .. }
            | Self::Damaged { .. }
            | Self::WrongLength { .. }
            | Self::ImpossibleSegment { .. }
            | Self::Conflict { .. }
            | Self::NoIdentity { .. }
            | Self::NotDurable { .. }
            | Self::SyncFailedBefore { .. }
            | Self::UnknownVersion { .. }
            | Self::Corrupt { .. }
            | Self::Lost { .. }
            | Self::HistoryMissing { .. }
            | Self::Internal(_) => ErrorKind::Archive,
            Self::OtherCluster { .. }
            | Self::OtherSegmentSize { .. }
            | Self::OtherBlockSize { .. }
            | Self::OtherHistory { .. }
            | Self::NotDescendant { .. } => ErrorKind::Lineage,
            // Where to start was worked out from what the upstream said.
            Self::Hole { .. } | Self::NotPageAligned(_) => ErrorKind::Passing,
        }
    }
}

impl WriteError {
    /// What it is about.
    ///
    /// A difference is about the lineage, although one that is met only once may be a bit that
    /// was flipped on the way: who can connect again should compare again before it believes it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Archive(error) => error.kind(),
            Self::Disk(_)
            | Self::SyncFailed { .. }
            | Self::Missing { .. }
            | Self::Stopped
            | Self::Latched
            | Self::Internal { .. } => ErrorKind::Archive,
            Self::Diverged { .. } => ErrorKind::Lineage,
            Self::DiskFull(_)
            | Self::OutOfResources(_)
            | Self::Hole { .. }
            | Self::Corrupt { .. } => ErrorKind::Passing,
        }
    }
}
