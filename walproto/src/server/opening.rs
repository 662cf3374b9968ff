//! How a session begins: encryption is asked for and answered, and the client says who it is and
//! what it wants.
//!
//! Source: src/backend/postmaster/postmaster.c, `ProcessStartupPacket` (PG 15).

use bytes::Bytes;

use super::ServerSession;
use super::error::ServerError;
use super::event::{Event, ReplicationMode, StartupRequest};
use super::options;
use super::state::State;
use crate::Major;
use crate::ServerVersion;
use crate::backend::BackendMessage;
use crate::error::{ServerMessage, SqlState};
use crate::startup::{InitialPacket, InvalidStartupPacket, ProtocolVersion, StartupPacket};

/// The longest name in bytes (`NAMEDATALEN` - 1).
const MAX_NAME_LENGTH: usize = 63;

/// What a client has asked for so far. It asks for each at most once, and for nothing more once
/// it has got one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Encryption {
    pub(super) tls: Asked,
    pub(super) gss: Asked,
}

/// Whether something was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Asked {
    #[default]
    Not,
    Answered,
}

impl ServerSession {
    /// Does what the client's first packet asks for; `alone` when nothing was received after it.
    pub(super) fn handle_initial_packet(
        &mut self,
        packet: InitialPacket,
        alone: bool,
    ) -> Result<(), ServerError> {
        let State::Opening(encryption) = self.state else {
            return Ok(());
        };
        match packet {
            InitialPacket::TlsRequest if encryption.tls == Asked::Not => {
                self.state = State::TlsAsked(encryption);
                if alone {
                    self.events.push_back(Event::TlsRequested);
                }
                Ok(())
            }
            InitialPacket::GssEncryptionRequest if encryption.gss == Asked::Not => {
                if !alone {
                    let request = "GSSAPI encryption request";
                    return Err(ServerError::Unencrypted { request });
                }
                self.output.extend_from_slice(b"N");
                let gss = Asked::Answered;
                self.state = State::Opening(Encryption { gss, ..encryption });
                Ok(())
            }
            // Asked for again, they are taken for versions of the protocol.
            InitialPacket::TlsRequest => Err(self.unsupported(ProtocolVersion(1234 << 16 | 5679))),
            InitialPacket::GssEncryptionRequest => {
                Err(self.unsupported(ProtocolVersion(1234 << 16 | 5680)))
            }
            InitialPacket::Cancel {
                process_id,
                secret_key,
            } => {
                self.state = State::Closed;
                self.events.push_back(Event::Cancel {
                    process_id,
                    secret_key,
                });
                Ok(())
            }
            InitialPacket::Startup(startup) => self.handle_startup(startup),
        }
    }

    pub(super) fn invalid_startup(&self, source: InvalidStartupPacket) -> ServerError {
        match source {
            InvalidStartupPacket::Version { version } => self.unsupported(version),
            source => {
                let state = self.state.name();
                ServerError::Startup { state, source }
            }
        }
    }

    /// The newest version of the protocol that a server of our version has.
    fn newest_protocol(&self) -> ProtocolVersion {
        Major::of(self.version).protocol
    }

    fn unsupported(&self, version: ProtocolVersion) -> ServerError {
        let newest = self.newest_protocol();
        refused(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("unsupported frontend protocol {version}: server supports 3.0 to {newest}"),
        )
    }

    fn handle_startup(&mut self, startup: StartupPacket) -> Result<(), ServerError> {
        let newest = self.newest_protocol();
        self.protocol = startup.version.min(newest);
        if startup.version > newest || !startup.unknown_options.is_empty() {
            let text = |name: &Bytes| String::from_utf8_lossy(name).into_owned();
            BackendMessage::NegotiateProtocolVersion {
                newest: self.protocol.0,
                unknown_options: startup.unknown_options.iter().map(text).collect(),
            }
            .encode(&mut self.output)?;
        }
        let request = startup_request(startup, self.protocol, self.version)?;
        self.state = State::Admitting {
            user: request.user.clone(),
        };
        self.events.push_back(Event::Startup(Box::new(request)));
        Ok(())
    }
}

fn refused(sqlstate: SqlState, message: impl Into<String>) -> ServerError {
    ServerError::Refused(Box::new(ServerMessage::fatal(sqlstate, message)))
}

