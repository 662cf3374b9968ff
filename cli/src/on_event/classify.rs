//! What a receiver's events and errors are to the command.

use std::sync::{Arc, Mutex, PoisonError};

use segstore::{ArchiveError, WriteError};
use walproto::{Lsn, TimelineId};
use walreceiver::{ReceiveError, ReceiverEvent, Refusal, Reporter, Warning};

use super::{Event, EventKind, OnEvent};
use crate::disk_hold::{DiskHold, HoldChange, is_disk_full};
use crate::error::MainError;
use crate::logging::{chain, without_numbers};
use crate::report::unreachable;

/// Has the command run for a receiver's events, and passes them on.
pub(crate) struct EventReporter<R> {
    next: R,
    on_event: Option<Arc<OnEvent>>,
    told: Mutex<Told>,
}

/// What was told, so that nothing is told again with each try.
#[derive(Debug, Default)]
struct Told {
    last: Option<Event>,
    hold: DiskHold,
}

impl<R> EventReporter<R> {
    /// Without a command it only passes events on.
    pub(crate) fn new(next: R, on_event: Option<Arc<OnEvent>>) -> Self {
        Self {
            next,
            on_event,
            told: Mutex::default(),
        }
    }
}

impl<R: Reporter> Reporter for EventReporter<R> {
    fn report(&self, event: &ReceiverEvent<'_>) {
        self.next.report(event);
        if let Some(on_event) = &self.on_event {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(event) = told.news(event) {
                on_event.tell(event);
            }
        }
    }
}

impl Told {
    /// What the command is told of an event.
    fn news(&mut self, event: &ReceiverEvent<'_>) -> Option<Event> {
        if let ReceiverEvent::Warning(warning @ Warning::AcknowledgementsHeld { .. }) = event {
            // The receiver tells it once, and also when it goes on.
            return of_warning(warning);
        }
        if let ReceiverEvent::Unreachable { lasted, error } = event {
            // Once an outage, each of which is news.
            return Some(Event {
                kind: EventKind::Unreachable,
                position: error.and_then(ReceiveError::position),
                message: unreachable(*lasted, *error),
            });
        }
        let change = self.hold.note(event);
        let event = match event {
            ReceiverEvent::Warning(warning) => of_warning(warning)?,
            // A bit may have been flipped on the way: it is compared again.
            ReceiverEvent::Disconnected {
                error: ReceiveError::Write(WriteError::Diverged { .. }),
                ..
            } => return None,
            ReceiverEvent::Disconnected { error, .. } => of_error(error)?,
            ReceiverEvent::StreamingStarted { timeline, lsn } => released(Some((*timeline, *lsn))),
            ReceiverEvent::DiskWritable => released(None),
            ReceiverEvent::AcknowledgementsGoOn { .. } => {
                return Some(Event {
                    kind: EventKind::Released,
                    position: None,
                    message: "enough synchronous standbys are there again".to_owned(),
                });
            }
            _ => return None,
        };
        let is_new = match event.kind {
            EventKind::Held => change == Some(HoldChange::Held),
            EventKind::Released => change == Some(HoldChange::Released),
            _ => self.last.as_ref() != Some(&event),
        };
        if is_new {
            self.last = Some(event.clone());
        }
        is_new.then_some(event)
    }
}

fn released(position: Option<(TimelineId, Lsn)>) -> Event {
    Event {
        kind: EventKind::Released,
        position,
        message: "there is room on the disk again".to_owned(),
    }
}

fn of_warning(warning: &Warning<'_>) -> Option<Event> {
    let (kind, position) = match warning {
        Warning::DiskFull { timeline, lsn }
        | Warning::AcknowledgementsHeld { timeline, lsn, .. } => {
            (EventKind::Held, Some((*timeline, *lsn)))
        }
        Warning::ForkFollowed { timeline, fork, .. } => (EventKind::Fork, Some((*timeline, *fork))),
        Warning::WeakSetting { timeline, lsn, .. } => (EventKind::WeakWal, Some((*timeline, *lsn))),
        Warning::HostPassedOver { error, .. } => (kind_of(error)?, error.position()),
        Warning::SlotReservesNothing { .. } => (EventKind::LostSlot, None),
        Warning::MissingSegments { missing } => {
            let first = missing.first()?;
            (EventKind::Gap, Some((first.first.timeline(), first.start)))
        }
        _ => return None,
    };
    Some(Event {
        kind,
        position,
        message: without_numbers(&warning.to_string()),
    })
}

/// The event for the error that ended receiving.
pub(crate) fn of_end(error: &ReceiveError) -> Event {
    Event {
        kind: kind_of(error).unwrap_or(EventKind::Ended),
        position: error.position(),
        message: chain(error),
    }
}

/// What the command is told of an error, whether or not it ends the receiver.
fn of_error(error: &ReceiveError) -> Option<Event> {
    Some(Event {
        kind: kind_of(error)?,
        position: error.position(),
        message: chain(error),
    })
}

/// What an error that ends the program is to the command.
pub(crate) fn of_main(error: &MainError) -> Option<EventKind> {
    match error {
        MainError::Receive(error) => Some(kind_of(error).unwrap_or(EventKind::Ended)),
        MainError::Disconnected { cause } => Some(kind_of(cause).unwrap_or(EventKind::Ended)),
        MainError::Archive(error) => of_archive(error),
        _ => None,
    }
}

