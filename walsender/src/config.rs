//! What a server is told.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::access::{Access, AccessError, MockNonce};
use crate::policy::SyncPolicy;
use crate::tls::TlsFiles;

/// What a [`Server`](crate::Server) is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServeConfig {
    /// Where clients connect.
    pub listen: Vec<ListenAddress>,
    /// Who may.
    pub access: AccessFiles,
    /// How many, and how long they may take.
    pub limits: Limits,
    /// Which standbys have to have WAL before it is reported upstream.
    pub policy: Option<SyncPolicy>,
    /// For how long a transaction that a standby needs counts in what is passed upstream; without
    /// it the feedback of standbys is not passed on.
    pub feedback_age: Option<Duration>,
}

impl ServeConfig {
    /// To listen there, for the same user through Unix sockets.
    #[must_use]
    pub fn new(listen: Vec<ListenAddress>) -> Self {
        Self {
            listen,
            access: AccessFiles::default(),
            limits: Limits::default(),
            policy: None,
            feedback_age: None,
        }
    }
}

impl ServeConfig {
    /// The most file descriptors that a server with this configuration has open: those of its
    /// clients, and of what is read for them. What else the process opens is not counted.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        let of_clients = self.limits.connections.saturating_mul(2);
        // A Unix socket has a lock file, and "every address" is two.
        let of_listeners = self.listen.len().saturating_mul(2);
        let of_server = MAX_UNAUTHENTICATED + 1 + of_listeners;
        let of_reading = (MAX_DISK_READERS + MAX_COMMANDS) * DESCRIPTORS_OF_A_READER;
        of_clients
            .saturating_add(of_server)
            .saturating_add(of_reading)
    }
}

/// The most clients that may be busy authenticating. When one more comes, the one that has taken
/// longest so far is closed: connections that say nothing do not keep others out.
pub(crate) const MAX_UNAUTHENTICATED: usize = 128;

/// The most clients for which the disk is read at a time, each on a thread.
pub(crate) const MAX_DISK_READERS: usize = 8;

/// The most commands that are executed at a time, each on a thread. They may read files.
pub(crate) const MAX_COMMANDS: usize = 8;

/// The most descriptors that one of these has open besides the segment that its client reads: a
/// directory, and a segment or a file of the archive's own.
const DESCRIPTORS_OF_A_READER: usize = 4;

/// The files that say who may connect. They are read at the start and with each reload.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AccessFiles {
    /// Rules in the form of `pg_hba.conf` ([`hba`](crate::hba)). Without it only the same user of
    /// the operating system may connect, through a Unix socket.
    pub hba: Option<PathBuf>,
    /// Whether whoever connects from `127.0.0.1` or `::1`, and whom no rule fits, is believed to
    /// be who it says it is: any user of this machine.
    pub trust_loopback: bool,
    /// The users who have passwords.
    pub users: Option<PathBuf>,
    /// What TLS needs; without it there is none.
    pub tls: Option<TlsFiles>,
}

impl AccessFiles {
    /// Reads the files, for whoever makes a server of them only later, when it may be too late to
    /// learn that one is wrong.
    ///
    /// # Errors
    /// When a file cannot be read or is not as it should be.
    pub fn check(&self) -> Result<(), AccessError> {
        Access::load(self, MockNonce::default()).map(drop)
    }
}

/// How many clients there may be, and how long they may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The most clients at a time that have shown who they are (`max_wal_senders`).
    pub connections: usize,
    /// The most of one user.
    pub connections_per_user: usize,
    /// How long a client may take to show who it is (`authentication_timeout`).
    pub authentication_timeout: Duration,
    /// After this time without a word a client that is streamed to is gone; half way it is asked
    /// for one (`wal_sender_timeout`). `None`: never.
    pub wal_sender_timeout: Option<Duration>,
}

impl Default for Limits {
    /// 512 clients, of whatever user; a minute for each timeout, as PostgreSQL has it.
    fn default() -> Self {
        Self {
            connections: 512,
            connections_per_user: 512,
            authentication_timeout: Duration::from_secs(60),
            wal_sender_timeout: Some(Duration::from_secs(60)),
        }
    }
}

