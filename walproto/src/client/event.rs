//! What a session tells its driver.

use bytes::Bytes;

use crate::error::ServerMessage;
use crate::result::ResultSet;
use crate::{Lsn, PgTimestamp};

/// What happened on the connection.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The server waits for a command: at the beginning, and after the end of each command.
    Ready,
    /// The server has something to say; nothing changes by it.
    Notice(Box<ServerMessage>),
    /// The answer to a command, empty for one that answers no table. [`Event::Ready`] follows.
    Result(ResultSet),
    /// The command, or the stream of WAL, came to an end with an error. [`Event::Ready`]
    /// follows, or [`Event::Closed`] if the severity says so.
    Failed(Box<ServerMessage>),
    /// The stream of WAL begins.
    CopyStarted,
    /// A piece of WAL. It follows the piece before it, or is the one asked for.
    WalData {
        /// The position of its first byte.
        start: Lsn,
        /// How far the sender's WAL reaches; it may lie after the end of `data`.
        wal_end: Lsn,
        /// The sender's clock when it sent this.
        sent_at: PgTimestamp,
        /// The WAL. It shares the memory that the session's input was read into.
        data: Bytes,
    },
    /// A sign of life. A reply that it asks for is already on its way.
    Keepalive {
        /// How far the sender has sent WAL.
        wal_end: Lsn,
        /// The sender's clock when it sent this.
        sent_at: PgTimestamp,
        /// Whether the sender asked for a reply.
        reply_requested: bool,
    },
    /// For half of the receive timeout the sender has had no WAL beyond what was received, as its
    /// [keepalive](Self::Keepalive) just said, and what was reported as written ends before that:
    /// a record stays incomplete. It comes again with every later keepalive until there is WAL.
    ///
    /// A sender may well stop in the middle of a record. Or the record's length was damaged on
    /// the way, and a commit waits for the record that ends here.
    WalStaysIncomplete {
        /// What was reported as written.
        written: Lsn,
        /// The end of what was received.
        received: Lsn,
    },
    /// The server sends no more WAL, since the timeline ends here. Statuses still count, until
    /// [`finish_copy`](super::ClientSession::finish_copy) ends our side too.
    ServerCopyDone,
    /// The stream of WAL came to its end without an error; [`Event::Ready`] follows. The table
    /// names the timeline that follows the one asked for
    /// ([`TimelineEnd`](crate::result::TimelineEnd)), and is missing if none does.
    /// Without [`Event::CopyStarted`] before it, there is no WAL after the position asked for.
    StreamEnded(Option<ResultSet>),
    /// The server has sent all its WAL and knows that we have it, and shuts down.
    /// [`Event::Closed`] follows.
    ServerStopping,
    /// The connection came to its end as announced.
    Closed,
}
