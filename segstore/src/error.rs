//! What can be wrong with a disk and with an archive.

use std::fmt;
use std::path::PathBuf;

use walproto::{Lsn, SegmentSize, SystemId, TimelineId};

use crate::wal::corruption::Corruption;
use crate::wal::segment::{OWN_DIRECTORY, SegmentFile};
use crate::wal::validator::NotPageAligned;

mod damage;
mod disk;
mod kind;

pub use damage::Damage;
pub use disk::{DiskError, Operation};
pub use kind::ErrorKind;

/// Why an archive cannot be opened, bound to a server, or changed. The archive is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),

    /// Another process writes this archive.
    #[error(
        "archive \"{}\" is locked by {}, which streams into it; stop that one, or use another \
         directory", directory.display(), Holder(*pid)
    )]
    Locked {
        /// The archive.
        directory: PathBuf,
        /// The process that holds the lock, if it could be read.
        pid: Option<u32>,
    },

    /// The lock of who streams into this archive is not this process's alone any more.
    #[error(
        "lock of archive \"{}\" was lost: \"{}\" was moved, removed or replaced, so another process \
         may be streaming into the archive; stop that process, and then restart this one",
        directory.display(), path.display()
    )]
    LockLost {
        /// The archive.
        directory: PathBuf,
        /// The directory or file that was locked.
        path: PathBuf,
    },

    /// A sync failed, and the marker that the next process is to find could not be written.
    #[error(
        "{error}: {}; could not record this failure in the archive: {marker}: {}",
        error.source, marker.source
    )]
    Unmarked {
        /// The failed sync.
        error: DiskError,
        /// Why it could not be recorded.
        marker: DiskError,
    },

    /// Another process serves this archive, and keeps its replication slots.
    #[error(
        "the replication slots of archive \"{}\" are in use by {}, which serves it; stop that one \
         first", directory.display(), Holder(*pid)
    )]
    SlotsLocked {
        /// The archive.
        directory: PathBuf,
        /// The process that holds the lock, if it could be read.
        pid: Option<u32>,
    },

    /// The archive belongs to another cluster.
    #[error(
        "archive \"{}\" holds WAL of the cluster with system identifier {expected}, but the \
         server's is {found}; use an empty directory for another cluster", directory.display()
    )]
    OtherCluster {
        /// The archive.
        directory: PathBuf,
        /// The archive's.
        expected: SystemId,
        /// The server's.
        found: SystemId,
    },

    /// The server's segments have another size than the archive's.
    #[error(
        "archive \"{}\" holds WAL segments of {} bytes, but the server's wal_segment_size is {}; \
         use an empty directory after a change of the segment size",
        directory.display(), expected.bytes(), found.bytes()
    )]
    OtherSegmentSize {
        /// The archive.
        directory: PathBuf,
        /// The archive's.
        expected: SegmentSize,
        /// The server's.
        found: SegmentSize,
    },

    /// WAL pages are of another size than the one there is support for.
    #[error(
        "the WAL block size of \"{}\" is {found} bytes, only {expected} is supported; use a \
         server that was built without --with-wal-blocksize",
        origin.display()
    )]
    OtherBlockSize {
        /// The archive or the file that was read.
        origin: PathBuf,
        /// The size that is supported.
        expected: u64,
        /// The size found.
        found: u64,
    },

    /// Files of two clusters lie in one directory.
    #[error(
        "\"{}\" is of the cluster with system identifier {found}, but \"{}\" of the one with \
         {expected}; sort the files into a directory for each",
        path.display(), other.display()
    )]
    MixedClusters {
        /// The file whose system identifier is not like the other's.
        path: PathBuf,
        /// The other file.
        other: PathBuf,
        /// The other file's.
        expected: SystemId,
        /// The file's.
        found: SystemId,
    },

    /// What the archive is was written by a newer version.
    #[error(
        "\"{}\" has format version {found}, this version knows up to {known}; use a newer version",
        path.display()
    )]
    UnknownFormat {
        /// The identity file.
        path: PathBuf,
        /// The version found.
        found: u64,
        /// The newest version known.
        known: u64,
    },

    /// A small file of ours is not as it was written.
    #[error(
        "\"{}\" is damaged: {reason}; put back a good copy, or move it away if there is none",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: Damage,
    },

    /// A timeline's history is known with other content: another timeline has the same number.
    #[error(
        "the server's history of timeline {timeline} is not the one in \"{}\": they are two \
         timelines with one number; connect to a server of the archive's lineage, or use a new \
         directory",
        path.display()
    )]
    OtherHistory {
        /// The timeline.
        timeline: TimelineId,
        /// The archive's history file.
        path: PathBuf,
    },

    /// A segment file is neither of the length it must have, nor of one it may have.
    #[error(
        "segment file \"{}\" has {found} bytes, expected {}{expected}; move it away to fetch it \
         again", path.display(), if *partial { "at most " } else { "" }
    )]
    WrongLength {
        /// The file.
        path: PathBuf,
        /// Its length in bytes, without compression.
        found: u64,
        /// The segment size.
        expected: u64,
        /// Whether it is a growing segment, which may be shorter.
        partial: bool,
    },

    /// A segment file's name is not of a segment of this size.
    #[error(
        "segment file \"{}\" cannot be: no segment of {} bytes has that name; move it away",
        path.display(), segment_size.bytes()
    )]
    ImpossibleSegment {
        /// The file.
        path: PathBuf,
        /// The archive's segment size.
        segment_size: SegmentSize,
    },

    /// Two files of one segment have different bytes.
    #[error(
        "\"{}\" and \"{}\" are the same segment with different bytes, the first at offset \
         {offset}; move the wrong one away", path.display(), other.display()
    )]
    Conflict {
        /// One file.
        path: PathBuf,
        /// The other.
        other: PathBuf,
        /// The first offset in the segment where they differ.
        offset: u64,
    },

    /// The archive was not yet told which cluster it is of.
    #[error("archive \"{}\" has no identity yet: no server was connected to", directory.display())]
    NoIdentity {
        /// The archive.
        directory: PathBuf,
    },

    /// The archive was last written without syncs, so that nothing of it need be durable.
    #[error(
        "archive \"{}\" was last written without fsync, so nothing of it may be handed on; run the \
         receiver on it with fsync", directory.display()
    )]
    NotDurable {
        /// The archive.
        directory: PathBuf,
    },

    /// A sync of files that another program wrote failed before.
    #[error(
        "an earlier fsync of archive \"{}\" failed, so that nothing more of it is handed on by \
         this process", directory.display()
    )]
    SyncFailedBefore {
        /// The archive.
        directory: PathBuf,
    },

    /// Which version of PostgreSQL wrote the segments cannot be told.
    #[error(
        "\"{}\" has the page magic number {magic:#06X}, of no version of PostgreSQL that is known; \
         connect the receiver to the server once, so that the archive knows its version",
        path.display()
    )]
    UnknownVersion {
        /// A segment file.
        path: PathBuf,
        /// The number.
        magic: u16,
    },

    /// WAL in the archive is not what it was.
    #[error(
        "{corruption} (\"{}\", offset {offset}), but that is not the end of WAL: {evidence}; \
         replace the file by a good copy, or, to have its WAL sent again, move it and later ones \
         away and remove the files \"watermark\" and \"position\" in \"{OWN_DIRECTORY}\"",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The offset in the segment.
        offset: u64,
        /// Where, and what is wrong.
        corruption: Corruption,
        /// Why it is not the end of WAL.
        evidence: Evidence,
    },

    /// WAL that was durable is gone, or lies behind a hole.
    #[error(
        "WAL of timeline {timeline} ends at {found}, but it was there up to {expected}; put back \
         the missing segments, or, to have the WAL sent again, remove the files \"watermark\" and \
         \"position\" in \"{OWN_DIRECTORY}\""
    )]
    Lost {
        /// The timeline.
        timeline: TimelineId,
        /// Where WAL ends.
        found: Lsn,
        /// Up to where there was, or must be, WAL.
        expected: Lsn,
    },

    /// A timeline's history is not in the archive, or another one is.
    #[error(
        "the history of timeline {timeline} is not in the archive; put back its file, of which \
         the servers on that timeline have a copy in pg_wal"
    )]
    HistoryMissing {
        /// The timeline.
        timeline: TimelineId,
    },

    /// WAL of a timeline was to be written that does not descend from the newest one.
    #[error(
        "timeline {found} does not descend from timeline {newest}, the newest in the archive: the \
         server is an old primary or of another lineage"
    )]
    NotDescendant {
        /// The newest timeline in the archive.
        newest: TimelineId,
        /// The timeline that was to be written.
        found: TimelineId,
    },

    /// WAL was to be written that does not go on where the archive ends.
    #[error(
        "WAL of timeline {timeline} cannot start at {found}: the archive goes on at {expected}"
    )]
    Hole {
        /// The timeline.
        timeline: TimelineId,
        /// The latest position to start at.
        expected: Lsn,
        /// The position asked for.
        found: Lsn,
    },

    /// Something that should have been impossible. Nothing is changed after it.
    #[error("internal error: {0}; the archive is left as it is, report this error")]
    Internal(&'static str),

    /// WAL can only be read from the start of a page on.
    #[error(transparent)]
    NotPageAligned(#[from] NotPageAligned),
}

impl ArchiveError {
    /// Whether a retry may succeed without a repair of the archive: the disk is full, or the system
    /// lacks resources.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Disk(error) if error.is_temporary())
    }
}

/// Why WAL that is not valid is not just the end of WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Evidence {
    /// WAL up to a later position was durable.
    #[error("WAL was durable up to {lsn}")]
    Durable {
        /// The position.
        lsn: Lsn,
    },
    /// The segment is complete.
    #[error("the segment is complete")]
    Complete,
    /// A page behind it is in its place.
    #[error("WAL goes on at {lsn}")]
    LaterPage {
        /// The position of the page.
        lsn: Lsn,
    },
    /// There is a segment behind it.
    #[error("WAL goes on in \"{file}\"")]
    LaterSegment {
        /// The file.
        file: SegmentFile,
    },
}

struct Holder(Option<u32>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}
