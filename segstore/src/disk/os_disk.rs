//! The operating system's files and directories.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::disk::{Access, DirectoryEntry, Disk, DiskDirectory, DiskFile, OpenMode};

mod direct;
mod directory;
mod owner;
mod spares;

use direct::{DirectFile, DirectWrites};
use directory::OsDirectory;
use spares::Spares;

/// The most buffers that one `pwritev` takes (`IOV_MAX` of Linux).
const VECTOR_MAX: usize = 1024;

/// The operating system's disk.
///
/// Files are opened with `O_CLOEXEC`, as all of the standard library's are. Modes follow the
/// [`Access`] that was set, whatever the process's umask is. What root creates belongs to the owner
/// of the directory that it is created in. A few file descriptors are kept for files that are to
/// be written.
#[derive(Debug, Default)]
pub struct OsDisk {
    group_access: AtomicBool,
    direct: Arc<DirectWrites>,
    spares: Spares,
}

impl OsDisk {
    /// A disk that creates files for the owner alone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn access(&self) -> Access {
        if self.group_access.load(Ordering::Relaxed) {
            Access::Group
        } else {
            Access::Owner
        }
    }
}

impl Disk for OsDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
                options.mode(self.access().file_mode());
            }
        }
        let file = match mode {
            OpenMode::Read => options.open(path)?,
            OpenMode::ReadWrite | OpenMode::CreateNew => self.spares.open(|| options.open(path))?,
        };
        if mode == OpenMode::CreateNew {
            owner::give_file(&file, path)?;
            if self.access() == Access::Group {
                // The umask may have taken the group's bit away.
                file.set_permissions(Permissions::from_mode(Access::Group.file_mode()))?;
            }
        }
        Ok(Box::new(OsFile {
            file,
            direct: DirectFile::default(),
            shared: Arc::clone(&self.direct),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let access = self.access();
        fs::DirBuilder::new()
            .mode(access.directory_mode())
            .create(path)?;
        owner::give_directory(path)?;
        if access == Access::Group {
            self.apply_access(path)?;
        }
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            // Follows symbolic links, as PostgreSQL's tools do.
            let (length, is_file) = match fs::metadata(entry.path()) {
                Ok(metadata) => (metadata.len(), metadata.is_file()),
                // Removed since, or a link to nothing: either way no file of ours.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            entries.push(DirectoryEntry {
                name: entry.file_name(),
                length,
                is_file,
            });
        }
        Ok(entries)
    }

    fn open_directory(&self, directory: &Path) -> io::Result<Box<dyn DiskDirectory>> {
        Ok(Box::new(OsDirectory::open(directory)?))
    }

    fn set_access(&self, access: Access) {
        self.group_access
            .store(access == Access::Group, Ordering::Relaxed);
    }

    fn apply_access(&self, path: &Path) -> io::Result<()> {
        let access = self.access();
        let mode = if fs::metadata(path)?.is_dir() {
            access.directory_mode()
        } else {
            access.file_mode()
        };
        fs::set_permissions(path, Permissions::from_mode(mode))
    }
}

#[derive(Debug)]
struct OsFile {
    file: File,
    direct: DirectFile,
    shared: Arc<DirectWrites>,
}

