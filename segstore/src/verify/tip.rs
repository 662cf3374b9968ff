//! Telling the end of WAL from damage, in a growing segment.

use walproto::Lsn;

use super::segment::Segment;
use crate::archive::position::ArchivePosition;
use crate::archive::segment_files::SegmentFiles;
use crate::error::{ArchiveError, Damage, Evidence};
use crate::wal::corruption::CorruptionReason;
use crate::wal::page::{BLOCK_SIZE, PageHeader};
use crate::wal::segment::Encoding;

/// What is known of a growing segment that nothing follows, before it is checked.
#[derive(Debug)]
pub(super) struct Tip {
    compressed: bool,
    /// The end of what was durable, on this timeline. What lies behind may be anything.
    durable: Option<Lsn>,
    /// If nobody told that: the last page that is in its place.
    last_page: Option<Lsn>,
    /// Where the last timeline that descends from this one left it.
    left_at: Option<Lsn>,
}

impl Tip {
    /// Reads the segment if it takes that to know what it must hold. It may grow: what is
    /// checked later is at least what was here now.
    pub(super) fn new(
        files: &SegmentFiles,
        segment: &Segment,
        durable: Option<ArchivePosition>,
        left_at: Option<Lsn>,
    ) -> Self {
        let last_page = match durable {
            Some(_) => None,
            None => last_page(files, segment),
        };
        Self {
            compressed: segment.file.encoding != Encoding::Plain,
            durable: durable.map(|durable| durable.record_end),
            last_page,
            left_at,
        }
    }

    /// Why WAL should not end at `record_end`, `None` if it may.
    pub(super) fn goes_on_after(&self, record_end: Lsn) -> Option<Evidence> {
        let durable = self.durable.filter(|durable| record_end < *durable);
        durable.map(|lsn| Evidence::Durable { lsn })
    }

    /// Whether what is wrong at `position`, behind `record_end`, is more than the end of WAL.
    pub(super) fn is_damage(
        &self,
        reason: &CorruptionReason,
        record_end: Lsn,
        position: Lsn,
    ) -> bool {
        let must_go_on = self.goes_on_after(record_end).is_some();
        let was_left_later = self.left_at.is_some_and(|left_at| record_end < left_at);
        let goes_on = self.last_page.is_some_and(|page| position < page);
        must_go_on || !reason.is_unwritten() && (was_left_later || goes_on)
    }

    /// Whether a file that does not decompress to its end was just not finished.
    pub(super) fn is_unfinished(&self, error: &ArchiveError) -> bool {
        let damaged = matches!(
            error,
            ArchiveError::Damaged {
                reason: Damage::Compression(_),
                ..
            }
        );
        self.compressed && damaged
    }
}

/// The last page of a segment that is where its header says, as far as the file can be read.
fn last_page(files: &SegmentFiles, segment: &Segment) -> Option<Lsn> {
    // What cannot be read is told when it is checked.
    let mut bytes = segment.open(files).ok()?;
    let mut page = vec![0; usize::try_from(BLOCK_SIZE).unwrap_or_default()];
    let mut last = None;
    let mut at = segment.start;
    while let Ok(count) = bytes.read_full(&mut page)
        && count > 0
    {
        if let Some(header) = page.first_chunk()
            && PageHeader::parse(header).0.address == at
        {
            last = Some(at);
        }
        match at.checked_add(BLOCK_SIZE) {
            Some(next) if count == page.len() => at = next,
            _ => break,
        }
    }
    last
}
