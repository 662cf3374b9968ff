//! A connection string, completed and checked.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use walproto::client::{ChannelBindingPolicy, RequireAuth};

use super::value::{self, Word};
use super::{
    Conninfo, ConninfoError, Keyword, LoadBalanceHosts, Password, PasswordPrompt,
    TargetSessionAttrs, os_user,
};
use crate::service::{SYSTEM_DIRECTORY, ServiceFiles};

mod hosts;
mod tls;

pub use hosts::{Endpoint, HostCandidate};
pub use tls::TlsSettings;

/// Asks for an environment variable, as `std::env::var_os` does.
pub type EnvironmentLookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What goes before every other source: the options of a command line, and what the program
/// itself decides.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `-h`
    pub host: Option<String>,
    /// `-p`
    pub port: Option<String>,
    /// `-U`
    pub user: Option<String>,
    /// The `application_name` if no other source has one: the program's name.
    pub fallback_application_name: String,
}

/// `keepalives*` and `tcp_user_timeout`: what TCP does about a silent peer. `None` leaves a
/// setting to the operating system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeepaliveSettings {
    /// `keepalives`: whether TCP probes at all.
    pub enabled: bool,
    /// `keepalives_idle`: the silence before the first probe.
    pub idle: Option<Duration>,
    /// `keepalives_interval`: between two probes.
    pub interval: Option<Duration>,
    /// `keepalives_count`: unanswered probes before the connection is dead.
    pub count: Option<u32>,
    /// `tcp_user_timeout`: how long sent data may stay unacknowledged.
    pub user_timeout: Option<Duration>,
}

/// Everything needed to connect.
///
/// The database is always `replication` and the connection is one for physical replication, as
/// with `pg_receivewal`: `dbname` and `replication` in a connection string have no effect.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// The servers, in the order given; at least one.
    pub hosts: Vec<HostCandidate>,
    /// `user`
    pub user: String,
    /// `password`; without one the password file is asked.
    pub password: Option<Password>,
    /// Who is asked for a password if a server wants one and there is none. Nobody, unless set.
    pub password_prompt: Option<PasswordPrompt>,
    /// `passfile`, or `.pgpass` in the home directory.
    pub password_file: Option<PathBuf>,
    /// `application_name`, or the fallback.
    pub application_name: String,
    /// Settings for the session: `client_encoding`, `options`, and what `PGDATESTYLE`, `PGTZ` and
    /// `PGGEQO` say.
    pub session_settings: Vec<(&'static str, String)>,
    /// `connect_timeout`, for each address; `None` is the session's `receive_timeout`.
    pub connect_timeout: Option<Duration>,
    /// `channel_binding`
    pub channel_binding: ChannelBindingPolicy,
    /// `require_auth`
    pub require_auth: RequireAuth,
    /// `requirepeer`: the operating system's user that must run the server behind a socket.
    pub require_peer: Option<String>,
    /// `target_session_attrs`
    pub target_session_attrs: TargetSessionAttrs,
    /// `load_balance_hosts`
    pub load_balance_hosts: LoadBalanceHosts,
    /// `keepalives*`, `tcp_user_timeout`
    pub keepalive: KeepaliveSettings,
    /// `ssl*`
    pub tls: TlsSettings,
}

impl ConnectionConfig {
    /// The database that is named to the server, and looked up in the password file.
    pub const DATABASE: &'static str = "replication";

    /// Puts a connection together from, in this order: `overrides`, the connection string, the
    /// service that it or `PGSERVICE` names, the environment, libpq's defaults. Empty values in
    /// the connection string count as not given.
    ///
    /// Files: only the service file is read here; the password file and those of TLS are read at
    /// each connection.
    ///
    /// Source: src/bin/pg_basebackup/streamutil.c, `GetConnection` (PG 15).
    ///
    /// # Errors
    /// When a value is not valid, or valid for libpq but not implemented here: nothing that was
    /// asked for is ignored, apart from what libpq itself ignores (`sslcompression`, and what is
    /// about GSSAPI when it is not used).
    pub fn from_sources(
        conninfo: Option<&str>,
        overrides: &Overrides,
        environment: EnvironmentLookup<'_>,
    ) -> Result<Self, ConninfoError> {
        let mut values = match conninfo {
            Some(text) => Conninfo::parse(text)?,
            None => Conninfo::default(),
        };
        values.remove_empty_and(Keyword::Dbname);
        for (keyword, value) in [
            (Keyword::Host, &overrides.host),
            (Keyword::Port, &overrides.port),
            (Keyword::User, &overrides.user),
        ] {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                values.set(keyword, value)?;
            }
        }
        let fallback = overrides.fallback_application_name.as_str();
        values.set(Keyword::FallbackApplicationName, fallback)?;
        let environment = Environment(environment);
        let home = os_user::home_directory((environment.0)("HOME"));
        complete(&mut values, &environment, home.clone())?;
        checked(&values, &environment, home)
    }
}

