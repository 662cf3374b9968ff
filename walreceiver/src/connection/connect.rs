//! From a host to a session: addresses, TLS, passwords, and the retries that `sslmode` asks for.

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
use walproto::{PgTimestamp, ServerVersion};

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

/// One server, and what is known about how to get in.
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

impl Connection {
    /// Connects to one host, at the first of its addresses that works.
    ///
    /// # Cancel safety
    /// Dropped half way, the attempt is given up.
    ///
    /// # Errors
    /// When no address works; each is named.
    pub async fn connect(
        config: &ConnectionConfig,
        host: &HostCandidate,
        times: SessionTimes,
    ) -> Result<Self, ConnectError> {
        let candidate = Candidate {
            config,
            host,
            times,
        };
        let mut attempts = Vec::new();
        let targets = candidate.targets().await.map_err(|failure| ConnectError {
            attempts: vec![Attempt {
                server: host.to_string(),
                failure,
            }],
        })?;
        for target in targets {
            let server = candidate.name(&target);
            match candidate.connect(target, &server).await {
                Ok(connection) => return Ok(connection),
                Err(failure) => attempts.push(Attempt { server, failure }),
            }
        }
        Err(ConnectError { attempts })
    }
}

impl Candidate<'_> {
    /// All addresses of the host; never none.
    async fn targets(&self) -> Result<Vec<Target>, ConnectFailure> {
        let name = match self.host.endpoint() {
            Endpoint::Unix(path) => return Ok(vec![Target::Unix(path)]),
            Endpoint::Tcp(name) => name,
        };
        let failed = |source| ConnectFailure::Resolve {
            host: name.to_owned(),
            source,
        };
        let found = tokio::net::lookup_host((name, self.host.port)).await;
        let mut addresses: Vec<_> = found.map_err(failed)?.map(Target::Tcp).collect();
        if addresses.is_empty() {
            return Err(failed(io::ErrorKind::NotFound.into()));
        }
        if self.config.load_balance_hosts == LoadBalanceHosts::Random {
            fastrand::shuffle(&mut addresses);
        }
        Ok(addresses)
    }

    /// The server in messages, as libpq writes it.
    fn name(&self, target: &Target) -> String {
        match (target, &self.host.host) {
            (Target::Unix(path), _) => format!("socket \"{}\"", path.display()),
            (Target::Tcp(address), Some(host)) if *host != address.ip().to_string() => {
                format!("\"{host}\" ({}), port {}", address.ip(), address.port())
            }
            (Target::Tcp(address), _) => {
                format!("\"{}\", port {}", address.ip(), address.port())
            }
        }
    }

    /// Connects to one address, with or without TLS as `sslmode` says, and with a password from
    /// the prompt if the server turns out to want one.
    async fn connect(&self, target: Target, server: &str) -> Result<Connection, ConnectFailure> {
        loop {
            let password = FoundPassword::find(self.config, self.host).await;
            let failure = match self.negotiate(&target, server, &password).await {
                Ok(connection) => return Ok(connection),
                Err(failure) => failure,
            };
            match &self.config.password_prompt {
                Some(prompt) if failure.is_password_missing() => {
                    let prompt = prompt.clone();
                    blocking(move || prompt.ask())
                        .await
                        .map_err(|source| ConnectFailure::Prompt { source })?;
                }
                _ => return Err(failure),
            }
        }
    }

    /// Tries the ways that `sslmode` allows, within one `connect_timeout`. Without one, a server
    /// that is silent for as long as while it streams is gone, also while TLS is agreed on.
    async fn negotiate(
        &self,
        target: &Target,
        server: &str,
        password: &FoundPassword,
    ) -> Result<Connection, ConnectFailure> {
        let tries = async {
            let first =
                self.config.tls.mode >= SslMode::Prefer && !matches!(target, Target::Unix(_));
            let failed = match self.try_once(target, server, password, first).await {
                Ok(connection) => return Ok(connection),
                Err(failed) => failed,
            };
            match self.second_try(target, &failed) {
                Some(encrypted) => self
                    .try_once(target, server, password, encrypted)
                    .await
                    .map_err(|failed| failed.failure),
                None => Err(failed.failure),
            }
        };
        let (after, limit) = match (self.config.connect_timeout, self.times.receive_timeout) {
            (Some(after), _) => (after, "connect_timeout"),
            (None, Some(after)) => (after, "receive timeout"),
            (None, None) => return tries.await,
        };
        match tokio::time::timeout(after, tries).await {
            Ok(result) => result,
            Err(tokio::time::error::Elapsed { .. }) => {
                Err(ConnectFailure::Timeout { after, limit })
            }
        }
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
        if connection.version.major() < 13 {
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
