//! Who may connect, and how they prove who they are: rules in the form of `pg_hba.conf`.
//!
//! ```text
//! # TYPE    DATABASE     USER      ADDRESS         METHOD
//! local     replication  all                       peer
//! hostssl   replication  standby   10.0.0.0/8      scram-sha-256
//! hostssl   replication  relay     2001:db8::/32   cert
//! host      replication  all       all             reject
//! ```
//!
//! A server's own file can be used as it is. As in PostgreSQL only lines whose database is
//! `replication` are for a connection that streams WAL; `all` does not mean it. The other lines
//! have to be well-formed and are without effect ([`HbaRules::unused`]). What a line for
//! `replication` asks for and this server does not have, as group membership (`+role`), included
//! files, host names and most methods, is refused by name, so that no rule is weaker here than
//! it looks.
//!
//! Source: the PostgreSQL manual, "The pg_hba.conf File"; src/backend/libpq/hba.c (PG 15).

mod error;
mod parser;
#[cfg(test)]
mod tests;
pub(crate) mod tokens;

use std::fs;
use std::net::IpAddr;
use std::path::Path;

pub use error::{HbaError, HbaFault, HbaField};

/// The rules, the first of which that fits a connection decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HbaRules {
    rules: Vec<HbaRule>,
    unused: Vec<usize>,
}

/// One rule: whom it is for, and what it asks of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HbaRule {
    /// The line in the file, from 1 on; 0 for a rule that is in no file.
    pub line: usize,
    connection: ConnectionType,
    users: Vec<UserPattern>,
    /// How the client proves who it is.
    pub method: HbaMethod,
    /// What it has to have beside that.
    pub client_certificate: ClientCertificate,
}

/// The first field of a line.
#[derive(Clone, PartialEq, Eq, Debug)]
enum ConnectionType {
    /// `local`: Unix sockets.
    Local,
    /// `host`, `hostssl` and `hostnossl`.
    Host { tls: Tls, address: AddressPattern },
}

/// Whether a line is for encrypted connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tls {
    Either,
    Required,
    Absent,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum UserPattern {
    All,
    Is(String),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum AddressPattern {
    All,
    /// The addresses that are equal to this one where the mask has ones.
    Masked {
        address: IpAddr,
        mask: IpAddr,
    },
}

/// How a client proves who it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HbaMethod {
    /// `trust`: it is believed.
    Trust,
    /// `reject`: it is turned away.
    Reject,
    /// `scram-sha-256`, or `md5`, which means the same where all passwords are stored for SCRAM.
    ScramSha256,
    /// `cert`: the common name of its TLS certificate is the name of the user.
    Cert,
    /// `peer`: the operating system's user at the other end of the Unix socket has the name of
    /// the user.
    Peer,
    /// The operating system's user at the other end is the one that this process runs as. No
    /// file can say it; it is what holds without one.
    SameUser,
}

/// What TLS certificate a client has to have, whatever the method.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ClientCertificate {
    /// None.
    NotNeeded,
    /// `clientcert=verify-ca`: one that a trusted authority signed.
    Trusted,
    /// `clientcert=verify-full`: one in the user's name, too.
    InTheUsersName,
}

/// Where a client connects from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientOrigin {
    /// Through a Unix socket.
    Local,
    /// Through TCP.
    Tcp {
        /// The address at the other end.
        address: IpAddr,
        /// Whether TLS is in use.
        encrypted: bool,
    },
}

impl HbaRules {
    /// Reads a file.
    ///
    /// # Errors
    /// When the file cannot be read, or a line of it is wrong.
    pub fn load(path: &Path) -> Result<Self, HbaError> {
        let content = fs::read(path).map_err(|source| HbaError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &content)
    }

    /// Reads the content of a file; `path` is for messages.
    ///
    /// # Errors
    /// When a line is wrong.
    pub fn parse(path: &Path, content: &[u8]) -> Result<Self, HbaError> {
        parser::parse(content).map_err(|(line, fault)| HbaError::Line {
            path: path.to_owned(),
            line,
            fault: Box::new(fault),
        })
    }

