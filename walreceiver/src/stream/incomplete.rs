//! A record that is not complete where the server's WAL ends.
//!
//! A server may well stop there: a primary that has flushed whole pages, and a standby for ever
//! once its primary is gone. But the record may also be complete on the server, and only its
//! length have been damaged on the way, so that a commit waits for us and we wait for WAL that
//! never comes. Its bytes are not valid yet, so they may be replaced: the receiver connects again
//! and has them sent once more. When the same record comes, it is as the server has it.

use segstore::WeakSetting;
use walproto::Lsn;

use super::Receiving;
use super::lag::Lag;
use crate::error::ReceiveError;
use crate::event::{ReceiverEvent, Warning};
use crate::incomplete_tail::IncompleteTail;

/// Remembers over all connections what was met at the end of the WAL.
#[derive(Debug)]
pub(crate) struct TailMemory {
    /// The durable end when the disk was found full, until more is durable.
    pub(super) disk_full_at: Option<Lsn>,
    /// Since when WAL is known that is not durable.
    pub(super) lag: Lag,
    /// The settings that a base backup depends on and that were warned of.
    pub(super) weak_settings: Vec<WeakSetting>,
    /// Whether a lost connection is made again.
    reconnects: bool,
    met: Option<IncompleteTail>,
    warned: bool,
}

/// What to do about an incomplete record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Have it sent again on another connection.
    FetchAgain,
    /// Say that it is waited for.
    Warn,
    /// Wait for the rest of it.
    Wait,
}

impl TailMemory {
    pub(crate) fn new(reconnects: bool) -> Self {
        Self {
            disk_full_at: None,
            lag: Lag::default(),
            weak_settings: Vec::new(),
            reconnects,
            met: None,
            warned: false,
        }
    }

    /// Decides about a record. Each is fetched again once, and warned of once.
    fn meet(&mut self, tail: IncompleteTail) -> Step {
        let record = |tail: &IncompleteTail| (tail.timeline, tail.lsn, tail.total_length);
        let known = self.met.as_ref().map(record) == Some(record(&tail));
        if !known {
            self.met = Some(tail);
            self.warned = false;
            if self.reconnects {
                return Step::FetchAgain;
            }
        }
        if std::mem::replace(&mut self.warned, true) {
            Step::Wait
        } else {
            Step::Warn
        }
    }
}

impl Receiving<'_> {
    /// Does what is to be done about a record that stays incomplete.
    pub(super) fn record_stays_incomplete(&mut self) -> Result<(), ReceiveError> {
        let Some(written) = self.flushed.borrow().written else {
            return Ok(());
        };
        // The flusher may not have come to the end of what was received, as while a disk is full.
        let Some(record) = written
            .incomplete
            .filter(|_| written.byte_end == self.received_end)
        else {
            return Ok(());
        };
        let tail = IncompleteTail {
            timeline: self.order.timeline(),
            lsn: record.start,
            total_length: record.total_length,
            wal_end: self.received_end,
        };
        match self.tail.meet(tail) {
            Step::FetchAgain => Err(ReceiveError::IncompleteTail(tail)),
            Step::Warn => {
                let warning = Warning::IncompleteTail(tail);
                let event = ReceiverEvent::Warning(warning);
                self.order.reporter.report(&event);
                Ok(())
            }
            Step::Wait => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use walproto::TimelineId;

    use super::*;

    fn tail(lsn: u64, total_length: Option<u32>, wal_end: u64) -> IncompleteTail {
        IncompleteTail {
            timeline: TimelineId::FIRST,
            lsn: Lsn(lsn),
            total_length,
            wal_end: Lsn(wal_end),
        }
    }

    #[test]
    fn a_record_is_fetched_again_once_and_then_waited_for_with_one_warning() {
        let mut memory = TailMemory::new(true);
        let torn = tail(0x100, Some(8000), 0x2000);
        assert_eq!(memory.meet(torn), Step::FetchAgain);
        assert_eq!(memory.meet(torn), Step::Warn);
        assert_eq!(memory.meet(torn), Step::Wait);
        // More of it has come: its length was the right one.
        assert_eq!(memory.meet(tail(0x100, Some(8000), 0x2020)), Step::Wait);
    }

    #[test]
    fn a_record_of_another_length_or_place_is_another_one() {
        let mut memory = TailMemory::new(true);
        for other in [
            tail(0x100, None, 0x102),
            tail(0x100, Some(8000), 0x120),
            tail(0x100, Some(9000), 0x120),
            tail(0x200, Some(9000), 0x220),
            tail(0x100, Some(8000), 0x120),
        ] {
            assert_eq!(memory.meet(other), Step::FetchAgain, "{other:?}");
            assert_eq!(memory.meet(other), Step::Warn, "{other:?}");
        }
        let mut later = tail(0x100, Some(8000), 0x120);
        later.timeline = TimelineId::new(2).unwrap();
        assert_eq!(memory.meet(later), Step::FetchAgain);
    }

    #[test]
    fn who_does_not_connect_again_is_warned_at_once() {
        let mut memory = TailMemory::new(false);
        let torn = tail(0x100, Some(8000), 0x2000);
        assert_eq!(memory.meet(torn), Step::Warn);
        assert_eq!(memory.meet(torn), Step::Wait);
        assert_eq!(memory.meet(tail(0x200, None, 0x202)), Step::Warn);
    }
}
