//! The states of a session, and what a message from the server makes of them.

use super::ClientSession;
use super::answer::{Answer, Taken};
use super::auth::{Authentication, Step};
use super::error::ClientError;
use super::event::Event;
use super::limits::{MAX_PARAMETERS, Phase};
use super::streaming::{Due, Stream};
use crate::backend::BackendMessage;
use crate::error::ServerMessage;

/// What a session is doing; [`ClientSession`] has the picture.
pub(super) enum State {
    /// The server finds out who we are.
    Authenticating(Box<Authentication>),
    /// The server tells about itself.
    SettingUp,
    /// The server waits for a command.
    Idle,
    /// The answer to a command is awaited.
    Answering(Answer),
    /// The same, and it may take any time.
    Waiting(Answer),
    /// START_REPLICATION was sent.
    Starting(Stream),
    /// WAL is streamed.
    Streaming(Stream),
    /// The server has ended its side, we have not.
    ServerDone(Stream),
    /// We have ended our side, the server has not.
    ClientDone(Stream),
    /// The stream has ended, the rest of the answer to START_REPLICATION is awaited.
    Ending(Answer),
    /// An error was received, ReadyForQuery is awaited.
    Failed,
    /// An error was received after which the server closes the connection.
    Fatal,
    /// The server has announced that it shuts down.
    Stopping,
    /// We have told the server that we go.
    Terminated,
    /// The connection is closed as announced.
    Closed,
    /// The session is over because of an error.
    Broken,
}

impl State {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Authenticating(authentication) => authentication.name(),
            Self::SettingUp => "session setup",
            Self::Idle => "idle time",
            Self::Answering(_) | Self::Waiting(_) => "the answer to a command",
            Self::Starting(_) => "the start of streaming",
            Self::Streaming(_) => "streaming",
            Self::ServerDone(_) => "streaming, ended by the server",
            Self::ClientDone(_) => "streaming, ended by the receiver",
            Self::Ending(_) => "the end of streaming",
            Self::Failed => "recovery from an error",
            Self::Fatal => "the end of the session after a fatal error",
            Self::Stopping => "the shutdown of the server",
            Self::Terminated => "the end of the session",
            Self::Closed => "closed state",
            Self::Broken => "broken state",
        }
    }

    pub(super) const fn phase(&self) -> Phase {
        match self {
            Self::Authenticating(_) => Phase::Authentication,
            Self::SettingUp => Phase::Setup,
            Self::Streaming(_) | Self::ServerDone(_) | Self::ClientDone(_) => Phase::Stream,
            Self::Idle
            | Self::Answering(_)
            | Self::Waiting(_)
            | Self::Starting(_)
            | Self::Ending(_)
            | Self::Failed
            | Self::Fatal
            | Self::Stopping
            | Self::Terminated
            | Self::Closed
            | Self::Broken => Phase::Answer,
        }
    }

    /// Whether nothing more is taken from the server.
    pub(super) const fn is_over(&self) -> bool {
        matches!(self, Self::Terminated | Self::Closed | Self::Broken)
    }

    /// Whether the server may close the connection now. It does so without a word when it shuts
    /// down while a stream ends (walsender.c, `StartReplication`).
    pub(super) const fn expects_eof(&self) -> bool {
        matches!(
            self,
            Self::Fatal | Self::Stopping | Self::Terminated | Self::Closed | Self::Ending(_)
        )
    }

    /// Whether the server has to say something, sooner or later.
    pub(super) const fn awaits_server(&self) -> bool {
        !matches!(self, Self::Idle | Self::Waiting(_)) && !self.is_over()
    }

    /// Whether `CopyData` may come. After its CopyDone a walsender still sends keepalives: when
    /// it is asked, and when it wants to know whether we are there (walsender.c,
    /// `WalSndKeepaliveIfNecessary`).
    pub(super) const fn takes_copy_data(&self) -> bool {
        matches!(
            self,
            Self::Streaming(_) | Self::ServerDone(_) | Self::ClientDone(_) | Self::Ending(_)
        )
    }

    /// Whether WAL may come.
    pub(super) const fn receives_wal(&self) -> bool {
        matches!(self, Self::Streaming(_) | Self::ClientDone(_))
    }

    /// The stream, also when nothing can be reported.
    pub(super) const fn stream(&mut self) -> Option<&mut Stream> {
        match self {
            Self::Streaming(stream) | Self::ServerDone(stream) | Self::ClientDone(stream) => {
                Some(stream)
            }
            _ => None,
        }
    }

    /// The stream, as long as the server takes status updates.
    pub(super) const fn reporting(&mut self) -> Option<&mut Stream> {
        match self {
            Self::Streaming(stream) | Self::ServerDone(stream) => Some(stream),
            _ => None,
        }
    }

    /// The same, to look at.
    pub(super) const fn stream_if_reporting(&self) -> Option<&Stream> {
        match self {
            Self::Streaming(stream) | Self::ServerDone(stream) => Some(stream),
            _ => None,
        }
    }
}

impl ClientSession {
    /// Does what a message asks for. After an error the state is [`State::Broken`].
    pub(super) fn handle_message(&mut self, message: BackendMessage) -> Result<(), ClientError> {
        let state = std::mem::replace(&mut self.state, State::Broken);
        if let State::Authenticating(authentication) = state {
            return self.handle_authentication(authentication, message);
        }
        match message {
            BackendMessage::NoticeResponse(notice) => {
                self.events.push_back(Event::Notice(notice));
                self.state = state;
            }
            BackendMessage::ParameterStatus { name, value } => {
                self.set_parameter(name, value)?;
                self.state = state;
            }
            BackendMessage::ErrorResponse(error) => self.state = self.fail(&state, error)?,
            message => self.state = self.advance(state, message)?,
        }
        Ok(())
    }

