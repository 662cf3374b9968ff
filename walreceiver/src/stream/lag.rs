//! Since when there has been WAL that is not durable here: a lag in time that stays 0 on an idle
//! server, and grows while nothing becomes durable.

use std::collections::VecDeque;
use std::time::Instant;

use walproto::{Lsn, TimelineId};

/// How many points in time are kept. When there are more, neighbours become one, so that the lag
/// may be told as longer than it is, by as much as they were apart, and never as shorter.
const MAX_SAMPLES: usize = 128;

/// Remembers when it was learned that the server has WAL up to where.
#[derive(Debug, Default)]
pub(super) struct Lag {
    /// The timeline of all positions.
    timeline: Option<TimelineId>,
    /// The WAL from one position to the next was first known of at the time beside the latter.
    known: VecDeque<(Lsn, Instant)>,
}

impl Lag {
    /// A stream of a timeline begins. What was known of the same one still is: a connection that
    /// is made again does not make WAL newer.
    pub(super) fn follow(&mut self, timeline: TimelineId) {
        if self.timeline.replace(timeline) != Some(timeline) {
            self.known.clear();
        }
    }

    /// The server has WAL up to `server_end`, as is known at `now`.
    pub(super) fn note(&mut self, server_end: Lsn, now: Instant) {
        if self.known.back().is_some_and(|(end, _)| *end >= server_end) {
            return;
        }
        if self.known.len() >= MAX_SAMPLES {
            let halved = std::mem::take(&mut self.known).into_iter();
            let mut earlier = None;
            for (end, at) in halved {
                match earlier.take() {
                    None => earlier = Some(at),
                    Some(at) => self.known.push_back((end, at)),
                }
            }
        }
        self.known.push_back((server_end, now));
    }

    /// When it was learned of the first byte from `flush_end` on; `None` when there is none.
    pub(super) fn since(&mut self, flush_end: Lsn) -> Option<Instant> {
        while self.known.front().is_some_and(|(end, _)| *end <= flush_end) {
            self.known.pop_front();
        }
        self.known.front().map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_counts_from_when_the_first_missing_byte_was_known() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut behind = Lag::default();
        assert_eq!(behind.since(Lsn(100)), None);
        behind.note(Lsn(100), at(1));
        assert_eq!(behind.since(Lsn(100)), None);
        behind.note(Lsn(200), at(2));
        behind.note(Lsn(300), at(3));
        // The same end again is nothing new.
        behind.note(Lsn(300), at(9));
        assert_eq!(behind.since(Lsn(100)), Some(at(2)));
        assert_eq!(behind.since(Lsn(199)), Some(at(2)));
        assert_eq!(behind.since(Lsn(200)), Some(at(3)));
        assert_eq!(behind.since(Lsn(300)), None);
        behind.note(Lsn(400), at(20));
        assert_eq!(behind.since(Lsn(300)), Some(at(20)));
    }

    #[test]
    fn another_connection_forgets_nothing_but_another_timeline_does() {
        let at = Instant::now();
        let mut lag = Lag::default();
        lag.follow(TimelineId::FIRST);
        lag.note(Lsn(200), at);
        lag.follow(TimelineId::FIRST);
        lag.note(Lsn(200), at + Duration::from_secs(5));
        assert_eq!(lag.since(Lsn(100)), Some(at));
        lag.follow(TimelineId::new(2).unwrap());
        assert_eq!(lag.since(Lsn(100)), None);
    }

    #[test]
    fn what_is_kept_is_bounded_and_never_tells_less_than_there_is() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut behind = Lag::default();
        for second in 1..=10_000 {
            behind.note(Lsn(second * 8), at(second));
            assert!(behind.known.len() <= MAX_SAMPLES);
        }
        assert_eq!(behind.since(Lsn(0)), Some(at(1)));
        for second in (1..10_000).step_by(7) {
            let told = behind.since(Lsn(second * 8)).unwrap();
            assert!(told <= at(second + 1), "{second}");
        }
        assert_eq!(behind.since(Lsn(80_000)), None);
    }
}
