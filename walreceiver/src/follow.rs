//! Which server may be followed, and from where: decided from what both sides know, before
//! `START_REPLICATION`.
//!
//! ```text
//!  server's timeline    archive's tip              course
//!  -----------------    -------------------------  ------------------------------------------
//!  same                 at or below its flush      stream on
//!                       above its flush            primary: it lost WAL, refuse; standby: wait
//!  older                                           primary: a zombie, refuse; standby: wait
//!  newer, a descendant  below the fork             stream our timeline to its end, then on
//!                       at the fork                stream the timeline that follows
//!                       above the fork             refuse, or follow when told to
//!  newer, another line                             refuse
//! ```
//!
//! The timeline that follows is the one that the fork lies on in the server's history. The
//! ancestors that end where they begin are passed over: they have no WAL of their own, so the
//! archive's tip would never get there.

use segstore::BLOCK_SIZE;
use walproto::{Lsn, SegmentSize, SystemId, TimelineHistory, TimelineId, TimelineSwitch};

pub(crate) mod among;

/// What a server says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    /// The history of its current timeline.
    pub(crate) history: TimelineHistory,
    /// The end of the WAL it has flushed.
    pub(crate) flush: Lsn,
    /// Whether it is a standby, whose WAL may yet catch up with ours.
    pub(crate) is_standby: bool,
}

/// Where the archive's newest timeline ends.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// The newest timeline.
    pub(crate) timeline: TimelineId,
    /// The end of its last complete durable record.
    pub(crate) record_end: Lsn,
    /// Where to begin so that the last page and record are compared.
    pub(crate) resume_at: Lsn,
}

/// What to do with a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Course {
    /// Stream this timeline from this position.
    Stream {
        /// Of the server's history.
        timeline: TimelineId,
        /// A page's first byte.
        start: Lsn,
    },
    /// Stream a timeline that left ours before our end, as the user allowed.
    StreamFork {
        /// The timeline that the fork lies on in the server's history.
        timeline: TimelineId,
        /// The first byte of the segment of the fork, or of the page that our last record of
        /// before the fork may begin in.
        start: Lsn,
        /// What the fork lacks.
        fork: Fork,
    },
    /// A standby that has not yet received what we have, or not yet followed a promotion: ask
    /// again later.
    Wait {
        /// The end of the WAL it has flushed.
        flush: Lsn,
    },
}

/// A part of our timeline that the server's history does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fork {
    /// Our timeline.
    pub timeline: TimelineId,
    /// The server's timeline that left it.
    pub successor: TimelineId,
    /// Where it left.
    pub switch_point: Lsn,
    /// The end of our last durable record, past `switch_point`.
    pub record_end: Lsn,
}

/// Why a server is not followed: decisions about lineage, which another try meets again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A zombie: the archive knows a newer timeline.
    #[error(
        "server is on timeline {server}, older than timeline {archive} of the archive (at \
         {record_end}): it was replaced by a promotion; connect to the new primary"
    )]
    OlderTimeline {
        /// The server's timeline.
        server: TimelineId,
        /// The archive's newest timeline.
        archive: TimelineId,
        /// The end of the archive's last record.
        record_end: Lsn,
    },
    /// A branch that does not descend from the archive's newest timeline.
    #[error(
        "server's timeline {server} does not descend from timeline {archive} of the archive (at \
         {record_end}): it is another branch; connect to a descendant, or use a new directory"
    )]
    ForeignTimeline {
        /// The server's timeline.
        server: TimelineId,
        /// The archive's newest timeline.
        archive: TimelineId,
        /// The end of the archive's last record.
        record_end: Lsn,
    },
    /// The primary has less than it sent us.
    #[error(
        "server's WAL on timeline {timeline} ends at {flush}, before the archive's {record_end}: \
         the primary has lost {} bytes of WAL that this archive has; restore it from the archive",
        record_end.bytes_since(*flush)
    )]
    LostWal {
        /// The timeline of both.
        timeline: TimelineId,
        /// The end of the server's flushed WAL.
        flush: Lsn,
        /// The end of the archive's last record.
        record_end: Lsn,
    },
    /// A promotion without our tail.
    #[error(
        "timeline {} left timeline {} at {}, before the archive's {}: it lacks {} bytes of \
         acknowledged WAL",
        .0.successor, .0.timeline, .0.switch_point, .0.record_end,
        .0.record_end.bytes_since(.0.switch_point)
    )]
    Forked(Fork),
    /// A primary next to another server that was promoted.
    #[error(
        "server is on timeline {server}, older than timeline {newest} of another host: it was \
         replaced by a promotion; shut it down, and do not let applications connect to it"
    )]
    Superseded {
        /// The server's timeline.
        server: TimelineId,
        /// The newest timeline of all servers.
        newest: TimelineId,
    },
    /// Two servers that were promoted apart from each other.
    #[error(
        "two hosts have different histories of timeline {timeline}: each was promoted without the \
         other; shut down the wrong one, and remove it from the list of hosts"
    )]
    SplitTimeline {
        /// The timeline of both.
        timeline: TimelineId,
    },
    /// Servers of two clusters, and an archive that does not know yet which is its own.
    #[error(
        "two hosts are of different clusters, with system identifiers {one} and {other}; remove \
         the wrong one from the list of hosts"
    )]
    TwoClusters {
        /// The first server's.
        one: SystemId,
        /// The other server's.
        other: SystemId,
    },
    /// A first start at a position that the server's history does not have.
    #[error(
        "start position {start} is past the server's WAL, which ends at {flush} on timeline \
         {timeline}; connect to a server that has it, or start at or before the end of the WAL"
    )]
    StartPastEnd {
        /// The server's timeline.
        timeline: TimelineId,
        /// The position that was asked for.
        start: Lsn,
        /// The end of the server's flushed WAL.
        flush: Lsn,
    },
}

