//! Connections that come, and those that could not be accepted.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::listener::Listener;
use crate::socket::Accepted;

/// The pause before the next connection is accepted after the system lacked resources for one, such
/// as file descriptors. Without it, accepting would fail repeatedly until a file is closed.
const PAUSE: Duration = Duration::from_millis(100);

/// The shortest time between two lines about that.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The next connection of any listener. Cancel safe.
pub(super) async fn accept(listeners: &[Listener]) -> io::Result<Accepted> {
    poll_fn(|cx| {
        for listener in listeners {
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}

/// Connections that could not be accepted.
#[derive(Debug, Default)]
pub(super) struct Failures {
    logged: Option<Instant>,
    unlogged: u64,
}

impl Failures {
    /// Logs one now and then, and waits a moment.
    pub(super) async fn note(&mut self, error: &io::Error) {
        if let Some(before) = self.count(Instant::now()) {
            let more = match before {
                0 => String::new(),
                before => format!(" ({before} times before)"),
            };
            tracing::warn!("could not accept a connection: {error}{more}");
        }
        tokio::time::sleep(PAUSE).await;
    }

    /// How many there were since one was last logged, if this one is to be logged.
    fn count(&mut self, now: Instant) -> Option<u64> {
        let is_due = self
            .logged
            .is_none_or(|logged| now.saturating_duration_since(logged) >= LOG_INTERVAL);
        if !is_due {
            self.unlogged = self.unlogged.saturating_add(1);
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_logged_once_in_an_interval_with_their_number() {
        let mut failures = Failures::default();
        let start = Instant::now();
        assert_eq!(failures.count(start), Some(0));
        for _ in 0..7 {
            assert_eq!(failures.count(start + LOG_INTERVAL / 2), None);
        }
        assert_eq!(failures.count(start + LOG_INTERVAL), Some(7));
        assert_eq!(failures.count(start + LOG_INTERVAL), None);
    }
}
