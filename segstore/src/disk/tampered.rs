//! A disk for tests, on which something happens beside what is asked of it.

use std::fmt::Debug;
use std::io;
use std::path::Path;

use crate::disk::{Access, DirectoryEntry, Disk, DiskDirectory, DiskFile, OpenMode};

/// What happens, and when.
pub(crate) trait Tamper: Debug + Send + Sync {
    /// Before a file is opened; an error is the answer.
    fn before_open(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Whether directories can be locked.
    fn locks_directories(&self) -> bool {
        true
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

    fn open_directory(&self, directory: &Path) -> io::Result<Box<dyn DiskDirectory>> {
        let directory = self.disk.open_directory(directory)?;
        Ok(if self.tamper.locks_directories() {
            directory
        } else {
            Box::new(Unlockable(directory))
        })
    }

    fn set_access(&self, access: Access) {
        self.disk.set_access(access);
    }

    fn apply_access(&self, path: &Path) -> io::Result<()> {
        self.disk.apply_access(path)
    }
}

#[derive(Debug)]
struct Unlockable(Box<dyn DiskDirectory>);

impl DiskDirectory for Unlockable {
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn try_lock(&self) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        self.0.is_at(path)
    }
}
