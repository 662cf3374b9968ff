//! Positions as all crates speak of them.

use std::fmt;

use crate::copy_data::{EpochXid, HotStandbyFeedback, StandbyStatusUpdate};
use crate::{Lsn, TimelineId};

/// A position in the WAL of a cluster. Two timelines may have different bytes at one [`Lsn`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WalPosition {
    /// The timeline.
    pub timeline: TimelineId,
    /// The position on it.
    pub lsn: Lsn,
}

impl fmt::Display for WalPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (timeline {})", self.lsn, self.timeline)
    }
}

/// The progress of a standby with the WAL of one timeline: each position is the first byte that it
/// does *not* have.
/// `None` is `0/0` on the wire: not reported.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct StandbyProgress {
    /// Up to where WAL was written.
    pub write: Option<Lsn>,
    /// Up to where WAL is durable. Without it a standby is no candidate for synchronous
    /// replication, and its slot does not advance.
    pub flush: Option<Lsn>,
    /// Up to where WAL was applied.
    pub apply: Option<Lsn>,
}

impl From<&StandbyStatusUpdate> for StandbyProgress {
    fn from(update: &StandbyStatusUpdate) -> Self {
        let reported = |lsn: Lsn| (!lsn.is_invalid()).then_some(lsn);
        Self {
            write: reported(update.write),
            flush: reported(update.flush),
            apply: reported(update.apply),
        }
    }
}

impl StandbyProgress {
    /// Up to where a server in shutdown takes WAL for replicated: clients like `pg_receivewal`
    /// without `--synchronous` report no flush position.
    ///
    /// Source: src/backend/replication/walsender.c, `WalSndDone` (PG 15).
    #[must_use]
    pub fn replicated(&self) -> Option<Lsn> {
        self.flush.or(self.write)
    }
}

/// The connected standbys that must have WAL before it is acknowledged, and their progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Confirmed {
    /// The timeline of their WAL; `None` as long as there is none.
    pub timeline: Option<TimelineId>,
    /// How many of them are connected and stream that timeline.
    pub present: usize,
    /// How many it takes.
    pub needed: usize,
    /// Up to where enough of them have its WAL; `None` while too few are connected.
    pub progress: Option<StandbyProgress>,
}

impl Confirmed {
    /// Up to where enough standbys have the WAL of `timeline`.
    #[must_use]
    pub fn on(&self, timeline: TimelineId) -> Option<StandbyProgress> {
        self.progress.filter(|_| self.timeline == Some(timeline))
    }
}

/// The oldest transactions whose rows are still needed (hot standby feedback); `None` for none.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Horizons {
    /// By queries.
    pub xmin: Option<EpochXid>,
    /// In the catalogue, by logical slots.
    pub catalog_xmin: Option<EpochXid>,
}

impl From<&HotStandbyFeedback> for Horizons {
    fn from(feedback: &HotStandbyFeedback) -> Self {
        let some = |xid: EpochXid| (xid.xid != 0).then_some(xid);
        Self {
            xmin: some(feedback.xmin),
            catalog_xmin: some(feedback.catalog_xmin),
        }
    }
}
