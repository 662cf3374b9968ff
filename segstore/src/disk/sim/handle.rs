//! An open file on a simulated disk.

use std::io::{self, IoSlice};
use std::path::Path;

use super::SimDisk;
use super::fault::Fault;
use super::file::Change;
use super::state::{State, Verdict, no_space, power_is_cut, to_usize};
use crate::disk::DiskFile;

#[derive(Debug)]
pub(super) struct Handle {
    pub(super) disk: SimDisk,
    pub(super) id: u64,
    /// Tells apart the handles of one file.
    pub(super) number: u64,
    pub(super) life: u64,
    pub(super) writable: bool,
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
