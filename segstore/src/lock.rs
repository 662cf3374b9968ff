//! The locks of the one process that streams into an archive, of the one that serves it, and of
//! who decides what is removed.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::directory::{ArchiveDirectory, Place};
use crate::disk::OpenMode;
use crate::error::{ArchiveError, DiskError, Operation};
use crate::named_file::NamedFile;

/// Held as long as it lives. What goes with the process is the lock; the file stays, and its
/// content, the holder's process id, only serves to name the holder.
#[derive(Debug)]
pub(crate) struct ProcessLock {
    file: NamedFile,
}

impl ProcessLock {
    /// Takes the lock of who streams.
    pub(crate) fn to_stream(directory: &ArchiveDirectory) -> Result<Self, ArchiveError> {
        Self::take(directory, Place::StreamLock, |directory, pid| {
            ArchiveError::Locked { directory, pid }
        })
    }

    /// Takes the lock of who keeps the replication slots.
    pub(crate) fn to_keep_slots(directory: &ArchiveDirectory) -> Result<Self, ArchiveError> {
        Self::take(directory, Place::SlotsLock, |directory, pid| {
            ArchiveError::SlotsLocked { directory, pid }
        })
    }

    fn take(
        directory: &ArchiveDirectory,
        place: Place,
        refusal: impl FnOnce(PathBuf, Option<u32>) -> ArchiveError,
    ) -> Result<Self, ArchiveError> {
        let file = open_or_create(directory, place)?;
        if !file.try_lock()? {
            return Err(refusal(directory.root().to_owned(), holder(&file)?));
        }
        file.set_length(0)?;
        let pid = format!("{}\n", std::process::id());
        match file.write_at(&[IoSlice::new(pid.as_bytes())], 0) {
            // The lock is held all the same. Who starts on a full disk waits for room as who
            // runs does, with what is durable intact.
            Err(error) if error.is_disk_full() => {}
            written => written?,
        }
        Ok(Self { file })
    }
}

impl Drop for ProcessLock {
    fn drop(&mut self) {
        // Only a courtesy: a process id without a lock means nothing.
        let _ = self.file.set_length(0);
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
    _file: NamedFile,
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
        let file = open_or_create(directory, Place::RemovalLock)?;
        let since = Instant::now();
        while !file.try_lock()? {
            if since.elapsed() >= patience {
                let held = io::Error::new(io::ErrorKind::TimedOut, "another process holds it");
                let path = directory.own(Place::RemovalLock);
                return Err(DiskError::at(Operation::Lock, path)(held).into());
            }
            sleep(PAUSE);
        }
        Ok(Self { _file: file })
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

fn holder(file: &NamedFile) -> Result<Option<u32>, DiskError> {
    let mut text = [0; 16];
    let count = file.read_full_at(&mut text, 0)?;
    let digits = text.get(..count).unwrap_or_default().trim_ascii();
    Ok(std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::sim::SimDisk;

    #[test]
    fn a_lock_that_is_held_for_ever_is_not_waited_for() {
        let disk = SimDisk::new("/a");
        let directory = ArchiveDirectory::new(Arc::new(disk), Path::new("/a"));
        directory.create_own().unwrap();
        let held = RemovalLock::take(&directory).unwrap();
        let refused = RemovalLock::take_within(&directory, Duration::ZERO).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "could not lock \"/a/.wal-receiver/removal.lock\""
        );
        drop(held);
        drop(RemovalLock::take_within(&directory, Duration::ZERO).unwrap());
    }
}
