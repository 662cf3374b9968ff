//! Why a session cannot go on.

use std::time::Duration;

use super::limits::Phase;
use crate::backend::EncodeError;
use crate::copy_data::XLogDataTooLong;
use crate::error::{ServerMessage, SqlState};
use crate::frame::{FrameError, Tag};
use crate::frontend::DecodeError;
use crate::scram::ScramError;
use crate::startup::InvalidStartupPacket;
use crate::{Lsn, TimelineId};

/// Why a session cannot go on, or did not do what its driver asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A first packet that is none. Who sends it may not speak the protocol at all, and is not
    /// answered.
    #[error("protocol violation by the client during {state}")]
    Startup {
        /// What the session was doing.
        state: &'static str,
        /// What is wrong.
        #[source]
        source: InvalidStartupPacket,
    },
    /// Bytes that came with a request for encryption, before there was any: somebody in between
    /// may have put them there.
    #[error("received unencrypted data after {request}")]
    Unencrypted {
        /// The request.
        request: &'static str,
    },
    /// A message with an impossible or forbidden length.
    #[error("protocol violation by the client during {state}")]
    Frame {
        /// What the session was doing.
        state: &'static str,
        /// What is wrong.
        #[source]
        source: FrameError,
    },
    /// A message that is not what its tag promises.
    #[error("protocol violation by the client during {state}")]
    Decode {
        /// What the session was doing.
        state: &'static str,
        /// What is wrong.
        #[source]
        source: DecodeError,
    },
    /// A message that has no place there.
    #[error("protocol violation: unexpected message {tag} from the client during {state}")]
    Unexpected {
        /// What the session was doing.
        state: &'static str,
        /// The message.
        tag: Tag,
    },
    /// More messages than are kept until the one before them is answered.
    #[error("the client sent more than {limit} bytes without waiting for an answer during {state}")]
    NotWaiting {
        /// What the session was doing.
        state: &'static str,
        /// The greatest number of bytes that is kept.
        limit: usize,
    },
    /// The client was not let in.
    #[error("the user \"{user}\" is not let in")]
    Scram {
        /// The role that it wants to be.
        user: String,
        /// Why.
        #[source]
        source: ScramError,
    },
    /// The client was refused, and told this.
    #[error("{0}")]
    Refused(Box<ServerMessage>),
    /// The client closed the connection in the middle of something.
    #[error("the client closed the connection unexpectedly during {state}")]
    UnexpectedEof {
        /// What the session was doing.
        state: &'static str,
    },
    /// The client did not get as far as its first command in time (`authentication_timeout`).
    #[error("the client took more than {limit:?} for {state}")]
    StartupTimeout {
        /// The time that it has.
        limit: Duration,
        /// What the session was doing.
        state: &'static str,
    },
    /// The client has said nothing for too long (`wal_sender_timeout`).
    #[error("nothing was heard from the client for {silence:.0?} during {state}")]
    Timeout {
        /// For how long.
        silence: Duration,
        /// What the session was doing.
        state: &'static str,
    },
    /// An answer of the driver's that is too great for a message.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// More WAL of the driver's than fits into one message.
    #[error(transparent)]
    TooLong(#[from] XLogDataTooLong),
    /// WAL of the driver's that does not follow what was sent before.
    #[error("WAL of timeline {timeline} at {found} does not follow what was sent up to {sent}")]
    Discontinuous {
        /// The timeline of the stream.
        timeline: TimelineId,
        /// Where the WAL sent so far ends.
        sent: Lsn,
        /// The position of the WAL that was to be sent.
        found: Lsn,
    },
    /// A key of the driver's that the client's protocol does not have.
    #[error("a secret key has {expected} in the client's protocol, not {found} bytes")]
    SecretKeyLength {
        /// The lengths that it may have.
        expected: &'static str,
        /// The length that it has.
        found: usize,
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

impl ServerError {
    /// What the client is told of it, if anything. PostgreSQL leaves some of these connections
    /// without a word; who looks for the reason is helped by one.
    pub(super) fn for_client(&self, phase: Option<Phase>) -> Option<ServerMessage> {
        let violation = |text| ServerMessage::fatal(SqlState::PROTOCOL_VIOLATION, text);
        match self {
            Self::Startup { source, .. } => match source {
                InvalidStartupPacket::Layout => Some(violation(source.to_string())),
                _ => None,
            },
            Self::Unencrypted { .. } => Some(violation(self.to_string()).with_detail(
                "This could be either a client-software bug or evidence of an attempted \
                 man-in-the-middle attack.",
            )),
            Self::Frame { source, .. } => Some(violation(source.to_string())),
            Self::Decode { source, .. } => Some(violation(source.to_string())),
            Self::Unexpected { tag, .. } => Some(violation(match phase {
                Some(Phase::Authentication) => {
                    format!("expected SASL response, got message type {}", tag.0)
                }
                Some(Phase::Stream) => format!("invalid standby message type {tag}"),
                Some(Phase::Command) | None => {
                    format!("invalid frontend message type {}", tag.0)
                }
            })),
            Self::NotWaiting { .. } => Some(violation(self.to_string())),
            Self::Scram { user, source } => Some(source.for_client(user)),
            Self::Refused(message) => Some((**message).clone()),
            // It does not read what it is sent, or is gone.
            Self::Timeout { .. } | Self::UnexpectedEof { .. } => None,
            Self::StartupTimeout { .. } => Some(ServerMessage::fatal(
                SqlState::QUERY_CANCELED,
                "canceling authentication due to timeout",
            )),
            Self::Encode(_)
            | Self::TooLong(_)
            | Self::Discontinuous { .. }
            | Self::SecretKeyLength { .. }
            | Self::Misuse { .. } => None,
        }
    }
}
