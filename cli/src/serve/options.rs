//! The options that say how an archive is served: those of `serve`, and of a receiver that serves
//! what it receives.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use segstore::SlotLimits;
use walsender::tls::TlsFiles;
use walsender::{ListenAddress, ServeConfig, parse_duration};

use crate::args::options::{Spec, flag, of_name, value};
use crate::args::{UsageError, text};

/// Replication slots unless told otherwise (`max_replication_slots`).
pub(crate) const MAX_SLOTS: usize = 10;

const SIZE: &str = "a number with kB, MB, GB or TB, or without a unit for MB";
const COUNT: &str = "a whole number";

/// How an archive is to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Serving {
    pub(crate) config: ServeConfig,
    pub(crate) slots: SlotLimits,
    /// Whether `--max-connections` was given.
    pub(crate) explicit_connections: bool,
}

/// What an option means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServingMeaning {
    Listen,
    HbaFile,
    UsersFile,
    TrustLoopback,
    TlsCert,
    TlsKey,
    TlsClientCa,
    TlsCrl,
    MaxConnections,
    MaxConnectionsPerUser,
    AuthenticationTimeout,
    WalSenderTimeout,
    MaxSlots,
    MaxSlotKeepSize,
}

static OPTIONS: [Spec<ServingMeaning>; 14] = [
    value("listen", None, ServingMeaning::Listen),
    value("hba-file", None, ServingMeaning::HbaFile),
    value("users-file", None, ServingMeaning::UsersFile),
    flag("trust-loopback", None, ServingMeaning::TrustLoopback),
    value("tls-cert", None, ServingMeaning::TlsCert),
    value("tls-key", None, ServingMeaning::TlsKey),
    value("tls-client-ca", None, ServingMeaning::TlsClientCa),
    value("tls-crl", None, ServingMeaning::TlsCrl),
    value("max-connections", None, ServingMeaning::MaxConnections),
    value(
        "max-connections-per-user",
        None,
        ServingMeaning::MaxConnectionsPerUser,
    ),
    value(
        "authentication-timeout",
        None,
        ServingMeaning::AuthenticationTimeout,
    ),
    value("wal-sender-timeout", None, ServingMeaning::WalSenderTimeout),
    value("max-slots", None, ServingMeaning::MaxSlots),
    value("max-slot-keep-size", None, ServingMeaning::MaxSlotKeepSize),
];

/// The option of this name. None has a letter.
pub(crate) fn long(name: &str) -> Option<Spec<ServingMeaning>> {
    of_name(&OPTIONS, name)
}

/// The options as they were given, before they are looked at together.
pub(crate) struct Given {
    config: ServeConfig,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_authorities: Option<PathBuf>,
    revocation_list: Option<PathBuf>,
    connections: Option<usize>,
    connections_per_user: Option<usize>,
    slots: SlotLimits,
}

impl Given {
    pub(crate) fn new() -> Self {
        Self {
            config: ServeConfig::new(Vec::new()),
            certificate: None,
            key: None,
            client_authorities: None,
            revocation_list: None,
            connections: None,
            connections_per_user: None,
            slots: SlotLimits {
                max_slots: MAX_SLOTS,
                max_keep_bytes: None,
            },
        }
    }

    /// Takes an option and its value.
    ///
    /// # Errors
    /// When the value makes no sense.
    pub(crate) fn set(
        &mut self,
        option: &'static str,
        meaning: ServingMeaning,
        value: OsString,
    ) -> Result<(), UsageError> {
        let text = |value| text(option, value);
        match meaning {
            ServingMeaning::Listen => {
                let address: Result<ListenAddress, _> = text(value)?.parse();
                let address = address.map_err(UsageError::ListenAddress)?;
                self.config.listen.push(address);
            }
            ServingMeaning::HbaFile => self.config.access.hba = Some(value.into()),
            ServingMeaning::UsersFile => self.config.access.users = Some(value.into()),
            ServingMeaning::TrustLoopback => self.config.access.trust_loopback = true,
            ServingMeaning::TlsCert => self.certificate = Some(value.into()),
            ServingMeaning::TlsKey => self.key = Some(value.into()),
            ServingMeaning::TlsClientCa => self.client_authorities = Some(value.into()),
            ServingMeaning::TlsCrl => self.revocation_list = Some(value.into()),
            ServingMeaning::MaxConnections => {
                self.connections = Some(count("--max-connections", text(value)?)?);
            }
            ServingMeaning::MaxConnectionsPerUser => {
                let most = count("--max-connections-per-user", text(value)?)?;
                self.connections_per_user = Some(most);
            }
            ServingMeaning::AuthenticationTimeout => {
                let timeout = authentication_timeout(text(value)?)?;
                self.config.limits.authentication_timeout = timeout;
            }
            ServingMeaning::WalSenderTimeout => {
                self.config.limits.wal_sender_timeout = wal_sender_timeout(text(value)?)?;
            }
            ServingMeaning::MaxSlots => self.slots.max_slots = count("--max-slots", text(value)?)?,
            ServingMeaning::MaxSlotKeepSize => {
                let size = size("--max-slot-keep-size", text(value)?)?;
                self.slots.max_keep_bytes = Some(size);
            }
        }
        Ok(())
    }

