//! Why a connection ends before its time, and how that is told.

use std::io;
use std::net::SocketAddr;

use walproto::server::ServerError;

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
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    let text = one_line(&text);
    tracing::warn!(client, "connection from {client} ended: {text}");
}

/// Names and values that are a client's to choose are part of what it is refused for, and a line is
/// to stay one.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            _ if c.is_control() => line.extend(c.escape_default()),
            _ => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_says_makes_no_line_of_its_own() {
        let text = "user \"a\nERROR: \u{1b}[31mb\u{85}\" \u{fc}";
        let expected = "user \"a\\nERROR: \\u{1b}[31mb\\u{85}\" \u{fc}";
        assert_eq!(one_line(text), expected);
    }
}
