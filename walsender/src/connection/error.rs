//! Why a connection ends before its time, and how that is told.

use std::io;
use std::net::SocketAddr;

use walproto::server::ServerError;

use crate::chain::chain;
use crate::pump::PushError;
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

/// Logs why a client's connection has ended.
pub(super) fn log_end(address: Option<SocketAddr>, error: &ConnectionError) {
    let client = address.map_or_else(|| "[local]".to_owned(), |address| address.to_string());
    let text = chain(error);
    tracing::warn!(client, "connection from {client} ended: {text}");
}
