//! An open directory on a simulated disk.

use std::io;
use std::path::{Path, PathBuf};

use super::SimDisk;
use super::fault::Fault;
use super::state::{State, Verdict, power_is_cut};
use crate::disk::DiskDirectory;

#[derive(Debug)]
pub(super) struct Directory {
    pub(super) disk: SimDisk,
    pub(super) id: u64,
    /// What it was opened by, for the log.
    pub(super) path: PathBuf,
    /// Tells apart the handles of one directory.
    pub(super) number: u64,
    pub(super) life: u64,
}

impl Directory {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.lock();
        state.powered()?;
        if state.life != self.life {
            return Err(power_is_cut());
        }
        work(&mut state)
    }
}

impl DiskDirectory for Directory {
    fn sync(&self) -> io::Result<()> {
        self.with(|state| {
            let verdict = state.begin(|| format!("sync directory {}", self.path.display()))?;
            match verdict {
                Verdict::Go => state.names.sync(self.id),
                Verdict::Fail(Fault::Io) => state.names.forget_unsynced(self.id),
                Verdict::Fail(Fault::NoSpace) | Verdict::Cut => {}
            }
            verdict.refuse()?;
            verdict.end()
        })
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.with(|state| {
            let holder = state.directory_locks.entry(self.id).or_insert(self.number);
            Ok(*holder == self.number)
        })
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        self.with(|state| {
            let named = state.names.directory_at(path);
            Ok(named.is_ok_and(|named| named == self.id))
        })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let mut state = self.disk.lock();
        if state.life == self.life && state.directory_locks.get(&self.id) == Some(&self.number) {
            state.directory_locks.remove(&self.id);
        }
    }
}
