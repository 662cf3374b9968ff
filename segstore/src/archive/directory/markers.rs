//! The markers of what must not be taken for durable: an archive that is written without syncs,
//! files of which a sync has failed, and an archive whose writer did not end cleanly.
//!
//! The last one is for the case that after a failed sync no marker can be written either. It says
//! nothing of why the writer did not end cleanly: a kill looks the same. It need not be durable
//! itself, since a crash of the machine takes the page cache along that it warns of. One file has
//! either of two names, so that a full disk does not keep it from changing.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::{ArchiveDirectory, Place};
use crate::archive::identity;
use crate::archive::listing::Listing;
use crate::disk::OpenMode;
use crate::disk::named_file::NamedFile;
use crate::error::{ArchiveError, DiskError, Operation};
use crate::wal::segment::{EntryName, OWN_DIRECTORY, SegmentFile};

impl ArchiveDirectory {
    /// Leaves a marker that files are written without being synced.
    pub(crate) fn mark_not_durable(&self) -> Result<(), DiskError> {
        self.create_empty(self.own(Place::NotDurable)).map(drop)
    }

    /// Whether files were written without being synced, and were not synced since.
    pub(crate) fn is_not_durable(&self) -> Result<bool, DiskError> {
        let marker = self.own(Place::NotDurable);
        Ok(NamedFile::open_if_exists(self.disk(), marker, OpenMode::Read)?.is_some())
    }

    /// Notes that WAL is about to be written or files to be renamed; whether all of the archive was
    /// synced until now.
    pub(crate) fn begin_unclean(&self) -> Result<bool, DiskError> {
        match self.rename_unsynced(&self.own(Place::CleanEnd), &self.own(Place::Unclean)) {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether nothing was written since all of the archive was synced.
    pub(crate) fn is_clean_end(&self) -> Result<bool, DiskError> {
        let note = self.own(Place::CleanEnd);
        Ok(NamedFile::open_if_exists(self.disk(), note, OpenMode::Read)?.is_some())
    }

    /// Notes that all of the archive is synced. Without room for the note the next recovery does
    /// more than it must, which is all.
    pub(crate) fn note_clean_end(&self) -> Result<(), DiskError> {
        if self.root_sync_failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let (from, to) = (self.own(Place::Unclean), self.own(Place::CleanEnd));
        match self.rename_unsynced(&from, &to) {
            Err(error) if error.is_not_found() => match self.open(to, OpenMode::CreateNew) {
                Err(error) if error.source.kind() != io::ErrorKind::AlreadyExists => Err(error),
                Ok(_) | Err(_) => Ok(()),
            },
            renamed => renamed,
        }
    }

    /// Makes all of the archive durable that was written without being synced, if anything was.
    pub(crate) fn make_durable(&self) -> Result<(), ArchiveError> {
        if !self.is_not_durable()? {
            return Ok(());
        }
        let listing = Listing::read(self)?;
        for name in names(&listing) {
            self.sync_file(self.path(&name))
                // A second try would succeed without the bytes.
                .inspect_err(|_| drop(self.poison(&name)))?;
        }
        self.sync_root()
            .inspect_err(|error| drop(self.poison_after(error, &listing, true)))?;
        // Our own are small, so they need no marker: they are written anew each time.
        for place in [Place::Identity, Place::Watermark, Place::Position] {
            let path = self.own(place);
            if let Some(content) = self.read(&path, identity::MAX_LENGTH)? {
                self.replace(&path, &content)?;
            }
        }
        // Only now, so that a crash before has it all done again.
        self.remove(&self.own(Place::NotDurable))?;
        Ok(self.sync(&self.root().join(OWN_DIRECTORY))?)
    }

    /// Syncs a file, unless another program has moved it away.
    fn sync_file(&self, path: PathBuf) -> Result<(), DiskError> {
        match NamedFile::open_if_exists(self.disk(), path, OpenMode::Read)? {
            Some(opened) => opened.sync_data(),
            None => Ok(()),
        }
    }

    /// Leaves markers if `error` is that of a failed sync of the directory: of all names in it that
    /// nobody has synced yet, for a second try would succeed without them. They may be any of
    /// `listing` if `unsynced`, else at most the last one's.
    pub(crate) fn poison_after(
        &self,
        error: &DiskError,
        listing: &Listing,
        unsynced: bool,
    ) -> Result<(), DiskError> {
        if error.operation != Operation::Sync || error.path != self.root() {
            return Ok(());
        }
        if unsynced {
            return self.poison_all(names(listing));
        }
        let last = listing.segments().next_back();
        self.poison_all(last.map(|(file, _)| file))
    }

    /// Leaves a durable marker that nothing in a file may be trusted, since a sync of it failed.
    /// That may have been for lack of room, which is then lacking for the marker too.
    pub(crate) fn poison(&self, file: impl Display) -> Result<(), DiskError> {
        self.poison_all([file])
    }

    /// Leaves such markers of several files.
    fn poison_all(&self, files: impl IntoIterator<Item = impl Display>) -> Result<(), DiskError> {
        for file in files {
            let path = self.own_file(Place::Poison, file);
            if let Err(error) = self.create_empty(path.clone()) {
                let spare = self.rename_unsynced(&self.own(Place::SpareMarker), &path);
                // Why there is no new file tells more than why the spare one is gone.
                spare.map_err(|_no_spare| error)?;
            }
        }
        self.sync(&self.own(Place::Poison))
    }

    /// The files that must not be trusted: segments, and histories.
    pub(crate) fn poisoned_names(&self) -> Result<Vec<EntryName>, DiskError> {
        let entries = self.list(&self.own(Place::Poison))?;
        let names = entries.iter().map(|entry| EntryName::classify(&entry.name));
        Ok(names.collect())
    }

    /// The segment files that must not be trusted.
    pub(crate) fn poisoned(&self) -> Result<Vec<SegmentFile>, DiskError> {
        let names = self.poisoned_names()?.into_iter();
        let mut files: Vec<_> = names
            .filter_map(|name| match name {
                EntryName::Segment(file) => Some(file),
                EntryName::History(_) | EntryName::Own | EntryName::Foreign => None,
            })
            .collect();
        files.sort();
        Ok(files)
    }

    /// Removes the marker of a file that was built anew.
    pub(crate) fn clear_poison(&self, file: impl Display) -> Result<(), DiskError> {
        self.remove(&self.own_file(Place::Poison, file))?;
        self.sync(&self.own(Place::Poison))
    }
}

/// The names of all files that are the archive's.
fn names(listing: &Listing) -> impl Iterator<Item = String> {
    let segments = listing.segments().map(|(file, _)| file.to_string());
    segments.chain(listing.histories().iter().map(ToString::to_string))
}