/// An address that clients connect to.
///
/// | text | meaning |
/// |---|---|
/// | `192.0.2.1:5432`, `[2001:db8::1]:5432` | one address |
/// | `*:5432` | every address of this machine |
/// | `/run/wal:5432`, `/run/wal` | the Unix socket that clients find by `host=/run/wal port=5432` |
///
/// The port is 5432 if it is left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListenAddress {
    /// One address; with port 0 the system chooses one.
    Tcp(SocketAddr),
    /// Every address of this machine, IPv4 and IPv6.
    Every {
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix {
        /// The directory that it lies in.
        directory: PathBuf,
        /// The port, which only makes its name.
        port: u16,
    },
}

/// The port that libpq connects to unless told otherwise.
const DEFAULT_PORT: u16 = 5432;

impl ListenAddress {
    /// The path of a Unix socket (`UNIXSOCK_PATH`).
    #[must_use]
    pub fn socket_path(directory: &Path, port: u16) -> PathBuf {
        directory.join(format!(".s.PGSQL.{port}"))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Every { port } => write!(f, "*:{port}"),
            Self::Unix { directory, port } => write!(f, "{}:{port}", directory.display()),
        }
    }
}

/// A text that is no address to listen at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid listen address \"{text}\", expected an IP address or * with a port, as in \
     127.0.0.1:5432, or the directory of a Unix socket, as in /run/wal:5432"
)]
pub struct InvalidListenAddress {
    text: String,
}

impl FromStr for ListenAddress {
    type Err = InvalidListenAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidListenAddress {
            text: text.to_owned(),
        };
        let is_address = text.parse::<IpAddr>().is_ok();
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !is_address && !text.ends_with(']') => {
                let digits = port.bytes().all(|byte| byte.is_ascii_digit());
                match port.parse() {
                    Ok(port) if digits => (host, port),
                    _ if host.starts_with('/') => (text, DEFAULT_PORT),
                    _ => return Err(invalid()),
                }
            }
            _ => (text, DEFAULT_PORT),
        };
        if host.starts_with('/') {
            return Ok(Self::Unix {
                directory: PathBuf::from(host),
                port,
            });
        }
        if host == "*" {
            return Ok(Self::Every { port });
        }
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        match bare.unwrap_or(host).parse::<IpAddr>() {
            Ok(address) if bare.is_none() || address.is_ipv6() => {
                Ok(Self::Tcp(SocketAddr::new(address, port)))
            }
            _ => Err(invalid()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_client_counts_with_its_socket_and_a_segment() {
        let mut config = ServeConfig::new(vec!["*".parse().unwrap()]);
        let before = config.descriptors();
        config.limits.connections += 10;
        assert_eq!(config.descriptors(), before + 20);
        config.limits.connections = usize::MAX;
        assert_eq!(config.descriptors(), usize::MAX);
    }

    #[test]
    fn addresses_are_written_as_everywhere() {
        for (text, printed) in [
            ("127.0.0.1:5433", "127.0.0.1:5433"),
            ("127.0.0.1", "127.0.0.1:5432"),
            ("[::1]:5433", "[::1]:5433"),
            ("[::1]", "[::1]:5432"),
            ("::1", "[::1]:5432"),
            ("*", "*:5432"),
            ("*:0", "*:0"),
            ("/run/wal", "/run/wal:5432"),
            ("/run/wal:5433", "/run/wal:5433"),
            ("/run/a:b", "/run/a:b:5432"),
        ] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), printed);
        }
        for text in [
            "",
            ":5432",
            "db:5432",
            "127.0.0.1:",
            "127.0.0.1:65536",
            "127.0.0.1:+1",
            "[127.0.0.1]:1",
            "[::1:5432",
            "*:x",
        ] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
        let path = ListenAddress::socket_path(Path::new("/run/wal"), 5433);
        assert_eq!(path, Path::new("/run/wal/.s.PGSQL.5433"));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(text in "[/*:0-9a-f\\[\\].]{1,16}") {
            if let Ok(address) = text.parse::<ListenAddress>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }
}
