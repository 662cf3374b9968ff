//! Why the program ends with an error.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use pgconn::connection::{ConnectError, ConnectFailure, ConnectionError};
use pgconn::conninfo::ConninfoError;
use segstore::{ArchiveError, SegmentName};
use walproto::SegmentSize;
use walproto::error::{ServerMessage, SqlState};
use walreceiver::{Lsn, ReceiveError, Refusal, SlotError, TimelineId};
use walsender::{ListenAddress, ServeError};

use crate::ask_error::AskError;

/// Why the program ends with an error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MainError {
    #[error("could not open directory \"{}\": {error}", path.display())]
    Directory { path: PathBuf, error: io::Error },
    #[error(
        "archive \"{}\" belongs to user \"{owner}\", but this program runs as \"{user}\"; run it as \
         \"{owner}\"",
        directory.display()
    )]
    OtherUser {
        directory: PathBuf,
        owner: String,
        user: String,
    },
    #[error(
        "host {host} port {port} is where this program itself listens ({address}), name the \
         server to receive from"
    )]
    OwnAddress {
        host: String,
        port: u16,
        address: ListenAddress,
    },
    #[error(
        "no segment is called \"{name}\" in archive \"{}\", whose segments have {} bytes",
        directory.display(),
        segment_size.bytes()
    )]
    OldestKept {
        name: SegmentName,
        directory: PathBuf,
        segment_size: SegmentSize,
    },
    #[error(
        "directory \"{}\" contains no WAL segments, only directories of segments such as \"{}\"",
        directory.display(),
        first.display()
    )]
    SegmentsBelow {
        directory: PathBuf,
        first: PathBuf,
        hint: String,
    },
    #[error(
        "{connections} clients (--max-connections) and the archive need {needed} file descriptors, \
         but this process may open only {allowed}; raise the hard limit (ulimit -Hn, or \
         LimitNOFILE= of the service), {}",
        fewer(*fitting)
    )]
    TooFewDescriptors {
        connections: usize,
        needed: usize,
        allowed: usize,
        fitting: usize,
    },
    #[error("could not start: {0}")]
    Runtime(io::Error),
    #[error("interrupted")]
    Interrupted,
    /// The cause was logged before.
    #[error("disconnected")]
    Disconnected { cause: Box<ReceiveError> },
    /// The same, which has been logged already.
    #[error(transparent)]
    Told(Box<Self>),
    #[error("could not read a password: {0}")]
    Password(io::Error),
    #[error(transparent)]
    Conninfo(#[from] ConninfoError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Slot(#[from] SlotError),
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("nothing is durable in archive \"{}\" yet that a standby could have", directory.display())]
    NothingDurable { directory: PathBuf },
    #[error(
        "what archive \"{}\" says of its end is older than the start of this machine: more may \
         have been acknowledged; start a receiver that serves it (wal-receiver --listen) first, \
         which finds the end anew",
        directory.display()
    )]
    MayEndLater { directory: PathBuf },
    #[error(
        "standby \"{name}\" does not have {lsn} (timeline {timeline}) after {} seconds: {why}",
        timeout.as_secs()
    )]
    StandbyMissed {
        name: String,
        timeline: TimelineId,
        lsn: Lsn,
        timeout: Duration,
        why: String,
    },
    #[error("could not write to standard output: {0}")]
    Output(io::Error),
    #[error(
        "no wal-receiver is running for archive \"{}\"; start one, or look at its service's log",
        directory.display()
    )]
    NotRunning { directory: PathBuf },
}

/// The alternative to a higher limit.
fn fewer(fitting: usize) -> String {
    match fitting {
        0 => "as it leaves room for no client".to_owned(),
        fitting => format!("or use at most --max-connections={fitting}"),
    }
}

impl MainError {
    /// The error itself, whether or not it was logged.
    pub(crate) fn itself(&self) -> &Self {
        match self {
            Self::Told(error) => error,
            error => error,
        }
    }

    /// Where in the WAL it happened, if it is about a place there.
    pub(crate) fn position(&self) -> Option<(TimelineId, Lsn)> {
        match self {
            Self::Receive(error) => error.position(),
            Self::StandbyMissed { timeline, lsn, .. } => Some((*timeline, *lsn)),
            Self::Told(error) => error.position(),
            _ => None,
        }
    }

    /// What to do about it: what the server advises, in its language, or what we do.
    pub(crate) fn hint(&self) -> Option<&str> {
        match self {
            Self::Slot(SlotError::Refused { message, .. }) => match message.sqlstate {
                SqlState::SYNTAX_ERROR => Some(NO_REPLICATION_COMMANDS),
                _ => message.hint.as_deref(),
            },
            Self::Receive(error) => hint_of(error),
            Self::Connect(error) => hint_of_connect(error),
            Self::Archive(ArchiveError::NotDurable { .. }) => {
                Some("Run the receiver on it without --no-sync.")
            }
            Self::SegmentsBelow { hint, .. } => Some(hint),
            Self::Told(error) => error.hint(),
            _ => None,
        }
    }
}

