//! Asking for a stream, and what a server's answers mean.

use pgconn::connection::{Connection, ConnectionError};
use walproto::client::Event;
use walproto::command::{Command, Identifier};
use walproto::error::{ServerMessage, SqlState};
use walproto::result::{ResultSet, TimelineEnd};
use walproto::{Lsn, TimelineId};

use super::{Order, StreamEnd};
use crate::error::ReceiveError;
use crate::event::{ReceiverEvent, Warning};

/// Asks for the stream; `Some` when there is nothing to stream.
pub(super) async fn start(
    connection: &mut Connection,
    order: &Order<'_>,
) -> Result<Option<StreamEnd>, ReceiveError> {
    let command = Command::StartReplication {
        slot: order.slot.map(Identifier::from),
        start: order.start,
        timeline: Some(order.timeline()),
    };
    connection.send(&command)?;
    loop {
        match connection.event().await? {
            Event::CopyStarted => return Ok(None),
            Event::Failed(message) => return Err(refused(order, message)),
            Event::StreamEnded(table) => {
                return stream_end(table.as_ref(), order.timeline(), order.start).map(Some);
            }
            Event::Ready | Event::Closed => return Ok(Some(StreamEnd::ServerEnded)),
            Event::Notice(message) => notice(connection, order, &message),
            _ => {}
        }
    }
}

pub(super) fn notice(connection: &mut Connection, order: &Order<'_>, message: &ServerMessage) {
    if !connection.admit_notice() {
        return;
    }
    let text = message.to_string();
    order
        .reporter
        .report(&ReceiverEvent::Warning(Warning::ServerNotice {
            message: &text,
        }));
}

/// Reads the end of a stream of `timeline`, of which WAL was received up to `lsn`.
pub(super) fn stream_end(
    table: Option<&ResultSet>,
    timeline: TimelineId,
    lsn: Lsn,
) -> Result<StreamEnd, ReceiveError> {
    match table {
        Some(table) if TimelineEnd::has_no_successor(table) => {
            Err(ReceiveError::NoSuccessor { timeline, lsn })
        }
        Some(table) => Ok(StreamEnd::TimelineEnded(TimelineEnd::decode(table)?)),
        None => Ok(StreamEnd::ServerEnded),
    }
}

/// Says what a server's refusal to stream means for us, by its SQLSTATE: its text may be in any
/// language.
pub(super) fn refused(order: &Order<'_>, message: Box<ServerMessage>) -> ReceiveError {
    let (timeline, start) = (order.timeline(), order.start);
    let sqlstate = message.sqlstate;
    let source = ConnectionError::Failed {
        command: "START_REPLICATION".to_owned(),
        message,
    };
    match (sqlstate, order.config.slot.clone()) {
        (SqlState::UNDEFINED_FILE, _) => ReceiveError::WalRemoved {
            timeline,
            start,
            segments_are_moved: order.config.segments_are_moved,
            source,
        },
        (SqlState::UNDEFINED_OBJECT, Some(slot)) => ReceiveError::NoSuchSlot { slot },
        (SqlState::OBJECT_IN_USE, Some(slot)) => ReceiveError::SlotInUse { slot, source },
        (SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, Some(slot)) => ReceiveError::UnusableSlot {
            slot,
            timeline,
            start,
            source,
        },
        _ => source.into(),
    }
}
