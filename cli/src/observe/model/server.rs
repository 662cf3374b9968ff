//! What is news of an archive that is served.

use std::collections::BTreeSet;

use segstore::{Slot, WalStatus};
use walproto::SlotName;
use walsender::StreamFailure;

use super::super::event::{Event, EventKind, of_feed};
use crate::logging::chain;

/// How many messages are remembered. After so many all are forgotten, and each is told once more
/// if it is still met.
const MAX_TOLD: usize = 64;

/// The failures that were told, so that none is told again with each try of a client.
#[derive(Debug, Default)]
pub(in crate::observe) struct Failures {
    told: BTreeSet<String>,
}

impl Failures {
    /// What the command is told of a failure. What a client asked for in vain is nothing to it.
    pub(in crate::observe) fn take(&mut self, failure: &StreamFailure) -> Option<Event> {
        let kind = of_feed(&failure.error)?;
        let message = chain(&failure.error);
        if self.told.len() == MAX_TOLD {
            self.told.clear();
        }
        self.told.insert(message.clone()).then(|| Event {
            kind,
            // The damaged place, or else how far the client had come.
            position: failure.error.damaged_at().or(failure.position),
            message,
        })
    }
}

/// The lost slots that were told.
#[derive(Debug, Default)]
pub(in crate::observe) struct LostSlots {
    told: BTreeSet<SlotName>,
}

impl LostSlots {
    /// What is told of the slots as they are now: which have become lost.
    pub(in crate::observe) fn take(&mut self, slots: &[Slot]) -> Vec<(SlotName, Event)> {
        let lost = |slot: &&Slot| slot.wal_status == Some(WalStatus::Lost);
        // One that was dropped and created again may be lost again.
        self.told
            .retain(|name| slots.iter().filter(lost).any(|slot| slot.name == *name));
        let new = slots.iter().filter(lost).filter_map(|slot| {
            let (is_new, restart) = (self.told.insert(slot.name.clone()), slot.restart?);
            is_new.then(|| {
                let (name, lsn, timeline) = (&slot.name, restart.lsn, restart.timeline);
                let event = Event {
                    kind: EventKind::LostSlot,
                    position: Some((timeline, lsn)),
                    message: format!(
                        "replication slot \"{name}\" is lost: WAL from {lsn} (timeline \
                         {timeline}) on has been removed; drop the slot, and build its standby \
                         anew"
                    ),
                };
                (name.clone(), event)
            })
        });
        new.collect()
    }
}

#[cfg(test)]
mod tests {
    use segstore::{FeedError, SegmentName};
    use walproto::{Lsn, TimelineId, WalPosition};

    use super::*;

    #[test]
    fn a_slot_is_lost_once_until_it_is_created_again() {
        let slot = |wal_status| Slot {
            name: SlotName::new("one").unwrap(),
            temporary: false,
            active_pid: None,
            restart: Some(WalPosition {
                timeline: TimelineId::FIRST,
                lsn: Lsn(8),
            }),
            xmin: None,
            catalog_xmin: None,
            wal_status: Some(wal_status),
            safe_wal_size: None,
        };
        let mut model = LostSlots::default();
        for (slots, expected) in [
            (vec![slot(WalStatus::Reserved)], 0),
            (vec![slot(WalStatus::Lost)], 1),
            (vec![slot(WalStatus::Lost)], 0),
            (vec![], 0),
            (vec![slot(WalStatus::Lost)], 1),
        ] {
            assert_eq!(model.take(&slots).len(), expected);
        }
    }

    #[test]
    fn a_failure_is_news_once() {
        let hole = |segment| StreamFailure {
            position: None,
            error: FeedError::Hole {
                segment: SegmentName::parse(segment).unwrap(),
                start: Lsn(8),
            },
        };
        let (one, other) = ("000000010000000000000003", "000000010000000000000004");
        let mut model = Failures::default();
        assert!(
            model
                .take(&hole(one))
                .is_some_and(|event| event.kind == EventKind::Gap)
        );
        assert!(model.take(&hole(one)).is_none() && model.take(&hole(other)).is_some());
    }
}