/// What to do when hosts show that the history of their cluster has split.
const fn hint_of_split(refusal: &Refusal) -> Option<&'static str> {
    match refusal {
        Refusal::Forked(_) => Some(
            "If that host is the right primary, shut down the old one and use --follow-fork. If it \
             was promoted by mistake, shut it down and remove it from the list of hosts.",
        ),
        Refusal::ForeignTimeline { .. } => Some(
            "If that host was promoted by mistake, shut it down and remove it from the list of \
             hosts. If it is the right primary, begin again in a new directory.",
        ),
        _ => None,
    }
}

/// The server parsed the first replication command as SQL: it does not know that the connection is
/// for replication.
const NO_REPLICATION_COMMANDS: &str = "The server parsed a replication command as SQL. A connection \
     pooler may have dropped the parameter \"replication\". Connect to the server directly, or use a \
     pooler that supports replication connections.";

/// PgBouncer's words, which are never translated. They decide on the hint alone.
const REPLICATION_UNKNOWN: &str = "unsupported startup parameter: replication";

const OLD_POOLER: &str = "PgBouncer supports replication connections from version 1.23 on. Connect \
     to the server directly, or use a newer PgBouncer.";

/// What to do about an error of receiving.
pub(crate) fn hint_of(error: &ReceiveError) -> Option<&'static str> {
    match error {
        ReceiveError::WalRemoved {
            segments_are_moved: true,
            ..
        } => Some(
            "Fetch it from another archive of this cluster, or begin again with a new base backup: \
             with barman, run \"barman receive-wal --reset SERVER\" first.",
        ),
        ReceiveError::WalRemoved { .. } => Some(
            "Fetch it from another archive of this cluster, or begin again in a new directory with a \
             new base backup.",
        ),
        ReceiveError::Split { refusal, .. } => hint_of_split(refusal),
        ReceiveError::Refused(Refusal::Forked(_)) => Some(
            "To keep the WAL after the fork aside and follow the new timeline, use --follow-fork.",
        ),
        ReceiveError::Refused(Refusal::StartPastEnd { .. }) => {
            Some("Use an earlier --start, or leave it out.")
        }
        ReceiveError::NotEmpty { .. } => Some("Leave --start out, or use an empty directory."),
        ReceiveError::NoSuchSlot { .. } => Some("Use --create-slot to create it."),
        ReceiveError::LostSlot { .. } | ReceiveError::UnusableSlot { .. } => {
            Some("Use --drop-slot to drop it, and --create-slot to create it.")
        }
        ReceiveError::Connection(error) => hint_of_connection(error),
        ReceiveError::Connect(error) => hint_of_connect(error),
        _ => None,
    }
}

fn hint_of_connect(error: &ConnectError) -> Option<&'static str> {
    error
        .attempts
        .iter()
        .find_map(|attempt| match &attempt.failure {
            ConnectFailure::Refused { message, .. } => hint_of_message(message),
            ConnectFailure::Connection(error) => hint_of_connection(error),
            _ => None,
        })
}

fn hint_of_connection(error: &ConnectionError) -> Option<&'static str> {
    error.server_message().and_then(hint_of_message)
}

fn hint_of_message(message: &ServerMessage) -> Option<&'static str> {
    match message.sqlstate {
        SqlState::SYNTAX_ERROR => Some(NO_REPLICATION_COMMANDS),
        SqlState::PROTOCOL_VIOLATION if message.message == REPLICATION_UNKNOWN => Some(OLD_POOLER),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use pgconn::connection::Attempt;

    use super::*;
    use crate::logging::chain;

    #[test]
    fn a_directory_that_is_not_there_is_named_as_by_pg_receivewal() {
        let error = std::fs::read_dir("/nonexistent/wal").unwrap_err();
        let path = PathBuf::from("/nonexistent/wal");
        assert_eq!(
            chain(&MainError::Directory { path, error }),
            "could not open directory \"/nonexistent/wal\": No such file or directory"
        );
    }

    #[test]
    fn a_pgbouncer_that_does_not_know_replication_is_named() {
        let refused = |text: &str| {
            let message = ServerMessage::fatal(SqlState::PROTOCOL_VIOLATION, text);
            ConnectError {
                attempts: vec![Attempt {
                    server: "\"127.0.0.1\", port 6432".to_owned(),
                    failure: ConnectFailure::Refused {
                        message: Box::new(message),
                        password_file: None,
                    },
                }],
            }
        };
        let hint = hint_of_connect(&refused("unsupported startup parameter: replication"));
        assert!(
            hint.is_some_and(|hint| hint.contains("PgBouncer")),
            "{hint:?}"
        );
        assert_eq!(hint_of_connect(&refused("server conn crashed?")), None);
    }
}
