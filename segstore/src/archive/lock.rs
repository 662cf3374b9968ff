//! The locks of the one process that streams into an archive, of the one that serves it, and of
//! who decides what is removed.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::archive::directory::{ArchiveDirectory, Place};
use crate::disk::named_file::NamedFile;
use crate::disk::{DiskDirectory, OpenMode, filled};
use crate::error::{ArchiveError, DiskError, Operation};

/// A lock that one handle holds at a time, in this process or another.
///
/// It is taken on a lock file, which contains the holder's process ID, and on a directory that the
/// archive needs. So removing the lock file does not release the lock. Network file systems cannot
/// lock directories, or lock them for this machine only; on those the lock file alone counts.
#[derive(Debug)]
struct PathLock {
    /// Another one after the first was removed.
    file: Mutex<NamedFile>,
    /// `None` where directories cannot be locked.
    guard: Option<Box<dyn DiskDirectory>>,
}

/// A lock that another handle has, and the process id in its file.
struct Taken {
    pid: Option<u32>,
}

impl PathLock {
    fn try_take(
        directory: &ArchiveDirectory,
        place: Place,
        locked: &Path,
    ) -> Result<Result<Self, Taken>, DiskError> {
        let guard = directory.disk().open_directory(locked);
        let guard = guard.map_err(DiskError::at(Operation::Open, locked))?;
        let guard = match guard.try_lock() {
            Ok(true) => Some(guard),
            Ok(false) => {
                let path = directory.own(place);
                let file = NamedFile::open_if_exists(directory.disk(), path, OpenMode::Read)?;
                let pid = file.map(|file| holder(&file)).transpose()?.flatten();
                return Ok(Err(Taken { pid }));
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported => None,
            Err(error) => return Err(DiskError::at(Operation::Lock, locked)(error)),
        };
        let file = open_or_create(directory, place)?;
        if !file.try_lock()? {
            let pid = holder(&file)?;
            return Ok(Err(Taken { pid }));
        }
        let file = Mutex::new(file);
        Ok(Ok(Self { file, guard }))
    }
}

/// Held as long as it lives. What goes with the process is the lock; the file stays, and its
/// content, the holder's process id, only serves to name the holder.
#[derive(Debug)]
pub(crate) struct ProcessLock {
    lock: PathLock,
    directory: ArchiveDirectory,
    place: Place,
    /// The archive's directory as it was found.
    root: Box<dyn DiskDirectory>,
}

impl ProcessLock {
    /// Takes the lock of who streams.
    pub(crate) fn to_stream(directory: &ArchiveDirectory) -> Result<Self, ArchiveError> {
        let locked = directory.root().to_owned();
        Self::take(directory, Place::StreamLock, &locked, |directory, pid| {
            ArchiveError::Locked { directory, pid }
        })
    }

    /// Takes the lock of who keeps the replication slots.
    pub(crate) fn to_keep_slots(directory: &ArchiveDirectory) -> Result<Self, ArchiveError> {
        let locked = directory.own(Place::Slots);
        Self::take(directory, Place::SlotsLock, &locked, |directory, pid| {
            ArchiveError::SlotsLocked { directory, pid }
        })
    }

    fn take(
        directory: &ArchiveDirectory,
        place: Place,
        locked: &Path,
        refusal: impl FnOnce(PathBuf, Option<u32>) -> ArchiveError,
    ) -> Result<Self, ArchiveError> {
        let archive = directory.root().to_owned();
        let root = directory.disk().open_directory(&archive);
        let root = root.map_err(DiskError::at(Operation::Open, &archive))?;
        let lock = match PathLock::try_take(directory, place, locked)? {
            Ok(lock) => lock,
            Err(Taken { pid }) => return Err(refusal(archive, pid)),
        };
        let this = Self {
            lock,
            directory: directory.clone(),
            place,
            root,
        };
        write_holder(&this.file())?;
        Ok(this)
    }

