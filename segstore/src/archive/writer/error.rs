//! Why WAL is not written.

use std::fmt;

use walproto::{Lsn, TimelineId};

use crate::error::{ArchiveError, DiskError};
use crate::wal::corruption::Corruption;
use crate::wal::segment::SegmentFile;

/// Why a writer did not take bytes, or did not make them durable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// There is no room. Nothing has changed: the same may be tried again.
    #[error("disk full: {0}")]
    DiskFull(DiskError),

    /// There are no file descriptors or no memory for it. Nothing has changed: the same may be tried
    /// again.
    #[error("out of resources: {0}")]
    OutOfResources(DiskError),

    /// The disk refused, other than for lack of room.
    #[error(transparent)]
    Disk(DiskError),

    /// What the archive holds already could not be read.
    #[error(transparent)]
    Archive(ArchiveError),

    /// A file or directory could not be made durable. What it holds is not trusted again: the
    /// next start builds the file anew and has its tail sent once more.
    #[error(
        "{error}: {}; the WAL since the last successful fsync is not durable and will be fetched \
         again after a restart{}",
        error.source, Unmarked(marker)
    )]
    SyncFailed {
        /// What failed.
        error: DiskError,
        /// Why it could not be noted in the archive either, if it could not.
        marker: Option<DiskError>,
    },

    /// The bytes do not follow those before.
    #[error(
        "the stream of timeline {timeline} does not go on at {expected} but at {found}, which \
         leaves a hole or goes back"
    )]
    Hole {
        /// The timeline that is streamed.
        timeline: TimelineId,
        /// Where the next byte was due.
        expected: Lsn,
        /// Where the server sent it.
        found: Lsn,
    },

    /// Other bytes than those that the archive holds below its record end.
    #[error(
        "the server's WAL differs from the archive's at {lsn} on timeline {timeline} (\"{file}\", \
         offset {offset}): expected {expected:#04X}, found {found:#04X}, though the archive is \
         valid to {record_end}: the server was rolled back, or is another one; the archive is \
         unchanged, connect to the right server or begin again in a new directory"
    )]
    Diverged {
        /// The timeline that is streamed.
        timeline: TimelineId,
        /// The first position with another byte.
        lsn: Lsn,
        /// The file that holds it.
        file: SegmentFile,
        /// The offset in the segment.
        offset: u64,
        /// The archive's byte.
        expected: u8,
        /// The server's byte.
        found: u8,
        /// Up to where the archive is valid.
        record_end: Lsn,
    },

    /// The bytes are not valid WAL.
    #[error(
        "{corruption} (\"{file}\", offset {offset}); the WAL before it is kept, up to \
         {record_end}, and the rest is to be sent again"
    )]
    Corrupt {
        /// Where, and what is wrong.
        corruption: Corruption,
        /// The file that would have held it.
        file: SegmentFile,
        /// The offset in the segment.
        offset: u64,
        /// The end of the last complete record before.
        record_end: Lsn,
    },

    /// The archive holds no bytes where it should, so that nothing can be compared.
    #[error("the archive has no WAL at {lsn} on timeline {timeline}, which lies before its end")]
    Missing {
        /// The timeline that is streamed.
        timeline: TimelineId,
        /// The position.
        lsn: Lsn,
    },

    /// The writer stopped at an error before.
    #[error("the writer stopped at an earlier error")]
    Stopped,

    /// An earlier sync failed, or the writer found a fault of its own.
    #[error(
        "an earlier fsync or internal check failed, so this process makes nothing more durable"
    )]
    Latched,

    /// The writer found that it does not do what it must. It takes and syncs nothing more, so that
    /// nothing wrong is acknowledged.
    #[error(
        "internal error at {lsn} on timeline {timeline}: {what}; nothing of it is acknowledged, \
         restart the program and report this error"
    )]
    Internal {
        /// The timeline that is streamed.
        timeline: TimelineId,
        /// The position.
        lsn: Lsn,
        /// What should have been impossible.
        what: &'static str,
    },
}

impl WriteError {
    /// An error of an operation after which the same bytes may be tried again if it is for lack
    /// of room.
    pub(super) fn of_write(error: DiskError) -> Self {
        if error.is_disk_full() {
            Self::DiskFull(error)
        } else if error.is_out_of_resources() {
            Self::OutOfResources(error)
        } else {
            Self::Disk(error)
        }
    }

    /// An error of reading what the archive holds, with the same exception.
    pub(super) fn of_read(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Disk(error) if error.is_out_of_resources() => Self::OutOfResources(error),
            error => Self::Archive(error),
        }
    }

    /// Whether nothing has changed, and the same may be tried again: the disk is full, or the
    /// system lacks resources.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::DiskFull(_) | Self::OutOfResources(_))
    }
}

struct Unmarked<'a>(&'a Option<DiskError>);

impl fmt::Display for Unmarked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => Ok(()),
            Some(error) => write!(
                f,
                "; could not record this failure in the archive: {error}: {}",
                error.source
            ),
        }
    }
}
