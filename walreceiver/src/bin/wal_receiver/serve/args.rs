//! The command line of `wal-receiver serve`.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::Parser;
use segstore::SlotLimits;
use walsender::tls::TlsFiles;
use walsender::{ListenAddress, ServeConfig};

use crate::args::options::{Spec, find_long, find_short, flag, value};
use crate::args::{LogFormat, UsageError, next_option, refuse_stray, text};

/// Replication slots unless told otherwise (`max_replication_slots`).
pub(super) const MAX_SLOTS: usize = 10;

const SIZE: &str = "a number with kB, MB, GB or TB, or without a unit for MB";
const COUNT: &str = "a whole number";

/// What a command line asks for.
#[derive(Debug)]
pub(super) enum Invocation {
    Help,
    Version,
    Serve(Box<Arguments>),
}

/// What is to be served, and how.
#[derive(Debug)]
pub(super) struct Arguments {
    pub(super) directory: PathBuf,
    pub(super) config: ServeConfig,
    pub(super) slots: SlotLimits,
    /// Whether clients that come and go are told of.
    pub(super) verbose: bool,
    pub(super) log_format: LogFormat,
    /// The command to run when something has happened.
    pub(super) on_event: Option<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Help,
    Version,
    Directory,
    Verbose,
    Listen,
    HbaFile,
    UsersFile,
    TrustLoopback,
    TlsCert,
    TlsKey,
    TlsClientCa,
    TlsCrl,
    MaxConnections,
    MaxSlots,
    MaxSlotKeepSize,
    LogFormat,
    OnEvent,
}

static OPTIONS: [Spec<Meaning>; 17] = [
    flag("help", Some('?'), Meaning::Help),
    flag("version", Some('V'), Meaning::Version),
    value("directory", Some('D'), Meaning::Directory),
    flag("verbose", Some('v'), Meaning::Verbose),
    value("listen", None, Meaning::Listen),
    value("hba-file", None, Meaning::HbaFile),
    value("users-file", None, Meaning::UsersFile),
    flag("trust-loopback", None, Meaning::TrustLoopback),
    value("tls-cert", None, Meaning::TlsCert),
    value("tls-key", None, Meaning::TlsKey),
    value("tls-client-ca", None, Meaning::TlsClientCa),
    value("tls-crl", None, Meaning::TlsCrl),
    value("max-connections", None, Meaning::MaxConnections),
    value("max-slots", None, Meaning::MaxSlots),
    value("max-slot-keep-size", None, Meaning::MaxSlotKeepSize),
    value("log-format", None, Meaning::LogFormat),
    value("on-event", None, Meaning::OnEvent),
];

/// Reads the arguments that follow `serve`. Options are not abbreviated.
///
/// # Errors
/// When they make no sense.
pub(super) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Invocation, UsageError> {
    let mut parser = Parser::from_args(arguments);
    parser.set_short_equals(false);
    let mut given = Given::new();
    let mut stray = None;
    while let Some((spec, value)) = next_option(&mut parser, &mut stray, short, long)? {
        match spec.meaning {
            Meaning::Help => return Ok(Invocation::Help),
            Meaning::Version => return Ok(Invocation::Version),
            _ => given.set(spec, value)?,
        }
    }
    refuse_stray(stray)?;
    given.finish().map(Box::new).map(Invocation::Serve)
}

fn short(letter: char) -> Result<&'static Spec<Meaning>, UsageError> {
    find_short(&OPTIONS, letter)
}

fn long(name: &str, argument: &str) -> Result<&'static Spec<Meaning>, UsageError> {
    find_long(&OPTIONS, name, argument)
}

/// The options as they were given, before they are looked at together.
struct Given {
    directory: Option<PathBuf>,
    config: ServeConfig,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_authorities: Option<PathBuf>,
    revocation_list: Option<PathBuf>,
    slots: SlotLimits,
    verbose: bool,
    log_format: LogFormat,
    on_event: Option<OsString>,
}

impl Given {
    fn new() -> Self {
        Self {
            directory: None,
            config: ServeConfig::new(Vec::new()),
            certificate: None,
            key: None,
            client_authorities: None,
            revocation_list: None,
            slots: SlotLimits {
                max_slots: MAX_SLOTS,
                max_keep_bytes: None,
            },
            verbose: false,
            log_format: LogFormat::Text,
            on_event: None,
        }
    }