/// Decides how to go on with an archive that has WAL.
///
/// # Errors
/// When the server must not be followed.
pub(crate) fn resume(
    held: &Held,
    upstream: &Upstream,
    segment_size: SegmentSize,
    follow_fork: bool,
) -> Result<Course, Refusal> {
    let Held {
        timeline: archive,
        record_end,
        resume_at,
    } = *held;
    let server = upstream.history.timeline();
    let flush = upstream.flush;
    if server < archive {
        if upstream.is_standby {
            return Ok(Course::Wait { flush });
        }
        return Err(Refusal::OlderTimeline {
            server,
            archive,
            record_end,
        });
    }
    if server == archive {
        return if flush >= record_end {
            Ok(Course::Stream {
                timeline: archive,
                start: resume_at,
            })
        } else if upstream.is_standby {
            Ok(Course::Wait { flush })
        } else {
            Err(Refusal::LostWal {
                timeline: archive,
                flush,
                record_end,
            })
        };
    }
    let left = upstream.history.switch_point_of(archive);
    let (Some(switch_point), Some(successor)) = (left, upstream.history.successor_of(archive))
    else {
        return Err(Refusal::ForeignTimeline {
            server,
            archive,
            record_end,
        });
    };
    let segment_start = segment_size.start_of(switch_point);
    let following = upstream.history.timeline_of(switch_point);
    if record_end < switch_point {
        return Ok(Course::Stream {
            timeline: archive,
            start: resume_at,
        });
    }
    if record_end == switch_point {
        // The following one's first segment begins with our timeline's part of it.
        return Ok(Course::Stream {
            timeline: following,
            start: resume_at.max(segment_start),
        });
    }
    let fork = Fork {
        timeline: archive,
        successor,
        switch_point,
        record_end,
    };
    if follow_fork {
        Ok(Course::StreamFork {
            timeline: following,
            start: segment_start,
            fork,
        })
    } else {
        Err(Refusal::Forked(fork))
    }
}

/// What to stream in place of `from`, which the server answered with that it has removed that WAL;
/// `None` when the archive cannot be continued without it.
///
/// Our last record may begin in the segment before the one in which it ends, and only that one does
/// a slot keep for us. What is not sent once more is then checked from the archive.
///
/// If our WAL ends with a segment, that is the one before, in which its last page is. If the server
/// has removed that too, as it may once all of it was acknowledged, nothing is left to be compared:
/// our WAL is continued from its end. The first record after it names the position of our last one,
/// which is checked.
///
/// A server reads the segment in which a timeline ends from the file of the next one
/// (src/backend/replication/walsender.c, `WalSndSegmentOpen`, PG 15), which it lacks if that one
/// ended in the same segment and its base backup was taken later. The last timeline that began in
/// the segment has all of the others' part of it, which is compared as far as it is here.
pub(crate) fn without_removed(
    held: &Held,
    upstream: &Upstream,
    segment_size: SegmentSize,
    (timeline, start): (TimelineId, Lsn),
) -> Option<(TimelineId, Lsn)> {
    let history = &upstream.history;
    let left = history.switch_point_of(held.timeline);
    let end = left.map_or(held.record_end, |left| held.record_end.min(left));
    let segment_start = segment_size.start_of(end);
    if held.timeline == timeline && start < segment_start {
        // Where our WAL ends with a segment, what can be compared lies in the one before.
        let last_page = Lsn(end.0.saturating_sub(1)).align_down(BLOCK_SIZE);
        let is_earlier = start < segment_size.start_of(last_page);
        let next = if end == segment_start && is_earlier {
            last_page
        } else {
            segment_start
        };
        return Some((timeline, next));
    }
    let begun_in_segment = |ancestor: &&TimelineSwitch| {
        ancestor.switch_point > end && segment_size.start_of(ancestor.switch_point) == segment_start
    };
    let last_left = history.ancestors().iter().rev().find(begun_in_segment)?;
    let last = history.successor_of(last_left.timeline)?;
    (last > timeline).then_some((last, start.max(segment_start)))
}

/// Decides where an archive without WAL begins: at the first byte of the segment that holds
/// `start`, on the timeline that it lies on in the server's history.
///
/// # Errors
/// When the server's WAL ends before `start`.
pub(crate) fn begin(
    start: Lsn,
    upstream: &Upstream,
    segment_size: SegmentSize,
) -> Result<Course, Refusal> {
    if start > upstream.flush {
        return Err(Refusal::StartPastEnd {
            timeline: upstream.history.timeline(),
            start,
            flush: upstream.flush,
        });
    }
    let timeline = upstream.history.timeline_of(start);
    Ok(Course::Stream {
        timeline,
        start: segment_size.start_of(start),
    })
}

#[cfg(test)]
mod tests;
