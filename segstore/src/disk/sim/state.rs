//! The state of a simulated disk, and what becomes of each operation.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::fault::{AccessFault, Fault};
use super::file::File;
use super::names::Names;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) names: Names,
    pub(super) files: BTreeMap<u64, File>,
    pub(super) next_file: u64,
    pub(super) next_handle: u64,
    /// Counts the reboots: a handle of an earlier life is dead.
    pub(super) life: u64,
    pub(super) operations: u64,
    pub(super) cut_at: Option<u64>,
    pub(super) power_is_cut: bool,
    pub(super) faults: BTreeMap<u64, Fault>,
    /// From which operation on all of them fail.
    pub(super) broken_from: Option<u64>,
    pub(super) accesses: u64,
    pub(super) access_faults: BTreeMap<u64, AccessFault>,
    pub(super) descriptors_are_used_up: bool,
    pub(super) directory_locks: BTreeMap<u64, u64>,
    pub(super) bytes_written: u64,
    pub(super) full: bool,
    pub(super) log: Vec<String>,
}

/// What is to become of an operation.
pub(super) enum Verdict {
    Go,
    /// It is done, but the power goes before the caller hears of it.
    Cut,
    Fail(Fault),
}

impl State {
    pub(super) fn powered(&self) -> io::Result<()> {
        if self.power_is_cut {
            return Err(power_is_cut());
        }
        Ok(())
    }

    /// Counts an operation that changes something.
    pub(super) fn begin(&mut self, description: impl FnOnce() -> String) -> io::Result<Verdict> {
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
    pub(super) fn access(&mut self, opens: bool) -> io::Result<()> {
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

    pub(super) fn create(&mut self, path: &Path) -> io::Result<u64> {
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

    pub(super) fn file(&self, id: u64) -> io::Result<&File> {
        self.files.get(&id).ok_or_else(power_is_cut)
    }
}

impl Verdict {
    /// Fails when the operation is not to happen.
    pub(super) fn refuse(&self) -> io::Result<()> {
        match self {
            Self::Fail(fault) => Err(fault.error()),
            Self::Go | Self::Cut => Ok(()),
        }
    }

    /// Fails after a power cut: the operation has no caller any more.
    pub(super) fn end(&self) -> io::Result<()> {
        match self {
            Self::Cut => Err(power_is_cut()),
            Self::Go | Self::Fail(_) => Ok(()),
        }
    }
}

pub(super) fn no_space() -> io::Error {
    rustix::io::Errno::NOSPC.into()
}

pub(super) fn to_usize(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).ok().ok_or_else(no_space)
}

/// What everything says once the power is cut.
pub(super) fn power_is_cut() -> io::Error {
    rustix::io::Errno::NODEV.into()
}