    fn set(&mut self, spec: &Spec<Meaning>, value: OsString) -> Result<(), UsageError> {
        let text = |value| text(spec.long, value);
        match spec.meaning {
            Meaning::Help | Meaning::Version => {}
            Meaning::Directory => self.directory = Some(value.into()),
            Meaning::Verbose => self.verbose = true,
            Meaning::Listen => {
                let address: Result<ListenAddress, _> = text(value)?.parse();
                let address = address.map_err(UsageError::ListenAddress)?;
                self.config.listen.push(address);
            }
            Meaning::HbaFile => self.config.access.hba = Some(value.into()),
            Meaning::UsersFile => self.config.access.users = Some(value.into()),
            Meaning::TrustLoopback => self.config.access.trust_loopback = true,
            Meaning::TlsCert => self.certificate = Some(value.into()),
            Meaning::TlsKey => self.key = Some(value.into()),
            Meaning::TlsClientCa => self.client_authorities = Some(value.into()),
            Meaning::TlsCrl => self.revocation_list = Some(value.into()),
            Meaning::MaxConnections => {
                let most = count("--max-connections", text(value)?)?;
                self.config.limits.connections = most;
                // There is no limit of its own for one user.
                self.config.limits.connections_per_user = most;
            }
            Meaning::MaxSlots => self.slots.max_slots = count("--max-slots", text(value)?)?,
            Meaning::MaxSlotKeepSize => {
                let size = size("--max-slot-keep-size", text(value)?)?;
                self.slots.max_keep_bytes = Some(size);
            }
            Meaning::OnEvent => self.on_event = Some(value),
            Meaning::LogFormat => self.log_format = LogFormat::from_option(text(value)?)?,
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Arguments, UsageError> {
        let directory = self.directory.take().ok_or(UsageError::NoDirectory)?;
        if self.config.listen.is_empty() {
            return Err(UsageError::NoListenAddress);
        }
        let needs = |given, missing| Err(UsageError::Needs { given, missing });
        self.config.access.tls = match (self.certificate, self.key, self.client_authorities) {
            (Some(certificate), Some(key), client_authorities) => {
                if self.revocation_list.is_some() && client_authorities.is_none() {
                    return needs("--tls-crl", "--tls-client-ca");
                }
                Some(TlsFiles {
                    certificate,
                    key,
                    client_authorities,
                    revocation_list: self.revocation_list,
                })
            }
            (Some(_), None, _) => return needs("--tls-cert", "--tls-key"),
            (None, Some(_), _) => return needs("--tls-key", "--tls-cert"),
            (None, None, Some(_)) => return needs("--tls-client-ca", "--tls-cert and --tls-key"),
            (None, None, None) if self.revocation_list.is_some() => {
                return needs("--tls-crl", "--tls-client-ca, --tls-cert and --tls-key");
            }
            (None, None, None) => None,
        };
        Ok(Arguments {
            directory,
            config: self.config,
            slots: self.slots,
            verbose: self.verbose,
            log_format: self.log_format,
            on_event: self.on_event,
        })
    }
}

fn count(option: &'static str, value: String) -> Result<usize, UsageError> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse() {
        Ok(number) if digits => Ok(number),
        _ => Err(UsageError::Unexpected {
            option,
            value,
            expected: COUNT,
        }),
    }
}

/// A size in bytes. Units are PostgreSQL's, which are powers of 1024.
///
/// Source: src/backend/utils/misc/guc.c, `max_slot_wal_keep_size`, `memory_unit_conversion_table`
/// (PG 15).
fn size(option: &'static str, value: String) -> Result<u64, UsageError> {
    let unit_at = value.find(|c: char| !c.is_ascii_digit());
    let (digits, unit) = value.split_at(unit_at.unwrap_or(value.len()));
    let shift = match unit.trim_ascii() {
        "kB" => Some(10),
        "" | "MB" => Some(20),
        "GB" => Some(30),
        "TB" => Some(40),
        _ => None,
    };
    let bytes = shift.and_then(|shift| digits.parse::<u64>().ok()?.checked_mul(1 << shift));
    bytes.ok_or(UsageError::Unexpected {
        option,
        value,
        expected: SIZE,
    })
}
