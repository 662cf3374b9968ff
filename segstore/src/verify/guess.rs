//! The history of a timeline whose file is missing, as far as its segments tell it.

use std::fmt::Write;

use bytes::Bytes;
use walproto::{Lsn, TimelineHistory, TimelineId};

use super::segment::Segment;
use crate::archive::listing::Listing;
use crate::archive::segment_files::SegmentFiles;
use crate::wal::page::{BLOCK_SIZE, PageHeader};

/// A history with which the pages of a timeline's first segment agree: each page says which timeline
/// it was begun on. A timeline is taken to end where the first page of the next one starts, which
/// is at most a page too late. `None` if there is no segment, or its pages say nothing.
pub(super) fn history(
    files: &SegmentFiles,
    listing: &Listing,
    timeline: TimelineId,
) -> Option<TimelineHistory> {
    let (file, _) = listing.of_timeline(timeline).next()?;
    let start = file.name.number(files.size())?.start(files.size())?;
    let mut bytes = Segment { start, file }.open(files).ok()?;
    let mut page = vec![0; usize::try_from(BLOCK_SIZE).ok()?];
    let (mut at, mut on) = (start, None);
    let mut content = String::new();
    let mut leave = |ancestor: TimelineId, lsn: Lsn| {
        // Writing to a string does not fail.
        let _always = writeln!(content, "{ancestor}\t{lsn}\tguessed");
    };
    while at < files.end_of(start)
        && on != Some(timeline)
        && bytes.read_full(&mut page).ok()? == page.len()
    {
        let header = PageHeader::parse(page.first_chunk()?).0;
        let Some(found) = header.timeline().filter(|_| header.address == at) else {
            break;
        };
        if let Some(before) = on.replace(found).filter(|before| *before != found) {
            leave(before, at);
        }
        at = at.checked_add(BLOCK_SIZE)?;
    }
    if let Some(last) = on.filter(|last| *last != timeline) {
        // It begins in the last page that is there.
        leave(last, at);
    }
    if content.is_empty() {
        return Some(TimelineHistory::without_ancestors(timeline));
    }
    TimelineHistory::parse(timeline, Bytes::from(content)).ok()
}
