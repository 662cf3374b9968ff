//! What the rows set.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use walproto::Lsn;
use walsender::ListenAddress;
use walsender::policy::SyncPolicy;

use super::error::UsageError;
use super::receive::Prompt;

/// The options of a command line as they were given, before they are looked at together. Each
/// command takes those that it knows.
#[derive(Default)]
pub(crate) struct Given {
    /// The long names in the order in which they were given.
    pub(super) options: Vec<&'static str>,
    /// The arguments that are no options.
    pub(crate) operands: Vec<OsString>,

    pub(crate) directory: Option<PathBuf>,
    pub(crate) verbose: bool,
    pub(crate) log_format: LogFormat,
    /// The command to run when something has happened.
    pub(crate) on_event: Option<OsString>,
    pub(crate) json: bool,
    pub(crate) jobs: Option<NonZeroUsize>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) dry_run: bool,

    pub(super) conninfo: Option<String>,
    pub(super) host: Option<String>,
    pub(super) port: Option<String>,
    pub(super) user: Option<String>,
    pub(super) prompt: Prompt,

    pub(super) slot: Option<String>,
    pub(super) compress: Option<String>,
    pub(super) start: Option<Lsn>,
    pub(super) end: Option<Lsn>,
    /// In these three `Some(None)` is 0.
    pub(super) status_interval: Option<Option<Duration>>,
    pub(super) receive_timeout: Option<Option<Duration>>,
    pub(super) max_feedback_age: Option<Option<Duration>>,
    pub(super) retry_interval: Option<Duration>,
    pub(super) create_slot: bool,
    pub(super) drop_slot: bool,
    pub(super) if_not_exists: bool,
    pub(super) no_loop: bool,
    pub(super) synchronous: bool,
    pub(super) no_sync: bool,
    pub(super) follow_fork: bool,

    pub(super) listen: Vec<ListenAddress>,
    pub(super) hba: Option<PathBuf>,
    pub(super) users: Option<PathBuf>,
    pub(super) trust_loopback: bool,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) client_authorities: Option<PathBuf>,
    pub(super) revocation_list: Option<PathBuf>,
    pub(super) connections: Option<usize>,
    pub(super) connections_per_user: Option<usize>,
    pub(super) authentication_timeout: Option<Duration>,
    /// `Some(None)` is never.
    pub(super) wal_sender_timeout: Option<Option<Duration>>,
    pub(super) max_slots: Option<usize>,
    pub(crate) max_slot_keep_bytes: Option<u64>,
    pub(super) policy: Option<SyncPolicy>,
    pub(super) feedback: bool,
}

impl Given {
    /// The only argument that is no option, if there is one.
    ///
    /// # Errors
    /// When there are more.
    pub(crate) fn operand(&mut self) -> Result<Option<OsString>, UsageError> {
        let mut operands = self.operands.drain(..);
        let operand = operands.next();
        refuse(operands.next())?;
        Ok(operand)
    }

    /// Refuses arguments that are no options.
    pub(crate) fn no_operand(&mut self) -> Result<(), UsageError> {
        refuse(self.operands.drain(..).next())
    }
}

fn refuse(operand: Option<OsString>) -> Result<(), UsageError> {
    match operand {
        None => Ok(()),
        Some(operand) => Err(UsageError::TooManyArguments {
            first: operand.to_string_lossy().into_owned(),
        }),
    }
}

/// How messages are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

impl LogFormat {
    pub(super) fn from_option(value: String) -> Result<Self, UsageError> {
        match value.as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(UsageError::LogFormat { value }),
        }
    }
}
