//! Names that a failed sync left behind.
//!
//! After a failed sync of a directory the names in it are there for whoever looks, and need not be
//! on the disk. A file system with a journal refuses every change from then on; one without forgets
//! that there was anything to write, and the next sync succeeds. So a name that whoever comes next
//! would find and take for durable is written once more, right then: what changes after a failed
//! sync is part of the next one. Where it cannot be changed, no sync succeeds either, and the
//! failed sync's error is the one that says what is wrong with the disk.
//!
//! A growing segment gets its marker instead ([`ArchiveDirectory::poison`]): its bytes are to be
//! written anew as well.

use std::path::{Path, PathBuf};

use super::{ArchiveDirectory, Place};
use crate::error::DiskError;
use crate::segment::{EntryName, OWN_DIRECTORY};

/// What a name ends in while it is written anew.
const ANEW: &str = ".anew";

impl ArchiveDirectory {
    /// Writes a name once more, for the next sync of its directory.
    pub(super) fn name_anew(&self, path: &Path) -> Result<(), DiskError> {
        let mut aside = path.as_os_str().to_owned();
        aside.push(ANEW);
        let aside = PathBuf::from(aside);
        self.rename_unsynced(path, &aside)?;
        self.rename_unsynced(&aside, path)
    }

    /// The same for everything in a directory.
    pub(super) fn name_all_anew(&self, directory: &Path) -> Result<(), DiskError> {
        for entry in self.list(directory)? {
            self.name_anew(&directory.join(entry.name))?;
        }
        Ok(())
    }

    /// Ends what a kill interrupted between the two renames.
    pub(super) fn end_renaming(&self) -> Result<(), DiskError> {
        self.end_renaming_in(self.root(), |name| {
            EntryName::classify(name.as_ref()) != EntryName::Foreign
        })?;
        // The outer ones first: they may not have been there.
        for directory in [self.root().join(OWN_DIRECTORY), self.own(Place::Slots)] {
            match self.end_renaming_in(&directory, |_| true) {
                Err(error) if error.is_not_found() => return Ok(()),
                ended => ended?,
            }
        }
        Ok(())
    }

    fn end_renaming_in(
        &self,
        directory: &Path,
        is_ours: impl Fn(&str) -> bool,
    ) -> Result<(), DiskError> {
        let entries = self.list(directory)?;
        for entry in &entries {
            let name = entry.name.to_str().and_then(|name| name.strip_suffix(ANEW));
            let Some(name) = name.filter(|name| is_ours(name)) else {
                continue;
            };
            // What was written under the name since is newer.
            if entries.iter().all(|other| other.name != name) {
                self.rename_unsynced(&directory.join(&entry.name), &directory.join(name))?;
            }
        }
        Ok(())
    }
}
