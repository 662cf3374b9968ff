//! Why a connection ends before its time, and how that is told.

use std::io;
use std::net::SocketAddr;

use walproto::server::ServerError;

use crate::chain::chain;
use crate::pump::PushError;
use crate::repeat::Repeated;
use crate::shared::Shared;
use crate::tls::TlsError;

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    /// The client broke the protocol, was refused, or took too long.
    #[error(transparent)]
    Session(#[from] ServerError),
    /// The connection broke.
    #[error("connection to the client")]
    Io(#[from] io::Error),
    /// No agreement on TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// WAL could not be sent.
    #[error(transparent)]
    Push(#[from] PushError),
    /// A part of this program broke down.
    #[error("a fault of this program")]
    Fault,
}

impl ConnectionError {
    /// Whether the client was refused: by the rules of access, or since it could not show who it
    /// is.
    const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Session(ServerError::Refused(_) | ServerError::Scram { .. })
        )
    }

    /// Whether the client has closed the connection without waiting for what it was sent.
    fn is_reset(&self) -> bool {
        let (Self::Io(error) | Self::Push(PushError::Io(error))) = self else {
            return false;
        };
        matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        )
    }
}

/// Logs why a client's connection has ended. Anybody can open connections and break them, so
/// there is a limit to the lines.
pub(super) fn log_end(
    shared: &Shared,
    address: Option<SocketAddr>,
    is_authenticated: bool,
    error: &ConnectionError,
) {
    let client = address.map_or_else(|| "[local]".to_owned(), |address| address.to_string());
    if !is_authenticated && error.is_reset() {
        // A health check has got the answer that it wanted.
        tracing::debug!(client, "connection from {client} was reset");
        return;
    }
    let kind = match error {
        _ if is_authenticated => Repeated::Ended,
        error if error.is_refusal() => Repeated::Refused,
        _ => Repeated::Unauthenticated,
    };
    let text = chain(error);
    let text = format_args!("connection from {client} ended: {text}");
    shared.repeats.warn(kind, &client, text);
}
