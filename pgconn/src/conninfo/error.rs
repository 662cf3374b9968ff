//! What can be wrong with a connection string and the sources that complete it.

use std::path::PathBuf;

use walproto::client::InvalidRequireAuth;

use super::Keyword;
use crate::service::ServiceError;

/// A connection string, or a value for one of its key words, that cannot be used. Nothing has
/// been sent anywhere yet: whoever configures the receiver has to act.
///
/// Where libpq has a message for the same fault, its wording is kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConninfoError {
    /// A key word that libpq 18 does not know.
    #[error("invalid connection option \"{name}\"")]
    UnknownOption {
        /// The key word.
        name: String,
    },
    /// A key word without a value.
    #[error("missing \"=\" after \"{name}\" in connection info string")]
    MissingEquals {
        /// The key word.
        name: String,
    },
    /// A quoted value without its closing quote.
    #[error("unterminated quoted string in connection info string")]
    UnterminatedQuote,
    /// A NUL byte, which the protocol cannot carry.
    #[error("connection option \"{name}\" contains a NUL byte")]
    NulByte {
        /// The key word.
        name: &'static str,
    },
    /// A URI that is not one.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// A service that cannot be used.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// A value outside the fixed set of a key word.
    #[error("invalid {option} value: \"{value}\"")]
    InvalidValue {
        /// The key word.
        option: &'static str,
        /// The refused value.
        value: String,
    },
    /// A value that is not a number, or a number out of range.
    #[error("invalid integer value \"{value}\" for connection option \"{option}\"")]
    InvalidInteger {
        /// The key word.
        option: &'static str,
        /// The refused value.
        value: String,
    },
    /// A port that is not within 1 to 65535.
    #[error("invalid port number: \"{value}\"")]
    InvalidPort {
        /// The refused value.
        value: String,
    },
    /// `hostaddr` that is not a numeric address.
    #[error("could not parse network address \"{value}\"")]
    InvalidAddress {
        /// The refused value.
        value: String,
    },
    /// Lists of different length.
    #[error("could not match {hosts} host names to {addresses} hostaddr values")]
    HostCount {
        /// Elements of `host`.
        hosts: usize,
        /// Elements of `hostaddr`.
        addresses: usize,
    },
    /// Lists of different length.
    #[error("could not match {ports} port numbers to {hosts} hosts")]
    PortCount {
        /// Elements of `port`.
        ports: usize,
        /// Number of hosts.
        hosts: usize,
    },
    /// A socket path longer than the operating system takes.
    #[error("Unix-domain socket path \"{}\" is too long (maximum {maximum} bytes)", path.display())]
    SocketPathTooLong {
        /// The path.
        path: PathBuf,
        /// The longest path.
        maximum: usize,
    },
    /// A key word, or value of it, that libpq knows and this program does not implement.
    #[error("connection option {option}={value} is not supported: {reason}")]
    Unsupported {
        /// The key word.
        option: &'static str,
        /// Its value, or "..." where that is a secret.
        value: String,
        /// What is missing here.
        reason: &'static str,
    },
    /// `ssl_min_protocol_version` above `ssl_max_protocol_version`.
    #[error(
        "invalid SSL protocol version range: ssl_min_protocol_version \"{minimum}\" is above \
         ssl_max_protocol_version \"{maximum}\""
    )]
    TlsVersionRange {
        /// The lower bound.
        minimum: String,
        /// The upper bound.
        maximum: String,
    },
    /// An `sslmode` that is too weak for another key word.
    #[error("weak sslmode \"{sslmode}\" may not be used with {option} (use {allowed})")]
    WeakSslMode {
        /// The mode.
        sslmode: &'static str,
        /// The other key word with its value.
        option: &'static str,
        /// The modes that would do.
        allowed: &'static str,
    },
    /// `require_auth` that is no list of authentication methods.
    #[error(transparent)]
    RequireAuth(#[from] InvalidRequireAuth),
    /// An environment variable that is not UTF-8.
    #[error("environment variable {name} is not valid UTF-8")]
    EnvironmentNotUtf8 {
        /// The variable.
        name: &'static str,
    },
    /// The operating system does not know who runs this process, and no user was given.
    #[error("could not look up local user ID {uid}: give the PostgreSQL user with -U or user=")]
    NoUser {
        /// The effective user ID.
        uid: u32,
    },
}

impl ConninfoError {
    pub(crate) fn invalid(option: Keyword, value: &str) -> Self {
        Self::InvalidValue {
            option: option.name(),
            value: value.to_owned(),
        }
    }

    pub(crate) fn unsupported(option: Keyword, value: &str, reason: &'static str) -> Self {
        let value = if option.is_secret() { "..." } else { value };
        Self::Unsupported {
            option: option.name(),
            value: value.to_owned(),
            reason,
        }
    }
}

/// A connection URI that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// `[` without `]`.
    #[error(
        "end of string reached when looking for matching \"]\" in IPv6 host address in URI: \
         \"{uri}\""
    )]
    UnclosedBracket {
        /// The URI.
        uri: String,
    },
    /// `[]`.
    #[error("IPv6 host address may not be empty in URI: \"{uri}\"")]
    EmptyAddress {
        /// The URI.
        uri: String,
    },
    /// Something else than a port, a path, a query or another host after `]`.
    #[error(
        "unexpected character \"{character}\" at position {position} in URI (expected \":\" or \
         \"/\"): \"{uri}\""
    )]
    UnexpectedCharacter {
        /// The character.
        character: char,
        /// Its place, in bytes from 1.
        position: usize,
        /// The URI.
        uri: String,
    },
    /// A second `=` in one query parameter.
    #[error("extra key/value separator \"=\" in URI query parameter: \"{parameter}\"")]
    ExtraEquals {
        /// The key word.
        parameter: String,
    },
    /// No `=` in a query parameter.
    #[error("missing key/value separator \"=\" in URI query parameter: \"{parameter}\"")]
    MissingEquals {
        /// The query parameter.
        parameter: String,
    },
    /// A query parameter that is not a key word.
    #[error("invalid URI query parameter: \"{parameter}\"")]
    UnknownParameter {
        /// The query parameter.
        parameter: String,
    },
    /// `%` without two hexadecimal digits.
    #[error("invalid percent-encoded token: \"{text}\"")]
    InvalidPercent {
        /// The part of the URI.
        text: String,
    },
    /// An encoded NUL byte.
    #[error("forbidden value %00 in percent-encoded value: \"{text}\"")]
    EncodedNul {
        /// The part of the URI.
        text: String,
    },
    /// A space within a value.
    #[error("unexpected spaces found in \"{text}\", use percent-encoded spaces (%20) instead")]
    Space {
        /// The part of the URI.
        text: String,
    },
    /// Percent-encoded bytes that are not UTF-8.
    #[error("percent-encoded value is not valid UTF-8: \"{text}\"")]
    NotUtf8 {
        /// The part of the URI.
        text: String,
    },
}
