//! Making what was found durable, under the names it should have.

use super::Examination;
use super::run::Run;
use crate::archive::listing::Listing;
use crate::archive::segment_files::FileOrder;
use crate::disk::OpenMode;
use crate::disk::named_file::NamedFile;
use crate::error::{ArchiveError, DiskError, Operation};
use crate::wal::segment::{Encoding, SegmentFile};

impl Examination<'_> {
    /// Syncs what was read, and the names.
    pub(super) fn make_durable(&self, run: &Run) -> Result<(), ArchiveError> {
        let directory = self.files.directory();
        let end = self.end_of(run);
        let mut start = run.start;
        while start < end {
            let timelines = run.history.ancestors().iter().map(|a| a.timeline);
            for timeline in timelines.chain([run.history.timeline()]) {
                let name = self.files.name_of(timeline, start);
                if let Some(found) = self.files.find(name, FileOrder::GrowingFirst)? {
                    let (file, opened) = (found.file(), found.opened());
                    self.complete_length(file, opened)?;
                    opened
                        .sync_data()
                        .map_err(|error| self.sync_failed(file, error))?;
                }
            }
            start = self.files.end_of(start);
        }
        directory
            .sync_root()
            .map_err(|error| self.sync_failed(run.last, error))
    }

    /// A crash may have taken the length that a growing segment had from the beginning;
    /// `pg_receivewal` refuses to go on with one that is neither empty nor of full size
    /// (src/bin/pg_basebackup/receivelog.c, `open_walfile`, PG 15).
    fn complete_length(&self, file: SegmentFile, opened: &NamedFile) -> Result<(), ArchiveError> {
        let size = self.files.size().bytes();
        let growing = file.partial && file.encoding == Encoding::Plain;
        if growing
            && opened.length()? < size
            && let Some(file) = self.files.open(file, OpenMode::ReadWrite)?
        {
            file.allocate(size)?;
        }
        Ok(())
    }

    /// Leaves a marker, so that the next recovery trusts the cache no more than this one may. That
    /// there was no clean end tells it too, but a marker has the tail fetched again.
    fn sync_failed(&self, file: SegmentFile, error: DiskError) -> ArchiveError {
        if error.operation != Operation::Sync {
            return error.into();
        }
        match self.files.directory().poison(file) {
            Ok(()) => error.into(),
            Err(marker) => ArchiveError::Unmarked { error, marker },
        }
    }

    /// Gives segments that are valid to their end their final names, and removes those without
    /// content.
    pub(super) fn finish_names(
        &self,
        listing: &Listing,
        run: &Run,
        empty: &[SegmentFile],
    ) -> Result<(), ArchiveError> {
        let directory = self.files.directory();
        let mut changed = false;
        let growing = listing
            .of_timeline(run.history.timeline())
            .map(|(file, _)| file)
            .filter(|file| file.partial && file.encoding == Encoding::Plain);
        for file in growing {
            let start = self.start_of(file)?;
            let read = run.start <= start;
            if read && self.files.end_of(start) <= run.certain_end() {
                let complete = SegmentFile::complete(file.name);
                directory.rename_unsynced(&directory.path(file), &directory.path(complete))?;
                changed = true;
            }
        }
        for file in empty {
            directory.remove(&directory.path(file))?;
            changed = true;
        }
        if changed {
            directory
                .sync_root()
                .map_err(|error| self.sync_failed(run.last, error))?;
        }
        Ok(())
    }
}
