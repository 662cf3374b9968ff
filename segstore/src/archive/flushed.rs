//! Positions whose durability the type system vouches for.

use std::fmt;

use walproto::client::FlushPosition;
use walproto::{Lsn, TimelineId};

use crate::wal::validator::IncompleteRecord;

/// A position up to which WAL is durable here.
///
/// Only this crate makes one: a successful sync of a [`Writer`](crate::Writer), or the recovery
/// of an archive, which syncs what it finds. A [`ClientSession`](walproto::client::ClientSession)
/// reports a [`FlushPosition`] only, so that acknowledging WAL that could still be lost does not
/// compile.
///
/// ```compile_fail
/// let _ = segstore::FlushedLsn(walproto::Lsn(1));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlushedLsn(Lsn);

impl FlushedLsn {
    /// Only for what a sync has covered.
    pub(crate) const fn synced(lsn: Lsn) -> Self {
        Self(lsn)
    }

    /// The position.
    #[must_use]
    pub const fn lsn(self) -> Lsn {
        self.0
    }
}

impl FlushPosition for FlushedLsn {
    fn lsn(self) -> Lsn {
        self.0
    }

    fn at_most(self, limit: Lsn) -> Self {
        Self(self.0.min(limit))
    }
}

impl fmt::Display for FlushedLsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for FlushedLsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a sync has made durable, of the bytes that the writer got on this connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Durable {
    /// The timeline of both positions.
    pub timeline: TimelineId,
    /// The end of the last complete, valid and durable record: what is acknowledged.
    pub record_end: FlushedLsn,
    /// The end of all durable bytes, which may lie inside a record.
    pub byte_end: Lsn,
}

impl Durable {
    /// What of it lies before `lsn`, for somebody who is not told more. Its end may be inside a
    /// record.
    #[must_use]
    pub fn before(self, lsn: Lsn) -> Self {
        if lsn >= self.record_end.0 {
            return self;
        }
        Self {
            timeline: self.timeline,
            // What ends earlier is durable as well.
            record_end: FlushedLsn(lsn),
            byte_end: lsn,
        }
    }
}

/// How far a writer has come with what it was given. None of it need be durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Appended {
    /// The end of the last complete and valid record.
    pub record_end: Lsn,
    /// The end of all bytes.
    pub byte_end: Lsn,
    /// The record that is to go on there, `None` at the end of one.
    pub incomplete: Option<IncompleteRecord>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_before_a_position_is_never_more_than_was_durable() {
        let durable = Durable {
            timeline: TimelineId::FIRST,
            record_end: FlushedLsn(Lsn(100)),
            byte_end: Lsn(120),
        };
        assert_eq!(durable.before(Lsn(110)), durable);
        assert_eq!(durable.before(Lsn(100)), durable);
        let before = durable.before(Lsn(90));
        assert_eq!(
            (before.record_end.lsn(), before.byte_end),
            (Lsn(90), Lsn(90))
        );
    }

    #[test]
    fn a_session_reports_what_was_synced_and_no_more_than_its_limit() {
        let synced = FlushedLsn::synced(Lsn(100));
        assert_eq!(FlushPosition::lsn(synced), Lsn(100));
        for (limit, reported) in [(90, 90), (100, 100), (110, 100)] {
            assert_eq!(synced.at_most(Lsn(limit)).lsn(), Lsn(reported));
        }
    }
}
