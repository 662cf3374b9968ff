//! How much of a client's messages is taken, by what the session waits for.

use crate::command::Command;
use crate::frame::Tag;

/// The longest body in bytes of a message with a part of a SASL exchange: PostgreSQL's limit
/// (`PG_MAX_SASL_MESSAGE_LENGTH` in src/backend/libpq/auth-sasl.c).
pub const MAX_SASL_LENGTH: usize = 1024 - 4;

/// The longest body in bytes of a message that cannot be long by its nature: PostgreSQL's limit
/// (`PQ_SMALL_MESSAGE_LIMIT` in src/include/libpq/libpq.h). Also for what a client sends while
/// WAL is streamed, of which the longest is a status update.
pub const MAX_SMALL_LENGTH: usize = 10_000 - 4;

/// The longest body in bytes of a message with a command. PostgreSQL takes 1 GiB, but there is no
/// replication command like that.
pub const MAX_COMMAND_LENGTH: usize = Command::MAX_LENGTH + 1;

/// The most bytes that wait while no message is taken, because the driver has to answer an event
/// first: one command that does not wait for the answer to the one before.
pub const MAX_WAITING_LENGTH: usize = MAX_COMMAND_LENGTH + MAX_SMALL_LENGTH;

/// No more messages are taken once so many bytes wait for transmission: a client whose errors are
/// longer than what they are about does not make us keep more than that.
pub(super) const MAX_OUTPUT_LENGTH: usize = 16 << 10;

/// What the session waits for, as far as it matters for lengths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Part of a SASL exchange.
    Authentication,
    /// A command.
    Command,
    /// What a client sends while WAL is streamed.
    Stream,
}

impl Phase {
    /// The longest body in bytes that a message may have, `None` for a message that has no place
    /// there.
    pub(super) const fn max_length(self, tag: Tag) -> Option<usize> {
        match (self, tag.0) {
            (Self::Authentication, b'p') => Some(MAX_SASL_LENGTH),
            (Self::Command, b'Q' | b'B' | b'F' | b'P') => Some(MAX_COMMAND_LENGTH),
            (Self::Command, b'C' | b'D' | b'E' | b'H' | b'S' | b'X' | b'd' | b'c' | b'f') => {
                Some(MAX_SMALL_LENGTH)
            }
            (Self::Stream, b'd' | b'c' | b'X') => Some(MAX_SMALL_LENGTH),
            _ => None,
        }
    }
}
