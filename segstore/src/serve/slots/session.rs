//! Who uses slots.

use std::collections::btree_map::Entry as MapEntry;

use walproto::copy_data::EpochXid;
use walproto::{Lsn, SlotName, TimelineId, WalPosition};

use super::{Entry, Slot, SlotData, SlotError, SlotStore, State, Stored, WalStatus};

/// `FirstNormalTransactionId`: what is less is no transaction's.
const FIRST_NORMAL_XID: u32 = 3;

/// A connection, which may create, use and drop slots. Its temporary ones end with it.
#[derive(Debug)]
pub struct SlotSession {
    store: SlotStore,
    pid: i32,
}

/// What a new slot is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NewSlot {
    /// Whether it ends with the session, which alone may use it (`TEMPORARY`).
    pub temporary: bool,
    /// Whether it keeps WAL from the durable end on, at once (`RESERVE_WAL`). Otherwise it does
    /// from the first position on that a standby reports.
    pub reserve_wal: bool,
}

/// A slot that a session uses, until this is dropped.
#[derive(Debug)]
pub struct HeldSlot {
    store: SlotStore,
    name: SlotName,
}

impl SlotSession {
    pub(super) const fn new(store: SlotStore, pid: i32) -> Self {
        Self { store, pid }
    }

    /// Creates a slot, durably. It writes to the disk.
    ///
    /// # Errors
    /// When there is one of the name or there are too many, there is no WAL to be kept, or the
    /// disk refuses. Then there is no such slot, but on a disk that failed to sync there may be
    /// one after a crash.
    pub fn create(&self, name: &SlotName, new: NewSlot) -> Result<Slot, SlotError> {
        let store = &self.store;
        let _writing = store.writing();
        let _removal = new.reserve_wal.then(|| store.removal()).transpose()?;
        store.find_oldest()?;
        let data = SlotData {
            restart: new.reserve_wal.then(|| self.reserve(name)).transpose()?,
            ..SlotData::default()
        };
        {
            // Seen by removal before it is durable, and by nobody else until then.
            let mut state = store.state();
            let limit = store.shared.limits.max_slots;
            let full = state.slots.len() >= limit;
            match state.slots.entry(name.clone()) {
                MapEntry::Occupied(_) => return Err(SlotError::Exists { name: name.clone() }),
                MapEntry::Vacant(_) if full => return Err(SlotError::TooMany { limit }),
                MapEntry::Vacant(place) => place.insert(Entry {
                    temporary: new.temporary,
                    active_pid: Some(self.pid),
                    data,
                    saved: None,
                }),
            };
        }
        let temporary = new.temporary;
        if let Err(error) = store.shared.files.write(name, &Stored { temporary, data }) {
            // The error that matters is the first one.
            drop(store.shared.files.remove(name));
            store.state().slots.remove(name);
            return Err(error.into());
        }
        let mut state = store.state();
        state.ended.remove(name);
        if let Some(entry) = state.slots.get_mut(name) {
            if !temporary {
                entry.active_pid = None;
            }
            entry.saved = Some(data);
        }
        let created = state.slots.get(name);
        created
            .map(|entry| store.describe(&state, name, entry))
            .ok_or_else(|| SlotError::NotFound { name: name.clone() })
    }

    fn reserve(&self, name: &SlotName) -> Result<WalPosition, SlotError> {
        let durable = self.store.shared.view.durable();
        let durable = durable.ok_or_else(|| SlotError::NothingDurable { name: name.clone() })?;
        // Another process may have heard of more WAL than this one, and removed what is older.
        let oldest = self.store.state().oldest;
        let oldest = oldest.and_then(|oldest| oldest.start(self.store.size()));
        Ok(WalPosition {
            timeline: durable.timeline,
            lsn: durable.record_end.max(oldest.unwrap_or(Lsn::INVALID)),
        })
    }

    /// Takes a slot for this session.
    ///
    /// # Errors
    /// When there is none of the name, another session has it, or it is lost.
    pub fn acquire(&self, name: &SlotName) -> Result<HeldSlot, SlotError> {
        self.store.find_oldest()?;
        let mut state = self.store.state();
        let entry = state.slots.get(name);
        let entry = entry.ok_or_else(|| SlotError::NotFound { name: name.clone() })?;
        self.check_free(name, entry)?;
        if self.store.is_lost(&state, entry) {
            return Err(lost(name, entry));
        }
        if let Some(entry) = state.slots.get_mut(name) {
            entry.active_pid = Some(self.pid);
        }
        Ok(HeldSlot {
            store: self.store.clone(),
            name: name.clone(),
        })
    }

