//! From a host to a session: addresses, TLS, passwords, and the retries that `sslmode` asks for.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use bytes::BytesMut;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::spawn_blocking;
use walproto::client::{ClientError, ClientSession, Credentials, Event, SessionTimes, Transport};
use walproto::error::SqlState;
use walproto::startup::StartupParameters;
use walproto::{Major, PgTimestamp, ServerVersion};

use super::notices::NoticeLimit;
use super::password::FoundPassword;
use super::spares::Spares;
use super::{Attempt, ConnectError, ConnectFailure, Connection, ConnectionError};
use crate::conninfo::{
    ConnectionConfig, Endpoint, HostCandidate, LoadBalanceHosts, SslMode, user_name,
};
use crate::socket::{self, Stream};
use crate::tls::{self, Answer, ClientTls, TlsError};

/// Where one try goes.
#[derive(Clone)]
enum Target {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// One address of a host: a socket, or one of the addresses that its name stands for.
#[derive(Clone)]
pub struct Address<'a> {
    host: &'a HostCandidate,
    target: Target,
}

/// One address, and what is known about how to get in.
struct Candidate<'a> {
    config: &'a ConnectionConfig,
    host: &'a HostCandidate,
    times: SessionTimes,
}

/// A try that failed, and whether it may help to do the opposite about TLS.
struct Failed {
    failure: ConnectFailure,
    encrypted: bool,
}

/// All addresses of a host; never none.
///
/// # Errors
/// When its name stands for no address.
pub(crate) async fn addresses<'a>(
    config: &ConnectionConfig,
    host: &'a HostCandidate,
) -> Result<Vec<Address<'a>>, Attempt> {
    let address = |target| Address { host, target };
    let name = match host.endpoint() {
        Endpoint::Unix(path) => return Ok(vec![address(Target::Unix(path))]),
        Endpoint::Tcp(name) => name,
    };
    let failed = |source| Attempt {
        server: host.to_string(),
        failure: ConnectFailure::Resolve {
            host: name.to_owned(),
            source,
        },
    };
    let found = tokio::net::lookup_host((name, host.port)).await;
    let mut addresses: Vec<_> = found
        .map_err(failed)?
        .map(|found| address(Target::Tcp(found)))
        .collect();
    if addresses.is_empty() {
        return Err(failed(io::ErrorKind::NotFound.into()));
    }
    if config.load_balance_hosts == LoadBalanceHosts::Random {
        fastrand::shuffle(&mut addresses);
    }
    Ok(addresses)
}

#[cfg(test)]
impl<'a> Address<'a> {
    /// An address that a name stands for without having been looked up.
    pub(crate) fn of_test(host: &'a HostCandidate, address: SocketAddr) -> Self {
        let target = Target::Tcp(address);
        Self { host, target }
    }
}

impl Address<'_> {
    /// Whether both are of one family: IPv4, IPv6 or Unix.
    pub(crate) fn is_of_the_family_of(&self, other: &Self) -> bool {
        match (&self.target, &other.target) {
            (Target::Unix(_), Target::Unix(_)) => true,
            (Target::Tcp(one), Target::Tcp(other)) => one.is_ipv4() == other.is_ipv4(),
            _ => false,
        }
    }

    /// Connects to it.
    ///
    /// # Cancel safety
    /// Dropped half way, the attempt is given up.
    ///
    /// # Errors
    /// When no way that `sslmode` allows works; each is named.
    pub(crate) async fn connect(
        &self,
        config: &ConnectionConfig,
        times: SessionTimes,
    ) -> Result<Connection, ConnectError> {
        let candidate = Candidate {
            config,
            host: self.host,
            times,
        };
        let server = self.to_string();
        candidate
            .connect(&self.target, &server)
            .await
            .map_err(|attempts| ConnectError { attempts })
    }
}

/// The server in messages, as libpq writes it.
impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.target, &self.host.host) {
            (Target::Unix(path), _) => write!(f, "socket \"{}\"", path.display()),
            (Target::Tcp(address), Some(host)) if *host != address.ip().to_string() => {
                write!(f, "\"{host}\" ({}), port {}", address.ip(), address.port())
            }
            (Target::Tcp(address), _) => {
                write!(f, "\"{}\", port {}", address.ip(), address.port())
            }
        }
    }
}

