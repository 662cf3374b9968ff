//! What could not be read from the archive for a client: WAL, a history or a slot. Who runs the
//! server has to know of it, too.

use std::sync::Arc;

use segstore::FeedError;
use tokio::sync::broadcast;
use walproto::{Lsn, TimelineId};

/// How many failures are kept for who has not looked yet; the oldest ones go first. A client that
/// tries again meets the same one.
const MAX_WAITING: usize = 64;

/// Why a client did not get the WAL, the history or the slot that it asked for, or no more WAL.
#[derive(Debug)]
pub struct StreamFailure {
    /// The timeline that was asked for, and the end of what had been given of it in whole
    /// messages; `None` when that is not known, and when it was not WAL that was asked for. Where
    /// the archive is damaged, [`FeedError::damaged_at`] says.
    pub position: Option<(TimelineId, Lsn)>,
    /// Why. The client was told the same, but for what caused it, unless it was in the middle of a
    /// message.
    pub error: FeedError,
}

/// Where failures are told.
#[derive(Debug)]
pub(crate) struct Failures(broadcast::Sender<Arc<StreamFailure>>);

impl Failures {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(MAX_WAITING))
    }

    /// Sends a failure to all subscribers.
    pub(crate) fn tell(&self, failure: StreamFailure) {
        // The only possible error is that there is no subscriber.
        drop(self.0.send(Arc::new(failure)));
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<StreamFailure>> {
        self.0.subscribe()
    }
}