/// What the parameters of a startup packet ask for.
fn startup_request(
    startup: StartupPacket,
    protocol: ProtocolVersion,
    version: ServerVersion,
) -> Result<StartupRequest, ServerError> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let mut user = None;
    let mut database = None;
    let mut replication = ReplicationMode::Off;
    let mut options = Bytes::new();
    let mut settings = Vec::new();
    for (name, value) in startup.parameters {
        match &name[..] {
            b"user" => user = Some(value),
            b"database" => database = Some(text(&value)),
            b"options" => options = value,
            b"replication" => replication = replication_mode(&value)?,
            _ => settings.push((name, value)),
        }
    }
    let user = user_name(user.as_deref().unwrap_or_default())?;
    // What is set by name comes later, and so counts.
    let mut all_settings = options::settings(&options)
        .map_err(|error| refused(SqlState::SYNTAX_ERROR, error.to_string()))?;
    all_settings.append(&mut settings);
    let (names, settings): (Vec<_>, Vec<_>) = all_settings
        .into_iter()
        .partition(|(name, _)| name.eq_ignore_ascii_case(b"application_name"));
    let name = names.last().map(|(_, name)| &name[..]).unwrap_or_default();
    Ok(StartupRequest {
        protocol,
        user,
        database,
        replication,
        application_name: application_name(name, version),
        settings: settings
            .iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect(),
    })
}

/// The name of a role. One that is not UTF-8 is refused, rather than taken for another.
fn user_name(name: &[u8]) -> Result<String, ServerError> {
    let name = name.get(..MAX_NAME_LENGTH).unwrap_or(name);
    match std::str::from_utf8(name) {
        Ok("") => Err(refused(
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            "no PostgreSQL user name specified in startup packet",
        )),
        Ok(name) => Ok(name.to_owned()),
        Err(_) => Err(refused(
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            "the user name in the startup packet is not UTF-8, or longer than 63 bytes",
        )),
    }
}

/// The mode that a value of `replication` means.
///
/// Source: src/backend/utils/adt/bool.c, `parse_bool_with_len` (PG 15).
fn replication_mode(value: &[u8]) -> Result<ReplicationMode, ServerError> {
    const WORDS: [(&[u8], usize, bool); 6] = [
        (b"true", 1, true),
        (b"false", 1, false),
        (b"yes", 1, true),
        (b"no", 1, false),
        // "o" alone could be either.
        (b"on", 2, true),
        (b"off", 2, false),
    ];
    let physical = |yes: bool| match yes {
        true => ReplicationMode::Physical,
        false => ReplicationMode::Off,
    };
    let lower = value.to_ascii_lowercase();
    let word = WORDS
        .iter()
        .find(|(word, shortest, _)| lower.len() >= *shortest && word.starts_with(&lower));
    match (value, word) {
        (b"database", _) => Ok(ReplicationMode::Database),
        (b"1", _) => Ok(physical(true)),
        (b"0", _) => Ok(physical(false)),
        (_, Some((_, _, yes))) => Ok(physical(*yes)),
        (_, None) => {
            let value = String::from_utf8_lossy(value);
            let message = format!("invalid value for parameter \"replication\": \"{value}\"");
            let hint = r#"Valid values are: "false", 0, "true", 1, "database"."#;
            Err(ServerError::Refused(Box::new(
                ServerMessage::fatal(SqlState::INVALID_PARAMETER_VALUE, message).with_hint(hint),
            )))
        }
    }
}

/// The name as `pg_stat_replication` shows it.
///
/// Source: src/common/string.c, `pg_clean_ascii` (PG 15, and 16 for the other form); the name is
/// cut first (src/backend/utils/misc/guc.c, `GUC_IS_NAME`).
fn application_name(name: &[u8], version: ServerVersion) -> String {
    let name = name.get(..MAX_NAME_LENGTH).unwrap_or(name);
    let mut clean = String::with_capacity(name.len());
    for &byte in name {
        match byte {
            b' '..=b'~' => clean.push(char::from(byte)),
            _ if version < ServerVersion::V16 => clean.push('?'),
            _ => clean.push_str(&format!("\\x{byte:02x}")),
        }
    }
    clean
}
