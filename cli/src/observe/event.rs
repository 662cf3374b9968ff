//! What the command of `--on-event` is told, and which errors and warnings that is.

use segstore::{ArchiveError, DiskError, ErrorKind, FeedError, Operation, WriteError};
use walproto::{Lsn, TimelineId};
use walreceiver::{ReceiveError, Refusal, Warning};

use super::model::disk_hold::is_disk_full;
use crate::error::MainError;
use crate::logging::{chain, without_numbers, without_positions};

/// What has happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EventKind {
    /// WAL is missing.
    Gap,
    /// A slot no longer keeps the WAL that it is to keep.
    LostSlot,
    /// Acknowledgements are held for lack of room.
    Held,
    /// They go on.
    Released,
    /// WAL, or a file of the archive, is damaged.
    Corruption,
    /// The server's WAL does not go on from the archive's.
    Fork,
    /// A sync failed, so that what is durable is not known.
    SyncFailed,
    /// A setting of the server makes its WAL too little for a base backup.
    WeakWal,
    /// Nothing has been streamed for a minute.
    Unreachable,
    /// Receiving has ended by an error that none of these names.
    Ended,
}

impl EventKind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::LostSlot => "lost_slot",
            Self::Held => "held",
            Self::Released => "released",
            Self::Corruption => "corruption",
            Self::Fork => "fork",
            Self::SyncFailed => "sync_failed",
            Self::WeakWal => "weak_wal",
            Self::Unreachable => "unreachable",
            Self::Ended => "ended",
        }
    }
}

/// Something that has happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Event {
    pub(crate) kind: EventKind,
    /// Where, if it is about a place in the WAL.
    pub(crate) position: Option<(TimelineId, Lsn)>,
    /// What is logged about it, in a line.
    pub(crate) message: String,
}

impl Event {
    /// Whether `other` is this one once more. Positions of the server may be later by then.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.position == other.position
            && without_positions(&self.message) == without_positions(&other.message)
    }
}

pub(super) fn released(position: Option<(TimelineId, Lsn)>) -> Event {
    Event {
        kind: EventKind::Released,
        position,
        message: "there is room on the disk again".to_owned(),
    }
}

pub(super) fn of_warning(warning: &Warning<'_>) -> Option<Event> {
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
pub(super) fn of_error(error: &ReceiveError) -> Option<Event> {
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
        | Refusal::TwoClusters { .. }
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
        WriteError::SyncFailed { .. } => Some(EventKind::SyncFailed),
        WriteError::Disk(error) => of_disk(error),
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
        ArchiveError::Unmarked { .. } | ArchiveError::SyncFailedBefore { .. } => {
            Some(EventKind::SyncFailed)
        }
        ArchiveError::Disk(error) => of_disk(error),
        error if error.kind() == ErrorKind::Lineage => Some(EventKind::Fork),
        _ => None,
    }
}

fn of_disk(error: &DiskError) -> Option<EventKind> {
    (error.operation == Operation::Sync).then_some(EventKind::SyncFailed)
}

/// What it is when WAL could not be served; `None` for what a client asked for in vain.
pub(crate) fn of_feed(error: &FeedError) -> Option<EventKind> {
    match error {
        FeedError::Hole { .. } => Some(EventKind::Gap),
        FeedError::Archive(error) => of_archive(error),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use walproto::SystemId;

    use super::*;

    #[test]
    fn failed_syncs_and_other_clusters_have_a_kind() {
        let failed = || DiskError::at(Operation::Sync, "/a/x")(io::Error::from_raw_os_error(5));
        let (one, other) = (SystemId(1), SystemId(2));
        let marker = None;
        for (error, kind) in [
            (
                ReceiveError::Write(WriteError::SyncFailed {
                    error: failed(),
                    marker,
                }),
                EventKind::SyncFailed,
            ),
            (
                ReceiveError::Archive(ArchiveError::Disk(failed())),
                EventKind::SyncFailed,
            ),
            (
                ReceiveError::Refused(Refusal::TwoClusters { one, other }),
                EventKind::Fork,
            ),
            (
                ReceiveError::Archive(ArchiveError::OtherCluster {
                    directory: "/a".into(),
                    expected: one,
                    found: other,
                }),
                EventKind::Fork,
            ),
            (ReceiveError::ArchiveLost, EventKind::Ended),
        ] {
            assert_eq!(of_end(&error).kind, kind, "{error}");
        }
    }
}
