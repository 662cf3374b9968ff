//! How long to wait before the next try.

use std::time::Duration;

/// The longest wait for a server that is likely to be there soon. Commits there wait for us from
/// the moment at which it is.
const SOON: Duration = Duration::from_secs(1);

/// Waits that double from one try to the next, each shortened by a random part, so that the
/// receivers of a primary that comes back do not all connect at the same moment.
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

    /// The wait before the next try, at most a second with `soon`. `random` is a number from 0 to 1
    /// that is new each time.
    pub(crate) fn next_wait(&mut self, soon: bool, random: f64) -> Duration {
        if self.first == self.longest {
            return self.next;
        }
        let longest = if soon {
            self.longest.min(SOON)
        } else {
            self.longest
        };
        let wait = self.next.min(longest);
        self.next = wait.saturating_mul(2).min(longest);
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

    fn millis(backoff: &mut Backoff, soon: bool, tries: usize) -> Vec<u128> {
        let waits = (0..tries).map(|_| backoff.next_wait(soon, 0.0).as_millis());
        waits.collect()
    }

    #[test]
    fn waits_double_up_to_the_longest_and_are_shortened_at_random() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));
        assert_eq!(millis(&mut backoff, false, 5), [100, 200, 400, 500, 500]);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));
        assert_eq!(backoff.next_wait(false, 1.0), Duration::from_millis(50));
    }

    #[test]
    fn a_server_that_starts_is_tried_at_least_once_a_second() {
        let mut backoff = Backoff::new(Duration::from_millis(400), Duration::from_secs(5));
        assert_eq!(millis(&mut backoff, true, 4), [400, 800, 1000, 1000]);
        assert_eq!(backoff.next_wait(true, 1.0), Duration::from_millis(500));
        assert_eq!(millis(&mut backoff, false, 4), [1000, 2000, 4000, 5000]);
        assert_eq!(millis(&mut backoff, true, 1), [1000]);
        // A longest wait that is shorter still counts.
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));
        assert_eq!(millis(&mut backoff, true, 4), [100, 200, 400, 500]);
    }

    #[test]
    fn only_a_connection_that_lasted_ends_the_doubling() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));
        backoff.next_wait(false, 0.0);
        backoff.connection_lasted(Duration::from_millis(500));
        assert_eq!(backoff.next_wait(false, 0.0), Duration::from_millis(200));
        backoff.connection_lasted(Duration::from_millis(501));
        assert_eq!(backoff.next_wait(false, 0.0), Duration::from_millis(100));
        backoff.reset();
        assert_eq!(backoff.next_wait(false, 0.0), Duration::from_millis(100));
    }

    #[test]
    fn a_fixed_wait_is_not_shortened() {
        let mut backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(5));
        assert_eq!(backoff.next_wait(true, 0.7), Duration::from_secs(5));
        assert_eq!(backoff.next_wait(false, 0.1), Duration::from_secs(5));
    }
}
