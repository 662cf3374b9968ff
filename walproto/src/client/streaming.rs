//! What is received and reported while WAL is streamed.

use std::time::{Duration, Instant};

use crate::copy_data::StandbyStatusUpdate;
use crate::{Lsn, PgTimestamp, TimelineId};

/// A position up to which WAL is durable at the receiver: what alone is reported as flushed.
///
/// It is for types that only a successful sync, or the recovery of what a sync left, makes, as
/// `segstore::FlushedLsn` is. So an [`Lsn`] that merely was received is not acknowledged by mistake:
///
/// ```compile_fail,E0277
/// use std::time::Instant;
/// use walproto::Lsn;
/// use walproto::client::{ClientSession, Positions};
///
/// fn acknowledge(session: &mut ClientSession, received: Lsn) {
///     let positions = Positions {
///         write: received,
///         flush: Some(received),
///         apply: None,
///         byte_end: received,
///     };
///     session.report(Instant::now(), positions);
/// }
/// ```
pub trait FlushPosition: Copy {
    /// The position.
    fn lsn(self) -> Lsn;
    /// This position, or `limit` if that is less: what ends earlier is durable as well.
    #[must_use]
    fn at_most(self, limit: Lsn) -> Self;
}

/// The tests of this crate have no disk.
#[cfg(test)]
impl FlushPosition for Lsn {
    fn lsn(self) -> Self {
        self
    }

    fn at_most(self, limit: Self) -> Self {
        self.min(limit)
    }
}

/// How far a receiver is with the WAL of the stream, as the first byte that it does *not* have.
///
/// The session never reports more than what it received on this stream, nor `flush` beyond
/// `write` or `apply` beyond `flush`, nor less than it reported before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Positions<F> {
    /// Up to where WAL is written, and valid as far as its records are complete.
    pub write: Lsn,
    /// Up to where WAL is durable, a [`FlushPosition`]: the end of a record. `None` is sent as `0/0`,
    /// "not a candidate for synchronous replication", which also keeps a slot from advancing.
    pub flush: Option<F>,
    /// Up to where WAL was applied. `None` is sent as `0/0`, and so is everything without a
    /// `flush`.
    pub apply: Option<Lsn>,
    /// Up to where *bytes* are durable, at or after `flush`. It is told only to a sender that
    /// asks for a reply when it has sent no more than this: a standby that shuts down in the
    /// middle of a record waits for it. For a primary it is `flush`: a commit that waits there may
    /// lie in what only looks like the middle of a record, whose length was damaged on the way.
    pub byte_end: Lsn,
}

/// The positions of a status update.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Reported {
    write: Lsn,
    flush: Lsn,
    apply: Lsn,
}

/// A stream of WAL, from START_REPLICATION to CopyDone of both sides.
#[derive(Debug)]
pub(super) struct Stream {
    timeline: Option<TimelineId>,
    /// The end of what was received.
    received: Lsn,
    /// When WAL was last received; the beginning of the stream before the first.
    received_at: Instant,
    /// What the caller said last.
    positions: Option<Positions<Lsn>>,
    /// The greatest positions sent so far; what is written and flushed begins at `start`.
    floor: Reported,
    /// What was sent last.
    sent: Option<Reported>,
    /// Where the sender said that its WAL ends when it last asked for a reply, as long as no
    /// WAL came after it.
    asked_at: Option<Lsn>,
    /// A status update that has not been taken for transmission yet.
    due: Option<Due>,
    /// When a status update was last sent, or became due.
    pub(super) status_at: Instant,
}

/// Why a status update is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Due {
    /// The sender asked, there is something to tell, or it is time.
    Status,
    /// Nothing was heard: the sender is asked for a reply.
    Ping,
}

impl Stream {
    pub(super) const fn new(timeline: Option<TimelineId>, start: Lsn, now: Instant) -> Self {
        Self {
            timeline,
            received: start,
            received_at: now,
            positions: None,
            floor: Reported {
                write: start,
                flush: start,
                // What was received on an earlier stream need not have been applied yet.
                apply: Lsn::INVALID,
            },
            sent: None,
            asked_at: None,
            due: None,
            status_at: now,
        }
    }

