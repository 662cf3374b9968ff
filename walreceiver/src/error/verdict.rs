//! What an error means for the receiver: where it was met, and whether it ends receiving.

use pgconn::connection::is_permanent;
use segstore::{ArchiveError, ErrorKind, WriteError};
use walproto::error::SqlState;
use walproto::{Lsn, TimelineId};

use super::ReceiveError;
use crate::follow::Refusal;

/// How far a run has come, which decides what may end it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// It has never streamed, and does not serve what it receives. No commit or standby waits for it
    /// yet, so an error that the user has to correct ends it.
    Before,
    /// It has streamed, or serves from its start on: commits and standbys wait for it.
    After,
}

impl ReceiveError {
    /// Where it happened, if it is about a place in the WAL.
    #[must_use]
    pub fn position(&self) -> Option<(TimelineId, Lsn)> {
        match self {
            Self::Write(error)
            | Self::Damaged { source: error, .. }
            | Self::Diverged { source: error, .. } => position_of_write(error),
            Self::Archive(error) => position_in_archive(error),
            Self::IncompleteTail(tail) => Some((tail.timeline, tail.lsn)),
            Self::OthersMissing { reason, .. } => reason.position(),
            Self::Refused(refusal) | Self::Split { refusal, .. } => match *refusal {
                Refusal::OlderTimeline {
                    archive: timeline,
                    record_end: lsn,
                    ..
                }
                | Refusal::ForeignTimeline {
                    archive: timeline,
                    record_end: lsn,
                    ..
                }
                | Refusal::LostWal {
                    timeline,
                    record_end: lsn,
                    ..
                } => Some((timeline, lsn)),
                Refusal::Forked(fork) => Some((fork.timeline, fork.switch_point)),
                Refusal::Superseded { .. }
                | Refusal::SplitTimeline { .. }
                | Refusal::TwoClusters { .. } => None,
                Refusal::StartPastEnd {
                    timeline, flush, ..
                } => Some((timeline, flush)),
            },
            Self::StandbyBehind {
                archive: timeline,
                record_end: lsn,
                ..
            }
            | Self::LostSlot {
                timeline,
                needed: lsn,
                ..
            }
            | Self::UnusableSlot {
                timeline,
                start: lsn,
                ..
            }
            | Self::WalRemoved {
                timeline,
                start: lsn,
                ..
            }
            | Self::SwitchPastEnd {
                timeline,
                switch_point: lsn,
                ..
            }
            | Self::OtherSwitch {
                timeline,
                switch_point: lsn,
                ..
            }
            | Self::NotEmpty {
                timeline,
                resume_at: lsn,
                ..
            }
            | Self::ServerEnded { timeline, lsn }
            | Self::NoSuccessor { timeline, lsn }
            | Self::DiskStayedFull { timeline, lsn, .. } => Some((*timeline, *lsn)),
            Self::Connect(_)
            | Self::Connection(_)
            | Self::Answer(_)
            | Self::NoHistory { .. }
            | Self::History(_)
            | Self::HistoriesTooLong { .. }
            | Self::SegmentSize(_)
            | Self::NoSuchSlot { .. }
            | Self::NotPhysical { .. }
            | Self::SlotInUse { .. }
            | Self::NoServer
            | Self::ArchiveLost
            | Self::Slot(_)
            | Self::ApplierEnded
            | Self::Apply(_)
            | Self::Thread { .. } => None,
        }
    }

