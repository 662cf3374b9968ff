//! What is told of how far the flusher has come, to the server and to whoever watches.

use std::time::{Duration, Instant};

use walproto::{Lsn, Major};

use super::Receiving;
use crate::error::ReceiveError;
use crate::event::{Progress, ReceiverEvent, Warning};

/// How long acknowledgements are held for a full disk when the server does not say how long it
/// would wait: half of `wal_sender_timeout`'s default.
const DEFAULT_HOLD: Duration = Duration::from_secs(30);

impl Receiving<'_> {
    /// Tells the server, and whoever watches, how far the flusher and the applier have come.
    /// `true` when the flusher has ended.
    pub(super) fn report(&mut self) -> bool {
        let (held_since, ended) = {
            let flushed = self.flushed.borrow_and_update();
            (flushed.held_since, flushed.ended)
        };
        self.note_hold(held_since);
        self.note_page_magic();
        self.note_settings();
        if let Some(applier) = self.order.applier {
            applier.durable(self.durable_end());
        }
        self.report_positions(false);
        self.report_finished_segments();
        self.show_progress();
        ended
    }

    /// Warns, once for an archive, of WAL that is newer than this program.
    fn note_page_magic(&mut self) {
        let magic = self.flushed.borrow().page_magic;
        if let (true, Some(magic)) = (self.magic_is_new, magic) {
            self.magic_is_new = false;
            if Major::of_page_magic(magic).is_none() {
                let warning = Warning::UnknownPageMagic {
                    magic,
                    server_version: self.connection.server_version(),
                };
                let event = ReceiverEvent::Warning(warning);
                self.order.reporter.report(&event);
            }
        }
    }

    /// Warns of a setting under which WAL is not enough for a base backup, once until it has
    /// changed, over all connections.
    fn note_settings(&mut self) {
        let seen = self.settings_seen;
        if self.flushed.borrow().settings.len() == seen {
            return;
        }
        let changes = self.flushed.borrow().settings.clone();
        self.settings_seen = changes.len();
        for change in changes.into_iter().skip(seen) {
            if self.tail.weak_settings.contains(&change.setting) == change.begins {
                continue;
            }
            if !change.begins {
                self.tail.weak_settings.retain(|it| *it != change.setting);
                continue;
            }
            self.tail.weak_settings.push(change.setting);
            let warning = Warning::WeakSetting {
                timeline: self.order.history.timeline_of(change.lsn),
                lsn: change.lsn,
                setting: change.setting,
            };
            self.order.reporter.report(&ReceiverEvent::Warning(warning));
        }
    }

    fn report_finished_segments(&mut self) {
        let Some(durable) = self.flushed.borrow().durable else {
            return;
        };
        let timeline = self.order.timeline();
        while self.next_segment_end() <= durable.record_end.lsn() {
            self.finished_end = self.next_segment_end();
            let end = self.finished_end;
            self.order
                .reporter
                .report(&ReceiverEvent::SegmentFinished { timeline, end });
        }
        if let Some(error) = self.archive.take_compression_failure() {
            let warning = Warning::NotCompressed { error: &error };
            self.order.reporter.report(&ReceiverEvent::Warning(warning));
        }
    }

    fn note_hold(&mut self, held_since: Option<Instant>) {
        match (held_since, self.hold_until) {
            (Some(since), None) => {
                let hold = self
                    .order
                    .sender_timeout
                    .map_or(DEFAULT_HOLD, |time| time / 2);
                self.hold_until = Some(since + hold);
                let (timeline, lsn) = (self.order.timeline(), self.durable_end());
                self.tail.disk_full_at = Some(lsn);
                let warning = Warning::DiskFull { timeline, lsn };
                self.order.reporter.report(&ReceiverEvent::Warning(warning));
            }
            (None, waited) => {
                self.hold_until = None;
                // On an earlier connection it may have been waited for in vain.
                let full_at = self.tail.disk_full_at;
                if waited.is_some() || full_at.is_some_and(|end| end < self.durable_end()) {
                    self.tail.disk_full_at = None;
                    self.order.reporter.report(&ReceiverEvent::DiskWritable);
                }
            }
            (Some(_), Some(_)) => {}
        }
    }

    pub(super) fn durable_end(&self) -> Lsn {
        let durable = self.flushed.borrow().durable;
        durable.map_or(self.order.start, |durable| durable.record_end.lsn())
    }

    pub(super) fn disk_stayed_full(&self) -> ReceiveError {
        ReceiveError::DiskStayedFull {
            timeline: self.order.timeline(),
            lsn: self.durable_end(),
            source: None,
        }
    }

    pub(super) fn show_progress(&mut self) {
        let flush_end = self.durable_end();
        self.tail.lag.note(self.server_end, Instant::now());
        let behind_since = self.tail.lag.since(flush_end);
        let written = self.flushed.borrow().written;
        self.order.progress.send_replace(Some(Progress {
            timeline: self.order.timeline(),
            received_end: self.received_end,
            write_end: written.map_or(self.order.start, |written| written.record_end),
            flush_end,
            apply_end: self
                .applied
                .as_ref()
                .map_or(flush_end, |applied| *applied.borrow()),
            acknowledged_end: self.told_flush,
            server_end: self.server_end,
            behind_since,
        }));
    }
}
