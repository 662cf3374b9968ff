//! What was found.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use walproto::{Lsn, SegmentSize, SystemId, TimelineHistory, TimelineId};

use crate::archive::position::ArchivePosition;
use crate::error::{ArchiveError, Evidence};
use crate::wal::corruption::CorruptionReason;
use crate::wal::segment::{SegmentFile, SegmentName};
use crate::wal::settings::WeakSetting;

/// What [`verify`](crate::verify) found in an archive.
#[derive(Debug)]
#[non_exhaustive]
pub struct Verification {
    /// The cluster that the archive is of.
    pub system_id: SystemId,
    /// The size of its segments.
    pub segment_size: SegmentSize,
    /// How many segments were read.
    pub segments: u64,
    /// How many bytes of WAL were read, without compression.
    pub bytes: u64,
    /// How far the archive was known to be durable before it was read, `None` if nobody told.
    pub durable: Option<ArchivePosition>,
    /// The WAL that is good, in the order of timelines and positions. The ranges of one timeline
    /// neither overlap nor touch.
    pub good: Vec<GoodRange>,
    /// What is wrong, in the same order.
    pub problems: Vec<Problem>,
    /// WAL that is good and not enough for every base backup, in the same order.
    pub warnings: Vec<WeakRange>,
    /// What lies in the directory and is neither WAL, nor a history, nor ours.
    pub foreign: Vec<OsString>,
}

/// WAL of a timeline in which every record is complete and good.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GoodRange {
    /// The timeline.
    pub timeline: TimelineId,
    /// The first byte of a segment, or, if that belongs to a record that began before and is not
    /// here, the start of the first record that is.
    pub start: Lsn,
    /// The end of the last record: the first byte that is not in the range.
    pub end: Lsn,
}

/// WAL that was written under a setting of the server that some base backups do not allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct WeakRange {
    /// The timeline.
    pub timeline: TimelineId,
    /// The record that says that the setting holds.
    pub start: Lsn,
    /// The record that says that it no longer does, `None` if there is none.
    pub end: Option<Lsn>,
    /// The setting.
    pub setting: WeakSetting,
}

impl WeakRange {
    /// A short name for the setting, for programs to tell one from another by.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self.setting {
            WeakSetting::MinimalWalLevel => "minimal_wal",
            WeakSetting::NoFullPageWrites => "no_full_page_writes",
        }
    }
}

/// Something that is wrong with an archive.
#[derive(Debug)]
#[non_exhaustive]
pub struct Problem {
    /// The timeline of which WAL or something else is not good.
    pub timeline: TimelineId,
    /// The first bad position: where the page or record starts that failed, or where WAL is missing.
    pub lsn: Lsn,
    /// The file that holds the position and the offset of it, in bytes without compression.
    pub place: Option<(PathBuf, u64)>,
    /// What is wrong.
    pub fault: Fault,
}

/// What can be wrong with an archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// WAL is not what the server wrote.
    #[error("{0}")]
    Corrupt(CorruptionReason),
    /// WAL ends in a file that should hold more.
    #[error("WAL ends here, but {evidence}")]
    Ends {
        /// Why it should not.
        evidence: Evidence,
    },
    /// Segments are missing between others.
    #[error("{} missing, WAL up to {end}", Segments(*first, *last))]
    Missing {
        /// The first missing one.
        first: SegmentName,
        /// The last missing one, which may be the first.
        last: SegmentName,
        /// The position after the last missing byte.
        end: Lsn,
    },
    /// WAL that was durable is not there.
    #[error("WAL is missing from here on, but it was durable up to {expected}")]
    Lost {
        /// Up to where.
        expected: Lsn,
    },
    /// WAL is good, but does not have all changes.
    #[error(
        "WAL from here{} was written under wal_level = minimal; no earlier base backup can be \
         recovered past it; take a new base backup",
        To(*end)
    )]
    MinimalWal {
        /// The record that says that `wal_level` is higher again, `None` if there is none.
        end: Option<Lsn>,
    },
    /// A segment is compressed by a method that cannot be read here.
    #[error("\"{file}\" is compressed by {method}, which cannot be read here; decompress it first")]
    Compressed {
        /// The file.
        file: SegmentFile,
        /// The method.
        method: &'static str,
    },
    /// An fsync of this file failed: what can be read of it need not be on the disk.
    #[error("an fsync of \"{file}\" failed; start the receiver, which fetches its WAL again")]
    NotSynced {
        /// The file.
        file: SegmentFile,
    },
    /// A file is damaged, cannot be read, or contradicts another one.
    #[error(transparent)]
    File(ArchiveError),
}

impl Fault {
    /// A short name for the kind of fault, for programs to tell them apart by.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Corrupt(_) => "corrupt",
            Self::Ends { .. } => "ends",
            Self::Missing { .. } => "missing",
            Self::Lost { .. } => "lost",
            Self::MinimalWal { .. } => "minimal_wal",
            Self::Compressed { .. } => "compressed",
            Self::NotSynced { .. } => "not_synced",
            Self::File(_) => "file",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            timeline,
            lsn,
            place,
            fault,
        } = self;
        write!(f, "timeline {timeline}, {lsn}: {fault}")?;
        match place {
            Some((path, offset)) => write!(f, " (\"{}\", offset {offset})", path.display()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for GoodRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            timeline,
            start,
            end,
        } = self;
        write!(f, "timeline {timeline} from {start} to {end}")
    }
}

impl fmt::Display for WeakRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            timeline,
            start,
            end,
            setting,
        } = self;
        write!(f, "timeline {timeline} from {start}{}: ", To(*end))?;
        f.write_str(match setting {
            WeakSetting::MinimalWalLevel => {
                "wal_level was minimal; no earlier base backup can be recovered past it"
            }
            WeakSetting::NoFullPageWrites => {
                "full_page_writes was off; a base backup taken from a standby at that time is \
                 corrupt"
            }
        })
    }
}

/// The end of a range, or that there is none.
struct To(Option<Lsn>);

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(end) => write!(f, " to {end}"),
            None => f.write_str(" on"),
        }
    }
}

struct Segments(SegmentName, SegmentName);

impl fmt::Display for Segments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(first, last) = self;
        match first == last {
            true => write!(f, "segment {first} is"),
            false => write!(f, "segments {first} to {last} are"),
        }
    }
}

/// Adds the WAL from `start` to `end` on the way along `history`, each part to its timeline: a
/// timeline's first segment begins with what is its parent's.
pub(super) fn add_good(good: &mut Vec<GoodRange>, history: &TimelineHistory, start: Lsn, end: Lsn) {
    let mut from = start;
    if start == end {
        // As far as a position may be durable without any record.
        let timeline = history.timeline_of(Lsn(end.0.saturating_sub(1)));
        good.push(GoodRange {
            timeline,
            start,
            end,
        });
    }
    while from < end {
        let timeline = history.timeline_of(from);
        let to = history.switch_point_of(timeline).unwrap_or(end).min(end);
        good.push(GoodRange {
            timeline,
            start: from,
            end: to,
        });
        from = to;
    }
}

/// Makes one range of those that overlap or touch.
pub(super) fn merge(mut ranges: Vec<GoodRange>) -> Vec<GoodRange> {
    ranges.sort();
    let mut merged: Vec<GoodRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.timeline == range.timeline && range.start <= last.end => {
                last.end = last.end.max(range.end);
            }
            _ => merged.push(range),
        }
    }
    merged
}
