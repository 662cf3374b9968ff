//! File names whose directory sync has failed.
//!
//! After a failed sync of a directory its names are still visible, but need not be on the disk. A
//! journaling file system refuses every later change. Another file system may forget that the
//! directory was dirty, and then the next sync succeeds without writing it. The next process would
//! find such a name and take it for durable. So the name is rewritten immediately, by renaming the
//! file and renaming it back: a change made after the failed sync is covered by the next sync. If
//! the rename fails, no later sync succeeds either, and the error of the failed sync is reported.
//!
//! A growing segment is marked instead ([`ArchiveDirectory::poison`]), because its bytes have to be
//! rewritten too.

use std::io;
use std::path::{Path, PathBuf};

use super::{ArchiveDirectory, Place};
use crate::error::DiskError;
use crate::wal::segment::{EntryName, OWN_DIRECTORY};

/// The suffix of a name while it is being rewritten.
const REWRITING: &str = ".anew";

impl ArchiveDirectory {
    /// Rewrites a name, so that the next sync of its directory covers it.
    pub(crate) fn rewrite_name(&self, path: &Path) -> Result<(), DiskError> {
        let mut aside = path.as_os_str().to_owned();
        aside.push(REWRITING);
        let aside = PathBuf::from(aside);
        self.rename_unsynced(path, &aside)?;
        self.rename_unsynced(&aside, path)
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
            let name = entry
                .name
                .to_str()
                .and_then(|name| name.strip_suffix(REWRITING));
            let Some(name) = name.filter(|name| is_ours(name)) else {
                continue;
            };
            let aside = directory.join(&entry.name);
            if entries.iter().all(|other| other.name != name) {
                match self.rename_unsynced(&aside, &directory.join(name)) {
                    // Another process has done it in this moment.
                    Err(error) if error.source.kind() == io::ErrorKind::NotFound => {}
                    renamed => renamed?,
                }
            } else if entry.is_file {
                // What was written under the name since is newer.
                self.remove(&aside)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::disk::sim::{Fault, SimDisk};

    fn directory(disk: &SimDisk) -> ArchiveDirectory {
        ArchiveDirectory::new(Arc::new(disk.clone()), Path::new("/a"))
    }

    #[test]
    fn what_was_renamed_half_is_ended_and_what_is_older_goes() {
        let disk = SimDisk::new("/a");
        let directory = directory(&disk);
        directory.create_own().unwrap();
        let slots = directory.own(Place::Slots);
        disk.plant(slots.join("lone.anew"), b"1").unwrap();
        disk.plant(slots.join("both.anew"), b"old").unwrap();
        disk.plant(slots.join("both"), b"new").unwrap();
        disk.plant("/a/notes.anew", b"not ours").unwrap();
        directory.create_own().unwrap();
        assert_eq!(disk.content(slots.join("lone")).unwrap(), b"1");
        assert_eq!(disk.content(slots.join("both")).unwrap(), b"new");
        assert_eq!(disk.content(slots.join("lone.anew")), None);
        assert_eq!(disk.content(slots.join("both.anew")), None);
        assert_eq!(disk.content("/a/notes.anew").unwrap(), b"not ours");
    }

    #[test]
    fn names_that_others_gave_stay_where_they_are() {
        let disk = SimDisk::new("/a");
        directory(&disk).create_own().unwrap();
        // Another process holds its locks there.
        let lock = "/a/.wal-receiver/stream.lock";
        disk.plant(lock, b"1").unwrap();
        let before = disk.operations();
        directory(&disk).create_own().unwrap();
        let after = disk.operations();
        for operation in 0..after - before {
            disk.fail_at(disk.operations() + operation, Fault::Io);
            let from = disk.log().len();
            drop(directory(&disk).create_own());
            let log = disk.log();
            let renamed = log[from..].iter().find(|line| line.starts_with("rename"));
            assert_eq!(renamed, None);
        }
    }

    #[test]
    fn a_failed_sync_beside_the_segments_is_final() {
        let disk = SimDisk::new("/a");
        let directory = directory(&disk);
        directory.create_own().unwrap();
        disk.fail_at(disk.operations(), Fault::Io);
        let first = directory.sync_root().unwrap_err();
        let second = directory.clone().sync_root().unwrap_err();
        assert_eq!(first.to_string(), second.to_string());
        assert_eq!(second.source.to_string(), "a sync of it has failed before");
        // Markers can still be left.
        directory.poison("000000010000000000000001").unwrap();
    }
}
