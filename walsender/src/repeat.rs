//! Log lines that clients can cause again and again: a few are written, the rest are counted.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How many lines of one kind are written at once.
const BURST: u32 = 10;

/// How long it takes until one more line of the same kind can be written.
const INTERVAL: Duration = Duration::from_secs(30);

/// The longest text of a client's that one line repeats, in bytes.
const MAX_TEXT: usize = 512;

/// What a line is about. Each kind is limited by itself, so that one does not hide another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Repeated {
    /// An unauthenticated connection broke, broke the protocol, or took too long.
    Unauthenticated,
    /// A client was refused, or its authentication failed.
    Refused,
    /// The connection of an authenticated client ended by an error.
    Ended,
}

/// How many connections ended badly since the server began, whether or not that was logged.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FailedConnections {
    /// Ended before authentication, other than by closing: broken, invalid, or too slow.
    pub unauthenticated: u64,
    /// Refused by the rules, by a wrong password or certificate, or for lack of room.
    pub refused: u64,
    /// Ended by an error after authentication.
    pub ended: u64,
}

/// Limits the lines of every kind.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    kinds: [Limit; Repeated::ALL.len()],
    suppressed: Notify,
}

/// A token bucket: [`BURST`] lines at once, then one in each [`INTERVAL`].
#[derive(Debug)]
struct Limit(Mutex<Bucket>);

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    /// When the last token was added; `None` while the bucket is full.
    refilled: Option<Instant>,
    /// How many lines were not written since the last one that was.
    suppressed: u64,
    /// How many lines there would have been.
    total: u64,
}

impl Repeated {
    const ALL: [Self; 3] = [Self::Unauthenticated, Self::Refused, Self::Ended];

    /// What is counted, for the line that says how many there were.
    const fn describe(self) -> &'static str {
        match self {
            Self::Unauthenticated => "connections that ended before authentication",
            Self::Refused => "refused connections",
            Self::Ended => "connections that ended by an error",
        }
    }
}

impl Repeats {
    /// Counts a line of a kind, and writes it as a warning unless there were too many. `text` is
    /// cut where it gets long.
    pub(crate) fn warn(&self, kind: Repeated, client: &str, text: impl fmt::Display) {
        let Some(suppressed) = self.note(kind, Instant::now()) else {
            tracing::debug!(client, "{}", Cut(&text.to_string()));
            return;
        };
        let text = text.to_string();
        let text = Cut(&text);
        if suppressed == 0 {
            tracing::warn!(client, "{text}");
        } else {
            tracing::warn!(
                client,
                suppressed,
                "{text} ({suppressed} similar messages suppressed)"
            );
        }
    }

    /// Counts a line of a kind. It is to be written if this returns how many before it were not.
    pub(crate) fn note(&self, kind: Repeated, now: Instant) -> Option<u64> {
        let mut bucket = self.bucket(kind);
        let written = bucket.note(now);
        drop(bucket);
        if written.is_none() {
            self.suppressed.notify_one();
        }
        written
    }

    /// Counts a line of a kind that is not to be written.
    pub(crate) fn count(&self, kind: Repeated) {
        let mut bucket = self.bucket(kind);
        bucket.total = bucket.total.saturating_add(1);
    }

    /// How many lines of the kinds there were so far, those that were not written included.
    pub(crate) fn failed_connections(&self) -> FailedConnections {
        FailedConnections {
            unauthenticated: self.bucket(Repeated::Unauthenticated).total,
            refused: self.bucket(Repeated::Refused).total,
            ended: self.bucket(Repeated::Ended).total,
        }
    }

    /// Writes how many lines were suppressed when no other line does, for ever.
    pub(crate) async fn report_suppressed(&self) {
        loop {
            self.suppressed.notified().await;
            let mut rest = true;
            while rest {
                tokio::time::sleep(INTERVAL).await;
                rest = self.report(Instant::now());
            }
        }
    }

    /// Writes how many lines were suppressed; whether there are counts that have to wait.
    fn report(&self, now: Instant) -> bool {
        let mut rest = false;
        for kind in Repeated::ALL {
            let mut bucket = self.bucket(kind);
            let count = bucket.take_suppressed(now);
            rest |= bucket.suppressed > 0;
            drop(bucket);
            if count > 0 {
                let what = kind.describe();
                tracing::warn!(suppressed = count, "{count} messages suppressed: {what}");
            }
        }
        rest
    }

