//! Physical replication slots: what those who stream from an archive still need of it.
//!
//! A slot is a small file in our own subdirectory. Creating and dropping one is durable when it
//! returns. A temporary one has a file too, so that other processes know what it keeps; the file
//! goes with the next save after its session, or when the slots are next opened. Where a slot
//! stands moves in memory with each report of a standby and is written now and
//! then ([`SlotStore::save`]); a crash leaves an older position, which only keeps more, since
//! nothing is removed that the file still asks for.
//!
//! One process at a time keeps the slots of an archive.
//!
//! Source: src/backend/replication/slot.c (PG 15).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use walproto::copy_data::EpochXid;
use walproto::{SegmentNumber, SegmentSize, SlotName, WalPosition};

use crate::archive::directory::Place;
use crate::archive::listeners::{Listeners, Subscription};
use crate::archive::lock::{ProcessLock, RemovalLock};
use crate::archive::missing::owner;
use crate::archive::position::{ArchivePosition, RemovedPosition};
use crate::error::ArchiveError;
use crate::serve::view::ArchiveView;

mod described;
mod error;
mod required;
mod session;
mod stored;
#[cfg(test)]
mod tests;

pub use described::{Slot, WalStatus};
pub use error::SlotError;
pub(crate) use required::required_by_files;
pub use session::{HeldSlot, NewSlot, SlotSession};
use stored::{SlotFiles, Stored};

/// The length in bytes of the nonce that [`SlotStore::mock_authentication_nonce`] keeps.
///
/// Source: src/include/catalog/pg_control.h, `MOCK_AUTH_NONCE_LEN` (PG 15).
pub const MOCK_NONCE_LENGTH: usize = 32;

/// What slots may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotLimits {
    /// How many there may be (`max_replication_slots`).
    pub max_slots: usize,
    /// How many bytes of WAL before the durable end they may keep from removal, in whole segments;
    /// `None` for any number (`max_slot_wal_keep_size`).
    pub max_keep_bytes: Option<u64>,
}

/// The replication slots of an archive, kept by this process alone. Clones are the same ones.
#[derive(Clone, Debug)]
pub struct SlotStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    view: ArchiveView,
    limits: SlotLimits,
    files: SlotFiles,
    state: Mutex<State>,
    /// Held while slots are written, so that what is written last is what is newest. Taken before
    /// `state`, which is never held during an access to the disk.
    writing: Mutex<()>,
    /// Held while segments are removed. Taken before `writing`.
    pruning: Mutex<()>,
    released: Arc<Listeners>,
    _lock: ProcessLock,
}

#[derive(Debug)]
struct State {
    slots: BTreeMap<SlotName, Entry>,
    /// Temporary slots that ended with their sessions, and whose files are still there.
    ended: BTreeSet<SlotName>,
    /// The first segment of those that lead to the durable end without a gap, `None` until
    /// something is durable.
    oldest: Option<SegmentNumber>,
}

#[derive(Debug)]
struct Entry {
    temporary: bool,
    active_pid: Option<i32>,
    data: SlotData,
    /// What its file holds, `None` when that is not known.
    saved: Option<SlotData>,
}

/// What is kept of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct SlotData {
    restart: Option<WalPosition>,
    xmin: Option<EpochXid>,
    catalog_xmin: Option<EpochXid>,
}

impl SlotStore {
    /// Takes over the slots of the archive of `view`.
    ///
    /// # Errors
    /// When another process has them, one is damaged, or the disk refuses.
    pub fn open(view: ArchiveView, limits: SlotLimits) -> Result<Self, ArchiveError> {
        let directory = view.files().directory();
        directory.disk().set_access(view.identity().access());
        directory.create_own()?;
        let lock = ProcessLock::to_keep_slots(directory)?;
        let files = SlotFiles::new(directory.clone());
        let slots = files.load()?.into_iter().map(|(name, data)| {
            let entry = Entry {
                temporary: false,
                active_pid: None,
                data,
                saved: Some(data),
            };
            (name, entry)
        });
        let state = State {
            slots: slots.collect(),
            ended: BTreeSet::new(),
            oldest: None,
        };
        let shared = Shared {
            view,
            limits,
            files,
            state: Mutex::new(state),
            writing: Mutex::new(()),
            pruning: Mutex::new(()),
            released: Arc::default(),
            _lock: lock,
        };
        let this = Self {
            shared: Arc::new(shared),
        };
        this.find_oldest()?;
        Ok(this)
    }

    /// The archive that the slots are of.
    #[must_use]
    pub fn view(&self) -> &ArchiveView {
        &self.shared.view
    }

    /// What slots may take.
    #[must_use]
    pub fn limits(&self) -> SlotLimits {
        self.shared.limits
    }

    /// The archive's nonce, of which a server makes what it tells users who do not exist
    /// (`mock_authentication_nonce` of `pg_control`): the same for as long as the archive lives.
    /// `random`, which nobody can guess, becomes it if there is none yet.
    ///
    /// # Errors
    /// When it can be neither read nor kept.
    pub fn mock_authentication_nonce(
        &self,
        random: [u8; MOCK_NONCE_LENGTH],
    ) -> Result<[u8; MOCK_NONCE_LENGTH], ArchiveError> {
        let directory = self.shared.view.files().directory();
        let path = directory.own(Place::MockNonce);
        let kept = directory.read(&path, MOCK_NONCE_LENGTH)?;
        if let Some(kept) = kept.and_then(|kept| kept.try_into().ok()) {
            return Ok(kept);
        }
        directory.replace_beside(&path, &random)?;
        Ok(random)
    }

