//! How long WAL takes to be written, flushed and applied by a standby.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use walproto::{Lsn, StandbyProgress};

/// How many points in time are kept for a standby that is behind: with messages of 128 KiB, 32 MiB
/// of WAL. Beyond that the newest is overwritten, so that old ones are not lost, which tell how
/// far behind it is.
const MAX_SAMPLES: usize = 256;

/// The times from when WAL was sent here to when a standby said that it has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lags {
    /// Until it was written (`write_lag`).
    pub write: Option<Duration>,
    /// Until it was durable (`flush_lag`).
    pub flush: Option<Duration>,
    /// Until it was applied (`replay_lag`).
    pub apply: Option<Duration>,
}

/// Remembers when which WAL was sent.
///
/// Source: src/backend/replication/walsender.c, `LagTrackerWrite`, `LagTrackerRead`,
/// `ProcessStandbyReplyMessage` (PG 15).
#[derive(Debug, Default)]
pub(super) struct LagTracker {
    samples: VecDeque<(Lsn, Instant)>,
    lags: Lags,
    /// Whether the last report said that everything sent is applied.
    was_idle: bool,
}

impl LagTracker {
    pub(super) fn note_sent(&mut self, end: Lsn, now: Instant) {
        if self.samples.back().is_some_and(|(last, _)| *last >= end) {
            return;
        }
        if self.samples.len() == MAX_SAMPLES {
            self.samples.pop_back();
        }
        self.samples.push_back((end, now));
    }

    pub(super) fn note_reported(&mut self, reported: StandbyProgress, sent: Lsn, now: Instant) {
        let lag = |position: Option<Lsn>, before: Option<Duration>| {
            let position = position?;
            let reached = self.samples.partition_point(|(end, _)| *end <= position);
            let last = reached.checked_sub(1).and_then(|i| self.samples.get(i));
            let passed = last.map(|(_, at)| now.saturating_duration_since(*at));
            passed.or(before)
        };
        let lags = Lags {
            write: lag(reported.write, self.lags.write),
            flush: lag(reported.flush, self.lags.flush),
            apply: lag(reported.apply, self.lags.apply),
        };
        // What all have reached is told once; who reports no position at all does not count.
        let all = [reported.write, reported.flush, reported.apply];
        if let Some(slowest) = all.into_iter().flatten().min() {
            let done = self.samples.partition_point(|(end, _)| *end <= slowest);
            self.samples.drain(..done);
        }
        let is_idle = reported.apply.or(reported.flush).or(reported.write) == Some(sent);
        // Twice in a row nothing was left to do: the last times no longer say anything.
        self.lags = if is_idle && self.was_idle {
            Lags::default()
        } else {
            lags
        };
        self.was_idle = is_idle;
    }

    pub(super) const fn lags(&self) -> Lags {
        self.lags
    }

    /// Forgets all, for another stream.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(write: u64, flush: u64, apply: u64) -> StandbyProgress {
        let some = |lsn: u64| (lsn > 0).then_some(Lsn(lsn));
        StandbyProgress {
            write: some(write),
            flush: some(flush),
            apply: some(apply),
        }
    }

    const fn ms(milliseconds: u64) -> Option<Duration> {
        Some(Duration::from_millis(milliseconds))
    }

    #[test]
    fn each_position_has_the_age_of_the_newest_wal_that_it_has_reached() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut tracker = LagTracker::default();
        for (end, milliseconds) in [(100, 0), (100, 5), (200, 10), (300, 20)] {
            tracker.note_sent(Lsn(end), at(milliseconds));
        }
        tracker.note_reported(reported(300, 250, 100), Lsn(300), at(30));
        let expected = Lags {
            write: ms(10),
            flush: ms(20),
            apply: ms(30),
        };
        assert_eq!(tracker.lags(), expected);
        // No further, but later: what was known stays.
        tracker.note_reported(reported(300, 250, 100), Lsn(300), at(40));
        assert_eq!(tracker.lags().apply, ms(30));
        tracker.note_reported(reported(300, 300, 300), Lsn(300), at(50));
        assert_eq!(tracker.lags().apply, ms(30));
    }

    #[test]
    fn a_standby_that_has_nothing_to_do_has_no_lag() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut tracker = LagTracker::default();
        tracker.note_sent(Lsn(100), start);
        tracker.note_reported(reported(100, 100, 100), Lsn(100), at(10));
        assert_eq!(tracker.lags().flush, ms(10));
        tracker.note_reported(reported(100, 100, 100), Lsn(100), at(5_000));
        assert_eq!(tracker.lags(), Lags::default());
    }

    #[test]
    fn a_standby_far_behind_keeps_its_oldest_times_and_bounded_memory() {
        let start = Instant::now();
        let mut tracker = LagTracker::default();
        for end in 1..10_000 {
            tracker.note_sent(Lsn(end), start + Duration::from_millis(end));
        }
        assert_eq!(tracker.samples.len(), MAX_SAMPLES);
        let now = start + Duration::from_secs(60);
        tracker.note_reported(reported(5, 5, 0), Lsn(9_999), now);
        assert_eq!(tracker.lags().flush, ms(60_000 - 5));
        assert_eq!(tracker.lags().apply, None);
        assert_eq!(tracker.samples.len(), MAX_SAMPLES - 5);
    }
}
