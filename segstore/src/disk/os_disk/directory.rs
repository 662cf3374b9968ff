//! An open directory of the operating system.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::io::Errno;

use crate::disk::DiskDirectory;

#[derive(Debug)]
pub(super) struct OsDirectory(File);

impl OsDirectory {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let directory = File::open(path)?;
        if !directory.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self(directory))
    }
}

impl DiskDirectory for OsDirectory {
    /// Makes the names in the directory durable; file systems that cannot sync a directory are
    /// taken to need no sync of it.
    ///
    /// Source: src/common/file_utils.c, `fsync_fname` (PG 15).
    fn sync(&self) -> io::Result<()> {
        match rustix::fs::fsync(&self.0) {
            Err(Errno::BADF | Errno::INVAL) => Ok(()),
            result => Ok(result?),
        }
    }

    fn try_lock(&self) -> io::Result<bool> {
        match self.0.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            // NFS makes a lock of a byte range of it, for which a file must be open for writing.
            Err(TryLockError::Error(error)) => match Errno::from_io_error(&error) {
                Some(Errno::BADF | Errno::INVAL | Errno::NOLCK | Errno::OPNOTSUPP) => {
                    Err(io::ErrorKind::Unsupported.into())
                }
                _ => Err(error),
            },
        }
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        is_at(&self.0, path)
    }
}

/// Whether `path` names the open `file`.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let named = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        named => named?,
    };
    let open = file.metadata()?;
    Ok((named.dev(), named.ino()) == (open.dev(), open.ino()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_lock_on_a_directory_outlives_its_files_and_is_released_with_the_handle() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("archive");
        fs::create_dir(&path).unwrap();
        let first = OsDirectory::open(&path).unwrap();
        let second = OsDirectory::open(&path).unwrap();
        assert!(first.try_lock().unwrap() && !second.try_lock().unwrap());
        first.sync().unwrap();
        drop(first);
        assert!(second.try_lock().unwrap());
    }

    #[test]
    fn a_directory_that_was_moved_away_is_not_the_one_in_its_place() {
        let parent = tempfile::tempdir().unwrap();
        let (path, aside) = (parent.path().join("archive"), parent.path().join("aside"));
        fs::create_dir(&path).unwrap();
        let open = OsDirectory::open(&path).unwrap();
        assert!(open.is_at(&path).unwrap());
        fs::rename(&path, &aside).unwrap();
        assert!(!open.is_at(&path).unwrap() && open.is_at(&aside).unwrap());
        fs::create_dir(&path).unwrap();
        assert!(!open.is_at(&path).unwrap());
    }
}