    /// A session under the process number `pid`, which no other session has.
    #[must_use]
    pub fn session(&self, pid: i32) -> SlotSession {
        SlotSession::new(self.clone(), pid)
    }

    /// A slot, `None` when there is none of that name.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn get(&self, name: &SlotName) -> Result<Option<Slot>, ArchiveError> {
        self.find_oldest()?;
        let state = self.state();
        let entry = state.slots.get(name);
        Ok(entry.map(|entry| self.describe(&state, name, entry)))
    }

    /// All slots, in the order of their names.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn list(&self) -> Result<Vec<Slot>, ArchiveError> {
        self.find_oldest()?;
        let state = self.state();
        let slots = state.slots.iter();
        Ok(slots
            .map(|(name, entry)| self.describe(&state, name, entry))
            .collect())
    }

    /// Has `callback` called whenever a slot was released or dropped, for who waits for one. It is
    /// called by the thread that did so and must not block.
    pub fn on_release(&self, callback: impl Fn() + Send + Sync + 'static) -> Subscription {
        self.shared.released.subscribe(Arc::new(callback))
    }

    /// Makes durable where the slots stand. To be called now and then while they move, and at the
    /// end.
    ///
    /// # Errors
    /// When the disk refuses for one of them: then it is written with the next call.
    pub fn save(&self) -> Result<(), ArchiveError> {
        let _writing = self.writing();
        let (dirty, ended): (Vec<_>, _) = {
            let state = self.state();
            let slots = state.slots.iter();
            let dirty = slots
                .filter(|(_, entry)| entry.saved != Some(entry.data))
                .map(|(name, entry)| (name.clone(), entry.stored()))
                .collect();
            (dirty, state.ended.clone())
        };
        let mut result = Ok(());
        for (name, stored) in dirty {
            let saved = self.shared.files.write(&name, &stored);
            let mut state = self.state();
            // One that has ended meanwhile is removed next time.
            if let Some(entry) = state.slots.get_mut(&name)
                && saved.is_ok()
            {
                entry.saved = Some(stored.data);
            }
            drop(state);
            result = result.and(saved);
        }
        for name in ended {
            let removed = self.shared.files.remove(&name);
            if removed.is_ok() {
                self.state().ended.remove(&name);
            }
            result = result.and(removed);
        }
        result
    }

    /// Held by who has a slot keep earlier WAL than before. Taken after `writing`.
    fn removal(&self) -> Result<RemovalLock, ArchiveError> {
        RemovalLock::take(self.shared.view.files().directory())
    }

    /// The segment of the durable end.
    fn tip(&self) -> Option<SegmentNumber> {
        let durable = self.shared.view.durable()?;
        Some(self.size().segment_of(durable.record_end))
    }

    fn size(&self) -> SegmentSize {
        self.shared.view.files().size()
    }

    fn segment_of(&self, position: WalPosition) -> SegmentNumber {
        self.size().segment_of(position.lsn)
    }

    /// How many segments before the last one slots may keep.
    ///
    /// Source: src/backend/access/transam/xlog.c, `ConvertToXSegs` (PG 15).
    fn segments_to_keep(&self) -> Option<u64> {
        let bytes = self.shared.limits.max_keep_bytes?;
        Some(bytes / self.size().bytes())
    }

    /// Looks where the archive's WAL begins: once, and then for what another process tells of.
    pub(crate) fn find_oldest(&self) -> Result<(), ArchiveError> {
        if self.state().oldest.is_none() {
            let Some(durable) = self.shared.view.durable() else {
                return Ok(());
            };
            let oldest = oldest_segment(&self.shared.view, durable)?;
            self.state().oldest.get_or_insert(oldest);
        }
        // After that look, for what was removed during it.
        let directory = self.shared.view.files().directory();
        if let Some(left) = RemovedPosition::read(directory)? {
            let mut state = self.state();
            state.oldest = state.oldest.max(Some(self.size().segment_of(left)));
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one step.
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.shared
            .writing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    const fn stored(&self) -> Stored {
        Stored {
            temporary: self.temporary,
            data: self.data,
        }
    }
}

/// The first segment of those that lead to the durable end without a gap.
fn oldest_segment(
    view: &ArchiveView,
    durable: ArchivePosition,
) -> Result<SegmentNumber, ArchiveError> {
    let size = view.files().size();
    let path = view.history_of(durable.timeline)?;
    let listing = view.settled_listing()?;
    let numbers: BTreeSet<_> = listing
        .segments()
        .filter_map(|(file, _)| {
            let number = file.name.number(size)?;
            (owner(&path, number, size) == file.name.timeline()).then_some(number)
        })
        .collect();
    let mut oldest = size.segment_of(durable.record_end);
    while let Some(before) = oldest.0.checked_sub(1).map(SegmentNumber)
        && numbers.contains(&before)
    {
        oldest = before;
    }
    Ok(oldest)
}
