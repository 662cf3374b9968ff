//! How many of a server's notices are reported.

use std::time::{Duration, Instant};

use super::error::Place;

/// How many notices are reported in each [`INTERVAL`]: a server that is well sends none, or a few.
const MOST: u32 = 10;

/// The time after which as many notices are reported again.
const INTERVAL: Duration = Duration::from_secs(60);

/// Counts the notices of one connection, so that a server cannot fill the log with them.
#[derive(Debug)]
pub(super) struct NoticeLimit {
    server: String,
    /// When the first notice of this interval came.
    began: Option<Instant>,
    /// How many came in this interval.
    count: u64,
}

impl NoticeLimit {
    /// Of a connection to a server, which is named so in the log.
    pub(super) fn new(server: &str) -> Self {
        Self {
            server: server.to_owned(),
            began: None,
            count: 0,
        }
    }

    /// Whether a notice that came at `now` is to be reported.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        let within = |began| now.saturating_duration_since(began) < INTERVAL;
        if !self.began.is_some_and(within) {
            self.log_skipped();
            self.began = Some(now);
            self.count = 0;
        }
        self.count += 1;
        if self.count == u64::from(MOST) + 1 {
            tracing::warn!(
                event = "notices_limited",
                server = %self.server,
                "the server {} has sent {MOST} notices within {} s, further ones are only counted",
                Place(&self.server),
                INTERVAL.as_secs()
            );
        }
        self.count <= u64::from(MOST)
    }

    fn log_skipped(&self) {
        let skipped = self.count.saturating_sub(u64::from(MOST));
        if skipped > 0 {
            tracing::info!(
                event = "notices_skipped",
                server = %self.server,
                count = skipped,
                "{skipped} more notices of the server {} were not logged",
                Place(&self.server)
            );
        }
    }
}

impl Drop for NoticeLimit {
    fn drop(&mut self) {
        self.log_skipped();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_the_first_notices_of_each_minute() {
        let mut limit = NoticeLimit::new("s");
        let start = Instant::now();
        let reported = |limit: &mut NoticeLimit, seconds: u64, count: usize| {
            let at = start + Duration::from_secs(seconds);
            (0..count).filter(|_| limit.admit(at)).count()
        };
        assert_eq!(reported(&mut limit, 0, 4), 4);
        assert_eq!(reported(&mut limit, 59, 1000), 6);
        assert_eq!(limit.count, 1004);
        assert_eq!(reported(&mut limit, 60, 1000), 10);
        assert_eq!(reported(&mut limit, 200, 1), 1);
    }
}
