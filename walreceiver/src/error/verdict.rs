//! What an error means for the receiver: where it was met, and whether another try is of use.

use segstore::{ArchiveError, WriteError};
use walproto::{Lsn, TimelineId};

use super::ReceiveError;
use crate::connection::is_permanent;
use crate::follow::Refusal;

impl ReceiveError {
    /// Where it happened, if it is about a place in the WAL.
    #[must_use]
    pub fn position(&self) -> Option<(TimelineId, Lsn)> {
        match self {
            Self::Write(error) | Self::Damaged { source: error, .. } => position_of_write(error),
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

    /// Whether another try would end the same way, until somebody does something about it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Connect(error) => !error.is_transient(),
            Self::Connection(error) => error.sqlstate().is_some_and(is_permanent),
            // A bit may have been flipped on the way: the receiver counts these.
            Self::Write(WriteError::Corrupt { .. } | WriteError::Diverged { .. }) => false,
            Self::Write(error) => !matches!(error, WriteError::DiskFull { .. }),
            // There may be room again, as while WAL is written.
            Self::Archive(ArchiveError::Disk(error)) => !error.is_disk_full(),
            Self::IncompleteTail(_)
            | Self::StandbyBehind { .. }
            | Self::SlotInUse { .. }
            | Self::ServerEnded { .. }
            | Self::DiskStayedFull { .. }
            | Self::OtherSwitch { .. }
            | Self::NoServer
            | Self::OthersMissing { .. }
            | Self::SwitchPastEnd { .. } => false,
            Self::Damaged { .. }
            | Self::Answer(_)
            | Self::Refused(_)
            | Self::Split { .. }
            | Self::Archive(_)
            | Self::NoHistory { .. }
            | Self::History(_)
            | Self::HistoriesTooLong { .. }
            | Self::SegmentSize(_)
            | Self::NoSuchSlot { .. }
            | Self::NotPhysical { .. }
            | Self::LostSlot { .. }
            | Self::UnusableSlot { .. }
            | Self::WalRemoved { .. }
            | Self::NotEmpty { .. }
            | Self::Apply(_)
            | Self::ApplierEnded
            | Self::Slot(_)
            | Self::ArchiveLost
            | Self::Thread { .. } => true,
        }
    }
}

fn position_of_write(error: &WriteError) -> Option<(TimelineId, Lsn)> {
    match error {
        WriteError::Corrupt { corruption, .. } => Some((corruption.timeline, corruption.lsn)),
        WriteError::Diverged { timeline, lsn, .. }
        | WriteError::Missing { timeline, lsn }
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
