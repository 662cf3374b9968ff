//! The commands about replication slots.
//!
//! Source: src/backend/replication/walsender.c and slot.c (PG 13 to 18).

use segstore::{HeldSlot, SlotError, WalStatus};
use walproto::Lsn;
use walproto::SlotName;
use walproto::command::{CreateReplicationSlot, Identifier, NewSlot};
use walproto::error::{ServerMessage, SqlState};
use walproto::result::{CreatedSlot, SlotInfo, SlotType};

use super::{Commands, Reply, no_databases};

impl Commands<'_> {
    pub(super) fn create_slot(
        &self,
        create: &CreateReplicationSlot,
    ) -> Result<Reply, ServerMessage> {
        let NewSlot::Physical { reserve_wal } = create.kind else {
            return Err(no_databases("logical replication slots"));
        };
        let name = SlotName::new(create.slot.as_str()).map_err(|invalid| {
            ServerMessage::error(SqlState::INVALID_NAME, invalid.to_string()).with_hint(
                "Replication slot names may only contain lower case letters, numbers, and the \
                 underscore character.",
            )
        })?;
        let new = segstore::NewSlot {
            temporary: create.temporary,
            reserve_wal,
        };
        let created = self.session.create(&name, new);
        created.map_err(|error| message_of(&error))?;
        let reply = CreatedSlot {
            slot_name: name.to_string(),
            consistent_point: Lsn::INVALID,
            snapshot_name: None,
            output_plugin: None,
        };
        Ok(Reply::Table(reply.encode()))
    }

    /// One that has lost its WAL keeps nothing.
    pub(super) fn read_slot(&self, name: &Identifier) -> Result<Reply, ServerMessage> {
        let slot = match SlotName::new(name.as_str()) {
            Ok(name) => self
                .store
                .get(&name)
                .map_err(|error| self.unreadable(None, error))?,
            // There is none of a name that none can have.
            Err(_) => None,
        };
        let Some(slot) = slot else {
            return Ok(Reply::Table(SlotInfo::encode(None)));
        };
        let lsn = slot
            .restart
            .filter(|_| slot.wal_status != Some(WalStatus::Lost))
            .map(|restart| restart.lsn);
        let newest = self.view().durable().map(|durable| durable.timeline);
        let restart_tli = match lsn.zip(newest) {
            Some((lsn, newest)) => {
                let history = self
                    .view()
                    .history(newest)
                    .map_err(|error| self.unreadable(None, error))?;
                Some(history.map_or(newest, |history| history.timeline_of(lsn)))
            }
            None => None,
        };
        let info = SlotInfo {
            slot_type: SlotType::Physical,
            restart_lsn: lsn,
            restart_tli,
        };
        Ok(Reply::Table(SlotInfo::encode(Some(&info))))
    }

    pub(super) fn drop_slot(&self, name: &Identifier, wait: bool) -> Result<Reply, ServerMessage> {
        let name = existing(name)?;
        match self.session.drop_slot(&name) {
            Ok(()) => Ok(Reply::Done),
            Err(SlotError::Active { .. }) if wait => Ok(Reply::WhenReleased),
            Err(error) => Err(message_of(&error)),
        }
    }

    pub(super) fn alter_slot(&self, name: &Identifier) -> Result<Reply, ServerMessage> {
        let slot = self.acquire(name)?;
        drop(slot);
        Err(ServerMessage::error(
            SqlState::FEATURE_NOT_SUPPORTED,
            "cannot use ALTER_REPLICATION_SLOT with a physical replication slot",
        ))
    }

    pub(super) fn acquire(&self, name: &Identifier) -> Result<HeldSlot, ServerMessage> {
        let acquired = self.session.acquire(&existing(name)?);
        acquired.map_err(|error| message_of(&error))
    }
}

/// The name of a slot that may exist.
fn existing(name: &Identifier) -> Result<SlotName, ServerMessage> {
    SlotName::new(name.as_str()).map_err(|_no_slot_has_it| {
        ServerMessage::error(
            SqlState::UNDEFINED_OBJECT,
            format!("replication slot \"{}\" does not exist", name.as_str()),
        )
    })
}

/// What a client is told when it does not get a slot.
pub(crate) fn message_of(error: &SlotError) -> ServerMessage {
    let sqlstate = match error {
        SlotError::Exists { .. } => SqlState::DUPLICATE_OBJECT,
        SlotError::TooMany { .. } => SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        SlotError::NotFound { .. } => SqlState::UNDEFINED_OBJECT,
        SlotError::Active { .. } => SqlState::OBJECT_IN_USE,
        SlotError::Lost { .. } | SlotError::NothingDurable { .. } => {
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE
        }
        _ => SqlState::INTERNAL_ERROR,
    };
    ServerMessage::error(sqlstate, error.to_string())
}
