//! How much of a server's messages is taken, by what the session waits for.
//!
//! A length is compared with these as soon as a message's header is there, so that they bound
//! what a driver ever has to buffer.

use crate::TimelineHistory;
use crate::copy_data::XLogData;
use crate::frame::Tag;

/// The longest body of an authentication request in bytes: libpq's limit.
///
/// Source: src/interfaces/libpq/fe-connect.c, `PQconnectPoll` (PG 15).
pub const MAX_AUTHENTICATION_LENGTH: usize = 2000 - 4;

/// The longest body in bytes of a message that cannot be long by its nature: libpq's limit
/// (`VALID_LONG_MESSAGE_TYPE`), and for errors before authentication too.
pub const MAX_SMALL_LENGTH: usize = 30_000 - 4;

/// The longest body in bytes of a message with the values of a command's answer, or with an
/// error: the longest answer is a timeline history file, and some room for its name.
pub const MAX_RESULT_LENGTH: usize = TimelineHistory::MAX_LENGTH + (64 << 10);

/// The longest body in bytes of a message with WAL. PostgreSQL puts 128 KiB into one
/// (`MAX_SEND_SIZE` in walsender.c); other senders may put more.
pub const MAX_WAL_LENGTH: usize = XLogData::HEADER_LENGTH + (1 << 20);

/// The most rows that an answer is taken with: physical replication's commands have one.
pub(super) const MAX_ROWS: usize = 64;

/// The most parameters that are remembered of a server, which reports some fifteen.
pub(super) const MAX_PARAMETERS: usize = 64;

/// What the session waits for, as far as it matters for lengths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Authentication,
    Setup,
    Answer,
    Stream,
}

impl Phase {
    /// The longest body in bytes that a message may have.
    pub(super) const fn max_length(self, tag: Tag) -> usize {
        match (self, tag.0) {
            (Self::Authentication, b'R') => MAX_AUTHENTICATION_LENGTH,
            (Self::Stream, b'd') => MAX_WAL_LENGTH,
            (Self::Answer, b'T' | b'D') => MAX_RESULT_LENGTH,
            (Self::Setup | Self::Answer | Self::Stream, b'E' | b'N') => MAX_RESULT_LENGTH,
            _ => MAX_SMALL_LENGTH,
        }
    }
}
