//! What a writer left that did not end cleanly.
//!
//! It may have met a failed sync and have had no room, or no disk, for a marker; or it was killed,
//! which looks the same. After a failed sync the page cache shows bytes and names that never reach
//! the disk, and another sync succeeds without them. So the growing segment, the only file in which
//! there can be bytes that were not synced, is copied into a new one, and the newest names are given
//! once more. What the copy holds is checked afterwards as ever. It costs one segment at the most.

use super::Examination;
use crate::archive::directory::ArchiveDirectory;
use crate::archive::history;
use crate::archive::listing::Listing;
use crate::error::{ArchiveError, DiskError};
use crate::wal::segment::{Encoding, SegmentFile};

impl Examination<'_> {
    /// Rewrites the newest files, which need not be on the disk.
    pub(super) fn renew_newest(&self) -> Result<(), ArchiveError> {
        let directory = self.files.directory();
        let listing = Listing::read(directory)?;
        let Some(newest) = listing.newest_timeline() else {
            return Ok(());
        };
        let files: Vec<SegmentFile> = listing
            .of_timeline(newest)
            .map(|(file, _)| file)
            .filter(|file| file.encoding == Encoding::Plain)
            .collect();
        for growing in files.iter().filter(|file| file.partial) {
            self.rebuild(growing)?;
        }
        // It was synced before it got its final name; of the others the names were synced too,
        // before the next one was given.
        if let Some(complete) = files.iter().rev().find(|file| !file.partial) {
            renew_name(directory, *complete)?;
        }
        self.rebuild(history::plain(newest))?;
        Ok(())
    }
}

/// Gives a complete segment its name once more, for the next sync of the directory, unless another
/// program has moved it away.
pub(crate) fn renew_name(directory: &ArchiveDirectory, file: SegmentFile) -> Result<(), DiskError> {
    match directory.rewrite_name(&directory.path(file)) {
        Err(error) if error.is_not_found() => Ok(()),
        renewed => renewed,
    }
}
