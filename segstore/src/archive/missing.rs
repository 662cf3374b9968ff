//! Segments that are missing between others.

use std::collections::BTreeSet;

use walproto::{Lsn, SegmentNumber, SegmentSize, TimelineHistory, TimelineId};

use crate::archive::listing::Listing;
use crate::wal::segment::SegmentName;

/// Segments that follow one another and are not in an archive, though it has some before and after
/// them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MissingSegments {
    /// The first.
    pub first: SegmentName,
    /// The last, which may be the first.
    pub last: SegmentName,
    /// The position of the first missing byte.
    pub start: Lsn,
    /// The position after the last missing byte.
    pub end: Lsn,
}

/// What is missing on the way along a timeline from the oldest segment there is to the newest.
///
/// Where a timeline ends inside a segment, its successor has all of it, so that only the
/// successor's counts.
pub(crate) fn missing_segments(
    listing: &Listing,
    history: &TimelineHistory,
    size: SegmentSize,
) -> Vec<MissingSegments> {
    let present: BTreeSet<SegmentNumber> = listing
        .segments()
        .filter_map(|(file, _)| {
            let number = file.name.number(size)?;
            (owner(history, number, size) == file.name.timeline()).then_some(number)
        })
        .collect();
    let following = present.iter().skip(1);
    let pairs = present.iter().zip(following);
    pairs
        .filter_map(|(&before, &after)| between(history, before, after, size))
        .collect()
}

/// The timeline that a segment of this history ends on.
pub(crate) fn owner(
    history: &TimelineHistory,
    number: SegmentNumber,
    size: SegmentSize,
) -> TimelineId {
    let end = number.next().start(size).unwrap_or(Lsn(u64::MAX));
    history.timeline_of(Lsn(end.0.saturating_sub(1)))
}

/// What is missing between two segments, if anything is.
fn between(
    history: &TimelineHistory,
    before: SegmentNumber,
    after: SegmentNumber,
    size: SegmentSize,
) -> Option<MissingSegments> {
    let first = before.next();
    if first == after {
        return None;
    }
    let last = SegmentNumber(after.0.checked_sub(1)?);
    let name = |number| SegmentName::new(owner(history, number, size), number, size);
    Some(MissingSegments {
        first: name(first)?,
        last: name(last)?,
        start: first.start(size)?,
        end: after.start(size)?,
    })
}
