//! What a server's events and slots are to the log and the command of `--on-event`.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use segstore::SlotStore;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{sleep, timeout};
use tracing::warn;
use walsender::ServerHandle;

use super::event::Event;
use super::log;
use super::model::server::{Failures, LostSlots};
use crate::logging::chain;

/// The shortest time between two looks at slots: a slot is not lost with every record.
const INTERVAL: Duration = Duration::from_secs(1);

/// The longest time between two: nothing tells that another process has removed WAL.
const LONGEST_INTERVAL: Duration = Duration::from_secs(5);

/// Tells the command of what is damaged or missing in the archive, for ever. The server has logged
/// it.
pub(super) async fn watch_failures(handle: &ServerHandle, tell: impl Fn(Event)) {
    let mut failures = handle.failures();
    let mut model = Failures::default();
    loop {
        match failures.recv().await {
            Ok(failure) => model.take(&failure).into_iter().for_each(&tell),
            // Who met what was missed here tries again.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return pending().await,
        }
    }
}

/// Logs each slot whose WAL is gone, and tells the command of it, for ever.
pub(super) async fn watch_slots(slots: &SlotStore, tell: impl Fn(Event)) {
    let changed = Arc::new(Notify::new());
    let notify = Arc::clone(&changed);
    let _subscription = slots.view().on_advance(move || notify.notify_one());
    let mut model = LostSlots::default();
    loop {
        match slots.list() {
            Ok(slots) => {
                for (name, event) in model.take(&slots) {
                    log::slot_lost(&name, &event);
                    tell(event);
                }
            }
            Err(error) => warn!(
                event = "slots_unknown",
                "could not look at slots: {}",
                chain(&error)
            ),
        }
        sleep(INTERVAL).await;
        // That nothing has changed by then is no error.
        let rest = LONGEST_INTERVAL.saturating_sub(INTERVAL);
        let _ = timeout(rest, changed.notified()).await;
    }
}
