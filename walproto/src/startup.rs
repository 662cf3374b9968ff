//! The packets before a session's first tagged message, which have a length but no tag.
//!
//! Source: the PostgreSQL manual, "Start-up" and "SSL Session Encryption".

mod initial;

use std::fmt;

use bytes::BytesMut;
use postgres_protocol::message::frontend;

pub use initial::{
    InitialPacket, InvalidStartupPacket, MAX_CANCEL_KEY_LENGTH, MAX_STARTUP_PACKET_LENGTH,
    StartupPacket,
};

/// A version of the protocol: the major number in the upper 16 bits, the minor one in the lower.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProtocolVersion(pub u32);

impl ProtocolVersion {
    /// What every server since 7.4 has, and the newest that servers before 18 have.
    pub const V3_0: Self = Self(3 << 16);
    /// The newest that a server of 18 has. The key to cancel with may be longer than four bytes;
    /// nothing else differs.
    pub const V3_2: Self = Self(3 << 16 | 2);

    /// The major number: 3 for all that is in use.
    #[must_use]
    pub const fn major(self) -> u32 {
        self.0 >> 16
    }

    /// The minor number.
    #[must_use]
    pub const fn minor(self) -> u32 {
        self.0 & 0xFFFF
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major(), self.minor())
    }
}

/// Who connects, and what is told to the server at once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StartupParameters {
    /// The role.
    pub user: String,
    /// The database, of no meaning for physical replication; a proxy may want one.
    pub database: Option<String>,
    /// The name in `pg_stat_replication`, which `synchronous_standby_names` refers to.
    pub application_name: Option<String>,
    /// Command line options for the server process.
    pub options: Option<String>,
    /// Any other parameters of the server, by name.
    pub extra: Vec<(String, String)>,
}

/// A startup parameter with a zero byte in its name or value, which would end it early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("startup parameter {name:?} contains a zero byte")]
pub struct InvalidStartupParameter {
    /// The parameter.
    pub name: String,
}

impl StartupParameters {
    /// Appends the startup packet of a physical replication session: protocol version 3.0.
    ///
    /// # Errors
    /// When a name or value contains a zero byte.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), InvalidStartupParameter> {
        let named = [
            ("user", Some(&self.user)),
            ("database", self.database.as_ref()),
            ("application_name", self.application_name.as_ref()),
            ("options", self.options.as_ref()),
        ];
        let parameters = || {
            named
                .iter()
                .filter_map(|(name, value)| value.map(|value| (*name, value.as_str())))
                .chain([("replication", "true")])
                .chain(self.extra.iter().map(|(n, v)| (n.as_str(), v.as_str())))
        };
        // An empty name would end the list.
        let invalid = |(name, value): &(&str, &str)| {
            name.is_empty() || name.contains('\0') || value.contains('\0')
        };
        let refused = parameters().find(invalid).map(|(name, _)| name);
        if refused.is_none() && frontend::startup_message(parameters(), out).is_ok() {
            return Ok(());
        }
        Err(InvalidStartupParameter {
            name: refused.unwrap_or_default().to_owned(),
        })
    }
}

/// Appends the packet that asks the server to switch to TLS; it answers with one byte, see
/// [`TlsAnswer`].
pub fn encode_tls_request(out: &mut BytesMut) {
    frontend::ssl_request(out);
}

/// What a server answers when it is asked to switch to TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsAnswer {
    /// The TLS handshake may begin. Nothing may have been received after this byte, or somebody
    /// in between has put it there.
    Accepted,
    /// The server does not use TLS here; the startup packet may follow without it.
    Refused,
    /// The beginning of an `ErrorResponse`. Its text is not to be trusted or shown, since the
    /// server has not been authenticated (CVE-2024-10977).
    Error,
}

impl TlsAnswer {
    /// The answer that a byte means, `None` for one that no server of PostgreSQL sends.
    #[must_use]
    pub const fn new(byte: u8) -> Option<Self> {
        match byte {
            b'S' => Some(Self::Accepted),
            b'N' => Some(Self::Refused),
            b'E' => Some(Self::Error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_startup_packet_asks_for_physical_replication() {
        let parameters = StartupParameters {
            user: "rep".to_owned(),
            application_name: Some("wal_receiver".to_owned()),
            extra: vec![("DateStyle".to_owned(), "ISO".to_owned())],
            ..StartupParameters::default()
        };
        let mut out = BytesMut::new();
        parameters.encode(&mut out).unwrap();
        let body = b"\0\x03\0\0user\0rep\0application_name\0wal_receiver\0replication\0true\0\
                     DateStyle\0ISO\0\0";
        assert_eq!(&out[4..], &body[..]);
        assert_eq!(&out[..4], u32::try_from(out.len()).unwrap().to_be_bytes());
    }

    #[test]
    fn a_parameter_that_would_end_the_packet_early_is_named() {
        for (name, value) in [("a\0b", "c"), ("a", "b\0c"), ("", "c")] {
            let parameters = StartupParameters {
                extra: vec![(name.to_owned(), value.to_owned())],
                ..StartupParameters::default()
            };
            let mut out = BytesMut::new();
            let error = parameters.encode(&mut out).unwrap_err();
            assert_eq!(error.name, name);
            assert!(out.is_empty());
        }
    }

    #[test]
    fn a_request_for_tls_is_eight_bytes_and_answered_by_one() {
        let mut out = BytesMut::new();
        encode_tls_request(&mut out);
        assert_eq!(&out[..], b"\0\0\0\x08\x04\xd2\x16\x2f");
        assert_eq!(TlsAnswer::new(b'S'), Some(TlsAnswer::Accepted));
        assert_eq!(TlsAnswer::new(b'R'), None);
    }
}
