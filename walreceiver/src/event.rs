//! What a receiver tells while it works.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use pgconn::connection::ConnectionError;
use segstore::{ArchiveError, MissingSegments, WeakSetting};
use walproto::{Lsn, ServerVersion, SlotName, SystemId, TimelineId};

use crate::error::ReceiveError;
use crate::incomplete_tail::IncompleteTail;

/// How many files, or holes, are named in a warning.
const MAX_NAMES: usize = 5;

/// Takes the events of a receiver, in the order in which they happen.
///
/// It is called on the receiver's own task: it must not block for long, since nothing is
/// received meanwhile. Events are rare; none is sent for a message or a batch of WAL. That task
/// may move from one thread to another.
pub trait Reporter: Send + Sync {
    /// Takes one event.
    fn report(&self, event: &ReceiverEvent<'_>);
}

impl<F: Fn(&ReceiverEvent<'_>) + Send + Sync> Reporter for F {
    fn report(&self, event: &ReceiverEvent<'_>) {
        self(event);
    }
}

/// Something an administrator may want to know.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReceiverEvent<'a> {
    /// The archive is open and locked: no other process streams into it.
    ArchiveOpened,
    /// A server is going to be connected to.
    Connecting,
    /// A connection to the server that is to be followed stands.
    Connected {
        /// The server's name or address, or the directory of its Unix socket.
        host: &'a str,
        /// Its port.
        port: u16,
        /// Its version.
        version: ServerVersion,
        /// Its cluster.
        system_id: SystemId,
    },
    /// The server streams. Once for a connection, and once more if the server has removed the WAL
    /// that was asked for first.
    StreamingStarted {
        /// The timeline asked for.
        timeline: TimelineId,
        /// The position asked for.
        lsn: Lsn,
    },
    /// A segment is complete and durable under its final name.
    SegmentFinished {
        /// The segment's timeline.
        timeline: TimelineId,
        /// The first position after the segment.
        end: Lsn,
    },
    /// The server's history goes on with another timeline, which is followed: on the same
    /// connection, or since it was met on a new one, before streaming starts there.
    TimelineSwitched {
        /// The timeline that is received from now on.
        timeline: TimelineId,
        /// Where the old one was left.
        switch_point: Lsn,
    },
    /// Streaming has ended since the configured end has been received, or lies before its start.
    EndReached {
        /// The timeline received last.
        timeline: TimelineId,
        /// The end of what was received, or its start.
        lsn: Lsn,
    },
    /// The receiver was told to stop and is ending the stream.
    StopRequested,
    /// Streaming has ended inside a segment, which stays partial.
    SegmentLeftPartial {
        /// The name of its file, without the directory.
        file_name: &'a str,
    },
    /// The connection is lost or could not be made.
    Disconnected {
        /// Why.
        error: &'a ReceiveError,
        /// The time until the next try; `None` if the receiver was told to stop and so ends.
        retry_in: Option<Duration>,
    },
    /// Nothing has been streamed for a minute, since the receiver began or since a connection was
    /// lost. Once an outage. It is tried again all the time.
    Unreachable {
        /// For how long nothing has been streamed.
        lasted: Duration,
        /// Why the last try ended; `None` while the first one has not.
        error: Option<&'a ReceiveError>,
    },
    /// Writing goes on after [`Warning::DiskFull`], be it on another connection.
    DiskWritable,
    /// Enough of those behind this receiver are there, after [`Warning::AcknowledgementsHeld`]:
    /// what they have is acknowledged.
    AcknowledgementsGoOn {
        /// How many it takes.
        needed: usize,
    },
    /// Nothing is wrong yet, but it may become so.
    Warning(Warning<'a>),
}

/// Why an administrator should look.
#[derive(Debug)]
#[non_exhaustive]
pub enum Warning<'a> {
    /// The pages carry a magic number that no known version of PostgreSQL has; the server says
    /// that it is a newer one.
    UnknownPageMagic {
        /// The magic number.
        magic: u16,
        /// The server's version.
        server_version: ServerVersion,
    },
    /// The disk is full: nothing is acknowledged until there is room.
    DiskFull {
        /// The timeline being received.
        timeline: TimelineId,
        /// The end of what is durable.
        lsn: Lsn,
    },
    /// Too few of those are there who get the WAL from here and must have it
    /// ([`Confirmed`](walproto::Confirmed)): nothing is acknowledged.
    AcknowledgementsHeld {
        /// The timeline being received.
        timeline: TimelineId,
        /// The end of what is durable here.
        lsn: Lsn,
        /// How many are there.
        present: usize,
        /// How many it takes.
        needed: usize,
    },
    /// A record is incomplete where the server's WAL has ended for half of the receive timeout,
    /// and was the same when it was fetched again, if the configuration allowed that: a standby
    /// whose primary is gone may end like this for ever.
    IncompleteTail(IncompleteTail),
    /// `max_slot_wal_keep_size` is -1: while acknowledgements are held, the slot fills the
    /// server's disk.
    SlotUnlimited {
        /// The slot.
        slot: &'a SlotName,
    },
    /// The server's timeline lacks WAL that is archived here, and is followed as configured.
    ForkFollowed {
        /// The timeline that is followed.
        timeline: TimelineId,
        /// Where it forked off.
        fork: Lsn,
        /// The timeline that was archived beyond the fork.
        old_timeline: TimelineId,
        /// The end of what the new timeline lacks.
        old_end: Lsn,
    },
    /// One of several hosts is not followed. Once, and again when the reason is another one.
    HostPassedOver {
        /// The server.
        server: &'a str,
        /// Why it is not followed.
        error: &'a ReceiveError,
    },
    /// The server has removed the WAL before the archive's end, so that none of the archive could be
    /// compared with it. Receiving resumes there if the next record names the archive's last one.
    NothingCompared {
        /// The timeline.
        timeline: TimelineId,
        /// The archive's end.
        lsn: Lsn,
    },
    /// The slot reserves no WAL although there is WAL in the archive.
    SlotReservesNothing {
        /// The slot.
        slot: &'a SlotName,
    },
    /// No slot reserves the WAL with which a new archive begins, so that a checkpoint may remove it
    /// before it is received.
    WalNotReserved {
        /// What the server said.
        error: &'a ConnectionError,
    },
    /// The new primary did not have the slot, and it was created there.
    SlotCreated {
        /// The slot.
        slot: &'a SlotName,
    },
    /// The file of a timeline's history was gone from the archive, and was put back: the server had
    /// the same one.
    HistoryRestored {
        /// The timeline.
        timeline: TimelineId,
    },
    /// The files of timelines' histories are gone from the archive, and the server does not have
    /// them. Receiving does without; a standby that is served from the archive, or restores from
    /// it, may not.
    HistoriesLost {
        /// The timelines.
        timelines: &'a [TimelineId],
    },
    /// The server writes WAL under a setting that makes it too little for a base backup.
    WeakSetting {
        /// The timeline of that WAL.
        timeline: TimelineId,
        /// The record that says so: from here on the setting holds.
        lsn: Lsn,
        /// The setting.
        setting: WeakSetting,
    },
    /// A segment could not be compressed; it stays as it is.
    NotCompressed {
        /// Why.
        error: &'a ArchiveError,
    },
    /// There are files in the directory that have no business there. They are left alone.
    ForeignFiles {
        /// The directory.
        directory: &'a Path,
        /// The names, without the directory.
        names: &'a [OsString],
    },
    /// Segments are missing between others of the archive. Receiving goes on after the last one.
    MissingSegments {
        /// Which ones, in the order of their positions.
        missing: &'a [MissingSegments],
    },
    /// The server sent a notice or a warning.
    ServerNotice {
        /// What it says.
        message: &'a str,
    },
}

