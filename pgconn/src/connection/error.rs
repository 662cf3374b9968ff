//! Why there is no connection, or no longer one.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use walproto::client::{AuthError, ClientError, Event};
use walproto::command::InvalidText;
use walproto::error::{ServerMessage, SqlState};
use walproto::result::ResultError;
use walproto::{ForeignText, ServerVersion};

use crate::tls::TlsError;

/// A connection that cannot go on, or a command that was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The socket, or TLS, is broken.
    #[error("{operation} server {}", Place(server))]
    Io {
        /// What was done.
        operation: &'static str,
        /// The server.
        server: String,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The server broke the protocol, fell silent or went away.
    #[error(transparent)]
    Session(ClientError),
    /// The server refused a command. The connection can go on, unless the severity says
    /// otherwise.
    #[error("{command}: {message}")]
    Failed {
        /// The command.
        command: String,
        /// The server's reason.
        message: Box<ServerMessage>,
    },
    /// A command was answered by something that is no answer to it.
    #[error("{command} was answered by {}", ForeignText::new(format_args!("{event:?}")))]
    UnexpectedEvent {
        /// The command.
        command: String,
        /// What came.
        event: Box<Event>,
    },
    /// A command was answered by a table that is no answer to it.
    #[error(transparent)]
    Reply(#[from] ResultError),
    /// No server has a setting of such a name.
    #[error(transparent)]
    SettingName(#[from] InvalidText),
    /// The server closed the connection in good order.
    #[error("the connection is closed")]
    Closed,
}

impl ConnectionError {
    /// What the server said, if it was the server who refused.
    #[must_use]
    pub fn server_message(&self) -> Option<&ServerMessage> {
        match self {
            Self::Failed { message, .. } | Self::Session(ClientError::Refused(message)) => {
                Some(message)
            }
            _ => None,
        }
    }

    /// The server's SQLSTATE, if it was the server who refused.
    #[must_use]
    pub fn sqlstate(&self) -> Option<SqlState> {
        self.server_message().map(|message| message.sqlstate)
    }
}

/// One try to connect, to one address.
#[derive(Debug)]
pub struct Attempt {
    /// The server, as in `"db.example" (192.0.2.1), port 5432`.
    pub server: String,
    /// What became of it.
    pub failure: ConnectFailure,
}

/// No server could be connected to. The text names each that was tried, and why it failed.
#[derive(Debug)]
pub struct ConnectError {
    /// The tries, in their order; at least one.
    pub attempts: Vec<Attempt>,
}

impl ConnectError {
    /// Whether a server asked for a password, and there is none.
    #[must_use]
    pub fn is_password_missing(&self) -> bool {
        let missing = |attempt: &Attempt| attempt.failure.is_password_missing();
        self.attempts.iter().any(missing)
    }

    /// Whether another try may succeed although nobody changes a setting or a file.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        let transient = |attempt: &Attempt| attempt.failure.is_transient();
        self.attempts.iter().any(transient)
    }
}

impl ConnectError {
    /// Whether a server that was tried is likely to be there soon.
    pub fn is_server_starting(&self) -> bool {
        let starting = |attempt: &Attempt| attempt.failure.is_server_starting();
        self.attempts.iter().any(starting)
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, attempt) in self.attempts.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            let Attempt { server, failure } = attempt;
            write!(
                f,
                "{separator}connection to server {} failed: {failure}",
                Place(server)
            )?;
            let mut source = failure.source();
            while let Some(error) = source {
                write!(f, ": {error}")?;
                source = error.source();
            }
        }
        Ok(())
    }
}

/// A server's name with the word that libpq puts before it.
pub(super) struct Place<'a>(pub(super) &'a str);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(server) = self;
        // The name of a host comes in quotes.
        let word = if server.starts_with("socket ") {
            "on"
        } else {
            "at"
        };
        write!(f, "{word} {server}")
    }
}

/// The sources are part of the text, since there may be one for each try.
impl Error for ConnectError {}

