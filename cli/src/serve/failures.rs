//! Telling of damage that was met while WAL was served.

use std::collections::BTreeSet;
use std::future::pending;

use segstore::FeedError;
use tokio::sync::broadcast::error::RecvError;
use walsender::{ServerHandle, StreamFailure};

use crate::logging::chain;
use crate::on_event::{self, Event, EventKind, OnEvent};

/// How many messages are remembered, so that none is told again with each try of a client. After
/// so many all are forgotten, and each is told once more if it is still met.
const MAX_TOLD: usize = 64;

/// Tells the command of what is damaged or missing in the archive, not with each try of a client,
/// for ever. The server has logged it.
pub(crate) async fn tell(handle: &ServerHandle, on_event: Option<&OnEvent>) {
    let mut failures = handle.failures();
    let mut told = BTreeSet::new();
    loop {
        let failure = match failures.recv().await {
            Ok(failure) => failure,
            // Who met what was missed here tries again.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return pending().await,
        };
        let (Some(on_event), Some(kind)) = (on_event, kind_of(&failure)) else {
            continue;
        };
        let message = chain(&failure.error);
        if told.len() == MAX_TOLD {
            told.clear();
        }
        if told.insert(message.clone()) {
            on_event.tell(Event {
                kind,
                // The damaged place, or else how far the client had come.
                position: failure.error.damaged_at().or(failure.position),
                message,
            });
        }
    }
}

/// What it is to the command; `None` for what a client asked for in vain.
fn kind_of(failure: &StreamFailure) -> Option<EventKind> {
    match &failure.error {
        FeedError::Hole { .. } => Some(EventKind::Gap),
        FeedError::Archive(error) => on_event::of_archive(error),
        _ => None,
    }
}
