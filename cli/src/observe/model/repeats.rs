//! The same error with every try: logged when it is new, and then from time to time.

use std::time::{Duration, Instant};

use walproto::{Lsn, TimelineId};
use walreceiver::ReceiveError;

use crate::logging::{chain, without_positions};

/// For how long the same error is not logged again.
const INTERVAL: Duration = Duration::from_secs(10);

/// The error that was logged last.
#[derive(Debug, Default)]
pub(super) struct Repeats(Option<Logged>);

#[derive(Debug)]
struct Logged {
    error: Key,
    at: Instant,
    /// How often it came since then.
    more: u32,
}

/// What makes an error the same with every try: its place in the archive, and its text without the
/// positions of the server, which may be later by then.
type Key = (Option<(TimelineId, Lsn)>, String);

impl Repeats {
    /// Whether to log an error, and how often it came since it was logged last.
    pub(super) fn log(&mut self, error: &ReceiveError, now: Instant) -> Option<u32> {
        self.log_key((error.position(), without_positions(&chain(error))), now)
    }

    fn log_key(&mut self, error: Key, now: Instant) -> Option<u32> {
        let mut more = 0;
        if let Some(logged) = self.0.as_mut().filter(|logged| logged.error == error) {
            if now.saturating_duration_since(logged.at) < INTERVAL {
                logged.more = logged.more.saturating_add(1);
                return None;
            }
            more = logged.more;
        }
        self.0 = Some(Logged {
            error,
            at: now,
            more: 0,
        });
        Some(more)
    }

    /// The next error is a new one, whatever it says.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use walreceiver::Refusal;

    use super::*;

    #[test]
    fn the_same_error_is_logged_from_time_to_time_with_how_often_it_came() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut repeats = Repeats::default();
        let ended = |lsn| ReceiveError::ServerEnded {
            timeline: TimelineId::FIRST,
            lsn: Lsn(lsn),
        };
        assert_eq!(repeats.log(&ended(1), at(0)), Some(0));
        assert_eq!(repeats.log(&ended(1), at(1)), None);
        assert_eq!(repeats.log(&ended(1), at(9)), None);
        assert_eq!(repeats.log(&ended(1), at(10)), Some(2));
        assert_eq!(repeats.log(&ended(1), at(11)), None);
        assert_eq!(repeats.log(&ReceiveError::NoServer, at(12)), Some(0));
        assert_eq!(repeats.log(&ended(1), at(13)), Some(0));
        repeats.forget();
        assert_eq!(repeats.log(&ended(1), at(14)), Some(0));
        assert_eq!(repeats.log(&ended(2), at(15)), Some(0), "another place");
    }

    #[test]
    fn the_server_may_have_more_wal_when_the_same_error_comes_again() {
        let now = Instant::now();
        let behind = |flush| {
            ReceiveError::Refused(Refusal::LostWal {
                timeline: TimelineId::FIRST,
                flush: Lsn(flush),
                record_end: Lsn(0x500),
            })
        };
        let mut repeats = Repeats::default();
        assert_eq!(repeats.log(&behind(0x480), now), Some(0));
        assert_eq!(repeats.log(&behind(0x490), now), None);
    }
}
