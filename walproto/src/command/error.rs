//! Why a text is no replication command.

use super::Command;

/// A text that is not a replication command, and where it stops being one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid replication command at byte {position}: {reason}")]
pub struct CommandError {
    /// The offset of what is wrong, in bytes from the beginning of the text.
    pub position: usize,
    /// What is wrong there.
    pub reason: CommandFault,
}

impl CommandError {
    pub(super) const fn new(position: usize, reason: CommandFault) -> Self {
        Self { position, reason }
    }
}

/// What is wrong with a replication command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandFault {
    /// The text is longer than any real command.
    #[error("the command is longer than {} bytes", Command::MAX_LENGTH)]
    TooLong,
    /// The text is not UTF-8.
    #[error("expected UTF-8")]
    NotUtf8,
    /// The text contains a zero byte.
    #[error("unexpected zero byte")]
    Nul,
    /// The text does not begin with the keyword of a replication command. It may be SQL, which
    /// PostgreSQL executes on a connection with a database.
    #[error("expected the keyword of a replication command")]
    NotReplicationCommand,
    /// A quoted name or text does not end.
    #[error("unterminated quoted string")]
    UnterminatedQuote,
    /// Something else than the grammar wants.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// What could stand there.
        expected: &'static str,
        /// What does.
        found: Found,
    },
    /// A number of more than 32 bits.
    #[error("the number is greater than 4294967295")]
    NumberTooLarge,
    /// A position with more than eight digits before or after the slash.
    #[error("an LSN has at most eight hexadecimal digits on each side of the slash")]
    InvalidLsn,
    /// Timeline 0.
    #[error("invalid timeline 0")]
    InvalidTimeline,
    /// The name of a slot with dots that is longer than a slot's name can be.
    #[error("the name is longer than {} bytes", super::Identifier::MAX_LENGTH)]
    NameTooLong,
    /// An option that the command does not have.
    #[error("{command} has no option \"{option}\"")]
    UnknownOption {
        /// The command's keyword.
        command: &'static str,
        /// The option's name.
        option: String,
    },
    /// An option that the command does not have for this kind of slot.
    #[error("option \"{option}\" is not for a {kind} slot")]
    OptionOfOtherKind {
        /// The option's name.
        option: &'static str,
        /// `physical` or `logical`.
        kind: &'static str,
    },
    /// An option given twice.
    #[error("option \"{option}\" is given twice")]
    DuplicateOption {
        /// The option's name.
        option: &'static str,
    },
    /// An option with a value that it does not take.
    #[error("option \"{option}\" takes {expected}, found {found}")]
    InvalidValue {
        /// The option's name.
        option: &'static str,
        /// The values that it takes.
        expected: &'static str,
        /// What was given.
        found: Found,
    },
    /// An option that has a meaning only together with another.
    #[error("option \"{option}\" needs option \"{needed}\"")]
    OptionNeedsOther {
        /// The option's name.
        option: &'static str,
        /// The other option's name.
        needed: &'static str,
    },
}

/// What stands at a place where something else was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Found {
    /// Nothing more: the command ends there.
    #[error("the end of the command")]
    End,
    /// An option without a value.
    #[error("no value")]
    NoValue,
    /// A piece of the command, shortened.
    #[error("{0:?}")]
    Text(String),
}

impl Found {
    /// The beginning of `text`: what a peer sends comes back in messages and logs.
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.chars().take(64).collect())
    }
}