impl Candidate<'_> {
    /// Connects to one address, with or without TLS as `sslmode` says, and with a password from
    /// the prompt if the server turns out to want one.
    async fn connect(&self, target: &Target, server: &str) -> Result<Connection, Vec<Attempt>> {
        loop {
            let password = FoundPassword::find(self.config, self.host).await;
            let mut attempts = match self.negotiate(target, server, &password).await {
                Ok(connection) => return Ok(connection),
                Err(attempts) => attempts,
            };
            let missing = |attempt: &Attempt| attempt.failure.is_password_missing();
            match &self.config.password_prompt {
                Some(prompt) if attempts.iter().any(missing) => {
                    let prompt = prompt.clone();
                    if let Err(source) = blocking(move || prompt.ask()).await {
                        attempts.push(Attempt {
                            server: server.to_owned(),
                            failure: ConnectFailure::Prompt { source },
                        });
                        return Err(attempts);
                    }
                }
                _ => return Err(attempts),
            }
        }
    }

    /// Tries the ways that `sslmode` allows, within one `connect_timeout`. Without one, a server
    /// that is silent for as long as while it streams is gone, also while TLS is agreed on. If
    /// both ways fail, both errors are returned: the first is often the one that matters, as a
    /// wrong password under `hostssl` rules, after which plain text is refused as well.
    async fn negotiate(
        &self,
        target: &Target,
        server: &str,
        password: &FoundPassword,
    ) -> Result<Connection, Vec<Attempt>> {
        let mut first_failed = None;
        let tries = async {
            let first =
                self.config.tls.mode >= SslMode::Prefer && !matches!(target, Target::Unix(_));
            let failed = match self.try_once(target, server, password, first).await {
                Ok(connection) => return Ok(connection),
                Err(failed) => failed,
            };
            let Some(encrypted) = self.second_try(target, &failed) else {
                return Err(failed.failure);
            };
            first_failed = Some(failed.failure);
            self.try_once(target, server, password, encrypted)
                .await
                .map_err(|failed| failed.failure)
        };
        let limit = match (self.config.connect_timeout, self.times.receive_timeout) {
            (Some(after), _) => Some((after, "connect_timeout")),
            (None, Some(after)) => Some((after, "receive timeout")),
            (None, None) => None,
        };
        let result = match limit {
            None => tries.await,
            Some((after, limit)) => match tokio::time::timeout(after, tries).await {
                Ok(result) => result,
                Err(tokio::time::error::Elapsed { .. }) => {
                    Err(ConnectFailure::Timeout { after, limit })
                }
            },
        };
        let last = match result {
            Ok(connection) => return Ok(connection),
            Err(failure) => failure,
        };
        let attempt = |server: String, failure| Attempt { server, failure };
        let Some(first) = first_failed else {
            return Err(vec![attempt(server.to_owned(), last)]);
        };
        let (with, without) = (
            format!("{server}, with TLS"),
            format!("{server}, without TLS"),
        );
        let (first_way, last_way) = match self.config.tls.mode {
            SslMode::Allow => (without, with),
            _ => (with, without),
        };
        Err(vec![attempt(first_way, first), attempt(last_way, last)])
    }

    /// Whether the server is tried again with (true) or without (false) TLS: only when it is
    /// there and refused us or the handshake.
    fn second_try(&self, target: &Target, failed: &Failed) -> Option<bool> {
        let refused = match &failed.failure {
            ConnectFailure::Tls(_) => true,
            ConnectFailure::Refused { message, .. } => {
                message.sqlstate != SqlState::CANNOT_CONNECT_NOW
            }
            _ => false,
        };
        match (target, self.config.tls.mode, failed.encrypted) {
            (Target::Tcp(_), SslMode::Prefer, true) if refused => Some(false),
            (Target::Tcp(_), SslMode::Allow, false) if refused => Some(true),
            _ => None,
        }
    }

    async fn try_once(
        &self,
        target: &Target,
        server: &str,
        password: &FoundPassword,
        encrypt: bool,
    ) -> Result<Connection, Failed> {
        let failed = |failure| Failed {
            failure,
            encrypted: encrypt,
        };
        let (stream, transport) = self.open(target, encrypt).await.map_err(failed)?;
        let encrypted = matches!(stream, Stream::Tls(_));
        self.start(stream, transport, server, password)
            .await
            .map_err(|failure| Failed { failure, encrypted })
    }

    /// Opens the socket, and TLS on it.
    async fn open(
        &self,
        target: &Target,
        encrypt: bool,
    ) -> Result<(Stream, Transport), ConnectFailure> {
        let failed = |error| ConnectFailure::Connect { error };
        match target {
            Target::Unix(path) => {
                let stream = socket::connect_unix(path).await.map_err(failed)?;
                self.check_peer(&stream)?;
                Ok((Stream::Unix(stream), Transport::Plain))
            }
            Target::Tcp(address) => {
                let connecting = socket::connect_tcp(*address, &self.config.keepalive);
                let stream = connecting.await.map_err(failed)?;
                if encrypt {
                    Ok(self.encrypt(stream, address.ip()).await?)
                } else {
                    Ok((Stream::Tcp(stream), Transport::Plain))
                }
            }
        }
    }

    async fn encrypt(
        &self,
        mut stream: TcpStream,
        address: IpAddr,
    ) -> Result<(Stream, Transport), TlsError> {
        let settings = self.config.tls.clone();
        let host = self.host.host.clone();
        let tls = blocking(move || ClientTls::load(&settings, host.as_deref(), address)).await?;
        match tls.request(&mut stream).await? {
            Answer::Unwilling => Ok((Stream::Tcp(stream), Transport::Plain)),
            Answer::Willing => {
                let stream = tls.handshake(stream).await?;
                let server_end_point = tls::channel_binding(&stream);
                let stream = Stream::Tls(Box::new(stream));
                Ok((stream, Transport::Tls { server_end_point }))
            }
        }
    }

    fn check_peer(&self, stream: &UnixStream) -> Result<(), ConnectFailure> {
        let Some(required) = &self.config.require_peer else {
            return Ok(());
        };
        let credentials = stream
            .peer_cred()
            .map_err(|source| ConnectFailure::PeerCredentials { source })?;
        let uid = credentials.uid();
        let actual = user_name(uid).unwrap_or_else(|| uid.to_string());
        if actual == *required {
            return Ok(());
        }
        Err(ConnectFailure::WrongPeer {
            required: required.clone(),
            actual,
        })
    }

    /// Starts the session and waits until the server has let us in.
    async fn start(
        &self,
        stream: Stream,
        transport: Transport,
        server: &str,
        password: &FoundPassword,
    ) -> Result<Connection, ConnectFailure> {
        let credentials = Credentials {
            password: password.password.as_ref().map(|p| p.as_bytes().to_vec()),
            channel_binding: self.config.channel_binding,
            require_auth: self.config.require_auth,
            transport,
        };
        let session = ClientSession::new(
            Instant::now(),
            PgTimestamp::from_system_time(SystemTime::now()),
            &self.startup_parameters(),
            credentials,
            self.times,
        );
        let mut connection = Connection {
            stream,
            session: session.map_err(ConnectFailure::Session)?,
            server: server.to_owned(),
            host: self.host.name().into_owned(),
            port: self.host.port,
            version: ServerVersion(0),
            input: BytesMut::new(),
            spares: Spares::default(),
            output: BytesMut::new(),
            unflushed: false,
            write_error: None,
            eof: false,
            bytes_read: 0,
            failed: None,
            notices: NoticeLimit::new(server),
        };
        loop {
            match connection.event().await {
                Ok(Event::Ready) => break,
                Ok(Event::Notice(message)) => connection.log(&message),
                Ok(Event::Failed(message)) => return Err(refused(message, password)),
                Ok(event) => {
                    let error = ConnectionError::UnexpectedEvent {
                        command: "startup".to_owned(),
                        event: Box::new(event),
                    };
                    return Err(ConnectFailure::Connection(Box::new(error)));
                }
                Err(ConnectionError::Session(ClientError::Refused(message))) => {
                    return Err(refused(message, password));
                }
                Err(ConnectionError::Session(error)) => return Err(ConnectFailure::Session(error)),
                Err(error) => return Err(ConnectFailure::Connection(Box::new(error))),
            }
        }
        let version = connection.session.server_version();
        connection.version =
            version.ok_or(ConnectFailure::Session(ClientError::UnknownServerVersion))?;
        if connection.version < Major::OLDEST.first_release() {
            let version = connection.version;
            connection.close().await;
            return Err(ConnectFailure::OldServer { version });
        }
        Ok(connection)
    }

    fn startup_parameters(&self) -> StartupParameters {
        let mut startup = StartupParameters {
            user: self.config.user.clone(),
            database: Some(ConnectionConfig::DATABASE.to_owned()),
            application_name: Some(self.config.application_name.clone()),
            ..StartupParameters::default()
        };
        for (name, value) in &self.config.session_settings {
            match *name {
                "options" => startup.options = Some(value.clone()),
                name => startup.extra.push((name.to_owned(), value.clone())),
            }
        }
        startup
    }
}

fn refused(
    message: Box<walproto::error::ServerMessage>,
    password: &FoundPassword,
) -> ConnectFailure {
    ConnectFailure::Refused {
        message,
        password_file: password.file.clone(),
    }
}

/// Runs on a thread that may block, and carries its panic over.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Only a runtime that shuts down cancels such work, and this task with it.
        Err(_cancelled) => std::future::pending().await,
    }
}
