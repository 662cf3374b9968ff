//! Bytes that the archive has already.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use walproto::Lsn;

use super::batch::{Batch, Difference};
use super::{WriteError, Writer};
use crate::archive::listing::Listing;
use crate::archive::prepare::Prepared;
use crate::archive::read::WalReader;
use crate::archive::segment_files::FileOrder;
use crate::disk::filled;
use crate::disk::named_file::NamedFile;
use crate::wal::segment::{Encoding, SegmentFile};

/// What is read at once to be compared or copied, in bytes.
const BLOCK: usize = 128 << 10;

impl Writer {
    /// Compares the bytes from `from` up to `end`, all stored and of one segment, with the
    /// archive's. The first difference, if it lies in the provisional tail.
    pub(super) fn compare(
        &mut self,
        batch: Batch<'_>,
        from: Lsn,
        end: Lsn,
    ) -> Result<Option<Lsn>, WriteError> {
        let mut reader = self.overlap.take().unwrap_or_else(|| self.reader_at(from));
        reader.seek(from);
        let mut block = vec![0; BLOCK];
        while reader.position() < end {
            let position = reader.position();
            let count = reader.read(&mut block, end).map_err(WriteError::of_read)?;
            let stored = filled(&block, count);
            // A provisional tail may end short of its segment's files.
            if count == 0 {
                if position < self.stored.record_end {
                    return Err(self.missing(position));
                }
                return Ok(Some(position));
            }
            if let Some(difference) = batch.first_difference(position, stored) {
                if difference.lsn < self.stored.record_end {
                    return Err(self.diverged(difference, reader.file()));
                }
                return Ok(Some(difference.lsn));
            }
        }
        self.overlap = Some(reader);
        Ok(None)
    }

    /// Compares bytes that are not valid, from `from` up to `end`, with the archive as far as its
    /// record end. The archive is valid up to there, so that they are of another history, if the
    /// same bytes do not come when they are sent again.
    pub(super) fn check_same_history(
        &mut self,
        batch: Batch<'_>,
        from: Lsn,
        end: Lsn,
    ) -> Result<(), WriteError> {
        let end = end.min(self.stored.record_end);
        let mut position = from;
        while position < end {
            let until = end.min(self.files.end_of(position));
            self.compare(batch, position, until)?;
            position = until;
        }
        Ok(())
    }

    fn diverged(&self, difference: Difference, file: Option<SegmentFile>) -> WriteError {
        let timeline = self.timeline();
        let Difference {
            lsn,
            stored: expected,
            received: found,
        } = difference;
        match file {
            Some(file) => WriteError::Diverged {
                timeline,
                lsn,
                file,
                offset: self.files.size().offset_of(lsn),
                expected,
                found,
                record_end: self.stored.record_end,
            },
            None => self.missing(lsn),
        }
    }

    pub(super) fn reader_at(&self, start: Lsn) -> WalReader {
        WalReader::new(self.files.clone(), Arc::clone(&self.history), start)
    }

    /// Gives up the provisional tail from `lsn` on: what the next write finds there is a file
    /// with the bytes before it and zeros.
    pub(super) fn give_up_tail(&mut self, lsn: Lsn) -> Result<(), WriteError> {
        self.segment = None;
        self.overlap = None;
        let name = self.files.name_of(self.timeline(), lsn);
        let found = self.files.find(name, FileOrder::GrowingFirst);
        if let Some(old) = found.map_err(WriteError::of_write)? {
            let old = old.file();
            let copy = self.copy_prefix(lsn)?;
            self.remove_segments_after(lsn)?;
            self.replace(old, copy)?;
        }
        // Otherwise the bytes are an ancestor's, and the segment on this timeline is yet to be
        // begun with a copy of them.
        self.stored.byte_end = lsn;
        Ok(())
    }

    /// A synced file that has no name yet, with the bytes of the segment before `end`.
    pub(super) fn copy_prefix(&mut self, end: Lsn) -> Result<Prepared, WriteError> {
        let copy = self
            .preparer()
            .take(Duration::ZERO)
            .map_err(WriteError::of_write)?;
        if let Err(error) = self.copy_into(&copy.file, end) {
            // It is in nobody's way until the next recovery removes it.
            drop(self.files.directory().remove(copy.file.path()));
            return Err(error);
        }
        Ok(copy)
    }

    fn copy_into(&self, copy: &NamedFile, end: Lsn) -> Result<(), WriteError> {
        let start = self.files.size().start_of(end);
        let mut reader = self.reader_at(start);
        let mut block = vec![0; BLOCK];
        while reader.position() < end {
            let position = reader.position();
            let count = reader.read(&mut block, end).map_err(WriteError::of_read)?;
            let Some(bytes) = block.get(..count).filter(|bytes| !bytes.is_empty()) else {
                return Err(self.missing(position));
            };
            copy.write_at(&[IoSlice::new(bytes)], position.bytes_since(start))
                .map_err(WriteError::of_write)?;
        }
        // A failure is that of a file without a name: nothing was promised for it.
        copy.sync_data().map_err(WriteError::of_write)
    }

    /// Removes the segments of this timeline after that of `lsn`, all of them provisional. The
    /// last goes first, so that no crash leaves a hole.
    fn remove_segments_after(&mut self, lsn: Lsn) -> Result<(), WriteError> {
        let name = self.files.name_of(self.timeline(), lsn);
        let listing = Listing::read(self.files.directory()).map_err(WriteError::of_write)?;
        let later = listing.of_timeline(self.timeline());
        let later: Vec<_> = later.filter(|(file, _)| file.name > name).collect();
        for (file, _) in later.into_iter().rev() {
            let path = self.files.directory().path(file);
            self.files
                .directory()
                .remove(&path)
                .map_err(WriteError::of_write)?;
            self.sync_names(name)?;
        }
        self.stored.byte_end = self.stored.byte_end.min(self.files.end_of(lsn));
        Ok(())
    }

    /// Puts `copy` in the place of the segment file `old`, as the growing segment.
    fn replace(&mut self, old: SegmentFile, copy: Prepared) -> Result<(), WriteError> {
        let growing = SegmentFile::partial(old.name);
        let directory = self.files.directory().clone();
        if !old.partial && old.encoding == Encoding::Plain {
            // It was complete, but for a record that was not. Under one name at a time no crash
            // leaves two files for the segment.
            directory
                .rename_unsynced(&directory.path(old), &directory.path(growing))
                .map_err(WriteError::of_write)?;
            self.files.directory().note_replaced();
            self.sync_names(old.name)?;
        }
        self.rename(&copy.file, growing)?;
        self.files.directory().note_replaced();
        self.sync_names(old.name)?;
        if old.encoding != Encoding::Plain {
            directory
                .remove(&directory.path(old))
                .map_err(WriteError::of_write)?;
            self.sync_names(old.name)?;
        }
        self.segment = Some(self.renamed(growing, copy));
        Ok(())
    }

    fn missing(&self, lsn: Lsn) -> WriteError {
        WriteError::Missing {
            timeline: self.timeline(),
            lsn,
        }
    }
}
