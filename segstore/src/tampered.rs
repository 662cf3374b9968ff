//! A disk for tests, on which something happens beside what is asked of it.

use std::fmt::Debug;
use std::io;
use std::path::Path;

use crate::disk::{Access, DirectoryEntry, Disk, DiskFile, OpenMode};

/// What happens, and when.
pub(crate) trait Tamper: Debug + Send + Sync {
    /// Before a file is opened; an error is the answer.
    fn before_open(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    /// What of a directory is seen.
    fn after_list(&self, _directory: &Path, _seen: &mut Vec<DirectoryEntry>) {}
}

/// A disk, and what happens on it.
#[derive(Debug)]
pub(crate) struct Tampered<D, T> {
    pub(crate) disk: D,
    pub(crate) tamper: T,
}

impl<D: Disk, T: Tamper> Disk for Tampered<D, T> {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        self.tamper.before_open(path)?;
        self.disk.open(path, mode)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.create_directory(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>> {
        let mut entries = self.disk.list(directory)?;
        self.tamper.after_list(directory, &mut entries);
        Ok(entries)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.disk.sync_directory(directory)
    }

    fn set_access(&self, access: Access) {
        self.disk.set_access(access);
    }

    fn apply_access(&self, path: &Path) -> io::Result<()> {
        self.disk.apply_access(path)
    }
}
