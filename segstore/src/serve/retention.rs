//! Removing WAL that nobody needs any more.

use std::collections::BTreeMap;
use std::fmt;

use walproto::{Lsn, SegmentNumber, SegmentSize, SlotName};

use crate::archive::lock::RemovalLock;
use crate::archive::position::{ArchivePosition, RemovedPosition};
use crate::error::ArchiveError;
use crate::serve::slots::{SlotStore, required_by_files};
use crate::serve::view::ArchiveView;
use crate::wal::segment::{Encoding, SegmentFile};

#[cfg(test)]
mod tests;

/// What was removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pruned {
    /// How many files were removed.
    pub files: u64,
    /// How many bytes they had on disk.
    pub bytes: u64,
    /// The start of the first segment that was to be kept.
    pub kept_from: Lsn,
    /// What keeps more than was asked for, if anything does.
    pub kept_by: Option<Holder>,
}

/// What needs WAL that could be removed otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Holder {
    /// The archive's own recovery, which begins with the last complete segment before the durable
    /// end.
    Recovery,
    /// A replication slot.
    Slot(SlotName),
}

impl Holder {
    /// The slot, if it is one.
    #[must_use]
    pub const fn slot(&self) -> Option<&SlotName> {
        match self {
            Self::Slot(slot) => Some(slot),
            Self::Recovery => None,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recovery => f.write_str("recovery"),
            Self::Slot(slot) => write!(f, "replication slot \"{slot}\""),
        }
    }
}

/// Removes the complete segments of all timelines that end at `keep_from` or before and that no
/// slot needs, the oldest first; for the process that keeps the slots.
///
/// Whatever is asked for, the last complete segment before the durable end stays, with which
/// recovery begins, and so do growing ones: what an old timeline had after it was left is in no
/// other file. Histories stay too. A slot keeps no more than its limit allows; one that needs what
/// is removed is lost.
///
/// A segment is gone durably before the next one goes, so that no crash leaves a gap.
///
/// # Errors
/// When slots cannot be saved, and then nothing is removed; or a file cannot be removed.
pub fn prune(slots: &SlotStore, keep_from: Lsn) -> Result<Pruned, ArchiveError> {
    let _pruning = slots.pruning();
    // What is in their files is what a crash takes them back to.
    slots.save()?;
    slots.find_oldest()?;
    let view = slots.view();
    let mut removable = Removable::asked_for(view, keep_from, None);
    if let Some(asked) = removable.kept_segment() {
        removable.keep_for_slot(slots.decide_removal(asked));
    }
    removable.find()?.remove_each(|_| {})
}

/// Segments that nobody needs, found while another process may fill the archive, and one may
/// serve it.
#[derive(Debug)]
pub struct Removable {
    view: ArchiveView,
    /// How far the archive was durable, `None` when nothing was.
    durable: Option<ArchivePosition>,
    kept_from: Lsn,
    kept_by: Option<Holder>,
    max_keep_bytes: Option<u64>,
    segments: BTreeMap<SegmentNumber, Vec<(SegmentFile, u64)>>,
}

impl ArchiveView {
    /// Finds what [`prune`] would remove, by what is saved of the slots, which is never later than
    /// where they stand. No slot keeps more than `max_keep_bytes`. It changes nothing.
    ///
    /// A slot that is set back or created after this look is found by [`Removable::remove`]. A
    /// client without a slot keeps nothing, as in PostgreSQL: it is told that its WAL has been
    /// removed.
    ///
    /// # Errors
    /// When the archive or a slot cannot be read.
    pub fn removable(
        &self,
        keep_from: Lsn,
        max_keep_bytes: Option<u64>,
    ) -> Result<Removable, ArchiveError> {
        let mut removable = Removable::asked_for(self, keep_from, max_keep_bytes);
        removable.keep_for_slots()?;
        removable.find()
    }
}

impl Removable {
    /// What may go if nobody needs anything from `keep_from` on; nothing is found yet.
    fn asked_for(view: &ArchiveView, keep_from: Lsn, max_keep_bytes: Option<u64>) -> Self {
        let size = view.files().size();
        let durable = view.durable();
        let mut removable = Self {
            view: view.clone(),
            durable,
            kept_from: Lsn::INVALID,
            kept_by: None,
            max_keep_bytes,
            segments: BTreeMap::new(),
        };
        if let Some(durable) = durable {
            removable.kept_from = start_of(size.segment_of(keep_from), size);
            let last = size.segment_of(durable.record_end);
            let before_last = SegmentNumber(last.0.saturating_sub(1));
            removable.keep(before_last, Holder::Recovery);
        }
        removable
    }

