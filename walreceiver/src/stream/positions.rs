//! What the server is told of how far its WAL has come: with us, and with those behind us.

use std::future::pending;
use std::time::Instant;

use segstore::FlushedLsn;
use tokio::sync::watch;
use walproto::client::Positions;
use walproto::{Confirmed, Horizons, Lsn};

use super::Receiving;
use crate::config::{Acknowledge, ReportedApply};
use crate::downstream::{Change, limit};
use crate::event::{ReceiverEvent, Warning};

impl Receiving<'_> {
    /// Tells the server how far the WAL has come. `asked` is whether it just asked for it.
    pub(super) fn report_positions(&mut self, asked: bool) {
        let Some(local) = self.local_positions(asked) else {
            return;
        };
        let positions = match &self.confirmed {
            None => local,
            Some(confirmed) => {
                let (timeline, start) = (self.order.timeline(), self.order.start);
                limit(&confirmed.borrow(), timeline, start, local)
            }
        };
        self.connection.report(positions);
        self.told_flush = positions.flush.map(FlushedLsn::lsn);
        if let (Some(durable), Some(flush)) = (self.acknowledged, self.told_flush) {
            self.flusher.acknowledged(durable.before(flush));
        }
    }

    /// How far it has come with us, `None` before anything was written.
    fn local_positions(&mut self, asked: bool) -> Option<Positions<FlushedLsn>> {
        let flushed = self.flushed.borrow().clone();
        let written = flushed.written?;
        let config = self.order.config;
        let segment_ended = || {
            flushed
                .durable
                .is_some_and(|durable| durable.record_end.lsn() >= self.next_segment_end())
        };
        let covers_the_start = || {
            let from = self.order.acknowledge_from;
            from.is_none_or(|from| flushed.covers(from))
        };
        match config.acknowledge {
            Acknowledge::Never => {}
            Acknowledge::Always | Acknowledge::SegmentEnd if !covers_the_start() => {}
            // Nothing is durable that is not synced, whatever was asked for.
            Acknowledge::Always if !config.sync => {}
            // The first time at once: a slot that is new keeps nothing before.
            Acknowledge::SegmentEnd
                if self.acknowledged.is_some() && !asked && !segment_ended() => {}
            Acknowledge::Always | Acknowledge::SegmentEnd => self.acknowledged = flushed.durable,
        }
        let flush = self.acknowledged.map(|durable| durable.record_end);
        let apply = match (config.apply, &self.applied) {
            (ReportedApply::Never, _) => None,
            (ReportedApply::Progress, None) => flush.map(FlushedLsn::lsn),
            (ReportedApply::Progress, Some(applied)) => Some(*applied.borrow()),
        };
        // A standby in shutdown waits until the beginning of a record is reported, too. On a
        // primary a commit may wait for a position that only seems to lie inside a record: its
        // length may have been damaged on the way.
        let byte_end = match self.acknowledged {
            Some(durable) if self.order.upstream_is_standby => durable.byte_end,
            None if self.order.upstream_is_standby => written.byte_end,
            Some(durable) => durable.record_end.lsn(),
            None => written.record_end,
        };
        Some(Positions {
            write: written.record_end,
            flush,
            apply,
            byte_end,
        })
    }

    pub(super) fn next_segment_end(&self) -> Lsn {
        Lsn(self
            .finished_end
            .0
            .saturating_add(self.order.segment_size.bytes()))
    }

    /// Takes note of what those behind us have, and says when acknowledgements are held for them.
    pub(super) fn note_confirmed(&mut self) {
        let (Some(behind), Some(confirmed)) = (self.order.behind, &mut self.confirmed) else {
            return;
        };
        let confirmed: Confirmed = *confirmed.borrow_and_update();
        let timeline = self.order.timeline();
        match behind.change(&confirmed, timeline) {
            None => {}
            Some(Change::Held { present, needed }) => {
                let lsn = self.durable_end();
                let warning = Warning::AcknowledgementsHeld {
                    timeline,
                    lsn,
                    present,
                    needed,
                };
                self.order.reporter.report(&ReceiverEvent::Warning(warning));
            }
            Some(Change::GoesOn { needed }) => {
                let event = ReceiverEvent::AcknowledgementsGoOn { needed };
                self.order.reporter.report(&event);
            }
        }
        self.report_positions(false);
        self.show_progress();
    }

    /// Tells the server which transactions those behind us need. At the beginning of a stream that
    /// is done always: it may remember something from before, for the sake of a slot.
    ///
    /// Source: src/backend/replication/walreceiver.c, `XLogWalRcvSendHSFeedback` (PG 15).
    pub(super) fn send_feedback(&mut self) {
        let Some(needs) = &mut self.needs else { return };
        let needs = *needs.borrow_and_update();
        self.say_needs(needs);
    }

    /// Takes back what the server was told to keep, since nobody will tell it later.
    pub(super) fn withdraw_feedback(&mut self) {
        if self.told_needs != Horizons::default() {
            self.say_needs(Horizons::default());
        }
    }

    fn say_needs(&mut self, needs: Horizons) {
        let now = Instant::now();
        self.connection.send_feedback(needs);
        self.told_needs = needs;
        let interval = self.order.config.status_interval;
        self.feedback_at = interval
            .filter(|_| needs != Horizons::default())
            .and_then(|interval| now.checked_add(interval));
    }
}

/// Waits until there is something new, for ever if nobody tells it.
pub(super) async fn news<T>(receiver: &mut Option<watch::Receiver<T>>) {
    if let Some(receiver) = receiver
        && receiver.changed().await.is_ok()
    {
        return;
    }
    pending().await
}
