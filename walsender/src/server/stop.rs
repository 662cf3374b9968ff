//! How a server stops.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How long the clients of a server that stops are waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// Until each client has confirmed all WAL that was durable when the stop began, or is gone, as
    /// PostgreSQL does it.
    OnceReplicated,
    /// The same, but no longer than this, whatever a client does. The clients that are left are
    /// disconnected.
    Within(Duration),
}

/// How long positions of slots may take to be saved if a stop must not take long: the disk may be
/// why the server stops. Without it the slots keep more WAL, not less.
pub(super) const SAVE_PATIENCE: Duration = Duration::from_secs(2);

impl Stop {
    /// When clients are waited for no longer, if they are not waited for without a limit.
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::OnceReplicated => None,
            Self::Within(limit) => Instant::now().checked_add(limit),
        }
    }
}

/// Waits until then, without a deadline for ever.
pub(super) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
