//! The lock of the one process that streams into an archive.

use std::io::{self, IoSlice};

use crate::directory::{ArchiveDirectory, Place};
use crate::disk::OpenMode;
use crate::error::{ArchiveError, DiskError};
use crate::named_file::NamedFile;

/// Held as long as it lives. What goes with the process is the lock; the file stays, and its
/// content, the holder's process id, only serves to name the holder.
#[derive(Debug)]
pub(crate) struct StreamLock {
    file: NamedFile,
}

impl StreamLock {
    pub(crate) fn take(directory: &ArchiveDirectory) -> Result<Self, ArchiveError> {
        let file = open_or_create(directory)?;
        if !file.try_lock()? {
            return Err(ArchiveError::Locked {
                directory: directory.root().to_owned(),
                pid: holder(&file)?,
            });
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

impl Drop for StreamLock {
    fn drop(&mut self) {
        // Only a courtesy: a process id without a lock means nothing.
        let _ = self.file.set_length(0);
    }
}

fn open_or_create(directory: &ArchiveDirectory) -> Result<NamedFile, DiskError> {
    let path = directory.own(Place::StreamLock);
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
