//! What slots ask to be kept from removal.

use std::sync::{MutexGuard, PoisonError};

use walproto::{Lsn, SegmentNumber, SlotName};

use super::SlotStore;
use super::stored::SlotFiles;
use crate::archive::position::RemovedPosition;
use crate::error::ArchiveError;
use crate::serve::view::ArchiveView;

impl SlotStore {
    /// Held by the one who removes segments.
    pub(crate) fn pruning(&self) -> MutexGuard<'_, ()> {
        self.shared
            .pruning
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides that what lies before `asked` is removed, but for what slots need: gives the first
    /// segment that they do, and one of them; `None` if they need none. From here on no slot can
    /// be set back to what is removed.
    pub(crate) fn decide_removal(&self, asked: SegmentNumber) -> Option<(SegmentNumber, SlotName)> {
        let tip = self.tip()?;
        let mut state = self.state();
        let needed = state.slots.iter().filter_map(|(name, entry)| {
            let restart = entry.data.restart?;
            if self.is_lost(&state, entry) {
                return None;
            }
            // A crash takes it back to what was saved.
            let saved = entry.saved.and_then(|saved| saved.restart);
            let segments = [Some(restart), saved].into_iter().flatten();
            let segment = segments.map(|position| self.segment_of(position)).min()?;
            Some((segment, name.clone()))
        });
        let required = first(needed, tip, self.segments_to_keep());
        let needed = required.as_ref().map(|(segment, _)| *segment);
        let kept = needed.map_or(asked, |needed| needed.min(asked));
        state.oldest = state.oldest.max(Some(kept));
        required
    }
}

/// The same by the slots' files, of an archive that is durable up to `durable_end`. Another
/// process may keep the slots, and what it has saved of them is no later than where they stand.
pub(crate) fn required_by_files(
    view: &ArchiveView,
    durable_end: Lsn,
    max_keep_bytes: Option<u64>,
) -> Result<Option<(SegmentNumber, SlotName)>, ArchiveError> {
    let (directory, size) = (view.files().directory(), view.files().size());
    let slots = SlotFiles::new(directory.clone()).read()?;
    let removed = RemovedPosition::read(directory)?;
    let needed = slots.into_iter().filter_map(|(name, stored)| {
        let segment = size.segment_of(stored.data.restart?.lsn);
        let is_lost = removed.is_some_and(|left| segment < size.segment_of(left));
        (!is_lost).then_some((segment, name))
    });
    let keep = max_keep_bytes.map(|bytes| bytes / size.bytes());
    Ok(first(needed, size.segment_of(durable_end), keep))
}

/// The first of what slots need, where none may keep more than `keep` segments before the last
/// one, `tip`.
///
/// Source: src/backend/access/transam/xlog.c, `KeepLogSeg` (PG 15).
fn first(
    needed: impl Iterator<Item = (SegmentNumber, SlotName)>,
    tip: SegmentNumber,
    keep: Option<u64>,
) -> Option<(SegmentNumber, SlotName)> {
    let may_go = keep.map_or(0, |keep| tip.0.saturating_sub(keep));
    needed
        .map(|(segment, name)| (SegmentNumber(segment.0.max(may_go)), name))
        .min()
}