    /// Whether it ends receiving.
    ///
    /// This is the closed list of what does. Everything else is tried again, because a receiver that
    /// has ended hangs every commit that waits for it: PostgreSQL's own walreceiver never gives up.
    /// In [`Phase::After`] receiving is ended by the archive itself, by a decision about lineage, by
    /// WAL that is gone, and by the applier. In [`Phase::Before`] also by what a user has to correct.
    /// The match has no wildcard arm, so the compiler demands a decision for each new error.
    pub(crate) fn ends(&self, phase: Phase) -> bool {
        let unless_streamed = phase == Phase::Before;
        match self {
            Self::Archive(error) => of_kind(error.kind()),
            // Met once it may be a bit that was flipped on the way; `Damage` counts.
            Self::Write(WriteError::Diverged { .. }) => false,
            Self::Write(error) => of_kind(error.kind()),
            Self::Diverged { .. }
            | Self::Refused(
                Refusal::OlderTimeline { .. }
                | Refusal::ForeignTimeline { .. }
                | Refusal::LostWal { .. }
                | Refusal::Superseded { .. }
                | Refusal::SplitTimeline { .. }
                | Refusal::TwoClusters { .. }
                | Refusal::Forked(_),
            )
            | Self::Split { .. } => true,
            Self::WalRemoved { .. } | Self::LostSlot { .. } | Self::UnusableSlot { .. } => true,
            // It would leave a gap in the archive, and cannot come up once WAL is there.
            Self::NotEmpty { .. } => true,
            Self::ApplierEnded | Self::Apply(_) => true,
            // Without the archive nothing can be received.
            Self::ArchiveLost => true,
            Self::Connect(error) => unless_streamed && !error.is_transient(),
            Self::Connection(error) => {
                unless_streamed && error.sqlstate().is_some_and(is_permanent)
            }
            Self::Refused(Refusal::StartPastEnd { .. })
            | Self::Answer(_)
            | Self::NoHistory { .. }
            | Self::History(_)
            | Self::HistoriesTooLong { .. }
            | Self::SegmentSize(_)
            | Self::NoSuchSlot { .. }
            | Self::NotPhysical { .. }
            | Self::Slot(_)
            | Self::Thread { .. } => unless_streamed,
            Self::Damaged { .. }
            | Self::IncompleteTail(_)
            | Self::StandbyBehind { .. }
            | Self::SlotInUse { .. }
            | Self::ServerEnded { .. }
            | Self::NoSuccessor { .. }
            | Self::DiskStayedFull { .. }
            | Self::OtherSwitch { .. }
            | Self::NoServer
            | Self::OthersMissing { .. }
            | Self::SwitchPastEnd { .. } => false,
        }
    }

    /// Whether received WAL could not be kept, because of this machine and not of the server.
    pub(crate) fn is_of_archive(&self) -> bool {
        match self {
            Self::Write(WriteError::Corrupt { .. } | WriteError::Diverged { .. }) => false,
            Self::Write(_) | Self::Archive(_) => true,
            Self::DiskStayedFull { .. } | Self::ArchiveLost | Self::Thread { .. } => true,
            _ => false,
        }
    }

    /// Whether the server is not there yet but is likely to be soon: its address refuses
    /// connections, or it says that it is starting up.
    pub(crate) fn is_server_starting(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_server_starting(),
            Self::Connection(error) => error.sqlstate() == Some(SqlState::CANNOT_CONNECT_NOW),
            _ => false,
        }
    }
}

const fn of_kind(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::Archive | ErrorKind::Lineage => true,
        ErrorKind::Passing => false,
    }
}

fn position_of_write(error: &WriteError) -> Option<(TimelineId, Lsn)> {
    match error {
        WriteError::Corrupt { corruption, .. } => Some((corruption.timeline, corruption.lsn)),
        WriteError::Diverged { timeline, lsn, .. }
        | WriteError::Missing { timeline, lsn }
        | WriteError::Internal { timeline, lsn, .. }
        | WriteError::Hole {
            timeline,
            expected: lsn,
            ..
        } => Some((*timeline, *lsn)),
        WriteError::Archive(error) => position_in_archive(error),
        _ => None,
    }
}

fn position_in_archive(error: &ArchiveError) -> Option<(TimelineId, Lsn)> {
    match error {
        ArchiveError::Corrupt { corruption, .. } => Some((corruption.timeline, corruption.lsn)),
        ArchiveError::Lost {
            timeline,
            found: lsn,
            ..
        }
        | ArchiveError::Hole {
            timeline,
            expected: lsn,
            ..
        } => Some((*timeline, *lsn)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
