//! What slots ask to be kept from removal.

use std::sync::{MutexGuard, PoisonError};

use walproto::{SegmentNumber, SlotName};

use super::SlotStore;

impl SlotStore {
    /// Held by the one who removes segments.
    pub(crate) fn pruning(&self) -> MutexGuard<'_, ()> {
        self.shared
            .pruning
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The first segment that slots need, and one that does; `None` if they need none.
    ///
    /// Source: src/backend/access/transam/xlog.c, `KeepLogSeg` (PG 15).
    pub(crate) fn required(&self) -> Option<(SegmentNumber, SlotName)> {
        let tip = self.tip()?;
        let keep = self.segments_to_keep();
        let may_go = keep.map_or(0, |keep| tip.0.saturating_sub(keep));
        let state = self.state();
        let needed = state.slots.iter().filter_map(|(name, entry)| {
            let restart = entry.data.restart?;
            if self.is_lost(&state, entry) {
                return None;
            }
            // A crash takes it back to what was saved.
            let saved = entry.saved.and_then(|saved| saved.restart);
            let segments = [Some(restart), saved].into_iter().flatten();
            let segment = segments.map(|position| self.segment_of(position)).min()?;
            Some((SegmentNumber(segment.0.max(may_go)), name.clone()))
        });
        needed.min()
    }

    /// Takes note that a segment is being removed.
    pub(crate) fn note_removed(&self, segment: SegmentNumber) {
        let mut state = self.state();
        state.oldest = state.oldest.max(Some(segment.next()));
    }
}
