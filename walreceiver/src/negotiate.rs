//! What is asked of a server before `START_REPLICATION`: who it is, whether it may be followed,
//! and from where.

use std::time::Duration;

use pgconn::connection::Connection;
use segstore::ServerFacts;
use walproto::command::{Command, Identifier};
use walproto::error::SqlState;
use walproto::result::{IdentifySystem, SlotInfo, SlotType, TimelineHistoryFile};
use walproto::{Lsn, ServerVersion, SlotName, TimelineHistory, TimelineId};

use crate::error::ReceiveError;
use crate::follow::Upstream;

/// How many history files are asked for, those of the newest timelines: many more than there are
/// promotions in a cluster's life, and few enough that a server that claims to be on timeline
/// four billion does not keep us asking.
const MAX_HISTORIES: u32 = 10_000;

/// How many bytes of history files are taken from one server.
const MAX_HISTORY_BYTES: usize = 16 << 20;

/// A server as it describes itself.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) facts: ServerFacts,
    /// Its timeline and where its flushed WAL ends.
    pub(crate) upstream: Upstream,
    /// The histories of its timeline and of all older ones that it has, oldest first.
    pub(crate) histories: Vec<TimelineHistory>,
    /// How long it waits for a sign of life; `None` is for ever.
    pub(crate) sender_timeout: Option<Duration>,
}

impl Server {
    /// Asks a server who it is.
    ///
    /// # Errors
    /// When it does not answer, or its answers make no sense.
    pub(crate) async fn identify(connection: &mut Connection) -> Result<Self, ReceiveError> {
        let answer = connection.execute(&Command::IdentifySystem).await?;
        let IdentifySystem {
            system_id,
            timeline,
            xlogpos,
            ..
        } = IdentifySystem::decode(&answer)?;
        let segment_size = connection.show("wal_segment_size").await?.segment_size()?;
        let data_directory_mode = connection
            .show("data_directory_mode")
            .await?
            .directory_mode()?;
        let block_size = connection.show("wal_block_size").await?.unsigned()?;
        let sender_timeout = connection.show("wal_sender_timeout").await?.duration()?;
        let sender_timeout = (!sender_timeout.is_zero()).then_some(sender_timeout);
        let server_version = connection.server_version();
        let is_standby = is_standby(connection, server_version).await?;
        let histories = histories(connection, timeline).await?;
        let history = match histories.last() {
            Some(history) if history.timeline() == timeline => history.clone(),
            _ if timeline == TimelineId::FIRST => TimelineHistory::without_ancestors(timeline),
            _ => return Err(ReceiveError::NoHistory { timeline }),
        };
        Ok(Self {
            facts: ServerFacts {
                system_id,
                segment_size,
                block_size,
                server_version_num: server_version.0,
                data_directory_mode,
            },
            upstream: Upstream {
                history,
                flush: xlogpos,
                is_standby,
            },
            histories,
            sender_timeout,
        })
    }

    /// Asks again where the server's WAL ends; `false` when it has become another server meanwhile, as
    /// by a promotion.
    ///
    /// # Errors
    /// When it does not answer, or its answer makes no sense.
    pub(crate) async fn ask_again(
        &mut self,
        connection: &mut Connection,
    ) -> Result<bool, ReceiveError> {
        let answer = connection.execute(&Command::IdentifySystem).await?;
        let now = IdentifySystem::decode(&answer)?;
        if now.system_id != self.facts.system_id || now.timeline != self.timeline() {
            return Ok(false);
        }
        self.upstream.flush = self.upstream.flush.max(now.xlogpos);
        Ok(true)
    }

    /// Its timeline.
    pub(crate) const fn timeline(&self) -> TimelineId {
        self.upstream.history.timeline()
    }

    /// The history of `timeline`, which the server's own descends from or is.
    pub(crate) fn history_of(&self, timeline: TimelineId) -> Option<TimelineHistory> {
        match self
            .histories
            .iter()
            .find(|history| history.timeline() == timeline)
        {
            Some(history) => Some(history.clone()),
            None => (timeline == TimelineId::FIRST)
                .then(|| TimelineHistory::without_ancestors(timeline)),
        }
    }
}

/// The histories of all timelines up to `newest` that the server has. Those of branches that were
/// abandoned are among them: a standby behind us will ask for every number.
async fn histories(
    connection: &mut Connection,
    newest: TimelineId,
) -> Result<Vec<TimelineHistory>, ReceiveError> {
    let mut histories = Vec::new();
    let mut bytes = 0;
    let first = newest.number().saturating_sub(MAX_HISTORIES).max(2);
    for timeline in (first..=newest.number()).filter_map(TimelineId::new) {
        match connection
            .execute(&Command::TimelineHistory(timeline))
            .await
        {
            Ok(answer) => {
                let TimelineHistoryFile { content, .. } = TimelineHistoryFile::decode(&answer)?;
                bytes += content.len();
                if bytes > MAX_HISTORY_BYTES {
                    return Err(ReceiveError::HistoriesTooLong {
                        limit: MAX_HISTORY_BYTES,
                    });
                }
                histories.push(TimelineHistory::parse(timeline, content)?);
            }
            Err(error) if error.sqlstate() == Some(SqlState::UNDEFINED_FILE) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(histories)
}

/// Whether the server is a standby, without SQL: 14 and later report it by themselves, and before,
/// only a standby has read-only transactions that nobody asked for.
async fn is_standby(
    connection: &mut Connection,
    version: ServerVersion,
) -> Result<bool, ReceiveError> {
    if version >= ServerVersion::V14 {
        return Ok(connection.parameter("in_hot_standby") == Some("on"));
    }
    Ok(connection.show("transaction_read_only").await?.boolean()?)
}

/// Whether the WAL that a slot holds may fill the server's disk.
pub(crate) async fn slots_are_unlimited(connection: &mut Connection) -> Result<bool, ReceiveError> {
    Ok(connection.show("max_slot_wal_keep_size").await?.value == "-1")
}

/// What a slot says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Slot {
    /// The server is older than 15 and cannot say.
    Unknown,
    /// There is none of this name.
    Missing,
    /// It keeps back WAL from this position on.
    Reserves(Lsn),
    /// It keeps back nothing: it is lost, or was never used.
    ReservesNothing,
}

/// Asks for a slot. It is asked before streaming begins, because the first flush position that
/// is reported gives a lost slot a position again.
pub(crate) async fn read_slot(
    connection: &mut Connection,
    slot: &SlotName,
) -> Result<Slot, ReceiveError> {
    if connection.server_version() < ServerVersion::V15 {
        return Ok(Slot::Unknown);
    }
    let command = Command::ReadReplicationSlot(Identifier::from(slot));
    let answer = match connection.execute(&command).await {
        Ok(answer) => answer,
        // Source: src/backend/replication/walsender.c, `ReadReplicationSlot` (PG 15).
        Err(error) if error.sqlstate() == Some(SqlState::FEATURE_NOT_SUPPORTED) => {
            return Err(ReceiveError::NotPhysical { slot: slot.clone() });
        }
        Err(error) => return Err(error.into()),
    };
    Ok(match SlotInfo::decode(&answer)? {
        None => Slot::Missing,
        Some(SlotInfo {
            slot_type: SlotType::Logical,
            ..
        }) => {
            return Err(ReceiveError::NotPhysical { slot: slot.clone() });
        }
        Some(SlotInfo {
            restart_lsn: Some(lsn),
            ..
        }) => Slot::Reserves(lsn),
        Some(_) => Slot::ReservesNothing,
    })
}
