//! From one segment to the next.

use std::time::Duration;

use walproto::Lsn;

use super::{OpenSegment, WriteError, Writer};
use crate::archive::prepare::Prepared;
use crate::disk::OpenMode;
use crate::disk::named_file::NamedFile;
use crate::error::Operation;
use crate::wal::segment::{SegmentFile, SegmentName};

/// How often a segment is synced before the next one is made ready. A receiver that catches up
/// syncs after a message or a few, some hundred times a segment at the most: there a file that is
/// ready saves nothing, and writing it takes as much as all the rest.
const SYNCS_TO_PREPARE: u32 = 256;

impl Writer {
    /// The segment of `lsn`, which is opened or begun unless it is the open one.
    pub(super) fn open_segment_at(&mut self, lsn: Lsn) -> Result<&mut OpenSegment, WriteError> {
        let name = self.files.name_of(self.timeline(), lsn);
        if self.segment.as_ref().is_none_or(|open| open.name != name) {
            self.finish_open_segment()?;
            self.check_lock()?;
            if self.name_is_new {
                self.sync_names(self.name_before(lsn))?;
            }
            let segment = match self.open_growing(name)? {
                Some(segment) => segment,
                None => self.begin_segment_at(lsn)?,
            };
            self.segment = Some(segment);
        }
        match &mut self.segment {
            Some(segment) => Ok(segment),
            None => Err(WriteError::Internal {
                timeline: self.history.timeline(),
                lsn,
                what: "the segment was opened and is not open",
            }),
        }
    }

    /// Opens a growing segment that is there: another program's, or one that a crash left short.
    fn open_growing(&self, name: SegmentName) -> Result<Option<OpenSegment>, WriteError> {
        let found = self
            .files
            .open(SegmentFile::partial(name), OpenMode::ReadWrite);
        let Some(file) = found.map_err(WriteError::of_write)? else {
            return Ok(None);
        };
        let size = self.files.size().bytes();
        if file.length().map_err(WriteError::of_write)? < size {
            file.allocate(size).map_err(WriteError::of_write)?;
        }
        Ok(Some(OpenSegment {
            filled: self.preparer().filled(name),
            ..OpenSegment::new(name, file)
        }))
    }

    /// Gives a new file the name of the growing segment of `lsn`.
    fn begin_segment_at(&mut self, lsn: Lsn) -> Result<OpenSegment, WriteError> {
        let prepared = if self.files.size().offset_of(lsn) == 0 {
            self.preparer()
                .take(self.patience)
                .map_err(WriteError::of_write)?
        } else {
            // A timeline begins inside this segment. Under its name the segment must never be
            // seen without its parent's WAL: a restore in that moment would end before the
            // switch.
            self.copy_prefix(lsn)?
        };
        let partial = SegmentFile::partial(self.files.name_of(self.timeline(), lsn));
        self.names_changed = true;
        self.name_is_new = true;
        self.rename(&prepared.file, partial)?;
        self.files.directory().note_replaced();
        Ok(self.renamed(partial, prepared))
    }

    /// The open segment of `prepared`, which was just given the name `partial`.
    pub(super) fn renamed(&mut self, partial: SegmentFile, prepared: Prepared) -> OpenSegment {
        let Prepared { file, filled } = prepared;
        let file = file.renamed(self.files.directory().path(partial));
        self.patience = Duration::ZERO;
        OpenSegment {
            filled,
            ..OpenSegment::new(partial.name, file)
        }
    }

    /// Gives `file` the name of a segment file. Durable with the next sync of names.
    pub(super) fn rename(&self, file: &NamedFile, to: SegmentFile) -> Result<(), WriteError> {
        let directory = self.files.directory();
        let renamed = directory.rename_unsynced(file.path(), &directory.path(to));
        renamed.map_err(WriteError::of_write)
    }

    /// The stream came to `end`, the end of a segment: the segment's WAL is valid to its end.
    pub(super) fn finish_segment_before(&mut self, end: Lsn) -> Result<(), WriteError> {
        let name = self.name_before(end);
        if let Some(segment) = &mut self.segment
            && segment.name == name
        {
            segment.full = true;
            return Ok(());
        }
        // Only compared: it is still growing if a crash came before its last name did.
        let partial = SegmentFile::partial(name);
        let found = self.files.open(partial, OpenMode::ReadWrite);
        if let Some(file) = found.map_err(WriteError::of_write)? {
            let mut segment = OpenSegment::new(name, file);
            segment.dirty = true;
            segment.full = true;
            self.segment = Some(segment);
            self.finish_open_segment()?;
        }
        Ok(())
    }

    /// Syncs the open segment, and gives it its final name if it is full.
    fn finish_open_segment(&mut self) -> Result<(), WriteError> {
        self.sync_segment()?;
        self.seal_if_full()?;
        self.segment = None;
        Ok(())
    }

    /// Makes the bytes of the open segment durable.
    pub(super) fn sync_segment(&mut self) -> Result<(), WriteError> {
        let Some(segment) = &mut self.segment else {
            return Ok(());
        };
        if segment.dirty {
            if let Err(error) = segment.file.sync_data() {
                let name = segment.name;
                return Err(self.sync_failed(name, error));
            }
            segment.dirty = false;
            segment.syncs = segment.syncs.saturating_add(1);
            if segment.syncs == SYNCS_TO_PREPARE {
                self.preparer().request();
            }
        }
        Ok(())
    }

    /// The name of the segment that holds the last byte before `end`.
    pub(super) fn name_before(&self, end: Lsn) -> SegmentName {
        let last = Lsn(end.0.saturating_sub(1));
        self.files.name_of(self.timeline(), last)
    }

    /// Makes the names of segments durable; `name` is that of the last one, which a failure is
    /// noted of.
    pub(super) fn sync_names(&mut self, name: SegmentName) -> Result<(), WriteError> {
        match self.files.directory().sync_root() {
            Ok(()) => {}
            Err(error) if error.operation == Operation::Sync => {
                return Err(self.sync_failed(name, error));
            }
            // The directory could not even be opened.
            Err(error) => return Err(WriteError::of_write(error)),
        }
        self.names_changed = false;
        self.name_is_new = false;
        Ok(())
    }

    /// Leaves a marker for the next process, since the cache will show it bytes and names that
    /// never reach the disk.
    fn sync_failed(&self, name: SegmentName, error: crate::DiskError) -> WriteError {
        let marked = self.files.directory().poison(SegmentFile::partial(name));
        WriteError::SyncFailed {
            error,
            marker: marked.err(),
        }
    }

    /// Gives the open segment its final name if it is full and synced.
    pub(super) fn seal_if_full(&mut self) -> Result<(), WriteError> {
        let Some(segment) = self
            .segment
            .take_if(|segment| segment.full && !segment.dirty)
        else {
            return Ok(());
        };
        // A name is given by its path, which may be in another process's directory by now.
        if let Err(error) = self.check_lock() {
            self.segment = Some(segment);
            return Err(error);
        }
        self.names_changed = true;
        let renamed = self.rename(&segment.file, SegmentFile::complete(segment.name));
        if renamed.is_ok() {
            self.sealed.push(segment.name);
        } else {
            self.segment = Some(segment);
        }
        renamed
    }
}
