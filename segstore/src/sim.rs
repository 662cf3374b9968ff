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
mod names;
mod survival;

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Access, DirectoryEntry, Disk, DiskDirectory, DiskFile, OpenMode};
use directory::Directory;
pub use fault::{AccessFault, Fault};
use file::{Change, File};
use names::Names;
pub use survival::Survival;

/// A disk in memory that can lose power. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    names: Names,
    files: BTreeMap<u64, File>,
    next_file: u64,
    next_handle: u64,
    /// Counts the reboots: a handle of an earlier life is dead.
    life: u64,
    operations: u64,
    cut_at: Option<u64>,
    power_is_cut: bool,
    faults: BTreeMap<u64, Fault>,
    /// From which operation on all of them fail.
    broken_from: Option<u64>,
    accesses: u64,
    access_faults: BTreeMap<u64, AccessFault>,
    descriptors_are_used_up: bool,
    directory_locks: BTreeMap<u64, u64>,
    bytes_written: u64,
    full: bool,
    log: Vec<String>,
}

/// What is to become of an operation.
enum Verdict {
    Go,
    /// It is done, but the power goes before the caller hears of it.
    Cut,
    Fail(Fault),
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

impl State {
    fn powered(&self) -> io::Result<()> {
        if self.power_is_cut {
            return Err(power_is_cut());
        }
        Ok(())
    }

    /// Counts an operation that changes something.
    fn begin(&mut self, description: impl FnOnce() -> String) -> io::Result<Verdict> {
        self.powered()?;
        let number = self.operations;
        self.operations += 1;
        self.log.push(format!("{number}: {}", description()));
        if self.cut_at == Some(number) {
            self.power_is_cut = true;
            return Ok(Verdict::Cut);
        }
        if self.broken_from.is_some_and(|broken| broken <= number) {
            return Ok(Verdict::Fail(Fault::Io));
        }
        Ok(self
            .faults
            .get(&number)
            .map_or(Verdict::Go, |&fault| Verdict::Fail(fault)))
    }

    /// Counts an access, which takes a file descriptor if it `opens` something.
    fn access(&mut self, opens: bool) -> io::Result<()> {
        self.powered()?;
        let number = self.accesses;
        self.accesses += 1;
        if let Some(fault) = self.access_faults.get(&number) {
            return Err(fault.error(opens));
        }
        if opens && self.descriptors_are_used_up {
            return Err(AccessFault::TooManyFiles.error(opens));
        }
        Ok(())
    }

    fn create(&mut self, path: &Path) -> io::Result<u64> {
        self.powered()?;
        if self.names.exists(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let verdict = self.begin(|| format!("create {}", path.display()))?;
        if self.full {
            return Err(no_space());
        }
        verdict.refuse()?;
        let id = self.next_file;
        self.next_file += 1;
        self.names.create_file(path, id)?;
        self.files.insert(id, File::default());
        verdict.end()?;
        Ok(id)
    }
}

impl Verdict {
    /// Fails when the operation is not to happen.
    fn refuse(&self) -> io::Result<()> {
        match self {
            Self::Fail(fault) => Err(fault.error()),
            Self::Go | Self::Cut => Ok(()),
        }
    }

    /// Fails when nobody is left to hear of the operation.
    fn end(&self) -> io::Result<()> {
        match self {
            Self::Cut => Err(power_is_cut()),
            Self::Go | Self::Fail(_) => Ok(()),
        }
    }
}

fn no_space() -> io::Error {
    rustix::io::Errno::NOSPC.into()
}

fn to_usize(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).ok().ok_or_else(no_space)
}

/// What everything says once the power is cut.
fn power_is_cut() -> io::Error {
    rustix::io::Errno::NODEV.into()
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

#[derive(Debug)]
struct Handle {
    disk: SimDisk,
    id: u64,
    /// Tells apart the handles of one file.
    number: u64,
    life: u64,
    writable: bool,
}

impl Handle {
    fn with<T>(&self, work: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.lock();
        state.powered()?;
        if state.life != self.life {
            return Err(power_is_cut());
        }
        work(&mut state, self.id)
    }

    fn change(&self, what: &str, change: Change) -> io::Result<()> {
        if !self.writable {
            return Err(rustix::io::Errno::BADF.into());
        }
        self.with(|state, id| {
            let name = state.names.name_of(id);
            let verdict = state.begin(|| format!("{what} {name}: {change}"))?;
            let full = state.full;
            let file = state.files.get_mut(&id).ok_or_else(power_is_cut)?;
            if full && file.needs_space(&change) {
                return Err(no_space());
            }
            match (&verdict, change) {
                (Verdict::Go | Verdict::Cut, change) => {
                    state.bytes_written += change.bytes();
                    file.apply(change);
                }
                (Verdict::Fail(Fault::NoSpace), Change::Write { offset, mut bytes }) => {
                    bytes.truncate(bytes.len() / 2);
                    file.apply(Change::Write { offset, bytes });
                }
                (Verdict::Fail(_), _) => {}
            }
            verdict.refuse()?;
            verdict.end()
        })
    }
}

impl DiskFile for Handle {
    fn length(&self) -> io::Result<u64> {
        self.with(|state, id| Ok(state.file(id)?.written().len() as u64))
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let length = to_usize(length)?;
        self.change("set length of", Change::Length(length))
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let length = to_usize(length)?;
        self.change("allocate", Change::Allocate(length))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|state, id| {
            state.access(false)?;
            let file = state.file(id)?;
            let rest = usize::try_from(offset)
                .ok()
                .and_then(|offset| file.written().get(offset..))
                .unwrap_or_default();
            let count = rest.len().min(buffer.len());
            if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
                to.copy_from_slice(from);
            }
            Ok(count)
        })
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let offset = to_usize(offset)?;
        let mut bytes = Vec::new();
        for buffer in buffers {
            bytes.extend_from_slice(buffer);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.change("write", Change::Write { offset, bytes })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|state, id| {
            let name = state.names.name_of(id);
            let verdict = state.begin(|| format!("sync {name}"))?;
            let file = state.files.get_mut(&id).ok_or_else(power_is_cut)?;
            match verdict {
                Verdict::Go => file.sync(),
                Verdict::Fail(Fault::Io) => file.forget_unsynced(),
                Verdict::Fail(Fault::NoSpace) | Verdict::Cut => {}
            }
            verdict.refuse()?;
            verdict.end()
        })
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.with(|state, id| {
            let file = state.files.get_mut(&id).ok_or_else(power_is_cut)?;
            Ok(file.try_lock(self.number))
        })
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        self.with(|state, id| Ok(state.names.file_at(path).is_ok_and(|named| named == id)))
    }
}

impl State {
    fn file(&self, id: u64) -> io::Result<&File> {
        self.files.get(&id).ok_or_else(power_is_cut)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.disk.lock();
        if state.life == self.life
            && let Some(file) = state.files.get_mut(&self.id)
        {
            file.unlock(self.number);
        }
    }
}

#[cfg(test)]
mod tests;
