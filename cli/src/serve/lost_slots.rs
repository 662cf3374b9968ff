//! Telling of replication slots whose WAL is gone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use segstore::{SlotStore, WalStatus};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{error, warn};
use walproto::SlotName;

use crate::logging::chain;
use crate::on_event::{Event, EventKind, OnEvent};

/// The shortest time between two looks: a slot is not lost with every record.
const INTERVAL: Duration = Duration::from_secs(1);

/// The longest time between two: nothing tells that another process has removed WAL.
const LONGEST_INTERVAL: Duration = Duration::from_secs(5);

/// Tells of each slot that is or becomes lost, once, for ever.
pub(crate) async fn tell(slots: &SlotStore, on_event: Option<&OnEvent>) {
    let changed = Arc::new(Notify::new());
    let notify = Arc::clone(&changed);
    let _subscription = slots.view().on_advance(move || notify.notify_one());
    let mut told = BTreeSet::new();
    loop {
        look(slots, &mut told, on_event);
        sleep(INTERVAL).await;
        // That nothing has changed by then is no error.
        let rest = LONGEST_INTERVAL.saturating_sub(INTERVAL);
        let _ = timeout(rest, changed.notified()).await;
    }
}

fn look(slots: &SlotStore, told: &mut BTreeSet<SlotName>, on_event: Option<&OnEvent>) {
    let slots = match slots.list() {
        Ok(slots) => slots,
        Err(error) => {
            warn!(
                event = "slots_unknown",
                "could not look at slots: {}",
                chain(&error)
            );
            return;
        }
    };
    let lost = |slot: &&segstore::Slot| slot.wal_status == Some(WalStatus::Lost);
    // One that was dropped and created again may be lost again.
    told.retain(|name| slots.iter().filter(lost).any(|slot| slot.name == *name));
    for slot in slots.iter().filter(lost) {
        if !told.insert(slot.name.clone()) {
            continue;
        }
        let Some(restart) = slot.restart else {
            continue;
        };
        let (name, lsn, timeline) = (&slot.name, restart.lsn, restart.timeline);
        let message = format!(
            "replication slot \"{name}\" is lost: WAL from {lsn} (timeline {timeline}) on has been \
             removed; drop the slot, and build its standby anew"
        );
        error!(
            event = "slot_lost",
            slot = name.as_str(),
            timeline = timeline.number(),
            %lsn,
            "{message}"
        );
        if let Some(on_event) = on_event {
            on_event.tell(Event {
                kind: EventKind::LostSlot,
                position: Some((timeline, lsn)),
                message,
            });
        }
    }
}