struct Environment<'a>(EnvironmentLookup<'a>);

impl Environment<'_> {
    fn text(&self, name: &'static str) -> Result<Option<String>, ConninfoError> {
        match (self.0)(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text)),
            Some(Err(_)) => Err(ConninfoError::EnvironmentNotUtf8 { name }),
        }
    }
}

/// Adds what service file and environment have, and libpq's one default that depends on another
/// value.
fn complete(
    values: &mut Conninfo,
    environment: &Environment<'_>,
    home: Option<PathBuf>,
) -> Result<(), ConninfoError> {
    let service = match values.get(Keyword::Service) {
        Some(service) => Some(service.to_owned()),
        None => environment.text("PGSERVICE")?,
    };
    if let Some(service) = service {
        let system_directory = (environment.0)("PGSYSCONFDIR");
        let files = ServiceFiles {
            named: (environment.0)("PGSERVICEFILE").map(PathBuf::from),
            home,
            system_directory: system_directory.map_or(SYSTEM_DIRECTORY.into(), PathBuf::from),
        };
        for (keyword, value) in files.look_up(&service)? {
            if values.get(keyword).is_none() {
                values.set(keyword, value)?;
            }
        }
    }
    for keyword in Keyword::all() {
        if values.get(keyword).is_none()
            && let Some(name) = keyword.environment_variable()
            && let Some(value) = environment.text(name)?
        {
            values.set(keyword, value)?;
        }
    }
    if values.get(Keyword::Sslmode).is_none() {
        if environment
            .text("PGREQUIRESSL")?
            .is_some_and(|value| value.starts_with('1'))
        {
            values.set(Keyword::Sslmode, "require")?;
        } else if values.get(Keyword::Sslrootcert) == Some("system") {
            values.set(Keyword::Sslmode, "verify-full")?;
        }
    }
    Ok(())
}

fn checked(
    values: &Conninfo,
    environment: &Environment<'_>,
    home: Option<PathBuf>,
) -> Result<ConnectionConfig, ConninfoError> {
    refuse_unsupported(values)?;
    let given = |keyword| values.get(keyword).filter(|value| !value.is_empty());
    let user = match given(Keyword::User) {
        Some(user) => user.to_owned(),
        None => os_user::default_user()?,
    };
    let password_file = match given(Keyword::Passfile) {
        Some(path) => Some(PathBuf::from(path)),
        None => home.as_ref().map(|home| home.join(".pgpass")),
    };
    let application_name = given(Keyword::ApplicationName)
        .or_else(|| given(Keyword::FallbackApplicationName))
        .unwrap_or_default();
    // libpq 17 and later take a timeout of one second for one, earlier ones for two.
    let connect_timeout = match given(Keyword::ConnectTimeout) {
        Some(text) => seconds(value::integer(Keyword::ConnectTimeout, text)?),
        None => None,
    };
    Ok(ConnectionConfig {
        hosts: hosts::candidates(
            given(Keyword::Host),
            given(Keyword::Hostaddr),
            given(Keyword::Port),
        )?,
        user,
        password: given(Keyword::Password).map(Password::new),
        password_prompt: None,
        password_file,
        application_name: application_name.to_owned(),
        session_settings: session_settings(values, environment)?,
        connect_timeout,
        channel_binding: word(values, Keyword::ChannelBinding)?,
        require_auth: match given(Keyword::RequireAuth) {
            Some(list) => list.parse()?,
            None => RequireAuth::default(),
        },
        require_peer: given(Keyword::Requirepeer).map(str::to_owned),
        target_session_attrs: word(values, Keyword::TargetSessionAttrs)?,
        load_balance_hosts: word(values, Keyword::LoadBalanceHosts)?,
        keepalive: keepalive(values)?,
        tls: tls::settings(values, home)?,
    })
}

/// A word, or the default when nothing is said. An empty value is not a word.
fn word<T: Word + Default>(values: &Conninfo, keyword: Keyword) -> Result<T, ConninfoError> {
    match values.get(keyword) {
        Some(value) => T::parse(keyword, value),
        None => Ok(T::default()),
    }
}

