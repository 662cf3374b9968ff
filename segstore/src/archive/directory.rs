//! The places in an archive directory, and how files get there so that they stay.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::disk::named_file::NamedFile;
use crate::disk::{DirectoryEntry, Disk, OpenMode};
use crate::error::{ArchiveError, Damage, DiskError, Operation};
use crate::wal::segment::OWN_DIRECTORY;

mod handles;
mod markers;
mod rewrite_name;

use handles::Handles;

/// What the name of a file ends in that is not finished and lies beside what it is to replace. No
/// slot's name has a dot.
pub(crate) const UNFINISHED: &str = ".tmp";

/// What lies in the subdirectory that is ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Which cluster the archive is of.
    Identity,
    /// The lock of the one that streams into the archive.
    StreamLock,
    /// The lock of the one that serves the archive.
    SlotsLock,
    /// The lock of who decides what is removed, or what a slot keeps.
    RemovalLock,
    /// The last position that was acknowledged.
    Watermark,
    /// The durable position, for other processes.
    Position,
    /// The position before which WAL was removed, for the process that keeps the slots.
    Removed,
    /// Says that nothing of the archive need be durable: it was last written without syncs.
    NotDurable,
    /// Says that nothing was written since all of the archive was last synced.
    CleanEnd,
    /// The name of that while WAL is written.
    Unclean,
    /// Files that are not finished; emptied whenever an archive is opened.
    Temporary,
    /// Segments that are ready to be written.
    Prepared,
    /// Markers of files whose sync failed.
    Poison,
    /// An empty file that becomes such a marker where there is no room for another file.
    SpareMarker,
    /// What was found bad and moved out of the way.
    Quarantine,
    /// The replication slots.
    Slots,
    /// What the salts of unknown users are made of.
    MockNonce,
}

impl Place {
    const DIRECTORIES: [Self; 5] = [
        Self::Temporary,
        Self::Prepared,
        Self::Poison,
        Self::Quarantine,
        Self::Slots,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity.json",
            Self::StreamLock => "stream.lock",
            Self::SlotsLock => "slots.lock",
            Self::RemovalLock => "removal.lock",
            Self::Watermark => "watermark",
            Self::Position => "position",
            Self::Removed => "removed",
            Self::NotDurable => "not-durable",
            Self::CleanEnd => "clean-end",
            Self::Unclean => "unclean",
            Self::Temporary => "tmp",
            Self::Prepared => "prepared",
            Self::Poison => "poison",
            Self::SpareMarker => "spare-marker",
            Self::Quarantine => "quarantine",
            Self::Slots => "slots",
            Self::MockNonce => "mock-nonce",
        }
    }
}

/// An archive's directory on a disk. Clones are the same directory.
#[derive(Clone, Debug)]
pub(crate) struct ArchiveDirectory {
    disk: Arc<dyn Disk>,
    root: Arc<Path>,
    /// How often a file was put in the place of one that may be open for reading.
    replaced: Arc<AtomicU64>,
    /// Whether a sync of the names beside the segments has failed.
    root_sync_failed: Arc<AtomicBool>,
    handles: Arc<Handles>,
}

impl ArchiveDirectory {
    pub(crate) fn new(disk: Arc<dyn Disk>, root: &Path) -> Self {
        Self {
            disk,
            root: root.into(),
            replaced: Arc::default(),
            root_sync_failed: Arc::default(),
            handles: Arc::default(),
        }
    }

    /// Another directory on the same disk.
    pub(crate) fn elsewhere(&self, root: &Path) -> Self {
        Self::new(Arc::clone(&self.disk), root)
    }

    /// Tells readers of segments to open their files anew.
    pub(crate) fn note_replaced(&self) {
        self.replaced.fetch_add(1, Ordering::Release);
    }