    /// Looks at the options together.
    ///
    /// # Errors
    /// When there is nowhere to listen, or files of TLS are missing.
    pub(crate) fn finish(mut self) -> Result<Serving, UsageError> {
        if self.config.listen.is_empty() {
            return Err(UsageError::NoListenAddress);
        }
        // Unless told otherwise there is no limit of its own for one user.
        let limits = &mut self.config.limits;
        limits.connections = self.connections.unwrap_or(limits.connections);
        limits.connections_per_user = self.connections_per_user.unwrap_or(limits.connections);
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
        Ok(Serving {
            config: self.config,
            slots: self.slots,
            explicit_connections: self.connections.is_some(),
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

/// Source: src/backend/utils/misc/guc.c, `authentication_timeout` (PG 15).
fn authentication_timeout(value: String) -> Result<Duration, UsageError> {
    let timeout = parse_duration(&value, Duration::from_secs(1));
    let timeout = timeout.filter(|timeout| !timeout.is_zero());
    timeout.ok_or(UsageError::Unexpected {
        option: "--authentication-timeout",
        value,
        expected: "a time of more than 0, in ms, s, min or h, or without a unit for s",
    })
}

/// `None` for 0, which is never.
///
/// Source: src/backend/utils/misc/guc.c, `wal_sender_timeout` (PG 15).
fn wal_sender_timeout(value: String) -> Result<Option<Duration>, UsageError> {
    let timeout = parse_duration(&value, Duration::from_millis(1));
    let timeout = timeout.ok_or(UsageError::Unexpected {
        option: "--wal-sender-timeout",
        value,
        expected: "a time in ms, s, min or h, or without a unit for ms",
    })?;
    Ok(Some(timeout).filter(|timeout| !timeout.is_zero()))
}

/// A size in bytes. Units are PostgreSQL's, which are powers of 1024.
///
/// Source: src/backend/utils/misc/guc.c, `max_slot_wal_keep_size`, `memory_unit_conversion_table`
/// (PG 15).
pub(crate) fn size(option: &'static str, value: String) -> Result<u64, UsageError> {
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

/// The lines of a help text about these options.
pub(crate) fn help() -> String {
    let max_connections = walsender::Limits::default().connections;
    format!(
        "      --listen=ADDRESS   where clients connect, may be given several times: 127.0.0.1:5432,
                         *:5432 for every address, or the directory of a Unix socket, /run/wal:5432
      --max-connections=N
                         maximum number of clients (default: {max_connections}, or as many as
                         the limit of open files allows)
      --max-connections-per-user=N
                         the most of one user (default: as many)
      --authentication-timeout=TIME
                         how long a client may take to show who it is (default: 60s)
      --wal-sender-timeout=TIME
                         a client that is silent for so long is gone, 0 for never (default: 60s)
      --max-slots=N      the most replication slots (default: {MAX_SLOTS})
      --max-slot-keep-size=SIZE
                         the most WAL that a slot keeps from removal, in kB, MB, GB or TB
                         (default: any)"
    )
}

/// The lines of a help text about who may connect.
pub(crate) const ACCESS_HELP: &str = "\
Who may connect (without these: the same user, through a Unix socket):
      --hba-file=FILE    access rules, in the form of pg_hba.conf
      --users-file=FILE  users and their SCRAM verifiers, a line each: \"NAME\" \"VERIFIER\"
      --trust-loopback   believe whoever connects from 127.0.0.1 or ::1 and has no rule
      --tls-cert=FILE    our certificate and those of authorities above it, for TLS
      --tls-key=FILE     its key
      --tls-client-ca=FILE
                         who is trusted to sign clients' certificates
      --tls-crl=FILE     which of those are revoked";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_postgresql_s_units() {
        for (text, bytes) in [
            ("0", 0),
            ("3", 3 << 20),
            ("64kB", 64 << 10),
            ("2 MB", 2 << 20),
            ("1TB", 1 << 40),
        ] {
            assert_eq!(size("--x", text.to_owned()), Ok(bytes), "{text}");
        }
        for text in ["", "MB", "-1", "+1", "1gb", "1.5GB", "1B", "99999999TB"] {
            let error = size("--x", text.to_owned()).unwrap_err();
            assert!(matches!(error, UsageError::Unexpected { .. }), "{text}");
        }
    }
}
