//! How long to wait before the next try.

use std::time::Duration;

/// Waits that double from one try to the next, each shortened by a random part, so that the
/// receivers of a primary that comes back do not all knock at the same moment.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits from `first` to `longest`; equal ones make every wait that long, to the moment.
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            next: first,
        }
    }

    /// The wait before the next try. `random` is a number from 0 to 1 that is new each time.
    pub(crate) fn next_wait(&mut self, random: f64) -> Duration {
        let wait = self.next;
        if self.first == self.longest {
            return wait;
        }
        self.next = wait.saturating_mul(2).min(self.longest);
        wait.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0)
    }

    /// Begins with the first wait again.
    pub(crate) const fn reset(&mut self) {
        self.next = self.first;
    }

    /// Begins with the first wait again if a connection lasted longer than the longest one: on an
    /// idle primary nothing else tells it from one that is lost at once every time.
    pub(crate) fn connection_lasted(&mut self, time: Duration) {
        if time > self.longest {
            self.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_are_shortened_at_random() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));
        let waits: Vec<_> = (0..5).map(|_| backoff.next_wait(0.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 500, 500]);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));
        assert_eq!(backoff.next_wait(1.0), Duration::from_millis(50));
    }

    #[test]
    fn only_a_connection_that_lasted_ends_the_doubling() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));
        backoff.next_wait(0.0);
        backoff.connection_lasted(Duration::from_millis(500));
        assert_eq!(backoff.next_wait(0.0), Duration::from_millis(200));
        backoff.connection_lasted(Duration::from_millis(501));
        assert_eq!(backoff.next_wait(0.0), Duration::from_millis(100));
        backoff.reset();
        assert_eq!(backoff.next_wait(0.0), Duration::from_millis(100));
    }

    #[test]
    fn a_fixed_wait_is_not_shortened() {
        let mut backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(5));
        assert_eq!(backoff.next_wait(0.7), Duration::from_secs(5));
        assert_eq!(backoff.next_wait(0.1), Duration::from_secs(5));
    }
}