    /// Changes whenever a reader of segments must open its file anew.
    pub(crate) fn generation(&self) -> u64 {
        self.replaced.load(Ordering::Acquire)
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The path of a file beside the segments.
    pub(crate) fn path(&self, name: impl Display) -> PathBuf {
        self.root.join(name.to_string())
    }

    /// The path of our own subdirectory.
    pub(crate) fn own_directory(&self) -> PathBuf {
        self.root.join(OWN_DIRECTORY)
    }

    /// The path of something that is ours.
    pub(crate) fn own(&self, place: Place) -> PathBuf {
        self.root.join(OWN_DIRECTORY).join(place.name())
    }

    /// The path of a file in one of our directories.
    pub(crate) fn own_file(&self, place: Place, name: impl Display) -> PathBuf {
        self.own(place).join(name.to_string())
    }

    /// Makes our subdirectory and what is always in it, durably, unless it is there.
    pub(crate) fn create_own(&self) -> Result<(), DiskError> {
        let own = self.root.join(OWN_DIRECTORY);
        self.end_renaming()?;
        let is_new = self.create_directory(&own)?;
        let mut new = Vec::new();
        for place in Place::DIRECTORIES {
            let path = self.own(place);
            if self.create_directory(&path)? {
                new.push(path);
            }
        }
        let spare = self.own(Place::SpareMarker);
        match self.create_empty(spare.clone()) {
            Ok(true) => new.push(spare),
            Err(error) if !error.is_disk_full() => return Err(error),
            Ok(false) | Err(_) => {}
        }
        // Who starts next finds these names, and a sync of theirs succeeds without them. What is
        // older is not touched: another process may work with it.
        self.sync(&own).inspect_err(|_| {
            for path in &new {
                drop(self.rewrite_name(path));
            }
        })?;
        self.sync(&self.root).inspect_err(|_| {
            if is_new {
                drop(self.rewrite_name(&own));
            }
        })
    }

    /// Gives everything that is ours the access that the disk was set to.
    pub(crate) fn apply_access(&self) -> Result<(), DiskError> {
        let mut paths = vec![self.root.join(OWN_DIRECTORY), self.own(Place::StreamLock)];
        paths.extend(Place::DIRECTORIES.map(|place| self.own(place)));
        paths.push(self.own(Place::SpareMarker));
        for path in paths {
            match self.disk.apply_access(&path) {
                // There need be no spare marker.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result.map_err(DiskError::at(Operation::SetPermissions, path))?,
            }
        }
        Ok(())
    }

    /// `false` when it was there already.
    fn create_directory(&self, path: &Path) -> Result<bool, DiskError> {
        match self.disk.create_directory(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(DiskError::at(Operation::Create, path)(error)),
        }
    }

    /// `false` when it was there already.
    fn create_empty(&self, path: PathBuf) -> Result<bool, DiskError> {
        match self.open(path, OpenMode::CreateNew) {
            Ok(file) => file.sync_data().map(|()| true),
            Err(error) if error.source.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn open(&self, path: PathBuf, mode: OpenMode) -> Result<NamedFile, DiskError> {
        NamedFile::open(self.disk(), path, mode)
    }

    pub(crate) fn list(&self, path: &Path) -> Result<Vec<DirectoryEntry>, DiskError> {
        self.disk
            .list(path)
            .map_err(DiskError::at(Operation::List, path))
    }

    /// Makes the names in a directory durable. Beside the segments a sync that failed is final:
    /// several threads give names there, and whoever syncs next would succeed without those of the
    /// others that the failed one was to cover. A directory that cannot be opened is another error
    /// than one that cannot be synced, and none of what is durable.
    pub(crate) fn sync(&self, path: &Path) -> Result<(), DiskError> {
        let is_root = path == &*self.root;
        let synced = if is_root && self.root_sync_failed.load(Ordering::Acquire) {
            Err(io::Error::other("a sync of it has failed before"))
        } else {
            self.handle(path)?.sync()
        };
        if is_root && synced.is_err() {
            self.root_sync_failed.store(true, Ordering::Release);
        }
        synced.map_err(DiskError::at(Operation::Sync, path))
    }

    /// Makes the names beside the segments durable.
    pub(crate) fn sync_root(&self) -> Result<(), DiskError> {
        self.sync(&self.root)
    }

    /// Removes a name; durable with the next sync of its directory.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.remove_if_exists(path).map(drop)
    }

    /// The same; whether it was there.
    pub(crate) fn remove_if_exists(&self, path: &Path) -> Result<bool, DiskError> {
        match self.disk.remove(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(DiskError::at(Operation::Remove, path)(error)),
        }
    }

    /// Gives a file another name in this archive; durable with the next sync of the directory it
    /// goes to.
    pub(crate) fn rename_unsynced(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        let renamed = self.disk.rename(from, to);
        renamed.map_err(DiskError::at(Operation::Rename, from))
    }

    /// Gives a file, whose bytes were synced, another name in this archive, and makes that
    /// durable: first where it goes, so that at no moment the file has no name.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.disk
            .rename(from, to)
            .map_err(DiskError::at(Operation::Rename, from))?;
        let (source, target) = (from.parent(), to.parent());
        if let Some(target) = target {
            self.sync(target)
                .inspect_err(|_| drop(self.rewrite_name(to)))?;
        }
        match source {
            Some(source) if Some(source) != target => self.sync(source),
            _ => Ok(()),
        }
    }

    /// Creates an empty file for something unfinished; what a crash left there is removed.
    pub(crate) fn create_temporary(&self, name: impl Display) -> Result<NamedFile, DiskError> {
        let path = self.own_file(Place::Temporary, name);
        self.remove(&path)?;
        self.open(path, OpenMode::CreateNew)
    }

    /// Gives a finished temporary file its name, after a sync of its bytes.
    pub(crate) fn finish_temporary(&self, file: &NamedFile, to: &Path) -> Result<(), DiskError> {
        file.sync_data()?;
        // The temporary directory is not synced: what reappears there is removed on opening.
        self.disk
            .rename(file.path(), to)
            .map_err(DiskError::at(Operation::Rename, file.path()))?;
        to.parent()
            .map_or(Ok(()), |directory| self.sync(directory))
            .inspect_err(|_| drop(self.rewrite_name(to)))
    }

    /// Puts a small file at `path`, whole or not at all, in the place of what is there.
    pub(crate) fn replace(&self, path: &Path, content: &[u8]) -> Result<(), DiskError> {
        let name = path.file_name().unwrap_or(OsStr::new("file"));
        let file = self.create_temporary(name.display())?;
        file.write_at(&[IoSlice::new(content)], 0)?;
        self.finish_temporary(&file, path)
    }

    /// The same for a process that does not stream into the archive: the one that does empties the
    /// temporary directory whenever it likes. The name of the unfinished file adds [`UNFINISHED`].
    pub(crate) fn replace_beside(&self, path: &Path, content: &[u8]) -> Result<(), DiskError> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(UNFINISHED);
        let unfinished = PathBuf::from(unfinished);
        self.remove(&unfinished)?;
        let file = self.open(unfinished.clone(), OpenMode::CreateNew)?;
        file.write_at(&[IoSlice::new(content)], 0)?;
        file.sync_data()?;
        self.rename(&unfinished, path)
    }

