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

/// The most lines in an [`INTERVAL`]: clients choose their names, and could choose new ones.
const MAX_LINES: u32 = 64;

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

/// Who asked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Client {
    /// `None` through a Unix socket.
    pub(crate) address: Option<IpAddr>,
    pub(crate) user: String,
    pub(crate) application_name: String,
}

/// What each client asked for in vain.
#[derive(Debug, Default)]
pub(crate) struct Recurring(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    requests: BTreeMap<(Request, Client), Seen>,
    /// When lines were last counted from 0, and how many there were since.
    lines: Option<(Instant, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    logged: Option<Instant>,
    last: Instant,
    /// Since it was logged.
    count: u64,
}

impl Recurring {
    /// Logs that a client asks for something in vain, unless it did so not long ago.
    pub(crate) fn warn(&self, request: Request, client: Client, shown: &str, text: &str) {
        match self.note(request, client, Instant::now()) {
            Some(before) => tracing::warn!(client = shown, before, "{text}{}", Before(before)),
            None => tracing::debug!(client = shown, "{text}"),
        }
    }

    /// Counts a request. It is to be logged if this returns how often it was not.
    pub(crate) fn note(&self, request: Request, client: Client, now: Instant) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Remembered { requests, lines } = &mut *all;
        let key = (request, client);
        if requests.len() >= MAX_REMEMBERED && !requests.contains_key(&key) {
            let oldest = requests.iter().min_by_key(|(_, seen)| seen.last);
            let oldest = oldest.map(|(key, _)| key.clone());
            oldest.and_then(|key| requests.remove(&key));
        }
        let seen = requests.entry(key).or_insert(Seen {
            logged: None,
            last: now,
            count: 0,
        });
        seen.last = now;
        let is_over = |since: Instant| now.saturating_duration_since(since) >= INTERVAL;
        let is_due = seen.logged.is_none_or(is_over);
        let (_, written) = match lines {
            Some(lines) if !is_over(lines.0) => lines,
            lines => lines.insert((now, 0)),
        };
        if !is_due || *written >= MAX_LINES {
            seen.count = seen.count.saturating_add(1);
            return None;
        }
        *written += 1;
        seen.logged = Some(now);
        Some(std::mem::take(&mut seen.count))
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

    fn client(name: &str) -> Client {
        Client {
            address: Some("192.0.2.1".parse().unwrap()),
            user: "any".to_owned(),
            application_name: name.to_owned(),
        }
    }

    #[test]
    fn each_request_of_a_client_is_logged_once_and_then_counted() {
        let recurring = Recurring::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let fork = Request::Stream(Some(TimelineId::FIRST), Lsn(0x500));
        let other = Request::Stream(Some(TimelineId::FIRST), Lsn(0x600));
        assert_eq!(recurring.note(fork, client("a"), at(0)), Some(0));
        for second in 1..100 {
            assert_eq!(recurring.note(fork, client("a"), at(second)), None);
        }
        assert_eq!(recurring.note(other, client("a"), at(100)), Some(0));
        assert_eq!(recurring.note(fork, client("b"), at(100)), Some(0));
        assert_eq!(recurring.note(fork, client("a"), at(3600)), Some(99));
        assert_eq!(recurring.note(fork, client("a"), at(3601)), None);
    }

    #[test]
    fn memory_and_lines_are_limited_whatever_clients_call_themselves() {
        let recurring = Recurring::default();
        let start = Instant::now();
        let mut lines = 0;
        for number in 0..1000 {
            let now = start + Duration::from_millis(number);
            let name = client(&number.to_string());
            let noted = recurring.note(Request::Sql, name, now);
            lines += u32::from(noted.is_some());
            // What recurs stays.
            let recurs = recurring.note(Request::Sql, client("a"), now);
            assert_eq!(recurs, (number == 0).then_some(0));
        }
        assert_eq!(lines, MAX_LINES - 1);
        assert_eq!(recurring.0.lock().unwrap().requests.len(), MAX_REMEMBERED);
        // What was not logged in time is logged later.
        let late = recurring.note(Request::Sql, client("999"), start + INTERVAL);
        assert_eq!(late, Some(1));
    }
}
