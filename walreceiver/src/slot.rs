//! Making and dropping replication slots.

use walproto::SlotName;
use walproto::command::{Command, CreateReplicationSlot, Identifier, NewSlot};
use walproto::error::{ServerMessage, SqlState};

use pgconn::connection::{Connection, ConnectionError};

/// What a new physical slot is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewPhysicalSlot {
    /// Whether WAL is kept from the creation on. Without, it is from the first position that is
    /// reported for the slot: what a base backup taken in between needs may be gone by then.
    pub reserve_wal: bool,
    /// Whether a slot of that name may exist already, of whatever kind, and stays as it is.
    pub may_exist: bool,
}

/// Why a slot was not created or dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SlotError {
    /// The server refused.
    #[error("could not send replication command \"{command}\": {message}")]
    Refused {
        /// The command as it was sent.
        command: String,
        /// The server's reason.
        message: Box<ServerMessage>,
    },
    /// The connection is lost.
    #[error(transparent)]
    Connection(ConnectionError),
}

/// Creates a physical slot, in the syntax of the server's version. Returns `false` if the slot
/// existed before, which is an error unless [`NewPhysicalSlot::may_exist`] is set.
///
/// # Errors
/// When the connection is lost or the server refuses, as for a slot that exists.
///
/// # Cancel safety
/// Not cancel safe: the slot may or may not exist afterwards.
pub async fn create_slot(
    connection: &mut Connection,
    slot: &SlotName,
    new: NewPhysicalSlot,
) -> Result<bool, SlotError> {
    let command = Command::CreateReplicationSlot(CreateReplicationSlot {
        slot: Identifier::from(slot),
        temporary: false,
        kind: NewSlot::Physical {
            reserve_wal: new.reserve_wal,
        },
    });
    match execute(connection, &command).await {
        Err(SlotError::Refused { message, .. })
            if new.may_exist && message.sqlstate == SqlState::DUPLICATE_OBJECT =>
        {
            Ok(false)
        }
        ended => ended.map(|()| true),
    }
}

/// Creates a physical slot that reserves WAL and that the server drops with the connection, or with
/// the first error on it.
pub(crate) async fn create_temporary_slot(
    connection: &mut Connection,
    slot: &SlotName,
) -> Result<(), ConnectionError> {
    let command = Command::CreateReplicationSlot(CreateReplicationSlot {
        slot: Identifier::from(slot),
        temporary: true,
        kind: NewSlot::Physical { reserve_wal: true },
    });
    connection.execute(&command).await.map(drop)
}

/// Drops a slot, which must exist and not be in use.
///
/// # Errors
/// When the connection is lost or the server refuses.
///
/// # Cancel safety
/// Not cancel safe: the slot may or may not exist afterwards.
pub async fn drop_slot(connection: &mut Connection, slot: &SlotName) -> Result<(), SlotError> {
    let command = Command::DropReplicationSlot {
        slot: Identifier::from(slot),
        wait: false,
    };
    execute(connection, &command).await
}

async fn execute(connection: &mut Connection, command: &Command) -> Result<(), SlotError> {
    match connection.execute(command).await {
        Ok(_answer) => Ok(()),
        Err(ConnectionError::Failed { message, .. }) => Err(SlotError::Refused {
            command: command
                .for_server(connection.server_version())
                .unwrap_or_else(|_too_new| command.to_string()),
            message,
        }),
        Err(error) => Err(SlotError::Connection(error)),
    }
}
