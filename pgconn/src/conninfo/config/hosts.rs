//! The servers that a connection string names.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::super::{ConninfoError, value};

/// Where servers put their sockets: Debian's directory, then PostgreSQL's own.
pub(crate) const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// The longest path of a Unix-domain socket on Linux (`sun_path` without its NUL).
const LONGEST_SOCKET_PATH: usize = 107;

/// One server to try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostCandidate {
    /// `host`: a name, an address, a directory of sockets, or `@` and an abstract one. `None` is
    /// the default directory, unless there is a `hostaddr`.
    pub host: Option<String>,
    /// `hostaddr`: an address in digits, which spares the look-up of the name.
    pub address: Option<String>,
    /// `port`
    pub port: u16,
}

/// How a server is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint<'a> {
    /// By TCP, at every address that this name or address stands for.
    Tcp(&'a str),
    /// By a Unix-domain socket. A leading `@` is the abstract name space of Linux.
    Unix(PathBuf),
}

impl HostCandidate {
    /// How the server is reached. If no host is given, that is the first default directory that
    /// has a socket for the port.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint<'_> {
        match (&self.address, &self.host) {
            (Some(address), _) => Endpoint::Tcp(address),
            (None, Some(host)) if is_socket_directory(host) => Endpoint::Unix(self.socket(host)),
            (None, Some(host)) => Endpoint::Tcp(host),
            (None, None) => {
                let paths = SOCKET_DIRECTORIES.map(|directory| self.socket(directory));
                let found = paths.iter().find(|path| path.exists());
                Endpoint::Unix(found.unwrap_or(&paths[0]).clone())
            }
        }
    }

    /// The name or address that was given, or the directory of the socket.
    pub(crate) fn name(&self) -> Cow<'_, str> {
        match (&self.host, self.endpoint()) {
            (Some(host), _) => host.into(),
            (None, Endpoint::Tcp(address)) => address.into(),
            (None, Endpoint::Unix(path)) => {
                let directory = path.parent().unwrap_or(&path);
                directory.to_string_lossy().into_owned().into()
            }
        }
    }

    /// The name under which the password file lists the server.
    #[must_use]
    pub fn password_file_host(&self) -> &str {
        match (&self.host, &self.address) {
            (Some(host), _) if SOCKET_DIRECTORIES.contains(&host.as_str()) => "localhost",
            (Some(host), _) => host,
            (None, Some(address)) => address,
            (None, None) => "localhost",
        }
    }

    fn socket(&self, directory: &str) -> PathBuf {
        Path::new(directory).join(format!(".s.PGSQL.{}", self.port))
    }

    fn check(self) -> Result<Self, ConninfoError> {
        if let Some(address) = &self.address {
            // An IPv6 address may name its interface after a percent sign.
            let (digits, _) = address.split_once('%').unwrap_or((address, ""));
            if digits.parse::<IpAddr>().is_err() {
                return Err(ConninfoError::InvalidAddress {
                    value: address.clone(),
                });
            }
        }
        if let Endpoint::Unix(path) = self.endpoint()
            && path.as_os_str().len() > LONGEST_SOCKET_PATH
        {
            return Err(ConninfoError::SocketPathTooLong {
                path,
                maximum: LONGEST_SOCKET_PATH,
            });
        }
        Ok(self)
    }
}

impl fmt::Display for HostCandidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.endpoint(), &self.host) {
            (Endpoint::Unix(path), _) => write!(f, "socket \"{}\"", path.display()),
            (Endpoint::Tcp(address), Some(host)) if self.address.is_some() => {
                write!(f, "\"{host}\" ({address}), port {}", self.port)
            }
            (Endpoint::Tcp(name), _) => write!(f, "\"{name}\", port {}", self.port),
        }
    }
}

/// Source: src/include/libpq/pqcomm.h, `is_unixsock_path` (PG 15).
fn is_socket_directory(host: &str) -> bool {
    host.starts_with(['/', '@'])
}

/// Splits the lists and pairs their elements.
pub(super) fn candidates(
    host: Option<&str>,
    address: Option<&str>,
    port: Option<&str>,
) -> Result<Vec<HostCandidate>, ConninfoError> {
    let list = |text: Option<&str>| -> Vec<String> {
        text.map_or(Vec::new(), |text| {
            text.split(',').map(str::to_owned).collect()
        })
    };
    let (hosts, addresses, ports) = (list(host), list(address), list(port));
    let count = match addresses.len() {
        0 => hosts.len().max(1),
        count if hosts.is_empty() || hosts.len() == count => count,
        count => {
            return Err(ConninfoError::HostCount {
                hosts: hosts.len(),
                addresses: count,
            });
        }
    };
    if ports.len() > 1 && ports.len() != count {
        return Err(ConninfoError::PortCount {
            ports: ports.len(),
            hosts: count,
        });
    }
    let element =
        |list: &[String], index: usize| list.get(index).filter(|text| !text.is_empty()).cloned();
    (0..count)
        .map(|index| {
            let port = ports
                .get(index)
                .or(ports.first())
                .map_or("", String::as_str);
            HostCandidate {
                host: element(&hosts, index),
                address: element(&addresses, index),
                port: value::port(port)?,
            }
            .check()
        })
        .collect()
}
