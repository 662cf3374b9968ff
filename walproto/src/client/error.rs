//! Why a session cannot go on.

use std::time::Duration;

use super::auth::AuthError;
use crate::backend::DecodeError;
use crate::command::CommandNotSent;
use crate::error::ServerMessage;
use crate::frame::FrameError;
use crate::startup::InvalidStartupParameter;
use crate::{ForeignText, Lsn, TimelineId};

/// Why a session cannot go on, or did not do what its driver asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A message with an impossible or forbidden length.
    #[error("protocol violation by the server during {state}")]
    Frame {
        /// What the session was doing.
        state: &'static str,
        /// What is wrong.
        #[source]
        source: FrameError,
    },
    /// An answer in HTTP, as by a proxy that has no server to connect to.
    #[error("server answered in HTTP (\"{status_line}\"), not in the PostgreSQL protocol")]
    Http {
        /// The first line of the answer as far as it had come, in printable ASCII and shortened.
        status_line: String,
    },
    /// A message that is not what its tag promises.
    #[error("protocol violation by the server during {state}")]
    Decode {
        /// What the session was doing.
        state: &'static str,
        /// What is wrong.
        #[source]
        source: DecodeError,
    },
    /// A message that has no place there.
    #[error("protocol violation: unexpected {message} message from the server during {state}")]
    Unexpected {
        /// What the session was doing.
        state: &'static str,
        /// The message.
        message: &'static str,
    },
    /// More of something than the session is willing to keep.
    #[error("the server sent more than {limit} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The greatest number that is taken.
        limit: usize,
    },
    /// WAL that does not follow what was received before.
    #[error(
        "the stream of timeline {} jumps: expected WAL at {expected}, received WAL at {found}",
        timeline.map_or_else(|| "?".to_owned(), |timeline| timeline.to_string())
    )]
    Discontinuous {
        /// The timeline that was asked for.
        timeline: Option<TimelineId>,
        /// Where the WAL received so far ends.
        expected: Lsn,
        /// The position of the WAL that came.
        found: Lsn,
    },
    /// The two sides do not trust each other.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The server refused the connection.
    #[error("{0}")]
    Refused(Box<ServerMessage>),
    /// The server does not know options of the protocol that it was asked for.
    #[error("the server does not know the protocol options {}", ForeignText::new(options.join(", ")))]
    UnknownOptions {
        /// The options.
        options: Vec<String>,
    },
    /// The server closed the connection without saying why.
    #[error("the server closed the connection unexpectedly during {state}")]
    UnexpectedEof {
        /// What the session was doing.
        state: &'static str,
    },
    /// The server has said nothing for too long.
    #[error("nothing was heard from the server for {silence:.0?} during {state}")]
    Timeout {
        /// For how long.
        silence: Duration,
        /// What the session was doing.
        state: &'static str,
    },
    /// A startup parameter that cannot be sent.
    #[error(transparent)]
    Startup(#[from] InvalidStartupParameter),
    /// A command that this server does not have, or that is too long.
    #[error(transparent)]
    Command(#[from] CommandNotSent),
    /// The server did not report a version that can be read, and so no command can be written.
    #[error("the server reported no usable server_version")]
    UnknownServerVersion,
    /// A command whose answer is no table and no physical stream.
    #[error("{command} is not for a session that receives WAL")]
    Unsupported {
        /// The command.
        command: &'static str,
    },
    /// The driver did what it may not do now.
    #[error("{call} is not possible during {state}")]
    Misuse {
        /// What the session was doing.
        state: &'static str,
        /// What the driver called.
        call: &'static str,
    },
}