fn kind_of(error: &ReceiveError) -> Option<EventKind> {
    match error {
        error if is_disk_full(error) => Some(EventKind::Held),
        ReceiveError::Damaged { .. } => Some(EventKind::Corruption),
        ReceiveError::Diverged { .. } => Some(EventKind::Fork),
        ReceiveError::Write(error) => of_write(error),
        ReceiveError::Archive(error) => of_archive(error),
        ReceiveError::WalRemoved { .. } => Some(EventKind::Gap),
        ReceiveError::LostSlot { .. }
        | ReceiveError::UnusableSlot { .. }
        | ReceiveError::NoSuchSlot { .. } => Some(EventKind::LostSlot),
        ReceiveError::OthersMissing { reason, .. } => kind_of(reason),
        ReceiveError::Refused(refusal) | ReceiveError::Split { refusal, .. } => of_refusal(refusal),
        _ => None,
    }
}

fn of_refusal(refusal: &Refusal) -> Option<EventKind> {
    match refusal {
        Refusal::OlderTimeline { .. }
        | Refusal::ForeignTimeline { .. }
        | Refusal::LostWal { .. }
        | Refusal::Superseded { .. }
        | Refusal::SplitTimeline { .. }
        | Refusal::Forked(_) => Some(EventKind::Fork),
        _ => None,
    }
}

fn of_write(error: &WriteError) -> Option<EventKind> {
    match error {
        WriteError::Archive(error) => of_archive(error),
        WriteError::Hole { .. } | WriteError::Missing { .. } => Some(EventKind::Gap),
        WriteError::Diverged { .. } => Some(EventKind::Fork),
        WriteError::Corrupt { .. } => Some(EventKind::Corruption),
        _ => None,
    }
}

/// What an error of the archive is to the command.
pub(crate) fn of_archive(error: &ArchiveError) -> Option<EventKind> {
    match error {
        ArchiveError::Corrupt { .. }
        | ArchiveError::Damaged { .. }
        | ArchiveError::WrongLength { .. }
        | ArchiveError::Conflict { .. } => Some(EventKind::Corruption),
        ArchiveError::Lost { .. } | ArchiveError::Hole { .. } => Some(EventKind::Gap),
        ArchiveError::OtherHistory { .. } | ArchiveError::NotDescendant { .. } => {
            Some(EventKind::Fork)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use walproto::SlotName;

    use super::*;

    const AT: (TimelineId, Lsn) = (TimelineId::FIRST, Lsn(0x500));

    fn told(told: &mut Told, event: &ReceiverEvent<'_>) -> Option<(EventKind, Option<Lsn>)> {
        let event = told.news(event)?;
        assert!(!event.message.is_empty() && !event.message.contains('\n'));
        Some((event.kind, event.position.map(|(_, lsn)| lsn)))
    }

    #[test]
    fn each_kind_is_told_with_its_position_and_not_with_every_try() {
        let (timeline, lsn) = AT;
        let slot = SlotName::new("one").unwrap();
        let refusal = Refusal::OlderTimeline {
            server: timeline,
            archive: TimelineId::new(2).unwrap(),
            record_end: lsn,
        };
        let zombie = ReceiveError::OthersMissing {
            server: "one".to_owned(),
            reason: Box::new(refusal.into()),
        };
        let lost_slot = ReceiveError::LostSlot {
            slot: slot.clone(),
            timeline,
            needed: lsn,
        };
        let hole = WriteError::Hole {
            timeline,
            expected: lsn,
            found: Lsn(0x600),
        };
        let hole = ReceiveError::Write(hole);
        let ordinary = ReceiveError::ServerEnded { timeline, lsn };
        let lost = |error| ReceiverEvent::Disconnected {
            error,
            retry_in: Some(Duration::ZERO),
        };
        let outage = |error| ReceiverEvent::Unreachable {
            lasted: Duration::from_secs(60),
            error,
        };
        let full = Warning::DiskFull { timeline, lsn };
        let nothing_reserved = Warning::SlotReservesNothing { slot: &slot };
        let fork = Warning::ForkFollowed {
            timeline,
            fork: lsn,
            old_timeline: timeline,
            old_end: lsn,
        };
        let mut all = Told::default();
        for (event, expected) in [
            (lost(&zombie), Some((EventKind::Fork, Some(lsn)))),
            (lost(&ordinary), None),
            (lost(&zombie), None),
            (outage(None), Some((EventKind::Unreachable, None))),
            (lost(&zombie), None),
            (
                outage(Some(&zombie)),
                Some((EventKind::Unreachable, Some(lsn))),
            ),
            (
                outage(Some(&zombie)),
                Some((EventKind::Unreachable, Some(lsn))),
            ),
            (lost(&hole), Some((EventKind::Gap, Some(lsn)))),
            (lost(&lost_slot), Some((EventKind::LostSlot, Some(lsn)))),
            (
                ReceiverEvent::Warning(nothing_reserved),
                Some((EventKind::LostSlot, None)),
            ),
            (
                ReceiverEvent::Warning(fork),
                Some((EventKind::Fork, Some(lsn))),
            ),
            (ReceiverEvent::DiskWritable, None),
            (
                ReceiverEvent::Warning(full),
                Some((EventKind::Held, Some(lsn))),
            ),
            (
                ReceiverEvent::DiskWritable,
                Some((EventKind::Released, None)),
            ),
            (ReceiverEvent::StreamingStarted { timeline, lsn }, None),
            (ReceiverEvent::StopRequested, None),
        ] {
            assert_eq!(told(&mut all, &event), expected, "{event:?}");
        }
    }
}