    fn handle_authentication(
        &mut self,
        authentication: Box<Authentication>,
        message: BackendMessage,
    ) -> Result<(), ClientError> {
        let state = authentication.name();
        let name = message.name();
        self.state = match message {
            BackendMessage::Authentication(request) => {
                match authentication.step(&request, &mut self.output)? {
                    Step::Continue(authentication) => State::Authenticating(authentication),
                    Step::Authenticated => State::SettingUp,
                    Step::Unexpected => return Err(unexpected(state, name)),
                }
            }
            BackendMessage::ErrorResponse(error) => return Err(ClientError::Refused(error)),
            // We ask for version 3.0, the oldest there is.
            BackendMessage::NegotiateProtocolVersion {
                unknown_options, ..
            } => {
                if !unknown_options.is_empty() {
                    let options = unknown_options;
                    return Err(ClientError::UnknownOptions { options });
                }
                State::Authenticating(authentication)
            }
            _ => return Err(unexpected(state, name)),
        };
        Ok(())
    }

    /// The state that an error of the server leads to.
    fn fail(&mut self, state: &State, error: Box<ServerMessage>) -> Result<State, ClientError> {
        let fatal = error.severity.ends_connection();
        let next = match state {
            State::SettingUp => return Err(ClientError::Refused(error)),
            State::Idle | State::Failed | State::Stopping if !fatal => {
                return Err(unexpected(state.name(), "ErrorResponse"));
            }
            State::Idle
            | State::Answering(_)
            | State::Waiting(_)
            | State::Starting(_)
            | State::Streaming(_)
            | State::ServerDone(_)
            | State::ClientDone(_)
            | State::Ending(_)
            | State::Failed
            | State::Stopping => {
                if fatal {
                    State::Fatal
                } else {
                    State::Failed
                }
            }
            State::Authenticating(_)
            | State::Fatal
            | State::Terminated
            | State::Closed
            | State::Broken => return Err(unexpected(state.name(), "ErrorResponse")),
        };
        self.events.push_back(Event::Failed(error));
        Ok(next)
    }

    /// The state that any other message leads to.
    fn advance(&mut self, state: State, message: BackendMessage) -> Result<State, ClientError> {
        use BackendMessage as M;
        let (state_name, message_name) = (state.name(), message.name());
        let next = match (state, message) {
            (State::SettingUp, M::BackendKeyData { process_id, .. }) => {
                self.process_id = Some(process_id);
                State::SettingUp
            }
            (State::SettingUp | State::Failed, M::ReadyForQuery { .. }) => self.ready(),
            (State::Answering(mut answer), message) => match answer.take(message)? {
                Taken::Yes => State::Answering(answer),
                Taken::Complete(table) => self.answered(Event::Result(table.unwrap_or_default())),
                Taken::No => return Err(unexpected(state_name, message_name)),
            },
            (State::Waiting(mut answer), message) => match answer.take(message)? {
                Taken::Yes => State::Waiting(answer),
                Taken::Complete(table) => self.answered(Event::Result(table.unwrap_or_default())),
                Taken::No => return Err(unexpected(state_name, message_name)),
            },
            (State::Ending(mut answer), message) => match answer.take(message)? {
                Taken::Yes => State::Ending(answer),
                Taken::Complete(table) => self.answered(Event::StreamEnded(table)),
                Taken::No => return Err(unexpected(state_name, message_name)),
            },
            (State::Starting(mut stream), M::CopyBothResponse { .. }) => {
                if stream.has_positions() {
                    stream.make_due(Due::Status);
                }
                stream.status_at = self.now;
                self.events.push_back(Event::CopyStarted);
                State::Streaming(stream)
            }
            (State::Starting(_), message @ M::RowDescription(_)) => {
                let mut answer = Answer::default();
                answer.take(message)?;
                State::Ending(answer)
            }
            (State::Streaming(stream), M::CopyDone) => {
                self.events.push_back(Event::ServerCopyDone);
                State::ServerDone(stream)
            }
            (State::ClientDone(_), M::CopyDone) => State::Ending(Answer::default()),
            (
                State::Streaming(_) | State::ServerDone(_) | State::ClientDone(_),
                M::CommandComplete { .. },
            ) => {
                self.events.push_back(Event::ServerStopping);
                State::Stopping
            }
            (_, _) => return Err(unexpected(state_name, message_name)),
        };
        Ok(next)
    }

    fn ready(&mut self) -> State {
        self.events.push_back(Event::Ready);
        State::Idle
    }

    fn answered(&mut self, event: Event) -> State {
        self.events.push_back(event);
        self.ready()
    }

    fn set_parameter(&mut self, name: String, value: String) -> Result<(), ClientError> {
        if self.parameters.len() == MAX_PARAMETERS && !self.parameters.contains_key(&name) {
            return Err(ClientError::TooMany {
                what: "parameters",
                limit: MAX_PARAMETERS,
            });
        }
        if name == "server_version" {
            // One that cannot be read is missed where a command depends on it.
            self.server_version = value.parse().ok();
        }
        self.parameters.insert(name, value);
        Ok(())
    }
}

const fn unexpected(state: &'static str, message: &'static str) -> ClientError {
    ClientError::Unexpected { state, message }
}