    fn bucket(&self, kind: Repeated) -> MutexGuard<'_, Bucket> {
        let [unauthenticated, refused, ended] = &self.kinds;
        let Limit(bucket) = match kind {
            Repeated::Unauthenticated => unauthenticated,
            Repeated::Refused => refused,
            Repeated::Ended => ended,
        };
        // No change of it can panic half way.
        bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(Mutex::new(Bucket {
            tokens: BURST,
            refilled: None,
            suppressed: 0,
            total: 0,
        }))
    }
}

impl Bucket {
    fn note(&mut self, now: Instant) -> Option<u64> {
        self.total = self.total.saturating_add(1);
        if self.take_token(now) {
            return Some(std::mem::take(&mut self.suppressed));
        }
        self.suppressed = self.suppressed.saturating_add(1);
        None
    }

    /// How many lines were suppressed, if there are any and a line can be written.
    fn take_suppressed(&mut self, now: Instant) -> u64 {
        if self.suppressed == 0 || !self.take_token(now) {
            return 0;
        }
        std::mem::take(&mut self.suppressed)
    }

    fn take_token(&mut self, now: Instant) -> bool {
        let refilled = *self.refilled.get_or_insert(now);
        let periods = now.saturating_duration_since(refilled).as_secs() / INTERVAL.as_secs();
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        self.tokens = self.tokens.saturating_add(periods).min(BURST);
        self.refilled = (self.tokens < BURST).then(|| refilled + INTERVAL * periods);
        let Some(rest) = self.tokens.checked_sub(1) else {
            return false;
        };
        self.tokens = rest;
        self.refilled.get_or_insert(now);
        true
    }
}

/// The beginning of a text that may be long.
struct Cut<'a>(&'a str);

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() <= MAX_TEXT {
            return f.write_str(self.0);
        }
        let shown = (0..=MAX_TEXT).rev().find_map(|end| self.0.get(..end));
        f.write_str(shown.unwrap_or_default())?;
        f.write_str("...")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(repeats: &Repeats, at: Instant, count: usize) -> Vec<u64> {
        (0..count)
            .filter_map(|_| repeats.note(Repeated::Refused, at))
            .collect()
    }

    #[test]
    fn a_flood_is_a_few_lines_and_a_count() {
        let repeats = Repeats::default();
        let start = Instant::now();
        assert_eq!(written(&repeats, start, 5000), [0; BURST as usize]);
        assert_eq!(repeats.failed_connections().refused, 5000);
        // The next line says how many there were between.
        let suppressed = 5000 - u64::from(BURST);
        assert_eq!(written(&repeats, start + INTERVAL, 3), [suppressed]);
        // Another kind is not affected.
        assert_eq!(repeats.note(Repeated::Unauthenticated, start), Some(0));
    }

    #[test]
    fn a_kind_recovers_one_line_in_each_interval_and_no_more_than_the_burst() {
        let repeats = Repeats::default();
        let start = Instant::now();
        written(&repeats, start, 100);
        for second in 1..=600 {
            written(&repeats, start + Duration::from_secs(second), 100);
        }
        let after = start + Duration::from_secs(600);
        assert!(written(&repeats, after, 100).is_empty());
        let much_later = after + INTERVAL * 1000;
        assert_eq!(written(&repeats, much_later, 100).len(), BURST as usize);
    }

    #[test]
    fn a_count_is_reported_though_no_further_line_comes() {
        let repeats = Repeats::default();
        let start = Instant::now();
        assert!(!repeats.report(start));
        written(&repeats, start, 12);
        assert!(repeats.report(start), "no line is left now");
        assert!(!repeats.report(start + INTERVAL), "it was reported");
        assert_eq!(written(&repeats, start + INTERVAL * 2, 1), [0]);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let text = "\u{fc}".repeat(MAX_TEXT);
        let cut = Cut(&text).to_string();
        assert!(
            cut.len() <= MAX_TEXT + 3 && cut.ends_with("\u{fc}..."),
            "{cut}"
        );
        assert_eq!(Cut("short").to_string(), "short");
    }
}
