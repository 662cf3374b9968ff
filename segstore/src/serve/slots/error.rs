//! Why a slot is not had.

use walproto::{Lsn, SlotName, TimelineId};

use crate::error::ArchiveError;

/// Why a replication slot cannot be created, used or dropped. The messages are PostgreSQL's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SlotError {
    /// There is one of that name (SQLSTATE 42710).
    #[error("replication slot \"{name}\" already exists")]
    Exists {
        /// The name.
        name: SlotName,
    },

    /// There are as many as there may be (53400).
    #[error("all {limit} replication slots are in use; drop one, or allow more of them")]
    TooMany {
        /// How many there may be.
        limit: usize,
    },

    /// There is none of that name (42704).
    #[error("replication slot \"{name}\" does not exist")]
    NotFound {
        /// The name.
        name: SlotName,
    },

    /// Another session has it (55006).
    #[error("replication slot \"{name}\" is active for PID {pid}")]
    Active {
        /// The name.
        name: SlotName,
        /// The session's process number.
        pid: i32,
    },

    /// WAL that it was to keep has been removed (55000).
    ///
    /// Source: src/backend/replication/slot.c, `ReplicationSlotAcquire` (PG 18). Before 18 such a
    /// slot can be used as if nothing had happened.
    #[error(
        "can no longer access replication slot \"{name}\": WAL from {lsn} on timeline {timeline} on \
         has been removed; drop the slot"
    )]
    Lost {
        /// The name.
        name: SlotName,
        /// The timeline of what it was to keep.
        timeline: TimelineId,
        /// The first byte of it.
        lsn: Lsn,
    },

    /// It is to keep WAL, but there is none yet (55000).
    #[error("there is no WAL in this archive yet that replication slot \"{name}\" could keep")]
    NothingDurable {
        /// The name.
        name: SlotName,
    },

    /// The archive cannot be read or written.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}