impl fmt::Display for Warning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPageMagic {
                magic,
                server_version,
            } => write!(
                f,
                "unknown WAL page magic 0x{magic:04X} of server version {server_version}, \
                 records are checked as those of the newest known version"
            ),
            Self::DiskFull { timeline, lsn } => write!(
                f,
                "disk full, nothing after {lsn} (timeline {timeline}) is acknowledged until \
                 there is room"
            ),
            Self::AcknowledgementsHeld {
                timeline,
                present,
                needed,
                ..
            } => write!(
                f,
                "{present} of {needed} standbys present on timeline {timeline}, nothing is \
                 acknowledged until there are enough"
            ),
            Self::IncompleteTail(tail) => write!(f, "{tail}; waiting for the rest of it"),
            Self::SlotUnlimited { slot } => write!(
                f,
                "max_slot_wal_keep_size is -1 on the server: WAL held by slot \"{slot}\" can \
                 fill its disk"
            ),
            Self::ForkFollowed {
                timeline,
                fork,
                old_timeline,
                old_end,
            } => write!(
                f,
                "timeline {timeline} forked off at {fork} and lacks WAL up to {old_end} of \
                 timeline {old_timeline}, which stays in the archive"
            ),
            Self::HostPassedOver { server, error } => {
                write!(f, "server {server} is not followed")?;
                write_causes(f, *error)
            }
            Self::NothingCompared { timeline, lsn } => write!(
                f,
                "could not compare the archive with the server, which has removed all WAL before \
                 {lsn} (timeline {timeline}); only the next record shows whether the server continues \
                 the archive"
            ),
            Self::SlotReservesNothing { slot } => write!(
                f,
                "replication slot \"{slot}\" reserves no WAL: it is lost, or was created \
                 without reserving WAL"
            ),
            Self::WalNotReserved { error } => write!(
                f,
                "could not reserve WAL on the server for a new archive, so that a checkpoint may \
                 remove it before it is received: {error}"
            ),
            Self::SlotCreated { slot } => write!(
                f,
                "replication slot \"{slot}\" did not exist on the new primary and was created"
            ),
            Self::HistoryRestored { timeline } => write!(
                f,
                "the history of timeline {timeline} was missing in the archive, and was fetched \
                 again from the server"
            ),
            Self::HistoriesLost { timelines } => {
                f.write_str(
                    "history files are missing in the archive that the server does not have",
                )?;
                let mut names = timelines
                    .iter()
                    .map(|timeline| timeline.history_file_name());
                write_names(f, &mut names)?;
                f.write_str("; put them back, or a standby may fail that asks for them")
            }
            Self::WeakSetting {
                timeline,
                lsn,
                setting,
            } => write_weak_setting(f, *timeline, *lsn, *setting),
            Self::NotCompressed { error } => {
                f.write_str("a segment stays uncompressed")?;
                write_causes(f, *error)
            }
            Self::ForeignFiles { directory, names } => {
                write!(
                    f,
                    "directory \"{}\" holds files that are not WAL",
                    directory.display()
                )?;
                write_names(f, &mut names.iter().map(|name| name.display()))?;
                f.write_str("; they are left alone")
            }
            Self::MissingSegments { missing } => write_missing(f, missing),
            Self::ServerNotice { message } => f.write_str(message),
        }
    }
}

