//! What the options of a receiver mean together.

#[cfg(test)]
pub(super) mod tests;

use std::ffi::OsString;
use std::time::Duration;

use walproto::SlotName;
use walreceiver::{OnFork, ReceiverConfig, ShortSyncs};

use super::compression::{self, Requested};
use super::error::UsageError;
use super::given::{Given, LogFormat};
use super::rows::{BEYOND, CONNECTION, DOWNSTREAM, ON_EVENT, SERVING, SLOT_ACTIONS, receiving};
use super::serving::{ACCESS_SECTION, Serving};
use super::{Command, Section};
use crate::face::Face;

/// The default time between status messages, in seconds.
pub(super) const STATUS_INTERVAL: u64 = 10;
/// The default time after which a silent server is disconnected, in seconds.
pub(super) const RECEIVE_TIMEOUT: u64 = 60;
/// The default of the maximum wait before a retry to connect, in seconds.
pub(super) const RETRY_INTERVAL: u64 = 5;

/// The work that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) action: Action,
    /// How what is received is served meanwhile, if it is.
    pub(crate) serving: Option<Serving>,
    pub(crate) connection: ConnectionArguments,
    /// Whether progress is told in messages.
    pub(crate) verbose: bool,
    pub(crate) log_format: LogFormat,
    /// The command to run when something has happened.
    pub(crate) on_event: Option<OsString>,
    /// See [`Requested::unavailable_lz4_level`].
    pub(crate) unavailable_lz4_level: Option<i32>,
}

/// One action a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Receive(ReceiverConfig),
    CreateSlot { slot: SlotName, if_not_exists: bool },
    DropSlot(SlotName),
}

/// Where to connect, as far as the command line says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConnectionArguments {
    /// A connection string, or nothing.
    pub(crate) conninfo: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) prompt: Prompt,
    /// The silence after which a server is taken for gone.
    pub(crate) receive_timeout: Option<Duration>,
}

/// When the user is asked for a password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Prompt {
    /// When the server wants one and none is known.
    #[default]
    Needed,
    Never,
    /// Before the first connection.
    Always,
}

/// The command of each face, by whose name the program is called.
pub(crate) const fn command(face: Face) -> &'static Command {
    match face {
        Face::PgReceivewal => &PG_RECEIVEWAL,
        Face::WalReceiver => &WAL_RECEIVER,
    }
}

static PG_RECEIVEWAL: Command = Command {
    face: Face::PgReceivewal,
    name: None,
    about: "receives a PostgreSQL server's WAL into a directory.",
    usage: "[OPTION]...",
    sections: &[
        Section {
            text: "Options:",
            flags: &[&receiving("make WAL durable and tell the server at once")],
        },
        Section {
            text: "Beyond pg_receivewal (never abbreviated):",
            // The last one is known, but refused.
            flags: &[BEYOND, &[ON_EVENT.help("")]],
        },
        CONNECTION_SECTION,
        SLOT_SECTION,
    ],
    refused: 1,
};

static WAL_RECEIVER: Command = Command {
    face: Face::WalReceiver,
    name: None,
    about: "receives a PostgreSQL server's WAL into a directory, checks every record,\n\
            and acknowledges it as a synchronous standby does.",
    usage: "[OPTION]...",
    sections: &[
        Section {
            text: "Options:",
            flags: &[&receiving(
                "make WAL durable and tell the server at once (always done)",
            )],
        },
        Section {
            text: "Beyond pg_receivewal (never abbreviated):",
            flags: &[BEYOND, &[ON_EVENT]],
        },
        CONNECTION_SECTION,
        SLOT_SECTION,
        Section {
            text: "Serving what is received meanwhile, to standbys, pg_receivewal and other \
                   receivers\n(\"{program} serve\" serves an archive without receiving):",
            flags: &[SERVING, DOWNSTREAM],
        },
        ACCESS_SECTION,
        Section::text("SIGHUP reads these files anew."),
        Section::text(
            "Subcommands (each has its own --help):
  serve                  serve an archive to standbys and other receivers
  status                 show how an archive and its processes are
  await-standby          wait until a standby has all that was acknowledged
  verify                 check every record of an archive
  prune                  remove old segments from an archive",
        ),
        Section::text(
            "\
Called as pg_receivewal (by a symbolic link) it has that program's defaults instead: it
acknowledges only with --synchronous or for a slot, a new slot reserves no WAL, it waits five
seconds before it connects again, and a first connection that fails ends it. It does not serve.",
        ),
    ],
    refused: 1,
};