    /// The first segment that is kept, `None` when nothing is durable.
    fn kept_segment(&self) -> Option<SegmentNumber> {
        self.durable?;
        Some(self.view.files().size().segment_of(self.kept_from))
    }

    fn find(mut self) -> Result<Self, ArchiveError> {
        let Some(kept) = self.kept_segment() else {
            return Ok(self);
        };
        let size = self.view.files().size();
        for (file, length) in self.view.settled_listing()?.segments() {
            let number = file.name.number(size);
            if let Some(number) = number.filter(|number| *number < kept && !file.partial) {
                self.segments
                    .entry(number)
                    .or_default()
                    .push((file, length));
            }
        }
        Ok(self)
    }

    /// The files in the order in which they go, and their lengths in bytes.
    pub fn files(&self) -> impl Iterator<Item = (SegmentFile, u64)> {
        self.segments.values().flatten().copied()
    }

    /// The start of the first segment that is kept.
    #[must_use]
    pub const fn kept_from(&self) -> Lsn {
        self.kept_from
    }

    /// What keeps more than was asked for, if anything does.
    #[must_use]
    pub const fn kept_by(&self) -> Option<&Holder> {
        self.kept_by.as_ref()
    }

    /// Removes them, but for what a slot has begun to need since they were found. Before the first
    /// one goes, the process that keeps the slots is told durably, so that a slot that needs them
    /// is known to be lost. `removed` is called with each file that is gone, once that is durable.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn remove(mut self, removed: impl FnMut(SegmentFile)) -> Result<Pruned, ArchiveError> {
        if let Some(durable) = self.durable.filter(|_| !self.segments.is_empty()) {
            let directory = self.view.files().directory();
            directory.disk().set_access(self.view.identity().access());
            directory.create_own()?;
            let _removal = RemovalLock::take(directory)?;
            self.keep_for_slots()?;
            if !self.segments.is_empty() {
                let mut told = RemovedPosition::open(self.view.files().directory())?;
                told.raise(durable.timeline, self.kept_from)?;
            }
        }
        self.remove_each(removed)
    }

    /// Leaves what slots need by what is saved of them.
    fn keep_for_slots(&mut self) -> Result<(), ArchiveError> {
        if let Some(durable) = self.view.durable().or(self.durable) {
            let end = durable.record_end;
            self.keep_for_slot(required_by_files(&self.view, end, self.max_keep_bytes)?);
        }
        Ok(())
    }

    fn keep_for_slot(&mut self, required: Option<(SegmentNumber, SlotName)>) {
        if let Some((segment, slot)) = required {
            self.keep(segment, Holder::Slot(slot));
        }
    }

    /// Leaves what `holder` needs: `segment` and later ones.
    fn keep(&mut self, segment: SegmentNumber, holder: Holder) {
        let size = self.view.files().size();
        if segment < size.segment_of(self.kept_from) {
            self.kept_from = start_of(segment, size);
            self.kept_by = Some(holder);
            self.segments.retain(|number, _| *number < segment);
        }
    }

    fn remove_each(self, mut removed: impl FnMut(SegmentFile)) -> Result<Pruned, ArchiveError> {
        let directory = self.view.files().directory();
        let mut pruned = Pruned {
            files: 0,
            bytes: 0,
            kept_from: self.kept_from,
            kept_by: self.kept_by,
        };
        for segment in self.segments.into_values() {
            for (file, _) in &segment {
                directory.remove(&directory.path(file))?;
                // It may be compressed in this very moment: the plain file goes first, by which
                // the compressor sees that its own is to go, if it comes later than here.
                for encoding in Encoding::ALL {
                    directory.remove(&directory.path(file.encoded(encoding)))?;
                }
            }
            directory.sync_root()?;
            for (file, length) in segment {
                pruned.files += 1;
                pruned.bytes += length;
                removed(file);
            }
        }
        Ok(pruned)
    }
}

fn start_of(segment: SegmentNumber, size: SegmentSize) -> Lsn {
    segment.start(size).unwrap_or(Lsn::INVALID)
}