impl DiskFile for OsFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, length) {
            // Copy-on-write and network file systems reserve nothing.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                if self.length()? < length {
                    self.set_length(length)?;
                }
                Ok(())
            }
            result => Ok(result?),
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        write_all(&self.file, buffers, offset)
    }

    fn write_bulk_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        direct::write(&self.file, &self.direct, &self.shared, buffers, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn try_lock(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        directory::is_at(&self.file, path)
    }

    fn file_descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

fn write_all(file: &File, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
    let mut offset = offset;
    for chunk in buffers.chunks(VECTOR_MAX) {
        offset = write_chunk(file, chunk, offset)?;
    }
    Ok(())
}

/// Writes all of `buffers`, at most [`VECTOR_MAX`] of them, and returns the offset after them.
fn write_chunk(file: &File, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<u64> {
    let total: usize = buffers.iter().map(|buffer| buffer.len()).sum();
    let mut done = 0;
    while done < total {
        let at = offset
            .checked_add(done as u64)
            .ok_or(io::ErrorKind::FileTooLarge)?;
        let result = if done == 0 {
            rustix::io::pwritev(file, buffers, at)
        } else {
            let mut rest = buffers.to_vec();
            let mut rest = rest.as_mut_slice();
            IoSlice::advance_slices(&mut rest, done);
            rustix::io::pwritev(file, rest, at)
        };
        match result {
            // As PostgreSQL does: a write that gets nothing written and says nothing is taken
            // for a full disk (src/bin/pg_basebackup/walmethods.c, dir_write, PG 15).
            Ok(0) => return Err(io::ErrorKind::StorageFull.into()),
            Ok(written) => done += written,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    offset
        .checked_add(total as u64)
        .ok_or(io::ErrorKind::FileTooLarge.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn modes_follow_the_data_directory_mode() {
        let directory = tempfile::tempdir().unwrap();
        let disk = OsDisk::new();
        for (mode, file_mode, directory_mode) in [(0o700, 0o600, 0o700), (0o750, 0o640, 0o750)] {
            disk.set_access(Access::of_data_directory(mode));
            let file = directory.path().join(format!("file{mode:o}"));
            drop(disk.open(&file, OpenMode::CreateNew).unwrap());
            assert_eq!(mode_of(&file), file_mode);
            let sub = directory.path().join(format!("dir{mode:o}"));
            disk.create_directory(&sub).unwrap();
            assert_eq!(mode_of(&sub), directory_mode);
        }
        let file = directory.path().join("file700");
        disk.apply_access(&file).unwrap();
        assert_eq!(mode_of(&file), 0o640);
    }

    #[test]
    fn more_buffers_than_one_call_takes_are_all_written() {
        let directory = tempfile::tempdir().unwrap();
        let disk = OsDisk::new();
        let path = directory.path().join("f");
        let file = disk.open(&path, OpenMode::CreateNew).unwrap();
        let pieces: Vec<[u8; 4]> = (0..3000u32).map(u32::to_be_bytes).collect();
        let buffers: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        file.write_at(&buffers, 5).unwrap();
        file.sync_data().unwrap();
        let content = fs::read(&path).unwrap();
        assert_eq!(&content[..5], [0; 5]);
        assert_eq!(&content[5..], pieces.concat());
        let mut buffer = [0; 4];
        assert_eq!(file.read_at(&mut buffer, 5 + 11_999).unwrap(), 1);
        assert_eq!(file.read_at(&mut buffer, 5 + 12_000).unwrap(), 0);
    }

    #[test]
    fn the_descriptor_is_that_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let disk = OsDisk::new();
        let path = directory.path().join("f");
        fs::write(&path, b"0123456789").unwrap();
        let file = disk.open(&path, OpenMode::Read).unwrap();
        fs::remove_file(&path).unwrap();
        let mut buffer = [0; 4];
        let descriptor = file.file_descriptor().unwrap();
        assert_eq!(rustix::io::pread(descriptor, &mut buffer, 3), Ok(4));
        assert_eq!(&buffer, b"3456");
    }

    #[test]
    fn bulk_is_written_wherever_it_begins_and_ends() {
        // Beside the source, since a file system in memory may not have direct writes.
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let disk = OsDisk::new();
        let bytes: Vec<u8> = (0..1_500_000u32).map(|i| (i % 251) as u8).collect();
        for (offset, length) in [
            (0, 1 << 20),
            (1, 300_000),
            (4095, 1_500_000),
            (8192, 1),
            (5000, 3000),
            (0, 0),
            (4096, (512 << 10) + 4096),
        ] {
            let path = directory.path().join(format!("{offset}-{length}"));
            let file = disk.open(&path, OpenMode::CreateNew).unwrap();
            let end = usize::try_from(offset).unwrap() + length;
            file.write_at(&[IoSlice::new(&vec![255; end + 10_000])], 0)
                .unwrap();
            let pieces: Vec<_> = bytes[..length].chunks(70_001).map(IoSlice::new).collect();
            file.write_bulk_at(&pieces, offset).unwrap();
            let content = fs::read(&path).unwrap();
            let start = end - length;
            assert!(content[..start].iter().all(|byte| *byte == 255));
            assert!(content[start..end] == bytes[..length]);
            assert!(content[end..].iter().all(|byte| *byte == 255));
            assert_eq!(content.len(), end + 10_000);
        }
    }

    #[test]
    fn allocation_keeps_content_and_never_shrinks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let file = OsDisk::new().open(&path, OpenMode::CreateNew).unwrap();
        file.write_at(&[IoSlice::new(b"abc")], 0).unwrap();
        file.allocate(10).unwrap();
        file.allocate(5).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abc\0\0\0\0\0\0\0");
    }

    #[test]
    fn the_second_handle_does_not_get_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let disk = OsDisk::new();
        let path = directory.path().join("lock");
        let first = disk.open(&path, OpenMode::CreateNew).unwrap();
        let second = disk.open(&path, OpenMode::ReadWrite).unwrap();
        assert!(first.try_lock().unwrap());
        assert!(!second.try_lock().unwrap());
        drop(first);
        assert!(second.try_lock().unwrap());
    }

    #[test]
    fn listing_tells_files_from_directories_and_follows_links() {
        let directory = tempfile::tempdir().unwrap();
        let disk = OsDisk::new();
        fs::write(directory.path().join("a"), b"12345").unwrap();
        fs::create_dir(directory.path().join("b")).unwrap();
        std::os::unix::fs::symlink("a", directory.path().join("c")).unwrap();
        std::os::unix::fs::symlink("nothing", directory.path().join("d")).unwrap();
        let mut found: Vec<_> = disk
            .list(directory.path())
            .unwrap()
            .into_iter()
            .map(|entry| {
                let length = entry.is_file.then_some(entry.length);
                (entry.name.into_string().unwrap(), length)
            })
            .collect();
        found.sort();
        assert_eq!(
            found,
            [
                ("a".to_owned(), Some(5)),
                ("b".to_owned(), None),
                ("c".to_owned(), Some(5))
            ]
        );
    }
}
