//! Why a table is not the reply to a command.

use std::fmt;

/// A table that is not what a server answers to a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid reply to {reply}: {reason}")]
pub struct ResultError {
    /// The command that was answered.
    pub reply: Reply,
    /// What is wrong with the answer.
    pub reason: ResultFault,
}

/// The command that a table answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// `IDENTIFY_SYSTEM`
    IdentifySystem,
    /// `SHOW`
    Show,
    /// `TIMELINE_HISTORY`
    TimelineHistory,
    /// `CREATE_REPLICATION_SLOT`
    CreateReplicationSlot,
    /// `READ_REPLICATION_SLOT`
    ReadReplicationSlot,
    /// `START_REPLICATION`, at the end of a historic timeline.
    StartReplication,
    /// `BASE_BACKUP`
    BaseBackup,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IdentifySystem => "IDENTIFY_SYSTEM",
            Self::Show => "SHOW",
            Self::TimelineHistory => "TIMELINE_HISTORY",
            Self::CreateReplicationSlot => "CREATE_REPLICATION_SLOT",
            Self::ReadReplicationSlot => "READ_REPLICATION_SLOT",
            Self::StartReplication => "START_REPLICATION",
            Self::BaseBackup => "BASE_BACKUP",
        })
    }
}

/// What is wrong with a reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResultFault {
    /// Not one row.
    #[error("expected 1 row, found {found}")]
    Rows {
        /// The number of rows.
        found: usize,
    },
    /// Fewer columns than servers have sent since 13. More of them are not a fault.
    #[error("expected {expected} columns, found {found}")]
    Columns {
        /// The number of columns wanted.
        expected: usize,
        /// The number of columns sent.
        found: usize,
    },
    /// A value that cannot be missing is NULL.
    #[error("{column} is NULL")]
    Null {
        /// The column, by PostgreSQL's name for it.
        column: &'static str,
    },
    /// A value of another form.
    #[error("{column} is {found:?}, expected {expected}")]
    Value {
        /// The column, by PostgreSQL's name for it.
        column: &'static str,
        /// The form that values of the column have.
        expected: &'static str,
        /// The beginning of the value.
        found: String,
    },
}