    pub(super) const fn timeline(&self) -> Option<TimelineId> {
        self.timeline
    }

    pub(super) const fn received(&self) -> Lsn {
        self.received
    }

    /// Notes WAL of `length` bytes from `start` on, unless it does not follow what was received.
    pub(super) fn receive(&mut self, now: Instant, start: Lsn, length: usize) -> Option<()> {
        if start != self.received {
            return None;
        }
        self.received = start.checked_add(u64::try_from(length).ok()?)?;
        if length > 0 {
            self.asked_at = None;
            self.received_at = now;
        }
        Some(())
    }

    /// What was reported as written, if that has ended before what was received for `patience`
    /// or longer, and the sender, whose WAL ends at `wal_end`, has no more.
    pub(super) fn stays_incomplete(
        &self,
        now: Instant,
        wal_end: Lsn,
        patience: Duration,
    ) -> Option<Lsn> {
        let written = self.positions?.write;
        let waited = now.saturating_duration_since(self.received_at);
        (wal_end == self.received && written < self.received && waited >= patience)
            .then_some(written)
    }

    /// Notes a keepalive that asks for a reply.
    pub(super) fn asked(&mut self, wal_end: Lsn) {
        self.asked_at = Some(wal_end);
        self.make_due(Due::Status);
    }

    pub(super) fn make_due(&mut self, due: Due) {
        self.due = self.due.max(Some(due));
    }

    /// Notes what the caller has; a status update is due if it says anything new.
    pub(super) fn report(&mut self, positions: Positions<Lsn>) {
        self.positions = Some(positions);
        if self.sent != Some(self.reportable()) {
            self.make_due(Due::Status);
        }
    }

    /// Whether the caller has said anything yet.
    pub(super) const fn has_positions(&self) -> bool {
        self.positions.is_some()
    }

    /// What a status update would say now.
    fn reportable(&self) -> Reported {
        let Some(positions) = self.positions else {
            // Nobody has said yet whether we are a candidate for synchronous replication.
            return Reported {
                write: self.floor.write,
                flush: Lsn::INVALID,
                apply: Lsn::INVALID,
            };
        };
        // A standby in shutdown waits until all it has sent is reported, the beginning of an
        // incomplete record too. No commit waits on a standby.
        let all_durable = positions.byte_end >= self.received;
        let at_byte_end = self.asked_at == Some(self.received) && all_durable;
        let bounded = |position: Lsn, floor: Lsn, limit: Lsn| position.min(limit).max(floor);
        let record = |position: Lsn| if at_byte_end { self.received } else { position };
        let write = bounded(record(positions.write), self.floor.write, self.received);
        let Some(flush) = positions.flush else {
            return Reported {
                write,
                flush: Lsn::INVALID,
                apply: Lsn::INVALID,
            };
        };
        let flush = bounded(record(flush), self.floor.flush, write);
        let apply = positions.apply.map_or(Lsn::INVALID, |apply| {
            bounded(apply, self.floor.apply, flush)
        });
        Reported {
            write,
            flush,
            apply,
        }
    }

    /// The status update that is due, if one is.
    pub(super) fn take_due(
        &mut self,
        now: Instant,
        sent_at: PgTimestamp,
    ) -> Option<StandbyStatusUpdate> {
        let due = self.due.take()?;
        let reported = self.reportable();
        self.sent = Some(reported);
        self.floor = Reported {
            write: self.floor.write.max(reported.write),
            flush: self.floor.flush.max(reported.flush),
            apply: self.floor.apply.max(reported.apply),
        };
        self.status_at = now;
        Some(StandbyStatusUpdate {
            write: reported.write,
            flush: reported.flush,
            apply: reported.apply,
            sent_at,
            reply_requested: due == Due::Ping,
        })
    }
}