    /// Reads a small file whole, `None` when there is none.
    pub(crate) fn read(&self, path: &Path, limit: usize) -> Result<Option<Vec<u8>>, ArchiveError> {
        let file = NamedFile::open_if_exists(self.disk(), path.to_owned(), OpenMode::Read)?;
        let Some(file) = file else {
            return Ok(None);
        };
        let too_long = || ArchiveError::Damaged {
            path: path.to_owned(),
            reason: Damage::TooLong {
                limit: limit as u64,
            },
        };
        let length = usize::try_from(file.length()?).ok();
        let length = length
            .filter(|length| *length <= limit)
            .ok_or_else(too_long)?;
        let mut content = vec![0; length];
        let count = file.read_full_at(&mut content, 0)?;
        content.truncate(count);
        Ok(Some(content))
    }

    /// Removes what a crash left unfinished.
    pub(crate) fn empty_temporary(&self) -> Result<(), DiskError> {
        let directory = self.own(Place::Temporary);
        for entry in self.list(&directory)? {
            if entry.is_file {
                self.remove(&directory.join(entry.name))?;
            }
        }
        Ok(())
    }

    /// Moves a bad file out of the way, durably, and returns where it went. No file in the
    /// quarantine is ever overwritten.
    pub(crate) fn quarantine(&self, path: &Path) -> Result<PathBuf, DiskError> {
        let directory = self.own(Place::Quarantine);
        let taken = self.list(&directory)?;
        let name = path.file_name().unwrap_or(OsStr::new("file"));
        // One more candidate than there are files: one of them is free.
        let to = (1..=taken.len() + 1)
            .map(|number| {
                let mut candidate = name.to_owned();
                candidate.push(format!(".{number}"));
                candidate
            })
            .find(|candidate| taken.iter().all(|entry| entry.name != *candidate))
            .map_or_else(
                || directory.join(name),
                |candidate| directory.join(candidate),
            );
        self.rename(path, &to)?;
        Ok(to)
    }
}
