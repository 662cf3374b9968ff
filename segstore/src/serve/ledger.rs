//! How far the files that this process gives WAL from are checked.
//!
//! Every file is checked once in a process, as it is first given, by whichever feed comes to it; the
//! others find here how far it is good.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use walproto::{Lsn, TimelineHistory};

use crate::archive::segment_reader::SegmentReader;
use crate::disk::named_file::NamedFile;
use crate::error::DiskError;
use crate::wal::segment::SegmentName;
use crate::wal::validator::Validator;

/// How many files are remembered, at half a kilobyte each; the first ones are forgotten, and checked
/// once more if they are asked for.
const MAX_FILES: usize = 4096;

/// How many growing files are remembered, each with its open handle: one at a time is written.
const MAX_GROWING: usize = 2;

/// How much is read at once.
pub(crate) const BLOCK: usize = 128 << 10;

/// What this process has checked of the segment files that it gives.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    known: Mutex<Known>,
    /// Blocks to read into, as many as there were checks at the same time.
    blocks: Mutex<Vec<Vec<u8>>>,
}

#[derive(Debug, Default)]
struct Known {
    files: BTreeMap<SegmentName, Arc<FileCheck>>,
    /// In the order in which they came.
    order: VecDeque<SegmentName>,
    /// Those that grew when they came, the newest [`MAX_GROWING`], in the order in which they came.
    growing: VecDeque<SegmentName>,
}

/// The state of the check of one file.
#[derive(Debug)]
pub(crate) struct FileCheck {
    name: SegmentName,
    id: Mutex<Option<FileId>>,
    /// Kept open as long as it grows, so that no new file has its number.
    growing: Mutex<Option<Arc<NamedFile>>>,
    /// Up to where it is good.
    good_end: AtomicU64,
    /// The state of the validator, which resumes at its position. Locked while the file is read.
    validator: Mutex<Validator>,
}

/// Which file it is, as long as this process has seen it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
    /// Its length and the time of its last change, unless it grows.
    content: Option<(i64, i64, i64)>,
}

impl FileId {
    /// `None` on a disk that has no such thing.
    pub(crate) fn of(reader: &SegmentReader) -> Result<Option<Self>, DiskError> {
        let Some(status) = reader.opened().status()? else {
            return Ok(None);
        };
        let grows = grows(reader);
        Ok(Some(Self {
            device: status.st_dev,
            inode: status.st_ino,
            content: (!grows).then(|| {
                (
                    status.st_size,
                    status.st_mtime,
                    i64::try_from(status.st_mtime_nsec).unwrap_or_default(),
                )
            }),
        }))
    }

    /// Whether a file that was seen before is this one. One that grew then may be complete now.
    fn was(self, before: Self) -> bool {
        (self.device, self.inode) == (before.device, before.inode)
            && before
                .content
                .is_none_or(|content| self.content == Some(content))
    }
}

impl Ledger {
    /// The check of a file that was seen before; `None` if the file is new or was replaced.
    pub(crate) fn get(&self, name: SegmentName, id: Option<FileId>) -> Option<Arc<FileCheck>> {
        let id = id?;
        let check = Arc::clone(lock(&self.known).files.get(&name)?);
        let mut known = lock(&check.id);
        let same = known.is_some_and(|known| id.was(known));
        if same {
            *known = Some(id);
            if id.content.is_some() {
                *lock(&check.growing) = None;
            }
        }
        drop(known);
        same.then_some(check)
    }

    /// Remembers a file that is checked by `validator` up to its position, and good up to `good_end`.
    pub(crate) fn insert(
        &self,
        reader: &SegmentReader,
        id: Option<FileId>,
        validator: Validator,
        good_end: Lsn,
    ) -> Arc<FileCheck> {
        let name = reader.file().name;
        let grows = grows(reader);
        let growing = grows.then(|| Arc::clone(reader.opened()));
        let check = Arc::new(FileCheck {
            name,
            id: Mutex::new(id),
            growing: Mutex::new(growing),
            good_end: AtomicU64::new(good_end.0),
            validator: Mutex::new(validator),
        });
        if id.is_some() {
            let mut known = lock(&self.known);
            if known.files.insert(name, Arc::clone(&check)).is_none() {
                known.order.push_back(name);
            }
            if known.order.len() > MAX_FILES
                && let Some(oldest) = known.order.pop_front()
            {
                known.files.remove(&oldest);
            }
            if grows {
                known.note_growing(name);
            }
        }
        check
    }

    /// Discards the check of a file. The next feed that opens the file checks it from its start.
    pub(crate) fn forget(&self, check: &Arc<FileCheck>) {
        let mut known = lock(&self.known);
        let is_known = known.files.get(&check.name);
        if is_known.is_some_and(|known| Arc::ptr_eq(known, check)) {
            known.remove(check.name);
        }
    }

    /// The validator at the end of a file, for the next file to continue with, if it has reached
    /// `end`.
    pub(crate) fn at_end(&self, name: SegmentName, end: Lsn) -> Option<Validator> {
        let check = Arc::clone(lock(&self.known).files.get(&name)?);
        let validator = match check.validator.try_lock() {
            Ok(validator) => validator,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // It is at work, and not at the end.
            Err(TryLockError::WouldBlock) => return None,
        };
        (validator.position() == end).then(|| validator.clone())
    }

    /// A block to read into, of [`BLOCK`] bytes.
    pub(crate) fn block(&self) -> Vec<u8> {
        lock(&self.blocks).pop().unwrap_or_else(|| vec![0; BLOCK])
    }

    pub(crate) fn put_back(&self, block: Vec<u8>) {
        lock(&self.blocks).push(block);
    }
}

impl Known {
    fn remove(&mut self, name: SegmentName) {
        self.files.remove(&name);
        self.order.retain(|other| *other != name);
        self.growing.retain(|other| *other != name);
    }

    /// Forgets older growing files. A client that continues from memory never opens the complete
    /// file, which would close the handle.
    fn note_growing(&mut self, name: SegmentName) {
        self.growing.retain(|other| *other != name);
        self.growing.push_back(name);
        while self.growing.len() > MAX_GROWING
            && let Some(oldest) = self.growing.pop_front()
        {
            let check = self.files.get(&oldest);
            if check.is_some_and(|check| lock(&check.growing).is_some()) {
                self.remove(oldest);
            }
        }
    }
}

impl FileCheck {
    /// Up to where the file's bytes are good.
    pub(crate) fn good_end(&self) -> Lsn {
        Lsn(self.good_end.load(Ordering::Acquire))
    }

    pub(crate) fn raise(&self, good_end: Lsn) {
        self.good_end.fetch_max(good_end.0, Ordering::AcqRel);
    }

    /// Locks the validator and switches it to the history `path`.
    pub(crate) fn validator(&self, path: &Arc<TimelineHistory>) -> MutexGuard<'_, Validator> {
        let mut validator = lock(&self.validator);
        if validator.history().timeline() != path.timeline() {
            *validator = validator.clone().onto(Arc::clone(path));
        }
        validator
    }
}

/// Whether the file may still grow. A compressed file is written once.
fn grows(reader: &SegmentReader) -> bool {
    reader.file().partial && reader.is_plain()
}

/// Up to where all that `validator` was given is good: the end of its last record, or after a
/// segment switch, of the last page.
pub(crate) fn good_end(validator: &Validator) -> Lsn {
    let progress = validator.progress();
    if progress.record_end <= progress.byte_end {
        progress.record_end
    } else {
        progress.page_end
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A check that panicked has changed nothing, or less than it has read.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
