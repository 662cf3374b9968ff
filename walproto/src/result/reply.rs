//! The replies to the commands about a server, its timelines and its slots.

use bytes::Bytes;

use super::table::{Row, table, value};
use super::{DataType, Reply, ResultError, ResultSet};
use crate::{Lsn, ServerVersion, SystemId, TimelineId};

/// The reply to `IDENTIFY_SYSTEM`.
///
/// Source: src/backend/replication/walsender.c, `IdentifySystem` (PG 15).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdentifySystem {
    /// The cluster's system identifier.
    pub system_id: SystemId,
    /// The timeline that the server writes, or on a standby replays.
    pub timeline: TimelineId,
    /// The end of the WAL that is durable on the server, on `timeline`.
    pub xlogpos: Lsn,
    /// The database of the connection, none for a physical one.
    pub dbname: Option<String>,
}

impl IdentifySystem {
    /// Reads a reply.
    ///
    /// # Errors
    /// When the table is no such reply.
    pub fn decode(result: &ResultSet) -> Result<Self, ResultError> {
        let mut row = Row::only(result, Reply::IdentifySystem, 4)?;
        Ok(Self {
            system_id: row.required("systemid", "a decimal number", |text| text.parse().ok())?,
            timeline: row.timeline("timeline")?,
            xlogpos: row.lsn("xlogpos")?,
            dbname: row.optional_text("dbname")?.map(str::to_owned),
        })
    }

    /// The reply as a server of this version sends it.
    #[must_use]
    pub fn encode(&self, server: ServerVersion) -> ResultSet {
        let number = self.timeline.number();
        let (timeline_type, timeline) = if server < ServerVersion::V16 {
            (DataType::INT4, value(number.cast_signed()))
        } else {
            (DataType::INT8, value(number))
        };
        table(
            [
                ("systemid", DataType::TEXT),
                ("timeline", timeline_type),
                ("xlogpos", DataType::TEXT),
                ("dbname", DataType::TEXT),
            ],
            [[
                value(self.system_id),
                timeline,
                value(self.xlogpos),
                self.dbname.as_ref().and_then(value),
            ]],
        )
    }
}

/// The reply to `READ_REPLICATION_SLOT` about a slot that exists.
///
/// Source: src/backend/replication/walsender.c, `ReadReplicationSlot` (PG 15).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotInfo {
    /// What the slot is for. Servers answer for physical slots only, and for others with an
    /// error.
    pub slot_type: SlotType,
    /// The oldest position whose WAL the slot keeps, none for a slot that keeps nothing: one
    /// that reserved nothing and was never used, or one that was lost.
    pub restart_lsn: Option<Lsn>,
    /// The timeline of `restart_lsn` in the server's history.
    pub restart_tli: Option<TimelineId>,
}

/// What a replication slot is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotType {
    /// A stream of WAL.
    Physical,
    /// A stream of what an output plugin makes of the WAL.
    Logical,
}

impl SlotType {
    const fn name(self) -> &'static str {
        match self {
            Self::Physical => "physical",
            Self::Logical => "logical",
        }
    }
}

impl SlotInfo {
    /// Reads a reply, `None` if the server has no slot of the name.
    ///
    /// # Errors
    /// When the table is no such reply.
    pub fn decode(result: &ResultSet) -> Result<Option<Self>, ResultError> {
        let mut row = Row::only(result, Reply::ReadReplicationSlot, 3)?;
        let slot_type = row.optional("slot_type", "physical or logical", |text| match text {
            "physical" => Some(SlotType::Physical),
            "logical" => Some(SlotType::Logical),
            _ => None,
        })?;
        let Some(slot_type) = slot_type else {
            return Ok(None);
        };
        Ok(Some(Self {
            slot_type,
            restart_lsn: row.optional_lsn("restart_lsn")?,
            restart_tli: row.optional_timeline("restart_tli")?,
        }))
    }

    /// The reply as servers send it, for a slot or for none of the name.
    #[must_use]
    pub fn encode(slot: Option<&Self>) -> ResultSet {
        table(
            [
                ("slot_type", DataType::TEXT),
                ("restart_lsn", DataType::TEXT),
                ("restart_tli", DataType::INT8),
            ],
            [[
                slot.and_then(|slot| value(slot.slot_type.name())),
                slot.and_then(|slot| slot.restart_lsn).and_then(value),
                slot.and_then(|slot| slot.restart_tli).and_then(value),
            ]],
        )
    }
}

