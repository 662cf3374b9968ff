//! What a client asks for in vain again and again: it is logged once, and then counted.
//!
//! A health check connects every few seconds, a standby on another fork asks for the same position
//! every five, and an HA manager tries SQL every ten. Who reads the log has to learn of each of
//! them, but once.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use walproto::{Lsn, TimelineId};

/// How long it takes until the number of repetitions is logged.
const INTERVAL: Duration = Duration::from_secs(3600);

/// How many of them are remembered. For one more, the one that was longest ago is forgotten.
const MAX_REMEMBERED: usize = 256;

/// What was asked for in vain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Request {
    /// A connection that is not for physical replication.
    Connection,
    /// SQL on a replication connection.
    Sql,
    /// A stream of WAL from a position on, `None` for the newest timeline.
    Stream(Option<TimelineId>, Lsn),
    /// What could not be read for another command.
    Other,
}

/// The address of a client, `None` through a Unix socket. What it calls itself is its own choice.
type Client = Option<IpAddr>;

/// What each client asked for in vain.
#[derive(Debug, Default)]
pub(crate) struct Recurring(Mutex<BTreeMap<(Request, Client), Seen>>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    logged: Instant,
    last: Instant,
    /// Since it was logged.
    count: u64,
}

impl Recurring {
    /// Logs that a client asks for something in vain, unless it did so not long ago.
    pub(crate) fn warn(&self, request: Request, client: Client, name: &str, text: &str) {
        match self.note(request, client, Instant::now()) {
            Some(before) => tracing::warn!(client = name, before, "{text}{}", Before(before)),
            None => tracing::debug!(client = name, "{text}"),
        }
    }

    /// Counts a request. It is to be logged if this returns how often it was not.
    pub(crate) fn note(&self, request: Request, client: Client, now: Instant) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (request, client);
        if let Some(seen) = all.get_mut(&key) {
            seen.last = now;
            if now.saturating_duration_since(seen.logged) < INTERVAL {
                seen.count = seen.count.saturating_add(1);
                return None;
            }
            seen.logged = now;
            return Some(std::mem::take(&mut seen.count));
        }
        if all.len() >= MAX_REMEMBERED {
            let oldest = all.iter().min_by_key(|(_, seen)| seen.last);
            let oldest = oldest.map(|(key, _)| *key);
            oldest.and_then(|key| all.remove(&key));
        }
        let seen = Seen {
            logged: now,
            last: now,
            count: 0,
        };
        all.insert(key, seen);
        Some(0)
    }
}

/// How often something was not logged, for the end of a line.
pub(crate) struct Before(pub(crate) u64);

impl fmt::Display for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " ({count} more times since this was last logged)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_of_a_client_is_logged_once_and_then_counted() {
        let recurring = Recurring::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let fork = Request::Stream(Some(TimelineId::FIRST), Lsn(0x500));
        let other = Request::Stream(Some(TimelineId::FIRST), Lsn(0x600));
        let client = Some("192.0.2.1".parse().unwrap());
        assert_eq!(recurring.note(fork, client, at(0)), Some(0));
        for second in 1..100 {
            assert_eq!(recurring.note(fork, client, at(second)), None);
        }
        assert_eq!(recurring.note(other, client, at(100)), Some(0));
        assert_eq!(recurring.note(fork, None, at(100)), Some(0));
        assert_eq!(recurring.note(fork, client, at(3600)), Some(99));
        assert_eq!(recurring.note(fork, client, at(3601)), None);
    }

    #[test]
    fn a_limited_number_is_remembered() {
        let recurring = Recurring::default();
        let start = Instant::now();
        for position in 0..1000 {
            let request = Request::Stream(None, Lsn(position));
            let now = start + Duration::from_millis(position);
            assert_eq!(recurring.note(request, None, now), Some(0));
            // What recurs stays.
            let recurs = recurring.note(Request::Sql, None, now);
            assert_eq!(recurs, (position == 0).then_some(0));
        }
        assert_eq!(recurring.0.lock().unwrap().len(), MAX_REMEMBERED);
    }
}
