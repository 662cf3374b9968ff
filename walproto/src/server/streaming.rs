//! What is sent and reported while WAL is streamed.

use std::time::{Duration, Instant};

use crate::copy_data::{PrimaryKeepalive, StandbyStatusUpdate};
use crate::result::TimelineEnd;
use crate::{Lsn, PgTimestamp, StandbyProgress, TimelineId};

/// Why a keepalive is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Due {
    /// The client, or the driver, asked for it.
    Keepalive,
    /// An answer is wanted.
    Ping,
}

/// A stream of WAL, from CopyBothResponse to CopyDone of both sides.
#[derive(Debug)]
pub(super) struct Stream {
    timeline: TimelineId,
    /// The end of what was sent.
    sent: Lsn,
    /// What the client said last.
    reported: StandbyProgress,
    /// What follows the timeline, if it is a historic one.
    pub(super) end: Option<TimelineEnd>,
    /// A keepalive that has not been taken for transmission yet.
    due: Option<Due>,
    /// When something was last heard.
    heard_at: Instant,
    /// When the client was asked for an answer, if nothing was heard since.
    pinged_at: Option<Instant>,
}

impl Stream {
    pub(super) const fn new(
        timeline: TimelineId,
        start: Lsn,
        end: Option<TimelineEnd>,
        now: Instant,
    ) -> Self {
        Self {
            timeline,
            sent: start,
            reported: StandbyProgress {
                write: None,
                flush: None,
                apply: None,
            },
            end,
            due: None,
            heard_at: now,
            pinged_at: None,
        }
    }

    pub(super) const fn timeline(&self) -> TimelineId {
        self.timeline
    }

    pub(super) const fn sent(&self) -> Lsn {
        self.sent
    }

    pub(super) const fn reported(&self) -> StandbyProgress {
        self.reported
    }

    /// Whether the client has all WAL up to `end`, and all that it was sent.
    pub(super) fn is_replicated(&self, end: Lsn) -> bool {
        self.sent >= end && self.reported.replicated() == Some(self.sent)
    }

    /// Notes that WAL up to `end` is sent.
    pub(super) fn advance(&mut self, end: Lsn) {
        self.sent = end;
    }

    pub(super) const fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.pinged_at = None;
    }

    /// Notes what the client says, and returns it as far as it can be true: a client that has WAL
    /// from elsewhere reports it too, but it need not be ours.
    pub(super) fn take_status(&mut self, mut update: StandbyStatusUpdate) -> StandbyStatusUpdate {
        for position in [&mut update.write, &mut update.flush, &mut update.apply] {
            *position = (*position).min(self.sent);
        }
        self.reported = StandbyProgress::from(&update);
        if update.reply_requested {
            self.make_due(Due::Keepalive);
        }
        update
    }

    pub(super) fn make_due(&mut self, due: Due) {
        self.due = self.due.max(Some(due));
    }

    /// Asks the client for an answer, unless one is outstanding.
    pub(super) fn ping(&mut self, now: Instant) {
        if self.pinged_at.is_none() {
            self.pinged_at = Some(now);
            self.make_due(Due::Ping);
        }
    }

    /// The keepalive that is due, if one is.
    pub(super) fn take_due(&mut self, sent_at: PgTimestamp) -> Option<PrimaryKeepalive> {
        let due = self.due.take()?;
        Some(PrimaryKeepalive {
            wal_end: self.sent,
            sent_at,
            reply_requested: due == Due::Ping,
        })
    }

    /// When the client's silence has to be looked at: half way it is asked for an answer, and at
    /// the end it is given up, but not before it had the other half for the answer.
    ///
    /// Source: src/backend/replication/walsender.c, `WalSndCheckTimeOut`, whose comment wishes
    /// for the last part (PG 15).
    pub(super) fn silence_ends(&self, timeout: Duration) -> Option<Instant> {
        let half = timeout / 2;
        match self.pinged_at {
            None => self.heard_at.checked_add(half),
            Some(pinged_at) => {
                let whole = self.heard_at.checked_add(timeout)?;
                Some(whole.max(pinged_at.checked_add(timeout - half)?))
            }
        }
    }

    pub(super) const fn is_pinged(&self) -> bool {
        self.pinged_at.is_some()
    }

    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard_at)
    }
}
