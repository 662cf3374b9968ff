//! Removing WAL that nobody needs any more.

use std::collections::BTreeMap;

use walproto::{Lsn, SegmentNumber, SlotName};

use crate::error::ArchiveError;
use crate::segment::SegmentFile;
use crate::slots::SlotStore;

#[cfg(test)]
mod tests;

/// What [`prune`] did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pruned {
    /// How many files were removed.
    pub files: u64,
    /// How many bytes they had on disk.
    pub bytes: u64,
    /// The start of the first segment that was to be kept.
    pub kept_from: Lsn,
    /// The slot that keeps more than was asked for, if one does.
    pub kept_by: Option<SlotName>,
}

/// Removes the complete segments of all timelines that end at `keep_from` or before and that no
/// slot needs, the oldest first.
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
    let files = slots.view().files();
    let size = files.size();
    let Some(durable) = slots.view().durable() else {
        return Ok(Pruned {
            files: 0,
            bytes: 0,
            kept_from: Lsn::INVALID,
            kept_by: None,
        });
    };
    let last = size.segment_of(durable.record_end);
    let before_last = SegmentNumber(last.0.saturating_sub(1));
    let asked = size.segment_of(keep_from).min(before_last);
    let (kept_from, kept_by) = match slots.required() {
        Some((segment, slot)) if segment < asked => (segment, Some(slot)),
        Some(_) | None => (asked, None),
    };
    let mut pruned = Pruned {
        files: 0,
        bytes: 0,
        kept_from: kept_from.start(size).unwrap_or(Lsn::INVALID),
        kept_by,
    };
    let mut removable: BTreeMap<SegmentNumber, Vec<(SegmentFile, u64)>> = BTreeMap::new();
    for (file, length) in slots.view().listing()?.segments() {
        let number = file.name.number(size);
        if let Some(number) = number.filter(|number| *number < kept_from && !file.partial) {
            removable.entry(number).or_default().push((file, length));
        }
    }
    let directory = files.directory();
    for (number, segment) in removable {
        slots.note_removed(number);
        for (file, length) in segment {
            directory.remove(&directory.path(file))?;
            pruned.files += 1;
            pruned.bytes += length;
        }
        directory.sync_root()?;
    }
    Ok(pruned)
}
