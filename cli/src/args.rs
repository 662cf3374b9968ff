//! The command line: `pg_receivewal`'s, in any order and with abbreviations, and what is ours.
//!
//! Source: src/bin/pg_basebackup/pg_receivewal.c, `main` (PG 15); the C library's `getopt_long`.

mod compression;
mod error;
mod number;
pub(crate) mod options;
mod relay;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser};
use walproto::{Lsn, SlotName};
use walreceiver::{OnFork, ReceiverConfig, ShortSyncs};

use self::compression::Requested;
pub(crate) use self::error::UsageError;
use self::options::{Meaning, Spec};
pub(crate) use self::relay::MAX_FEEDBACK_AGE;
use crate::face::Face;
use crate::serve::options::Serving;

/// Seconds between status messages unless told otherwise.
pub(crate) const STATUS_INTERVAL: u32 = 10;
/// Seconds of silence after which a server is taken for gone unless told otherwise.
pub(crate) const RECEIVE_TIMEOUT: u32 = 60;
/// The default of the maximum wait before a retry to connect, in seconds.
pub(crate) const RETRY_INTERVAL: u32 = 5;
/// The most seconds that fit PostgreSQL's int of milliseconds.
const MAX_SECONDS: u32 = i32::MAX.unsigned_abs() / 1000;

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invocation {
    /// The help text.
    Help,
    /// The version line.
    Version,
    /// Work.
    Run(Box<Arguments>),
}

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
#[derive(Debug, Default, PartialEq, Eq)]
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

/// How messages are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

impl LogFormat {
    pub(crate) fn from_option(value: String) -> Result<Self, UsageError> {
        match value.as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(UsageError::LogFormat { value }),
        }
    }
}

/// The options as they were given, before they are looked at together.
struct Given {
    connection: ConnectionArguments,
    directory: Option<PathBuf>,
    slot: Option<String>,
    compress: Option<String>,
    start: Option<Lsn>,
    end: Option<Lsn>,
    status_interval: Option<Duration>,
    retry_interval: Option<Duration>,
    create_slot: bool,
    drop_slot: bool,
    if_not_exists: bool,
    no_loop: bool,
    synchronous: bool,
    sync: bool,
    follow_fork: bool,
    verbose: bool,
    log_format: LogFormat,
    on_event: Option<OsString>,
    relay: relay::Given,
}