const CONNECTION_SECTION: Section = Section {
    text: "Connection options:",
    flags: &[CONNECTION],
};

const SLOT_SECTION: Section = Section {
    text: "Optional actions, instead of receiving:",
    flags: &[SLOT_ACTIONS],
};

impl Given {
    /// Looks at a receiver's options together, in the order in which `pg_receivewal` does.
    ///
    /// # Errors
    /// When they contradict each other, or one is missing.
    pub(crate) fn receiving(mut self, face: Face) -> Result<Arguments, UsageError> {
        self.no_operand()?;
        let sync = !self.no_sync;
        let slot_action = self.slot_action(face)?;
        let requested = match &self.compress {
            Some(value) => compression::parse(value).map_err(UsageError::Compression)?,
            None => Requested::NONE,
        };
        let slot = self.slot.take().map(SlotName::new).transpose();
        let slot = slot.map_err(UsageError::Slot)?;
        let serving = self.relaying(slot_action)?;
        let default = |seconds| Some(Duration::from_secs(seconds));
        let receive_timeout = self.receive_timeout.unwrap_or(default(RECEIVE_TIMEOUT));
        let action = match (slot, self.directory) {
            (Some(slot), _) if self.drop_slot => Action::DropSlot(slot),
            (Some(slot), _) if self.create_slot => Action::CreateSlot {
                slot,
                if_not_exists: self.if_not_exists,
            },
            (_, None) => return Err(UsageError::NoDirectory),
            (slot, Some(directory)) => Action::Receive(ReceiverConfig {
                acknowledge: face.acknowledge(self.synchronous, sync, slot.is_some()),
                directory,
                compression: requested.compression,
                sync,
                slot,
                start: self.start,
                end: self.end,
                status_interval: self.status_interval.unwrap_or(default(STATUS_INTERVAL)),
                // The program's only thread has nothing else to do.
                short_syncs: ShortSyncs::OnTask,
                receive_timeout,
                reconnect: if self.no_loop {
                    walreceiver::Reconnect::Never
                } else {
                    let default = Duration::from_secs(RETRY_INTERVAL);
                    face.reconnect(self.retry_interval.unwrap_or(default))
                },
                first_connection_must_succeed: face.first_connection_must_succeed(),
                apply: face.apply(),
                fork: if self.follow_fork {
                    OnFork::Follow
                } else {
                    OnFork::Stop
                },
                first_start: face.first_start(),
                lost_slot: face.lost_slot(),
                segments_are_moved: face.segments_are_moved(),
                compress_growing: face.compress_growing(),
            }),
        };
        Ok(Arguments {
            action,
            serving,
            connection: ConnectionArguments {
                conninfo: self.conninfo,
                host: self.host,
                port: self.port,
                user: self.user,
                prompt: self.prompt,
                receive_timeout,
            },
            verbose: self.verbose,
            log_format: self.log_format,
            on_event: self.on_event,
            unavailable_lz4_level: requested.unavailable_lz4_level,
        })
    }

    /// The option that names an action on a slot, if there is one. Refuses options that contradict
    /// each other.
    fn slot_action(&self, face: Face) -> Result<Option<&'static str>, UsageError> {
        if self.create_slot && self.drop_slot {
            return Err(UsageError::CreateAndDrop);
        }
        let slot_action = match (self.drop_slot, self.create_slot) {
            (true, _) => Some("--drop-slot"),
            (_, true) => Some("--create-slot"),
            _ => None,
        };
        if let (Some(action), None) = (slot_action, &self.slot) {
            return Err(UsageError::NoSlot { action });
        }
        if self.synchronous && self.no_sync {
            return Err(UsageError::SynchronousWithoutSync);
        }
        if self.on_event.is_some() {
            if face == Face::PgReceivewal {
                return Err(UsageError::OwnNameOnly {
                    given: "--on-event",
                });
            }
            if let Some(action) = slot_action {
                return Err(UsageError::Together {
                    given: "--on-event",
                    action,
                });
            }
        }
        if self.no_loop && self.retry_interval.is_some() {
            return Err(UsageError::Together {
                given: "--retry-interval",
                action: "--no-loop",
            });
        }
        if let (Some(action), Some(_)) = (slot_action, self.retry_interval) {
            return Err(UsageError::Together {
                given: "--retry-interval",
                action,
            });
        }
        if slot_action.is_none() && self.directory.is_none() {
            return Err(UsageError::NoDirectory);
        }
        Ok(slot_action)
    }
}
