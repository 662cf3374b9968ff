//! Directories that are kept open.
//!
//! To sync the names in a directory takes a file descriptor, which may be lacking at the very
//! moment in which a segment ends. So a directory stays open from its first sync on, and those that
//! a writer may need are opened when it has its archive.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{ArchiveDirectory, Place};
use crate::disk::DiskDirectory;
use crate::error::{DiskError, Operation};

#[derive(Debug, Default)]
pub(super) struct Handles(Mutex<BTreeMap<PathBuf, Arc<dyn DiskDirectory>>>);

impl ArchiveDirectory {
    /// Opens the directories in which the process that streams syncs names, and keeps them open.
    pub(crate) fn keep_open(&self) -> Result<(), DiskError> {
        self.handle(self.root())?;
        self.handle(&self.own_directory())?;
        for place in [Place::Poison, Place::Quarantine] {
            self.handle(&self.own(place))?;
        }
        Ok(())
    }

    /// The open directory at `path`. If the directory was replaced, the new one is opened.
    pub(super) fn handle(&self, path: &Path) -> Result<Arc<dyn DiskDirectory>, DiskError> {
        let mut handles = self
            .handles
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = handles.get(path)
            && handle
                .is_at(path)
                .map_err(DiskError::at(Operation::Open, path))?
        {
            return Ok(Arc::clone(handle));
        }
        let opened = self.disk.open_directory(path);
        let handle: Arc<dyn DiskDirectory> =
            Arc::from(opened.map_err(DiskError::at(Operation::Open, path))?);
        handles.insert(path.to_owned(), Arc::clone(&handle));
        Ok(handle)
    }
}