    /// What holds without a file: the same user of the operating system may connect through a
    /// Unix socket, and nobody else.
    #[must_use]
    pub fn same_user() -> Self {
        Self {
            rules: vec![HbaRule::of_everybody(
                ConnectionType::Local,
                HbaMethod::SameUser,
            )],
            unused: Vec::new(),
        }
    }

    /// The same rules, after which whoever connects from `127.0.0.1` or `::1` is believed.
    #[must_use]
    pub fn and_trust_loopback(mut self) -> Self {
        use std::net::{Ipv4Addr, Ipv6Addr};
        for address in [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ] {
            let connection = ConnectionType::Host {
                tls: Tls::Either,
                address: AddressPattern::of_one(address),
            };
            let rule = HbaRule::of_everybody(connection, HbaMethod::Trust);
            self.rules.push(rule);
        }
        self
    }

    /// The lines, from 1 on, that are for other databases than `replication` and so without
    /// effect.
    #[must_use]
    pub fn unused(&self) -> &[usize] {
        &self.unused
    }

    /// Whether any rule asks for what only TLS can give.
    #[must_use]
    pub fn need_tls(&self) -> bool {
        self.rules.iter().any(|rule| {
            matches!(
                rule.connection,
                ConnectionType::Host {
                    tls: Tls::Required,
                    ..
                }
            )
        })
    }

    /// Whether any rule asks for a client's certificate.
    #[must_use]
    pub fn need_client_certificates(&self) -> bool {
        let needed = |rule: &HbaRule| rule.client_certificate > ClientCertificate::NotNeeded;
        self.rules.iter().any(needed)
    }

    /// Whether any rule asks for a password.
    #[must_use]
    pub fn need_passwords(&self) -> bool {
        let needed = |rule: &HbaRule| rule.method == HbaMethod::ScramSha256;
        self.rules.iter().any(needed)
    }

    /// The first rule that fits; nobody may connect whom none fits.
    #[must_use]
    pub fn find(&self, origin: ClientOrigin, user: &str) -> Option<&HbaRule> {
        self.rules
            .iter()
            .find(|rule| rule.connection.fits(origin) && rule.users.iter().any(|u| u.fits(user)))
    }
}

impl HbaRule {
    fn of_everybody(connection: ConnectionType, method: HbaMethod) -> Self {
        Self {
            line: 0,
            connection,
            users: vec![UserPattern::All],
            method,
            client_certificate: ClientCertificate::NotNeeded,
        }
    }
}

impl ConnectionType {
    fn fits(&self, origin: ClientOrigin) -> bool {
        match (self, origin) {
            (Self::Local, ClientOrigin::Local) => true,
            (
                Self::Host { tls, address },
                ClientOrigin::Tcp {
                    address: of,
                    encrypted,
                },
            ) => {
                let tls_fits = match tls {
                    Tls::Either => true,
                    Tls::Required => encrypted,
                    Tls::Absent => !encrypted,
                };
                tls_fits && address.fits(of)
            }
            (Self::Local, ClientOrigin::Tcp { .. }) | (Self::Host { .. }, ClientOrigin::Local) => {
                false
            }
        }
    }
}

impl UserPattern {
    fn fits(&self, user: &str) -> bool {
        match self {
            Self::All => true,
            Self::Is(name) => name == user,
        }
    }
}

impl AddressPattern {
    /// One address alone.
    fn of_one(address: IpAddr) -> Self {
        let mask = parser::mask_of(address, if address.is_ipv4() { 32 } else { 128 });
        Self::Masked { address, mask }
    }

    fn fits(&self, client: IpAddr) -> bool {
        match self {
            Self::All => true,
            // What came in over IPv4 is compared as such, however the socket shows it.
            Self::Masked { address, mask } => match (client.to_canonical(), address, mask) {
                (IpAddr::V4(client), IpAddr::V4(address), IpAddr::V4(mask)) => {
                    (client.to_bits() ^ address.to_bits()) & mask.to_bits() == 0
                }
                (IpAddr::V6(client), IpAddr::V6(address), IpAddr::V6(mask)) => {
                    (client.to_bits() ^ address.to_bits()) & mask.to_bits() == 0
                }
                _ => false,
            },
        }
    }
}
