//! A disk on which nothing is made durable, for `--no-sync`.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Access, DirectoryEntry, Disk, DiskDirectory, DiskFile, OpenMode};

/// Another disk without its syncs: what the operating system writes back by itself is all that
/// a crash of the machine leaves.
#[derive(Debug)]
pub(crate) struct UnsyncedDisk(pub(crate) Arc<dyn Disk>);

impl Disk for UnsyncedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(UnsyncedFile(self.0.open(path, mode)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.0.create_directory(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>> {
        self.0.list(directory)
    }

    fn open_directory(&self, directory: &Path) -> io::Result<Box<dyn DiskDirectory>> {
        Ok(Box::new(UnsyncedDirectory(
            self.0.open_directory(directory)?,
        )))
    }

    fn set_access(&self, access: Access) {
        self.0.set_access(access);
    }

    fn apply_access(&self, path: &Path) -> io::Result<()> {
        self.0.apply_access(path)
    }
}

#[derive(Debug)]
struct UnsyncedDirectory(Box<dyn DiskDirectory>);

impl DiskDirectory for UnsyncedDirectory {
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.0.try_lock()
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        self.0.is_at(path)
    }
}

#[derive(Debug)]
struct UnsyncedFile(Box<dyn DiskFile>);

impl DiskFile for UnsyncedFile {
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.set_length(length)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.0.allocate(length)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.0.write_at(buffers, offset)
    }

    fn write_bulk_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.0.write_bulk_at(buffers, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.0.try_lock()
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        self.0.is_at(path)
    }

    fn file_descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.file_descriptor()
    }
}
