//! One line on a terminal that tells where the receiver is.

use std::env;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{self, MissedTickBehavior};
use walreceiver::Progress;

use crate::screen::Screen;

/// How often the line is drawn anew.
const INTERVAL: Duration = Duration::from_millis(500);

/// Whether standard error is a terminal that can rewrite a line.
pub(super) fn possible() -> bool {
    io::stderr().is_terminal() && env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// Keeps the line up to date until the receiver is gone.
///
/// # Cancel safety
/// The line stays on the screen when this is dropped; take it away with an empty one.
pub(super) async fn keep(screen: &Screen, mut progress: watch::Receiver<Option<Progress>>) {
    let mut ticks = time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rate = Rate::default();
    loop {
        ticks.tick().await;
        if progress.has_changed().is_err() {
            return;
        }
        let now = *progress.borrow_and_update();
        match now {
            Some(now) => {
                let rate = rate.after(Instant::now(), &now);
                screen.show(&line(&now, rate));
            }
            None => screen.show(""),
        }
    }
}

/// The rate at which WAL arrives, smoothed over some seconds.
#[derive(Default)]
struct Rate {
    last: Option<(Instant, Progress)>,
    bytes_per_second: f64,
}

impl Rate {
    /// The rate when at `now` the receiver is at `progress`.
    fn after(&mut self, now: Instant, progress: &Progress) -> f64 {
        if let Some((then, before)) = self.last {
            let seconds = now.saturating_duration_since(then).as_secs_f64();
            if seconds > 0.0 {
                let bytes = progress.received_end.bytes_since(before.received_end);
                // The weight of the past halves with every second.
                let past = 0.5_f64.powf(seconds);
                self.bytes_per_second =
                    past * self.bytes_per_second + (1.0 - past) * bytes as f64 / seconds;
            }
        }
        self.last = Some((now, *progress));
        self.bytes_per_second
    }
}

fn line(progress: &Progress, bytes_per_second: f64) -> String {
    format!(
        "timeline {}  durable {}  {}/s  lag {}",
        progress.timeline,
        progress.flush_end,
        size(bytes_per_second),
        size(progress.lag_bytes() as f64),
    )
}

/// A number of bytes for people.
fn size(bytes: f64) -> String {
    const KIB: f64 = 1024.0;
    if bytes < KIB {
        format!("{bytes:.0} B")
    } else if bytes < KIB * KIB {
        format!("{:.1} KiB", bytes / KIB)
    } else if bytes < KIB * KIB * KIB {
        format!("{:.1} MiB", bytes / KIB / KIB)
    } else {
        format!("{:.1} GiB", bytes / KIB / KIB / KIB)
    }
}

#[cfg(test)]
mod tests {
    use walproto::{Lsn, TimelineId};

    use super::*;

    fn at(received: u64, flushed: u64, server: u64) -> Progress {
        Progress {
            timeline: TimelineId::FIRST,
            received_end: Lsn(received),
            write_end: Lsn(received),
            flush_end: Lsn(flushed),
            apply_end: Lsn(flushed),
            acknowledged_end: None,
            server_end: Lsn(server),
            behind_since: None,
        }
    }

    #[test]
    fn the_line_tells_position_rate_and_lag() {
        assert_eq!(
            line(&at(0x300_0100, 0x300_0000, 0x300_0400), 1_572_864.0),
            "timeline 1  durable 0/3000000  1.5 MiB/s  lag 1.0 KiB"
        );
    }

    #[test]
    fn sizes_have_a_fitting_unit() {
        for (bytes, text) in [
            (0.0, "0 B"),
            (1023.0, "1023 B"),
            (1024.0, "1.0 KiB"),
            (1.5 * 1024.0 * 1024.0 * 1024.0, "1.5 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn the_rate_comes_close_to_a_steady_stream_and_falls_when_it_ends() {
        let start = Instant::now();
        let mut rate = Rate::default();
        assert_eq!(rate.after(start, &at(0, 0, 0)), 0.0);
        let mut last = 0.0;
        for second in 1..=10 {
            last = rate.after(
                start + Duration::from_secs(second),
                &at(second * 1000, 0, 0),
            );
        }
        assert!((990.0..=1000.0).contains(&last), "{last}");
        let later = rate.after(start + Duration::from_secs(20), &at(10_000, 0, 0));
        assert!(later < 1.0, "{later}");
    }

    #[test]
    fn a_position_that_moves_back_is_no_rate() {
        let start = Instant::now();
        let mut rate = Rate::default();
        rate.after(start, &at(1000, 0, 0));
        let after = rate.after(start + Duration::from_secs(1), &at(500, 0, 0));
        assert_eq!(after, 0.0);
    }
}
