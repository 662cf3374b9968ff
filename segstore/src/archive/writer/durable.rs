//! Making durable what was appended, and noting how far it reaches.

use std::time::{Duration, Instant};

use super::{State, WriteError, Writer};
use crate::archive::flushed::{Durable, FlushedLsn};
use crate::archive::position::ArchivePosition;

/// How long the watermark stays behind what is acknowledged, at most, while that moves.
const WATERMARK_INTERVAL: Duration = Duration::from_secs(1);

impl Writer {
    /// Makes what was appended durable: the bytes, and the names of the files that hold them.
    ///
    /// # Errors
    /// When a file or the directory cannot be synced: then the writer is latched and the file is
    /// marked, so that the next process does not trust it either.
    pub fn sync(&mut self) -> Result<Durable, WriteError> {
        if self.state == State::Latched {
            return Err(self.refusal());
        }
        let synced = self.sync_all();
        if let Err(error) = &synced {
            self.stop_after(error);
        }
        synced.map(|()| self.durable)
    }

    /// Notes that `durable` was acknowledged, once a second at the most: `false` when it is too
    /// early for another note. The note is what lets recovery tell WAL that was damaged from WAL
    /// that never was there.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn acknowledged(&mut self, durable: Durable, now: Instant) -> Result<bool, WriteError> {
        let due = self
            .notes
            .raised
            .is_none_or(|raised| now.saturating_duration_since(raised) >= WATERMARK_INTERVAL);
        if due {
            self.check_lock()?;
        }
        if due && durable.timeline == self.timeline() {
            let raised = self.notes.watermark.raise(ArchivePosition {
                timeline: durable.timeline,
                record_end: durable.record_end.lsn(),
                byte_end: durable.byte_end,
            });
            raised.map_err(WriteError::of_write)?;
            self.notes.raised = Some(now);
        }
        Ok(due)
    }

    /// Ends cleanly: makes everything durable that was appended and notes how far it reaches.
    ///
    /// # Errors
    /// As for [`sync`](Self::sync), or when the disk refuses the note.
    pub fn close(mut self) -> Result<Durable, WriteError> {
        let durable = self.sync()?;
        let safe = self.safe();
        self.notes
            .watermark
            .raise(safe)
            .map_err(WriteError::of_write)?;
        // In another directory it would be about what another process writes.
        if self.is_synced && self.lock.check().is_ok() {
            // Without it, the next recovery does more than it must.
            drop(self.files.directory().note_clean_end());
        }
        Ok(durable)
    }

    /// What is durable on this timeline, whether or not this connection has seen all of it.
    pub(super) fn safe(&self) -> ArchivePosition {
        let record_end = self.durable.record_end.lsn().max(self.recovered_end);
        ArchivePosition {
            timeline: self.timeline(),
            record_end,
            byte_end: self.durable.byte_end.max(record_end),
        }
    }

    fn sync_all(&mut self) -> Result<(), WriteError> {
        self.sync_segment()?;
        self.seal_if_full()?;
        if self.names_changed {
            self.sync_names(self.name_before(self.position))?;
        }
        let record_end = self.validator.progress().record_end;
        if record_end < self.durable.record_end.lsn() || self.stored.byte_end < self.position {
            return Err(self.internal(record_end, "what is durable moves back"));
        }
        self.durable = Durable {
            timeline: self.timeline(),
            record_end: FlushedLsn::synced(record_end),
            byte_end: self.position,
        };
        self.compress_sealed();
        let safe = self.safe();
        self.unsynced.synced(safe);
        self.notes
            .published
            .publish(safe)
            .map_err(WriteError::of_write)
    }

    /// Hands complete segments to the pipeline, but for those that end in the middle of a
    /// record: their end may yet be replaced.
    fn compress_sealed(&mut self) {
        let record_end = self.durable.record_end.lsn();
        let last = self.files.name_of(self.timeline(), record_end);
        let pipeline = self.pipeline.as_deref();
        self.sealed.retain(|name| {
            let whole = *name < last;
            if whole && let Some(pipeline) = pipeline {
                // What its queue has no room for is compressed after the next start.
                pipeline.enqueue(*name);
            }
            !whole
        });
    }
}
