//! The state machine that a receiver's events feed: how the receiver is, and what of each event is
//! news. What is logged, told to the command of `--on-event` and shown by `status` follows from it.

pub(super) mod disk_hold;
mod repeats;
pub(super) mod server;

use std::time::{Instant, SystemTime};

use segstore::WriteError;
use tokio::sync::watch;
use walproto::{ServerVersion, SystemId};
use walreceiver::{Progress, ReceiveError, ReceiverEvent, Warning};

use self::disk_hold::{DiskHold, HoldChange, is_disk_full};
use self::repeats::Repeats;
use super::event::{self, Event, EventKind};
use super::log::unreachable;
use crate::logging::chain;

/// What a receiver is at, as its events tell.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    pub(super) phase: Phase,
    /// The server that it is or was last connected to.
    pub(super) upstream: Option<Upstream>,
    /// How far it had come when the connection was lost.
    pub(super) last_progress: Option<Progress>,
    /// Why the last connection was lost, until the next one streams.
    pub(super) last_error: Option<String>,
    /// Since when nothing has been streamed; `None` while it streams.
    pub(super) disconnected_since: Option<SystemTime>,
    /// Whether WAL is held for lack of room.
    pub(super) hold: DiskHold,
    /// What was last said about that.
    pub(super) disk_full: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Connecting,
    Streaming,
    /// It waits before it connects again.
    Waiting {
        until: Instant,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Upstream {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) version: ServerVersion,
    pub(super) system_id: SystemId,
}

/// What of an event is news.
#[derive(Debug)]
pub(super) struct News {
    /// How often the error of a lost connection came since it was logged last; `None` if it is not
    /// to be logged again yet.
    pub(super) repeated: Option<u32>,
    /// What the command of `--on-event` is told.
    pub(super) event: Option<Event>,
}

/// How a receiver is, and what was told of it.
#[derive(Debug)]
pub(super) struct Model {
    observed: watch::Sender<Observed>,
    progress: watch::Receiver<Option<Progress>>,
    repeats: Repeats,
    /// What the command was told last, so that it is not told again with each try.
    last: Option<Event>,
}

impl Model {
    /// Of a receiver that has not begun.
    pub(super) fn new(progress: watch::Receiver<Option<Progress>>) -> Self {
        let observed = Observed {
            phase: Phase::Connecting,
            upstream: None,
            last_progress: None,
            last_error: None,
            disconnected_since: Some(SystemTime::now()),
            hold: DiskHold::default(),
            disk_full: None,
        };
        Self {
            observed: watch::Sender::new(observed),
            progress,
            repeats: Repeats::default(),
            last: None,
        }
    }

    pub(super) fn observed(&self) -> watch::Receiver<Observed> {
        self.observed.subscribe()
    }

    /// Takes an event, and says what of it is news.
    pub(super) fn take(&mut self, event: &ReceiverEvent<'_>, now: Instant) -> News {
        let mut hold = None;
        let progress = *self.progress.borrow();
        self.observed.send_if_modified(|observed| {
            hold = observed.hold.note(event);
            observed.note(event, progress, now) || hold.is_some()
        });
        News {
            repeated: self.repeated(event, now),
            event: self.event(event, hold),
        }
    }

    fn repeated(&mut self, event: &ReceiverEvent<'_>, now: Instant) -> Option<u32> {
        match event {
            ReceiverEvent::Disconnected {
                error,
                retry_in: Some(_),
            } => return self.repeats.log(error, now),
            ReceiverEvent::StreamingStarted { .. } => self.repeats.forget(),
            _ => {}
        }
        Some(0)
    }

    /// What the command is told of an event that has changed the hold like this.
    fn event(&mut self, event: &ReceiverEvent<'_>, change: Option<HoldChange>) -> Option<Event> {
        if let ReceiverEvent::Warning(warning @ Warning::AcknowledgementsHeld { .. }) = event {
            // The receiver tells it once, and also when it goes on.
            return event::of_warning(warning);
        }
        if let ReceiverEvent::Unreachable { lasted, error } = event {
            // Once an outage, each of which is news.
            return Some(Event {
                kind: EventKind::Unreachable,
                position: error.and_then(ReceiveError::position),
                message: unreachable(*lasted, *error),
            });
        }
        let event = match event {
            ReceiverEvent::Warning(warning) => event::of_warning(warning)?,
            // A bit may have been flipped on the way: it is compared again.
            ReceiverEvent::Disconnected {
                error: ReceiveError::Write(WriteError::Diverged { .. }),
                ..
            } => return None,
            ReceiverEvent::Disconnected { error, .. } => event::of_error(error)?,
            ReceiverEvent::StreamingStarted { timeline, lsn } => {
                event::released(Some((*timeline, *lsn)))
            }
            ReceiverEvent::DiskWritable => event::released(None),
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
            _ => !self
                .last
                .as_ref()
                .is_some_and(|last| last.is_same_as(&event)),
        };
        if is_new {
            self.last = Some(event.clone());
        }
        is_new.then_some(event)
    }
}

impl Observed {
    /// Takes an event; whether that changed anything besides the hold.
    fn note(
        &mut self,
        event: &ReceiverEvent<'_>,
        progress: Option<Progress>,
        now: Instant,
    ) -> bool {
        if self.hold == DiskHold::Free {
            self.disk_full = None;
        }
        match event {
            ReceiverEvent::Connecting => self.phase = Phase::Connecting,
            ReceiverEvent::Connected {
                host,
                port,
                version,
                system_id,
            } => {
                self.upstream = Some(Upstream {
                    host: (*host).to_owned(),
                    port: *port,
                    version: *version,
                    system_id: *system_id,
                });
            }
            ReceiverEvent::StreamingStarted { .. } => {
                self.phase = Phase::Streaming;
                self.last_error = None;
                self.disconnected_since = None;
            }
            ReceiverEvent::Disconnected { error, retry_in } => {
                if let Some(retry_in) = *retry_in {
                    let until = now + retry_in;
                    self.phase = Phase::Waiting { until };
                }
                self.last_progress = progress.or(self.last_progress);
                let message = chain(*error);
                if is_disk_full(error) {
                    self.disk_full = Some(message.clone());
                }
                self.last_error = Some(message);
                self.disconnected_since.get_or_insert_with(SystemTime::now);
            }
            ReceiverEvent::Warning(warning @ Warning::DiskFull { .. }) => {
                self.disk_full = Some(warning.to_string());
            }
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use walproto::{Lsn, SlotName, TimelineId};
    use walreceiver::Refusal;

    use super::*;

    const AT: (TimelineId, Lsn) = (TimelineId::FIRST, Lsn(0x500));

    fn told(model: &mut Model, event: &ReceiverEvent<'_>) -> Option<(EventKind, Option<Lsn>)> {
        let event = model.take(event, Instant::now()).event?;
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
        let behind = |flush| ReceiveError::OthersMissing {
            server: "one".to_owned(),
            reason: Box::new(
                Refusal::LostWal {
                    timeline,
                    flush: Lsn(flush),
                    record_end: lsn,
                }
                .into(),
            ),
        };
        let (behind, more) = (behind(0x480), behind(0x490));
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
        let mut all = Model::new(watch::Sender::new(None).subscribe());
        for (event, expected) in [
            (lost(&zombie), Some((EventKind::Fork, Some(lsn)))),
            (lost(&ordinary), None),
            (lost(&zombie), None),
            (lost(&behind), Some((EventKind::Fork, Some(lsn)))),
            // The server's WAL is longer by now.
            (lost(&more), None),
            (lost(&zombie), Some((EventKind::Fork, Some(lsn)))),
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