/// Reads the arguments that follow the program's name.
///
/// # Errors
/// When they make no sense. As with `getopt_long`, the first option that cannot be read is
/// complained about before any argument that is no option.
pub(crate) fn parse(
    face: Face,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Invocation, UsageError> {
    let mut parser = Parser::from_args(arguments);
    parser.set_short_equals(false);
    let mut given = Given {
        connection: ConnectionArguments {
            receive_timeout: Some(Duration::from_secs(RECEIVE_TIMEOUT.into())),
            ..ConnectionArguments::default()
        },
        directory: None,
        slot: None,
        compress: None,
        start: None,
        end: None,
        status_interval: Some(Duration::from_secs(STATUS_INTERVAL.into())),
        retry_interval: None,
        create_slot: false,
        drop_slot: false,
        if_not_exists: false,
        no_loop: false,
        synchronous: false,
        sync: true,
        follow_fork: false,
        verbose: false,
        log_format: LogFormat::Text,
        on_event: None,
        relay: relay::Given::new(),
    };
    let find_long = |name: &str, argument: &str| options::long(face, name, argument);
    let mut stray = Vec::new();
    while let Some((spec, value)) = next_option(&mut parser, &mut stray, options::short, find_long)?
    {
        match spec.meaning {
            Meaning::Help => return Ok(Invocation::Help),
            Meaning::Version => return Ok(Invocation::Version),
            _ => given.set(spec, value)?,
        }
    }
    refuse_stray(stray)?;
    given.finish(face).map(Box::new).map(Invocation::Run)
}

/// The next option and its value, empty for one without. Arguments before it that are none go
/// to `stray`. `find_short` and `find_long` know the options, by letter and by name; the latter is
/// given the whole argument too, for the error.
pub(crate) fn next_option<M>(
    parser: &mut Parser,
    stray: &mut Vec<OsString>,
    find_short: impl Fn(char) -> Result<Spec<M>, UsageError>,
    find_long: impl Fn(&str, &str) -> Result<Spec<M>, UsageError>,
) -> Result<Option<(Spec<M>, OsString)>, UsageError> {
    loop {
        // Not `next()?`: its only error is a value that was not taken, and all are taken below.
        let (spec, short, attached) = match parser.next() {
            Ok(None) | Err(_) => return Ok(None),
            Ok(Some(Arg::Value(argument))) => {
                stray.push(argument);
                continue;
            }
            Ok(Some(Arg::Short(letter))) => (find_short(letter)?, Some(letter), None),
            Ok(Some(Arg::Long(name))) => {
                let name = name.to_owned();
                let attached = parser.optional_value();
                let argument = match &attached {
                    Some(value) => format!("{name}={}", value.to_string_lossy()),
                    None => name.clone(),
                };
                (find_long(&name, &argument)?, None, attached)
            }
        };
        let value = match (spec.takes_value, attached) {
            (false, None) => OsString::new(),
            (false, Some(_)) => return Err(UsageError::UnexpectedValue { option: spec.long }),
            (true, Some(value)) => value,
            (true, None) => parser.value().map_err(|_missing| match short {
                Some(letter) => UsageError::MissingLetterValue { letter },
                None => UsageError::MissingValue { option: spec.long },
            })?,
        };
        return Ok(Some((spec, value)));
    }
}

/// As [`next_option`] for options that are not abbreviated.
pub(crate) fn next_exact<M: Copy>(
    parser: &mut Parser,
    stray: &mut Vec<OsString>,
    options: &[Spec<M>],
) -> Result<Option<(Spec<M>, OsString)>, UsageError> {
    let short = |letter| options::of_letter(options, letter);
    let long = |name: &str, argument: &str| {
        options::of_name(options, name).ok_or_else(|| options::unrecognized(argument))
    };
    next_option(parser, stray, short, long)
}

/// Refuses arguments that are no options.
pub(crate) fn refuse_stray(stray: Vec<OsString>) -> Result<(), UsageError> {
    match stray.into_iter().next() {
        None => Ok(()),
        Some(stray) => Err(UsageError::TooManyArguments {
            first: stray.to_string_lossy().into_owned(),
        }),
    }
}

/// An option's value, if it is text.
pub(crate) fn text(option: &'static str, value: OsString) -> Result<String, UsageError> {
    value
        .into_string()
        .map_err(|_bytes| UsageError::NotUtf8 { option })
}

impl Given {
    fn set(&mut self, spec: Spec, value: OsString) -> Result<(), UsageError> {
        let text = |value| text(spec.long, value);
        match spec.meaning {
            Meaning::Help | Meaning::Version => {}
            Meaning::Directory => self.directory = Some(value.into()),
            Meaning::Dbname => self.connection.conninfo = Some(text(value)?),
            Meaning::Host => self.connection.host = Some(text(value)?),
            Meaning::Port => self.connection.port = Some(text(value)?),
            Meaning::Username => self.connection.user = Some(text(value)?),
            Meaning::NoPassword => self.connection.prompt = Prompt::Never,
            Meaning::Password => self.connection.prompt = Prompt::Always,
            Meaning::Endpos => {
                let value = text(value)?;
                self.end = position(&value).ok_or(UsageError::EndPosition { value })?;
            }
            Meaning::Start => {
                let value = text(value)?;
                self.start = position(&value).ok_or(UsageError::StartPosition { value })?;
            }
            Meaning::NoLoop => self.no_loop = true,
            Meaning::StatusInterval => {
                self.status_interval = seconds("-s/--status-interval", text(value)?)?;
            }
            Meaning::ReceiveTimeout => {
                self.connection.receive_timeout = seconds("--receive-timeout", text(value)?)?;
            }
            Meaning::RetryInterval => {
                const OPTION: &str = "--retry-interval";
                let value = text(value)?;
                let interval = seconds(OPTION, value.clone())?;
                self.retry_interval = Some(interval.ok_or(UsageError::Unexpected {
                    option: OPTION,
                    value,
                    expected: "a number of seconds from 1 on",
                })?);
            }
            Meaning::Slot => self.slot = Some(text(value)?),
            Meaning::Verbose => self.verbose = true,
            Meaning::Compress => self.compress = Some(text(value)?),
            Meaning::CreateSlot => self.create_slot = true,
            Meaning::DropSlot => self.drop_slot = true,
            Meaning::IfNotExists => self.if_not_exists = true,
            Meaning::Synchronous => self.synchronous = true,
            Meaning::NoSync => self.sync = false,
            Meaning::FollowFork => self.follow_fork = true,
            Meaning::LogFormat => self.log_format = LogFormat::from_option(text(value)?)?,
            Meaning::OnEvent => self.on_event = Some(value),
            Meaning::Relay(meaning) => self.relay.set(spec.long, meaning, value)?,
        }
        Ok(())
    }

    /// Looks at the options together, in the order in which `pg_receivewal` does.
    fn finish(self, face: Face) -> Result<Arguments, UsageError> {
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
        if self.synchronous && !self.sync {
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
        let requested = match &self.compress {
            Some(value) => compression::parse(value).map_err(UsageError::Compression)?,
            None => Requested::NONE,
        };
        let slot = self.slot.map(SlotName::new).transpose();
        let slot = slot.map_err(UsageError::Slot)?;
        let serving = self.relay.finish(slot_action, self.sync)?;
        let action = match (slot, self.directory) {
            (Some(slot), _) if self.drop_slot => Action::DropSlot(slot),
            (Some(slot), _) if self.create_slot => Action::CreateSlot {
                slot,
                if_not_exists: self.if_not_exists,
            },
            (_, None) => return Err(UsageError::NoDirectory),
            (slot, Some(directory)) => Action::Receive(ReceiverConfig {
                acknowledge: face.acknowledge(self.synchronous, self.sync, slot.is_some()),
                directory,
                compression: requested.compression,
                sync: self.sync,
                slot,
                start: self.start,
                end: self.end,
                status_interval: self.status_interval,
                // The program's only thread has nothing else to do.
                short_syncs: ShortSyncs::OnTask,
                receive_timeout: self.connection.receive_timeout,
                reconnect: if self.no_loop {
                    walreceiver::Reconnect::Never
                } else {
                    let default = Duration::from_secs(RETRY_INTERVAL.into());
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
            connection: self.connection,
            verbose: self.verbose,
            log_format: self.log_format,
            on_event: self.on_event,
            unavailable_lz4_level: requested.unavailable_lz4_level,
        })
    }
}

/// A position; `0/0` is none, as with `pg_receivewal`. Outer `None` for what is no position.
fn position(text: &str) -> Option<Option<Lsn>> {
    let lsn: Lsn = text.parse().ok()?;
    Some((!lsn.is_invalid()).then_some(lsn))
}

/// A time in seconds, `None` for 0.
///
/// Source: src/fe_utils/option_utils.c, `option_parse_int` (PG 15).
pub(crate) fn seconds(option: &'static str, value: String) -> Result<Option<Duration>, UsageError> {
    let (number, rest) = number::strtol(&value);
    if !rest.trim_ascii_start().is_empty() {
        return Err(UsageError::InvalidNumber { option, value });
    }
    match u32::try_from(number) {
        Ok(0) => Ok(None),
        Ok(seconds @ 1..=MAX_SECONDS) => Ok(Some(Duration::from_secs(seconds.into()))),
        _ => Err(UsageError::OutOfRange {
            option,
            max: MAX_SECONDS,
        }),
    }
}