/// Writes an error and each of its causes, with a colon before each.
fn write_causes(f: &mut fmt::Formatter<'_>, error: &dyn Error) -> fmt::Result {
    let mut next = Some(error);
    while let Some(error) = next {
        write!(f, ": {error}")?;
        next = error.source();
    }
    Ok(())
}

fn write_weak_setting(
    f: &mut fmt::Formatter<'_>,
    timeline: TimelineId,
    lsn: Lsn,
    setting: WeakSetting,
) -> fmt::Result {
    write!(
        f,
        "WAL from {lsn} on (timeline {timeline}) was written under "
    )?;
    f.write_str(match setting {
        WeakSetting::MinimalWalLevel => {
            "wal_level = minimal: no earlier base backup can be recovered past it"
        }
        WeakSetting::NoFullPageWrites => {
            "full_page_writes = off: a base backup taken from a standby at that time is corrupt"
        }
        _ => "a setting that a base backup depends on",
    })
}

/// Lists a few of the names, each in quotes.
fn write_names(
    f: &mut fmt::Formatter<'_>,
    names: &mut dyn ExactSizeIterator<Item = impl fmt::Display>,
) -> fmt::Result {
    for (index, name) in names.take(MAX_NAMES).enumerate() {
        let separator = if index == 0 { ": " } else { ", " };
        write!(f, "{separator}\"{name}\"")?;
    }
    match names.len() {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}

fn write_missing(f: &mut fmt::Formatter<'_>, missing: &[MissingSegments]) -> fmt::Result {
    f.write_str("segments are missing in the archive")?;
    for (index, missing) in missing.iter().take(MAX_NAMES).enumerate() {
        let separator = if index == 0 { ": " } else { ", " };
        let MissingSegments {
            first,
            last,
            start,
            end,
            ..
        } = missing;
        write!(f, "{separator}from {start} to {end} (\"{first}\"")?;
        if first != last {
            write!(f, " to \"{last}\"")?;
        }
        f.write_str(")")?;
    }
    if let more @ 1.. = missing.len().saturating_sub(MAX_NAMES) {
        write!(f, " and {more} more")?;
    }
    f.write_str("; put them back, or a restore from before them ends there")
}

/// How far a receiver has come on the timeline that it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The timeline.
    pub timeline: TimelineId,
    /// The end of what has been received, checked or not.
    pub received_end: Lsn,
    /// The end of the valid records that are written.
    pub write_end: Lsn,
    /// The end of the valid records that are durable.
    pub flush_end: Lsn,
    /// How far the applier has come; the flush position without one.
    pub apply_end: Lsn,
    /// What the server was told to be durable on this connection; `None` for nothing yet.
    pub acknowledged_end: Option<Lsn>,
    /// The end of WAL that the server named last.
    pub server_end: Lsn,
    /// Since when it is known that the server has WAL which is not durable here; `None` when there
    /// is none. It never tells a later time than that, and may tell an earlier one.
    pub behind_since: Option<Instant>,
}

impl Progress {
    /// The bytes of WAL that the server has and that are not durable here.
    #[must_use]
    pub const fn lag_bytes(&self) -> u64 {
        self.server_end.bytes_since(self.flush_end)
    }
}

#[cfg(test)]
mod tests {
    use segstore::sim::SimDisk;

    use super::*;
    use crate::sample;

    #[test]
    fn holes_are_named_up_to_a_few() {
        let disk = SimDisk::new(sample::ROOT);
        let archive = sample::archive(&disk);
        let plant = |number: u64| {
            let path = format!("{}/0000000100000000{number:08X}", sample::ROOT);
            disk.plant(path, b"").unwrap();
        };
        let warned = || {
            let missing = archive.missing_segments().unwrap();
            Warning::MissingSegments { missing: &missing }.to_string()
        };
        [1, 3, 6].into_iter().for_each(plant);
        assert_eq!(
            warned(),
            "segments are missing in the archive: from 0/200000 to 0/300000 \
             (\"000000010000000000000002\"), from 0/400000 to 0/600000 \
             (\"000000010000000000000004\" to \"000000010000000000000005\"); put them back, or a \
             restore from before them ends there"
        );
        (8..16).step_by(2).for_each(plant);
        let text = warned();
        assert!(
            text.contains("\"00000001000000000000000B\") and 1 more;"),
            "{text}"
        );
    }
}