/// The reply to `CREATE_REPLICATION_SLOT`.
///
/// Source: src/backend/replication/walsender.c, `CreateReplicationSlot` (PG 15).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreatedSlot {
    /// The name of the slot.
    pub slot_name: String,
    /// Where a logical slot begins; `0/0` for a physical one, also if it reserves WAL.
    pub consistent_point: Lsn,
    /// The snapshot of a logical slot, if it is exported.
    pub snapshot_name: Option<String>,
    /// The output plugin of a logical slot.
    pub output_plugin: Option<String>,
}

impl CreatedSlot {
    /// Reads a reply.
    ///
    /// # Errors
    /// When the table is no such reply.
    pub fn decode(result: &ResultSet) -> Result<Self, ResultError> {
        let mut row = Row::only(result, Reply::CreateReplicationSlot, 4)?;
        Ok(Self {
            slot_name: row.text("slot_name")?.to_owned(),
            consistent_point: row.lsn("consistent_point")?,
            snapshot_name: row.optional_text("snapshot_name")?.map(str::to_owned),
            output_plugin: row.optional_text("output_plugin")?.map(str::to_owned),
        })
    }

    /// The reply as servers send it.
    #[must_use]
    pub fn encode(&self) -> ResultSet {
        table(
            [
                ("slot_name", DataType::TEXT),
                ("consistent_point", DataType::TEXT),
                ("snapshot_name", DataType::TEXT),
                ("output_plugin", DataType::TEXT),
            ],
            [[
                value(&self.slot_name),
                value(self.consistent_point),
                self.snapshot_name.as_ref().and_then(value),
                self.output_plugin.as_ref().and_then(value),
            ]],
        )
    }
}

/// The reply to `TIMELINE_HISTORY`.
///
/// Source: src/backend/replication/walsender.c, `SendTimeLineHistory` (PG 15).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimelineHistoryFile {
    /// The name of the file, as in `00000002.history`.
    pub file_name: String,
    /// The file as it is on the server's disk, under either of the types that servers give it:
    /// nothing is escaped, also where the type is `bytea`.
    pub content: Bytes,
}

impl TimelineHistoryFile {
    /// Reads a reply.
    ///
    /// # Errors
    /// When the table is no such reply.
    pub fn decode(result: &ResultSet) -> Result<Self, ResultError> {
        let mut row = Row::only(result, Reply::TimelineHistory, 2)?;
        Ok(Self {
            file_name: row.text("filename")?.to_owned(),
            content: row.bytes("content")?,
        })
    }

    /// The reply as a server of this version sends it.
    #[must_use]
    pub fn encode(&self, server: ServerVersion) -> ResultSet {
        let content_type = if server < ServerVersion::V14 {
            DataType::BYTEA
        } else {
            DataType::TEXT
        };
        table(
            [("filename", DataType::TEXT), ("content", content_type)],
            [[value(&self.file_name), Some(self.content.clone())]],
        )
    }
}

/// What `START_REPLICATION` of a historic timeline ends with, or, if it starts at the end of
/// one, is answered with at once.
///
/// Source: src/backend/replication/walsender.c, `StartReplication` (PG 15).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimelineEnd {
    /// The timeline that follows on the way to the server's own. It need not be the next
    /// number.
    pub next_timeline: TimelineId,
    /// Where it begins. This can lie before what was already sent.
    pub switch_point: Lsn,
}

impl TimelineEnd {
    /// Whether the reply names no timeline that follows: `next_tli` is 0. A cascading walsender
    /// answers so that finds its server promoted and looks for the successor of the newest timeline.
    ///
    /// Source: src/backend/replication/walsender.c, `XLogSendPhysical`; src/backend/access/transam/
    /// timeline.c, `tliSwitchPoint` (PG 15).
    #[must_use]
    pub fn has_no_successor(result: &ResultSet) -> bool {
        let next = result.rows().first().and_then(|row| row.first());
        next.is_some_and(|value| value.as_deref() == Some(b"0"))
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// When the table is no such reply.
    pub fn decode(result: &ResultSet) -> Result<Self, ResultError> {
        let mut row = Row::only(result, Reply::StartReplication, 2)?;
        Ok(Self {
            next_timeline: row.timeline("next_tli")?,
            switch_point: row.lsn("next_tli_startpos")?,
        })
    }

    /// The reply as servers send it.
    #[must_use]
    pub fn encode(&self) -> ResultSet {
        table(
            [
                ("next_tli", DataType::INT8),
                ("next_tli_startpos", DataType::TEXT),
            ],
            [[value(self.next_timeline), value(self.switch_point)]],
        )
    }
}