/// Key words that ask for something which is not here.
fn refuse_unsupported(values: &Conninfo) -> Result<(), ConninfoError> {
    const GSS: &str = "GSSAPI is not implemented, use TLS";
    match values.get(Keyword::Gssencmode) {
        None | Some("disable" | "prefer") => {}
        Some("require") => {
            return Err(ConninfoError::unsupported(
                Keyword::Gssencmode,
                "require",
                GSS,
            ));
        }
        Some(other) => return Err(ConninfoError::invalid(Keyword::Gssencmode, other)),
    }
    for keyword in [Keyword::MinProtocolVersion, Keyword::MaxProtocolVersion] {
        match (keyword, values.get(keyword)) {
            (_, None | Some("" | "3.0")) => {}
            // The highest version to ask for: asking for less is within it.
            (Keyword::MaxProtocolVersion, Some("3.2" | "latest")) => {}
            (_, Some(value @ ("3.2" | "latest"))) => {
                let reason = "only protocol version 3.0 is spoken here";
                return Err(ConninfoError::unsupported(keyword, value, reason));
            }
            (_, Some(value)) => return Err(ConninfoError::invalid(keyword, value)),
        }
    }
    const OAUTH: &str = "OAuth is not implemented, use another authentication method";
    const KEYS: &str = "authentication with SCRAM keys is not implemented, use a password";
    const LOG: &str = "TLS secrets are never written to a file";
    for (keyword, reason) in [
        (Keyword::OauthIssuer, OAUTH),
        (Keyword::OauthClientId, OAUTH),
        (Keyword::OauthClientSecret, OAUTH),
        (Keyword::OauthScope, OAUTH),
        (Keyword::ScramClientKey, KEYS),
        (Keyword::ScramServerKey, KEYS),
        (Keyword::Sslkeylogfile, LOG),
    ] {
        if let Some(value) = values.get(keyword).filter(|value| !value.is_empty()) {
            return Err(ConninfoError::unsupported(keyword, value, reason));
        }
    }
    Ok(())
}

/// Settings that go into the startup message.
///
/// Source: src/interfaces/libpq/fe-protocol3.c, `build_startup_packet` (PG 15).
fn session_settings(
    values: &Conninfo,
    environment: &Environment<'_>,
) -> Result<Vec<(&'static str, String)>, ConninfoError> {
    let mut settings = Vec::new();
    if let Some(encoding) = values
        .get(Keyword::ClientEncoding)
        .filter(|v| !v.is_empty())
    {
        // Whatever the locale, this program reads and writes UTF-8.
        let encoding = if encoding == "auto" { "UTF8" } else { encoding };
        settings.push(("client_encoding", encoding.to_owned()));
    }
    if let Some(options) = values.get(Keyword::Options).filter(|v| !v.is_empty()) {
        settings.push(("options", options.to_owned()));
    }
    for (variable, name) in [
        ("PGDATESTYLE", "datestyle"),
        ("PGTZ", "timezone"),
        ("PGGEQO", "geqo"),
    ] {
        if let Some(value) = environment.text(variable)?
            && !value.eq_ignore_ascii_case("default")
        {
            settings.push((name, value));
        }
    }
    Ok(settings)
}

fn keepalive(values: &Conninfo) -> Result<KeepaliveSettings, ConninfoError> {
    let number = |keyword| match values.get(keyword).filter(|value| !value.is_empty()) {
        Some(value) => value::integer(keyword, value).map(Some),
        None => Ok(None),
    };
    // Zero and below leave the setting to the operating system.
    let count = number(Keyword::KeepalivesCount)?.and_then(|n| u32::try_from(n).ok());
    let user_timeout = number(Keyword::TcpUserTimeout)?.and_then(|n| u64::try_from(n).ok());
    Ok(KeepaliveSettings {
        enabled: number(Keyword::Keepalives)? != Some(0),
        idle: number(Keyword::KeepalivesIdle)?.and_then(seconds),
        interval: number(Keyword::KeepalivesInterval)?.and_then(seconds),
        count: count.filter(|count| *count > 0),
        user_timeout: user_timeout.filter(|n| *n > 0).map(Duration::from_millis),
    })
}

/// A time given in seconds, unless it is zero or less.
fn seconds(number: i32) -> Option<Duration> {
    let number = u64::try_from(number).ok().filter(|number| *number > 0)?;
    Some(Duration::from_secs(number))
}