    /// Only a temporary slot is this session's own without being used.
    fn check_free(&self, name: &SlotName, entry: &Entry) -> Result<(), SlotError> {
        match entry.active_pid {
            Some(pid) if pid != self.pid || !entry.temporary => Err(SlotError::Active {
                name: name.clone(),
                pid,
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Drops a slot, durably. It writes to the disk.
    ///
    /// # Errors
    /// When there is none of the name, a session has it
    /// ([`on_release`](SlotStore::on_release) tells when to try again), or the disk refuses: then
    /// it may be there again after a crash.
    pub fn drop_slot(&self, name: &SlotName) -> Result<(), SlotError> {
        let store = &self.store;
        let _writing = store.writing();
        {
            let mut state = store.state();
            let entry = state.slots.get_mut(name);
            let entry = entry.ok_or_else(|| SlotError::NotFound { name: name.clone() })?;
            self.check_free(name, entry)?;
            entry.active_pid = Some(self.pid);
        }
        let removed = store.shared.files.remove(name);
        {
            let mut state = store.state();
            match (&removed, state.slots.get_mut(name)) {
                (Err(_), Some(entry)) => {
                    if !entry.temporary {
                        entry.active_pid = None;
                    }
                    // Whether it still has a file nobody knows.
                    entry.saved = None;
                }
                _ => drop(state.slots.remove(name)),
            }
        }
        store.shared.released.notify();
        Ok(removed?)
    }
}

impl Drop for SlotSession {
    fn drop(&mut self) {
        let mut state = self.store.state();
        let State { slots, ended, .. } = &mut *state;
        let before = slots.len();
        slots.retain(|name, entry| {
            let ends = entry.temporary && entry.active_pid == Some(self.pid);
            if ends {
                ended.insert(name.clone());
            }
            !ends
        });
        let dropped = slots.len() < before;
        drop(state);
        if dropped {
            self.store.shared.released.notify();
        }
    }
}

impl HeldSlot {
    /// The slot's name.
    #[must_use]
    pub const fn name(&self) -> &SlotName {
        &self.name
    }

    /// Takes the position that the standby reported as flushed, up to which it needs no WAL any
    /// more. It may be an earlier one than before, but not one that has been removed: that nobody
    /// can keep, and the client is about to be told so. It does not touch the disk.
    ///
    /// # Errors
    /// When WAL that the slot was to keep has been removed: who used it has to end.
    ///
    /// Source: src/backend/replication/walsender.c, `PhysicalConfirmReceivedLocation` (PG 15).
    pub fn advance(&self, timeline: TimelineId, lsn: Lsn) -> Result<(), SlotError> {
        let mut state = self.store.state();
        if let Some(entry) = state.slots.get(&self.name)
            && self.store.is_lost(&state, entry)
        {
            return Err(lost(&self.name, entry));
        }
        let position = WalPosition { timeline, lsn };
        if self.store.wal_status(&state, position) == WalStatus::Lost {
            return Ok(());
        }
        if let Some(entry) = state.slots.get_mut(&self.name) {
            entry.data.restart = Some(position);
        }
        Ok(())
    }

    /// Has the slot keep WAL from `start` on, durably, where a stream begins, if it keeps nothing
    /// from that segment on yet: nobody removes then what the client is about to be sent. What is
    /// removed already stays so, and the client is about to be told. It writes to the disk, but not
    /// for a standby that comes back: it begins at the start of the segment in which it was.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn set_back(&self, timeline: TimelineId, start: Lsn) -> Result<(), SlotError> {
        let store = &self.store;
        let position = WalPosition {
            timeline,
            lsn: start,
        };
        // Segments are removed whole; in another process, by what is saved.
        let is_kept = |data: SlotData| {
            let restart = data.restart.map(|restart| store.segment_of(restart));
            restart.is_some_and(|segment| segment <= store.segment_of(position))
        };
        let keeps = |entry: &Entry| is_kept(entry.data) && entry.saved.is_some_and(is_kept);
        if store.state().slots.get(&self.name).is_some_and(keeps) {
            return Ok(());
        }
        let _writing = store.writing();
        let _removal = store.removal()?;
        store.find_oldest()?;
        let stored = {
            let mut state = store.state();
            if store.wal_status(&state, position) == WalStatus::Lost {
                return Ok(());
            }
            let Some(entry) = state.slots.get_mut(&self.name) else {
                return Ok(());
            };
            // One that keeps more, and has not saved that, goes on to keep it.
            if !is_kept(entry.data) {
                entry.data.restart = Some(position);
            }
            entry.stored()
        };
        let written = store.shared.files.write(&self.name, &stored);
        if let Some(entry) = store.state().slots.get_mut(&self.name) {
            entry.saved = written.is_ok().then_some(stored.data);
        }
        Ok(written?)
    }

    /// Takes the oldest transactions that the standby needs. While there are any, they only
    /// advance. It does not touch the disk.
    ///
    /// Source: src/backend/replication/walsender.c, `PhysicalReplicationSlotNewXmin` (PG 15).
    pub fn set_xmin(&self, xmin: EpochXid, catalog_xmin: EpochXid) {
        let mut state = self.store.state();
        if let Some(entry) = state.slots.get_mut(&self.name) {
            let data = &mut entry.data;
            data.xmin = new_xmin(data.xmin, xmin);
            data.catalog_xmin = new_xmin(data.catalog_xmin, catalog_xmin);
        }
    }
}

impl Drop for HeldSlot {
    fn drop(&mut self) {
        let mut state = self.store.state();
        if let Some(entry) = state.slots.get_mut(&self.name)
            && !entry.temporary
        {
            entry.active_pid = None;
        }
        drop(state);
        self.store.shared.released.notify();
    }
}

fn new_xmin(current: Option<EpochXid>, told: EpochXid) -> Option<EpochXid> {
    let told = Some(told).filter(|told| told.xid >= FIRST_NORMAL_XID);
    match (current, told) {
        (Some(current), Some(told)) => Some(current.max(told)),
        (_, told) => told,
    }
}

fn lost(name: &SlotName, entry: &Entry) -> SlotError {
    let restart = entry.data.restart;
    SlotError::Lost {
        name: name.clone(),
        timeline: restart.map_or(TimelineId::FIRST, |restart| restart.timeline),
        lsn: restart.map_or(Lsn::INVALID, |restart| restart.lsn),
    }
}
