//! What is wrong with a file of access rules.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Access rules that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HbaError {
    /// The file cannot be read.
    #[error("reading access rules \"{}\"", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line is wrong, or asks for what this server does not have.
    #[error("access rules \"{}\", line {line}: {fault}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1 on.
        line: usize,
        /// What is wrong.
        fault: Box<HbaFault>,
    },
}

/// A field of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HbaField {
    /// The first field: `local`, `host`, `hostssl`, `hostnossl`.
    ConnectionType,
    /// The databases.
    Database,
    /// The users.
    User,
    /// The client's address.
    Address,
    /// The mask of the address, if it is a field of its own.
    Mask,
    /// The method.
    Method,
    /// What follows the method.
    Options,
}

impl fmt::Display for HbaField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConnectionType => "connection type",
            Self::Database => "database",
            Self::User => "user",
            Self::Address => "address",
            Self::Mask => "mask",
            Self::Method => "method",
            Self::Options => "options",
        })
    }
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HbaFault {
    /// The line is not UTF-8.
    #[error("not UTF-8 text")]
    NotText,
    /// A quote without its partner.
    #[error("unterminated quote")]
    UnterminatedQuote,
    /// A field of more than PostgreSQL takes.
    #[error("a value is longer than {limit} bytes")]
    TooLong {
        /// The most that is taken.
        limit: usize,
    },
    /// The line ends too early.
    #[error("the line ends before the {field}")]
    Missing {
        /// The field that is not there.
        field: HbaField,
    },
    /// A list in a field that takes one value.
    #[error("several values for the {field}")]
    Several {
        /// The field.
        field: HbaField,
    },
    /// A value that PostgreSQL would not take either.
    #[error("invalid {field} \"{value}\"")]
    Invalid {
        /// The field.
        field: HbaField,
        /// The value.
        value: String,
    },
    /// A value that PostgreSQL takes.
    #[error("{field} \"{value}\" is not supported: {advice}")]
    Unsupported {
        /// The field.
        field: HbaField,
        /// The value.
        value: String,
        /// Why, and what to write.
        advice: &'static str,
    },
    /// A method on connections that it cannot work on.
    #[error("method \"{method}\" works on {only} connections only")]
    MethodOn {
        /// The method.
        method: &'static str,
        /// The connection type that it works on.
        only: &'static str,
    },
}
