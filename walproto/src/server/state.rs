//! The states of a session, and what a message from the client makes of them.

use super::ServerSession;
use super::authentication::Authentication;
use super::commands::Running;
use super::error::ServerError;
use super::event::Event;
use super::limits::Phase;
use super::opening::Encryption;
use super::streaming::Stream;
use crate::Lsn;
use crate::copy_data::ReceiverMessage;
use crate::frame::Tag;
use crate::frontend::{DecodeError, FrontendMessage};

/// What a session is doing; [`ServerSession`] has the picture.
pub(super) enum State {
    /// The client's first packet is awaited.
    Opening(Encryption),
    /// The driver is asked whether there is TLS.
    TlsAsked(Encryption),
    /// The driver is asked whether the client may come in, and how it has to show who it is.
    Admitting { user: String },
    /// The client shows who it is.
    Authenticating(Box<Authentication>),
    /// The driver is asked to welcome the client.
    Authenticated,
    /// The client's next command is awaited.
    Idle,
    /// The same, but up to the end of what was refused nothing is executed.
    Skipping,
    /// The driver is asked for the answer to a command.
    Executing(Running),
    /// WAL is streamed.
    Streaming(Stream),
    /// We have ended our side, the client has not.
    ServerDone(Stream),
    /// WAL is streamed up to a last position, and the connection ends when the client has it all.
    Stopping {
        stream: Stream,
        until: Lsn,
        our_side: Side,
    },
    /// The session came to its end.
    Closed,
    /// The session is over because of an error.
    Broken,
}

/// Whether CopyDone was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Open,
    Done,
}

impl State {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Opening(_) => "the start of the session",
            Self::TlsAsked(_) => "the request for TLS",
            Self::Admitting { .. } => "admission",
            Self::Authenticating(_) => "authentication",
            Self::Authenticated => "session setup",
            Self::Idle => "idle time",
            Self::Skipping => "recovery from an error",
            Self::Executing(running) => running.name(),
            Self::Streaming(_) => "streaming",
            Self::ServerDone(_) => "streaming, ended by the server",
            Self::Stopping { .. } => "streaming, in shutdown",
            Self::Closed => "closed state",
            Self::Broken => "broken state",
        }
    }

    /// What messages are taken now, `None` when the driver has to answer something first.
    pub(super) const fn phase(&self) -> Option<Phase> {
        match self {
            Self::Authenticating(_) => Some(Phase::Authentication),
            Self::Idle | Self::Skipping => Some(Phase::Command),
            Self::Streaming(_) | Self::ServerDone(_) | Self::Stopping { .. } => Some(Phase::Stream),
            Self::Opening(_)
            | Self::TlsAsked(_)
            | Self::Admitting { .. }
            | Self::Authenticated
            | Self::Executing(_)
            | Self::Closed
            | Self::Broken => None,
        }
    }

    pub(super) const fn is_over(&self) -> bool {
        matches!(self, Self::Closed | Self::Broken)
    }

    pub(super) const fn is_sending(&self) -> bool {
        match self {
            Self::Streaming(_) => true,
            Self::Stopping {
                stream,
                until,
                our_side: Side::Open,
            } => stream.sent().0 < until.0,
            _ => false,
        }
    }

    /// Whether the client still has to show who it is.
    pub(super) const fn is_before_welcome(&self) -> bool {
        matches!(
            self,
            Self::Opening(_)
                | Self::TlsAsked(_)
                | Self::Admitting { .. }
                | Self::Authenticating(_)
                | Self::Authenticated
        )
    }

    /// Whether a client may just go. PostgreSQL does not complain about one that does not like
    /// what it is asked for, or that has no more commands.
    pub(super) const fn expects_eof(&self) -> bool {
        self.is_before_welcome() || matches!(self, Self::Idle | Self::Skipping)
    }

    pub(super) const fn stream(&self) -> Option<&Stream> {
        match self {
            Self::Streaming(stream) | Self::ServerDone(stream) | Self::Stopping { stream, .. } => {
                Some(stream)
            }
            _ => None,
        }
    }

    pub(super) const fn stream_mut(&mut self) -> Option<&mut Stream> {
        match self {
            Self::Streaming(stream) | Self::ServerDone(stream) | Self::Stopping { stream, .. } => {
                Some(stream)
            }
            _ => None,
        }
    }
}

impl ServerSession {
    /// Does what a message asks for.
    pub(super) fn handle_message(
        &mut self,
        tag: Tag,
        message: FrontendMessage,
    ) -> Result<(), ServerError> {
        use FrontendMessage as M;
        let state_name = self.state.name();
        let unexpected = ServerError::Unexpected {
            state: state_name,
            tag,
        };
        match (&self.state, message) {
            (State::Authenticating(_), M::Password(body)) => self.handle_password(body)?,
            (State::Idle | State::Skipping, M::Terminate) => self.terminated(),
            (State::Streaming(_) | State::ServerDone(_) | State::Stopping { .. }, M::Terminate) => {
                self.terminated()
            }
            (State::Idle, message) => self.handle_idle_message(message),
            (State::Skipping, M::Sync) => self.ready(),
            (State::Skipping, _) => {}
            (
                State::Streaming(_) | State::ServerDone(_) | State::Stopping { .. },
                M::CopyData(body),
            ) => {
                let message = ReceiverMessage::decode(body).map_err(|source| {
                    let source = DecodeError::Malformed(source);
                    let state = state_name;
                    ServerError::Decode { state, source }
                })?;
                self.handle_report(message);
            }
            (State::Streaming(_) | State::ServerDone(_) | State::Stopping { .. }, M::CopyDone) => {
                self.handle_copy_done()
            }
            (_, _) => return Err(unexpected),
        }
        Ok(())
    }

    fn terminated(&mut self) {
        self.state = State::Closed;
        self.events.push_back(Event::Terminated);
    }

    fn handle_report(&mut self, message: ReceiverMessage) {
        let now = self.now;
        let Some(stream) = self.state.stream_mut() else {
            return;
        };
        stream.heard(now);
        let event = match message {
            ReceiverMessage::StatusUpdate(update) => Event::Status(stream.take_status(update)),
            ReceiverMessage::HotStandbyFeedback(feedback) => Event::Feedback(feedback),
        };
        self.events.push_back(event);
        self.stop_if_replicated();
    }

    /// The client has ended its side. What follows is its next command, once it has ours.
    fn handle_copy_done(&mut self) {
        match std::mem::replace(&mut self.state, State::Broken) {
            State::Streaming(stream) => {
                self.put_copy_done();
                self.finish_copy(stream.end);
            }
            State::ServerDone(stream) => self.finish_copy(stream.end),
            State::Stopping { our_side, .. } => {
                // No answer follows: a walsender in shutdown just exits (walsender.c,
                // `StartReplication`).
                if our_side == Side::Open {
                    self.put_copy_done();
                }
                self.stopped();
            }
            other => self.state = other,
        }
    }

    pub(super) fn stopped(&mut self) {
        self.state = State::Closed;
        self.events.push_back(Event::Stopped);
    }
}
