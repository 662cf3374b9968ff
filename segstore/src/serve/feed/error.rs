//! Why there is no more to send.

use walproto::{Lsn, TimelineId};

use crate::error::{ArchiveError, DiskError};
use crate::wal::segment::SegmentName;

/// Why a feed does not begin or go on. The messages are PostgreSQL's where it has one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// Nothing in the archive is known to be durable yet.
    #[error("there is no WAL in this archive yet")]
    NothingDurable,

    /// The newest timeline does not descend from the one asked for.
    ///
    /// Source: src/backend/access/transam/timeline.c, `tliSwitchPoint` (PG 15).
    #[error(
        "requested timeline {timeline} is not in this server's history, which leads to timeline \
         {newest}"
    )]
    UnknownTimeline {
        /// The timeline asked for.
        timeline: TimelineId,
        /// The newest timeline.
        newest: TimelineId,
    },

    /// The timeline was left before the position asked for.
    #[error(
        "requested starting point {start} on timeline {timeline} is not in this server's history, \
         which forked from timeline {timeline} at {switch_point}"
    )]
    NotInHistory {
        /// The timeline asked for.
        timeline: TimelineId,
        /// The position asked for.
        start: Lsn,
        /// Where the timeline was left.
        switch_point: Lsn,
    },

    /// The position asked for lies after all that is durable.
    #[error(
        "requested starting point {start} is ahead of the WAL flush position of this server \
         {durable_end} on timeline {timeline}"
    )]
    StartAhead {
        /// The timeline asked for.
        timeline: TimelineId,
        /// The position asked for.
        start: Lsn,
        /// The end of what is durable on it.
        durable_end: Lsn,
    },

    /// The archive begins after the position: it was begun later, or older segments were removed.
    ///
    /// Source: src/backend/replication/walsender.c, `WalSndSegmentOpen` (PG 15), with SQLSTATE
    /// 58P01.
    #[error("requested WAL segment {segment} has already been removed")]
    Removed {
        /// The segment.
        segment: SegmentName,
    },

    /// A segment is missing though there are older ones.
    #[error(
        "requested WAL segment {segment} is missing, though there are older ones; put it back into \
         the archive"
    )]
    Hole {
        /// The segment.
        segment: SegmentName,
        /// Where it begins.
        start: Lsn,
    },

    /// The archive is damaged or cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl FeedError {
    /// The timeline and position at which the archive is damaged, or where a segment is missing, as
    /// far as a position is known.
    #[must_use]
    pub const fn damaged_at(&self) -> Option<(TimelineId, Lsn)> {
        match self {
            Self::Archive(ArchiveError::Corrupt { corruption, .. }) => {
                Some((corruption.timeline, corruption.lsn))
            }
            Self::Archive(ArchiveError::Lost {
                timeline, found, ..
            }) => Some((*timeline, *found)),
            Self::Hole { segment, start } => Some((segment.timeline(), *start)),
            _ => None,
        }
    }

    /// Whether what is stored is not what was stored once.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Archive(
                ArchiveError::Corrupt { .. }
                    | ArchiveError::Damaged { .. }
                    | ArchiveError::WrongLength { .. }
                    | ArchiveError::Lost { .. }
            )
        )
    }
}

impl From<DiskError> for FeedError {
    fn from(error: DiskError) -> Self {
        Self::Archive(error.into())
    }
}
