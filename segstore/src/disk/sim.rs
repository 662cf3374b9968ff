//! A simulated disk, for tests of this crate and of who embeds it.
//!
//! [`SimDisk`] keeps what was written apart from what is durable. The power can be cut at any
//! operation that changes something, and [`SimDisk::reboot`] then leaves what a real disk may
//! leave:
//!
//! - a write that was not synced is kept, lost, or torn at sectors of 512 bytes, each write and
//!   each sector by itself;
//! - the length of a file may have grown although the bytes were lost, which then are zero;
//! - a name that was created, renamed or removed without a sync of its directory may be as it was
//!   before, for any subset of such changes: a file whose bytes were synced may have no name;
//! - a rename between two directories is one change until the directory it goes to is synced;
//!   after that the old name may still be there.
//!
//! Errors can be injected as well: a full disk, and an operation that fails. After a failed sync
//! what was to be written is dropped, but reads show it until the reboot, as the page cache of
//! Linux does.
//!
//! Operations are counted from 0; those that change nothing are not counted. One thread gives
//! the same operations every time, so a test can go through all points at which power is cut.
//!
//! Accesses are counted apart: each time a file or directory is opened or created, a directory is
//! listed, or a file is read. They may fail for want of file descriptors or memory, which says
//! nothing about what is durable ([`AccessFault`]).

mod directory;
mod fault;
mod file;
mod handle;
mod names;
mod state;
mod survival;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Access, DirectoryEntry, Disk, DiskDirectory, DiskFile, OpenMode};
use directory::Directory;
pub use fault::{AccessFault, Fault};
use file::File;
use handle::Handle;
use state::{State, no_space};
pub use survival::Survival;

/// A disk in memory that can lose power. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk on which the directory `root` exists, durably.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let disk = Self::default();
        disk.lock().names.create_root(root.into());
        disk
    }

    /// How many operations that change something were asked for since the disk was made or
    /// rebooted.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// The operations so far, one line each, for the message of a test that failed.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.lock().log.clone()
    }

    /// Cuts the power at the operation of this number: it fails, having happened or not as
    /// [`SimDisk::reboot`] decides, and so does everything after it.
    pub fn cut_power_at(&self, operation: u64) {
        self.lock().cut_at = Some(operation);
    }

    /// Cuts the power now.
    pub fn cut_power(&self) {
        self.lock().power_is_cut = true;
    }

    /// Whether the power was cut.
    #[must_use]
    pub fn is_power_cut(&self) -> bool {
        self.lock().power_is_cut
    }

    /// Makes the operation of this number fail.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.lock().faults.insert(operation, fault);
    }

    /// Makes the operation of this number fail and every one after it, as on a disk that went
    /// away, until the next reboot or [`SimDisk::mend`].
    pub fn break_at(&self, operation: u64) {
        self.lock().broken_from = Some(operation);
    }

    /// Takes back all errors that were injected and not met yet. What was dropped by a failed
    /// sync stays so.
    pub fn mend(&self) {
        let mut state = self.lock();
        state.broken_from = None;
        state.faults.clear();
        state.access_faults.clear();
        state.descriptors_are_used_up = false;
        state.full = false;
    }

    /// How many accesses there were since the disk was made or rebooted.
    #[must_use]
    pub fn accesses(&self) -> u64 {
        self.lock().accesses
    }

    /// Makes the access of this number fail.
    pub fn fail_access_at(&self, access: u64, fault: AccessFault) {
        self.lock().access_faults.insert(access, fault);
    }

    /// Uses up the process's file descriptors, or frees them: until then nothing can be opened,
    /// created or listed.
    pub fn use_up_descriptors(&self, used_up: bool) {
        self.lock().descriptors_are_used_up = used_up;
    }

    /// How many bytes were written to files since the disk was made or rebooted.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.lock().bytes_written
    }

    /// Makes the disk full, or gives it room again. While it is full no file can be created and
    /// none can take more space than was written or allocated before.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Loses what was not durable as `survival` says, and turns the power on again. Open files
    /// are dead, locks are free, injected errors are forgotten, operations count from 0.
    pub fn reboot(&self, survival: Survival) {
        let mut state = self.lock();
        let state = &mut *state;
        let mut chance = survival.chance();
        state.names.lose(&mut chance);
        for file in state.files.values_mut() {
            file.lose(&mut chance);
        }
        let names = &state.names;
        state.files.retain(|&id, _| names.refers_to(id));
        state.life += 1;
        state.operations = 0;
        state.cut_at = None;
        state.power_is_cut = false;
        state.faults.clear();
        state.broken_from = None;
        state.accesses = 0;
        state.access_faults.clear();
        state.descriptors_are_used_up = false;
        state.directory_locks.clear();
        state.bytes_written = 0;
        state.full = false;
        state.log.clear();
    }

    /// The bytes of a file as a reader sees them, `None` when there is no such file.
    #[must_use]
    pub fn content(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let state = self.lock();
        let id = state.names.file_at(path.as_ref()).ok()?;
        state.files.get(&id).map(|file| file.written().to_vec())
    }

    /// Puts a file there, durably, with no regard to what is asked of directories or power: the
    /// way to damage something between two lives.
    ///
    /// # Errors
    /// When its directory does not exist.
    pub fn plant(&self, path: impl AsRef<Path>, content: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        let id = state.next_file;
        state.next_file += 1;
        state.names.plant(path.as_ref(), id)?;
        state.files.insert(id, File::durable(content.to_vec()));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test's panic must not hide behind a second one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.lock();
        state.access(true)?;
        let id = match mode {
            OpenMode::Read | OpenMode::ReadWrite => state.names.file_at(path)?,
            OpenMode::CreateNew => state.create(path)?,
        };
        state.next_handle += 1;
        Ok(Box::new(Handle {
            disk: self.clone(),
            id,
            number: state.next_handle,
            life: state.life,
            writable: mode != OpenMode::Read,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.powered()?;
        let renaming = state.names.renaming(from, to)?;
        let verdict = state.begin(|| format!("rename {} to {}", from.display(), to.display()))?;
        verdict.refuse()?;
        state.names.change(renaming);
        verdict.end()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.powered()?;
        state.names.file_at(path)?;
        let verdict = state.begin(|| format!("remove {}", path.display()))?;
        verdict.refuse()?;
        state.names.remove(path)?;
        verdict.end()
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.powered()?;
        if state.names.exists(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let verdict = state.begin(|| format!("create directory {}", path.display()))?;
        if state.full {
            return Err(no_space());
        }
        verdict.refuse()?;
        state.names.create_directory(path)?;
        verdict.end()
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>> {
        let mut state = self.lock();
        state.access(true)?;
        let state = &*state;
        state.names.list(directory, |id| {
            state
                .files
                .get(&id)
                .map_or(0, |file| file.written().len() as u64)
        })
    }

    fn open_directory(&self, directory: &Path) -> io::Result<Box<dyn DiskDirectory>> {
        let mut state = self.lock();
        state.access(true)?;
        let id = state.names.directory_at(directory)?;
        state.next_handle += 1;
        Ok(Box::new(Directory {
            disk: self.clone(),
            id,
            path: directory.to_owned(),
            number: state.next_handle,
            life: state.life,
        }))
    }

    /// Does nothing: the simulated disk knows no users.
    fn set_access(&self, _access: Access) {}

    /// Does nothing: the simulated disk knows no users.
    fn apply_access(&self, _path: &Path) -> io::Result<()> {
        self.lock().powered()
    }
}

#[cfg(test)]
mod tests;
