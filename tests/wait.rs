//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// How long a condition may take to become true before the test fails.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Calls `condition` until it gives a value, and returns it.
///
/// # Panics
/// When it gives none before [`DEADLINE`]; `what` names the condition.
#[track_caller]
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "waited {DEADLINE:?} in vain for: {what}"
        );
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Calls `condition` until it is true; see [`wait_for`].
///
/// # Panics
/// When it is not true before [`DEADLINE`].
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}