/// Why a try to connect failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectFailure {
    /// The name stands for no address.
    #[error("could not translate host name \"{host}\" to address")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The address, or the socket file, does not answer.
    #[error("{error}: is the server running there and accepting connections?")]
    Connect {
        /// Why.
        error: io::Error,
    },
    /// The time that a connection may take is over.
    #[error("timeout expired: no connection within {} s ({limit})", after.as_secs_f64())]
    Timeout {
        /// The time.
        after: Duration,
        /// Which time it is.
        limit: &'static str,
    },
    /// Who runs the server behind a socket cannot be found out.
    #[error("could not get peer credentials for requirepeer")]
    PeerCredentials {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another user than `requirepeer` runs the server behind a socket.
    #[error("requirepeer specifies \"{required}\", but actual peer user name is \"{actual}\"")]
    WrongPeer {
        /// The user that should run it.
        required: String,
        /// The user that does, or its number if it has no name.
        actual: String,
    },
    /// TLS is not possible, or the server is not trusted.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server let nobody in, or not us.
    #[error("{message}{}", advice(message, password_file.as_deref()))]
    Refused {
        /// Its reason.
        message: Box<ServerMessage>,
        /// The file that the password came from, if it did.
        password_file: Option<PathBuf>,
    },
    /// The password prompt failed.
    #[error("reading the password")]
    Prompt {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server broke the protocol, or authentication failed on our side.
    #[error(transparent)]
    Session(ClientError),
    /// The socket broke while the session was set up.
    #[error(transparent)]
    Connection(Box<ConnectionError>),
    /// A server that this program has never been tested with.
    #[error("server version {version} is not supported; use a server of version 13 or later")]
    OldServer {
        /// Its version.
        version: ServerVersion,
    },
    /// `target_session_attrs` asks for a server in another state.
    #[error("{found} (target_session_attrs={wanted})")]
    Target {
        /// What is wrong about it.
        found: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
}

impl ConnectFailure {
    /// Whether the server asked for a password, and there is none.
    #[must_use]
    pub const fn is_password_missing(&self) -> bool {
        matches!(
            self,
            Self::Session(ClientError::Auth(AuthError::PasswordMissing))
        )
    }

    /// The server's SQLSTATE, if it was the server who refused.
    #[must_use]
    pub fn sqlstate(&self) -> Option<SqlState> {
        match self {
            Self::Refused { message, .. } => Some(message.sqlstate),
            Self::Connection(error) => error.sqlstate(),
            _ => None,
        }
    }

    /// Whether another try may succeed although nobody changes a setting or a file.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Connection(_)
            | Self::Target { .. }
            | Self::Tls(TlsError::Io { .. } | TlsError::ErrorResponse) => true,
            Self::Session(error) => {
                matches!(
                    error,
                    ClientError::UnexpectedEof { .. } | ClientError::Timeout { .. }
                )
            }
            Self::Refused { message, .. } => !is_permanent(message.sqlstate),
            Self::PeerCredentials { .. }
            | Self::WrongPeer { .. }
            | Self::Tls(_)
            | Self::Prompt { .. }
            | Self::OldServer { .. } => false,
        }
    }
}

impl ConnectFailure {
    /// Whether the address refuses connections, or the server says that it is starting up.
    pub fn is_server_starting(&self) -> bool {
        match self {
            Self::Connect { error } => matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ),
            failure => failure.sqlstate() == Some(SqlState::CANNOT_CONNECT_NOW),
        }
    }
}

/// Whether a refusal lasts until the configuration or the server is changed. A protocol violation
/// is not permanent: PgBouncer uses that SQLSTATE for its own errors, all of which may be transient.
///
/// Source: pgbouncer's src/client.c and src/server.c, `disconnect_client` (1.24).
pub fn is_permanent(state: SqlState) -> bool {
    [
        SqlState::INVALID_PASSWORD,
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        SqlState::INSUFFICIENT_PRIVILEGE,
        SqlState::FEATURE_NOT_SUPPORTED,
        SqlState::SYNTAX_ERROR,
        SqlState::UNDEFINED_OBJECT,
    ]
    .contains(&state)
}

/// What to do about a refusal, decided by its code since the text may be in any language.
fn advice(message: &ServerMessage, password_file: Option<&std::path::Path>) -> String {
    let advice = match message.sqlstate {
        SqlState::INVALID_PASSWORD => match password_file {
            Some(path) => {
                return format!(" (password retrieved from file \"{}\")", path.display());
            }
            None => "check user and password",
        },
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "check the user, and that pg_hba.conf has a line for database \"replication\""
        }
        SqlState::INSUFFICIENT_PRIVILEGE => "the role needs the REPLICATION attribute",
        SqlState::TOO_MANY_CONNECTIONS => "raise max_wal_senders or max_connections",
        _ => return String::new(),
    };
    format!(" ({advice})")
}
