//! The same error with every try: logged when it is new, and then from time to time.

use std::time::{Duration, Instant};

/// For how long the same error is not logged again.
const INTERVAL: Duration = Duration::from_secs(10);

/// The error that was logged last.
#[derive(Debug, Default)]
pub(super) struct Repeats(Option<Logged>);

#[derive(Debug)]
struct Logged {
    text: String,
    at: Instant,
    /// How often it came since then.
    more: u32,
}

impl Repeats {
    /// Whether to log an error, and how often it came since it was logged last.
    pub(super) fn log(&mut self, text: &str, now: Instant) -> Option<u32> {
        let mut more = 0;
        if let Some(logged) = self.0.as_mut().filter(|logged| logged.text == text) {
            if now.saturating_duration_since(logged.at) < INTERVAL {
                logged.more = logged.more.saturating_add(1);
                return None;
            }
            more = logged.more;
        }
        self.0 = Some(Logged {
            text: text.to_owned(),
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
    use super::*;

    #[test]
    fn the_same_error_is_logged_from_time_to_time_with_how_often_it_came() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut repeats = Repeats::default();
        assert_eq!(repeats.log("refused", at(0)), Some(0));
        assert_eq!(repeats.log("refused", at(1)), None);
        assert_eq!(repeats.log("refused", at(9)), None);
        assert_eq!(repeats.log("refused", at(10)), Some(2));
        assert_eq!(repeats.log("refused", at(11)), None);
        assert_eq!(repeats.log("starting up", at(12)), Some(0));
        assert_eq!(repeats.log("refused", at(13)), Some(0));
        repeats.forget();
        assert_eq!(repeats.log("refused", at(14)), Some(0));
    }
}
