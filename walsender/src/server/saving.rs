//! Where the slots stand is saved a while after they have moved.

use std::sync::Arc;
use std::time::Duration;

use segstore::Subscription;

use super::panics::note_panic;
use crate::chain::chain;
use crate::shared::Shared;

/// How long the movements of slots are gathered before they are written.
const INTERVAL: Duration = Duration::from_secs(5);

/// Has those look again who wait for a slot, and the file of a temporary one removed.
pub(super) fn hear_of_slots(shared: &Arc<Shared>) -> Subscription {
    let weak = Arc::downgrade(shared);
    shared.slots.on_release(move || {
        if let Some(shared) = weak.upgrade() {
            shared.released.send_replace(());
            shared.note_slot_moved();
        }
    })
}

/// Saves where the slots stand a while after they have moved, for ever. What a crash takes makes
/// them keep more, not less.
pub(super) async fn save_slots(shared: &Arc<Shared>) {
    loop {
        shared.slot_moved.notified().await;
        tokio::time::sleep(INTERVAL).await;
        save(shared).await;
    }
}

pub(super) async fn save(shared: &Arc<Shared>) {
    let slots = shared.slots.clone();
    match tokio::task::spawn_blocking(move || slots.save()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!("could not save replication slots: {}", chain(&error));
            shared.note_slot_moved();
        }
        Err(error) => note_panic(Err(error)),
    }
}
