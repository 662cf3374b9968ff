//! How a slot stands.

use walproto::SlotName;
use walproto::copy_data::EpochXid;
use walproto::{SegmentNumber, WalPosition};

use super::{Entry, SlotStore, State};

/// A slot as it is at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Its name.
    pub name: SlotName,
    /// Whether it ends with the session that created it.
    pub temporary: bool,
    /// The process number of the session that has it, `None` when nobody has.
    pub active_pid: Option<i32>,
    /// From where on it is to keep WAL, `None` when it is not to keep any.
    pub restart: Option<WalPosition>,
    /// The oldest transaction that its standby needs, of no meaning once its WAL is lost.
    pub xmin: Option<EpochXid>,
    /// The same for the system catalogues.
    pub catalog_xmin: Option<EpochXid>,
    /// Whether what it keeps is there, `None` when it keeps nothing.
    pub wal_status: Option<WalStatus>,
    /// How many more bytes of WAL may be written before its WAL may be removed; negative when it
    /// may be already. `None` when there is no limit, or nothing to remove.
    pub safe_wal_size: Option<i64>,
}

/// Whether the WAL that a slot is to keep is there, as `pg_replication_slots` says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalStatus {
    /// It is, and is kept.
    Reserved,
    /// It is more than a slot may keep, and may be removed.
    Unreserved,
    /// Some of it has been removed.
    Lost,
}

impl WalStatus {
    /// PostgreSQL's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Unreserved => "unreserved",
            Self::Lost => "lost",
        }
    }
}

impl SlotStore {
    pub(super) fn describe(&self, state: &State, name: &SlotName, entry: &Entry) -> Slot {
        let data = entry.data;
        let wal_status = data.restart.map(|restart| self.wal_status(state, restart));
        let safe = data.restart.filter(|_| wal_status != Some(WalStatus::Lost));
        Slot {
            name: name.clone(),
            temporary: entry.temporary,
            active_pid: entry.active_pid,
            restart: data.restart,
            xmin: data.xmin,
            catalog_xmin: data.catalog_xmin,
            wal_status,
            safe_wal_size: safe.and_then(|restart| self.safe_wal_size(restart)),
        }
    }

    /// Source: src/backend/access/transam/xlog.c, `GetWALAvailability` (PG 15).
    pub(super) fn wal_status(&self, state: &State, restart: WalPosition) -> WalStatus {
        let segment = self.segment_of(restart);
        if state.oldest.is_some_and(|oldest| segment < oldest) {
            return WalStatus::Lost;
        }
        match (self.segments_to_keep(), self.tip()) {
            (Some(keep), Some(tip)) if tip.0.saturating_sub(segment.0) > keep => {
                WalStatus::Unreserved
            }
            _ => WalStatus::Reserved,
        }
    }

    /// Source: src/backend/replication/slotfuncs.c, `pg_get_replication_slots` (PG 15).
    fn safe_wal_size(&self, restart: WalPosition) -> Option<i64> {
        let keep = self.segments_to_keep()?;
        let durable = self.shared.view.durable()?;
        let segments = self
            .segment_of(restart)
            .0
            .checked_add(keep)?
            .checked_add(1)?;
        let end = SegmentNumber(segments).start(self.size())?;
        let left = i128::from(end.0) - i128::from(durable.record_end.0);
        i64::try_from(left).ok()
    }

    pub(super) fn is_lost(&self, state: &State, entry: &Entry) -> bool {
        let restart = entry.data.restart;
        restart.is_some_and(|restart| self.wal_status(state, restart) == WalStatus::Lost)
    }
}