    fn file(&self) -> MutexGuard<'_, NamedFile> {
        // It is only ever replaced whole.
        let file = self.lock.file.lock();
        file.unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that no other process can take this lock: that the archive's directory is where it
    /// was, and the locked file too. It is not for every write.
    ///
    /// If the file is missing while the directory is locked, the file is created and locked again:
    /// a network file system may have locked the directory for this machine only.
    ///
    /// # Errors
    /// [`ArchiveError::LockLost`].
    pub(crate) fn check(&self) -> Result<(), ArchiveError> {
        let archive = self.directory.root();
        let lost = |path: &Path| ArchiveError::LockLost {
            directory: archive.to_owned(),
            path: path.to_owned(),
        };
        // An error of the look itself says nothing.
        if !self.root.is_at(archive).unwrap_or(true) {
            return Err(lost(archive));
        }
        let mut file = self.file();
        if file.is_in_place().unwrap_or(true) {
            return Ok(());
        }
        if self.lock.guard.is_none() {
            return Err(lost(file.path()));
        }
        match self.lock_again() {
            Ok(Some(again)) => *file = again,
            // The next check tries it once more; the directory is locked meanwhile.
            Err(error) if error.is_temporary() => {}
            Ok(None) | Err(_) => return Err(lost(file.path())),
        }
        Ok(())
    }

    /// Locks the file that is in place now, or a new one; `None` if another process has locked it.
    fn lock_again(&self) -> Result<Option<NamedFile>, DiskError> {
        let file = open_or_create(&self.directory, self.place)?;
        if !file.try_lock()? {
            return Ok(None);
        }
        write_holder(&file)?;
        Ok(Some(file))
    }
}

impl Drop for ProcessLock {
    fn drop(&mut self) {
        // Only a courtesy: a process id without a lock means nothing.
        let _ = self.file().set_length(0);
    }
}

/// How long is waited before a lock is tried again that is held for a few syncs at most.
const PAUSE: Duration = Duration::from_millis(5);

/// How long such a lock is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Held while one decides which WAL goes, and tells it, or what a slot begins to keep: so neither
/// overlooks the other, whichever process they are in.
#[derive(Debug)]
pub(crate) struct RemovalLock {
    _lock: PathLock,
}

impl RemovalLock {
    /// Waits for the lock, which nobody holds while it waits for anything but the disk.
    ///
    /// # Errors
    /// When it is held for [`PATIENCE`], by a process that was stopped or a disk that hangs; or the
    /// disk refuses.
    pub(crate) fn take(directory: &ArchiveDirectory) -> Result<Self, ArchiveError> {
        Self::take_within(directory, PATIENCE)
    }

    fn take_within(directory: &ArchiveDirectory, patience: Duration) -> Result<Self, ArchiveError> {
        let locked = directory.own_directory();
        let since = Instant::now();
        loop {
            if let Ok(lock) = PathLock::try_take(directory, Place::RemovalLock, &locked)? {
                return Ok(Self { _lock: lock });
            }
            if since.elapsed() >= patience {
                let held = io::Error::new(io::ErrorKind::TimedOut, "another process holds it");
                let path = directory.own(Place::RemovalLock);
                return Err(DiskError::at(Operation::Lock, path)(held).into());
            }
            sleep(PAUSE);
        }
    }
}

fn open_or_create(directory: &ArchiveDirectory, place: Place) -> Result<NamedFile, DiskError> {
    let path = directory.own(place);
    loop {
        match directory.open(path.clone(), OpenMode::ReadWrite) {
            Err(error) if error.is_not_found() => {}
            result => return result,
        }
        match directory.open(path.clone(), OpenMode::CreateNew) {
            Err(error) if error.source.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result,
        }
    }
}

/// Names this process as the holder of a lock.
fn write_holder(file: &NamedFile) -> Result<(), DiskError> {
    file.set_length(0)?;
    let pid = format!("{}\n", std::process::id());
    match file.write_at(&[IoSlice::new(pid.as_bytes())], 0) {
        // The lock is held all the same. Who starts on a full disk waits for room as who runs
        // does, with what is durable intact.
        Err(error) if error.is_disk_full() => Ok(()),
        written => written,
    }
}

fn holder(file: &NamedFile) -> Result<Option<u32>, DiskError> {
    let mut text = [0; 16];
    let count = file.read_full_at(&mut text, 0)?;
    let digits = filled(&text, count).trim_ascii();
    Ok(std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok()))
}

#[cfg(test)]
mod tests;
