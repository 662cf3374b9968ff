//! Whether a receiver holds acknowledgements because its disk is full, over all its connections.

use segstore::{ArchiveError, WriteError};
use walreceiver::{ReceiveError, ReceiverEvent, Warning};

/// Follows a receiver's events.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in crate::observe) enum DiskHold {
    /// There is room.
    #[default]
    Free,
    /// The archive could not be made ready: that is over when WAL is streamed.
    Starting,
    /// WAL could not be written: that is over when writing goes on.
    Writing,
}

/// What an event changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::observe) enum HoldChange {
    Held,
    Released,
}

impl DiskHold {
    /// Takes note of an event.
    pub(super) fn note(&mut self, event: &ReceiverEvent<'_>) -> Option<HoldChange> {
        let before = *self;
        *self = match event {
            ReceiverEvent::Warning(Warning::DiskFull { .. }) => Self::Writing,
            ReceiverEvent::Disconnected { error, .. } if is_disk_full(error) => match before {
                Self::Free => Self::Starting,
                held => held,
            },
            ReceiverEvent::StreamingStarted { .. } if before == Self::Starting => Self::Free,
            ReceiverEvent::DiskWritable => Self::Free,
            _ => before,
        };
        match (before, *self) {
            (Self::Free, Self::Starting | Self::Writing) => Some(HoldChange::Held),
            (Self::Starting | Self::Writing, Self::Free) => Some(HoldChange::Released),
            _ => None,
        }
    }
}

/// Whether there is no room for what was to be written.
pub(in crate::observe) fn is_disk_full(error: &ReceiveError) -> bool {
    match error {
        ReceiveError::DiskStayedFull { .. } | ReceiveError::Write(WriteError::DiskFull(_)) => true,
        ReceiveError::Archive(ArchiveError::Disk(error)) => error.is_disk_full(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use walproto::{Lsn, TimelineId};

    use super::*;

    #[test]
    fn it_begins_once_and_ends_when_writing_goes_on() {
        let (timeline, lsn) = (TimelineId::FIRST, Lsn(8));
        let full = ReceiverEvent::Warning(Warning::DiskFull { timeline, lsn });
        let source = None;
        let stayed = &ReceiveError::DiskStayedFull {
            timeline,
            lsn,
            source,
        };
        let lost = |error| ReceiverEvent::Disconnected {
            error,
            retry_in: Some(Duration::ZERO),
        };
        let streams = ReceiverEvent::StreamingStarted { timeline, lsn };
        let writes = ReceiverEvent::DiskWritable;
        let (held, released) = (Some(HoldChange::Held), Some(HoldChange::Released));
        let mut hold = DiskHold::default();
        for (event, expected) in [
            (&streams, None),
            (&full, held),
            (&lost(stayed), None),
            // Nothing is written yet.
            (&streams, None),
            (&full, None),
            (&writes, released),
            (&lost(&ReceiveError::NoServer), None),
            // What a start writes finds no room either.
            (&lost(stayed), held),
            (&lost(stayed), None),
            (&streams, released),
        ] {
            assert_eq!(hold.note(event), expected, "{event:?} {hold:?}");
        }
    }
}
