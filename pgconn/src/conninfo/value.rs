//! The values that key words may have.
//!
//! Source: src/interfaces/libpq/fe-connect.c, `connectOptions2`, `parse_int_param` (PG 15); the
//! manual of PostgreSQL 18, "Parameter Key Words".

use walproto::client::ChannelBindingPolicy;

use super::{ConninfoError, Keyword, is_space};

/// A key word whose value is one of a fixed set of words.
pub(super) trait Word: Copy + Sized + 'static {
    /// The words and what they mean.
    const WORDS: &'static [(&'static str, Self)];

    fn parse(keyword: Keyword, value: &str) -> Result<Self, ConninfoError> {
        let found = Self::WORDS.iter().find(|(word, _)| *word == value);
        found
            .map(|(_, meaning)| *meaning)
            .ok_or_else(|| ConninfoError::invalid(keyword, value))
    }
}

/// `sslmode`: whether TLS is used, and what is checked about the server. Later ones are stronger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS if the server refuses the connection without.
    Allow,
    /// TLS if the server has it.
    #[default]
    Prefer,
    /// TLS. The certificate is checked as by [`SslMode::VerifyCa`] if there is a root certificate
    /// file.
    Require,
    /// TLS, and the server's certificate is signed by a trusted authority.
    VerifyCa,
    /// TLS, and the certificate is signed by a trusted authority for the host asked for.
    VerifyFull,
}

impl Word for SslMode {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("disable", Self::Disable),
        ("allow", Self::Allow),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyFull),
    ];
}

impl SslMode {
    /// The word in a connection string.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// `sslnegotiation`: how TLS begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SslNegotiation {
    /// The server is asked by an `SSLRequest` first.
    #[default]
    Postgres,
    /// With the first byte, which saves a round trip (servers from 17 on).
    Direct,
}

impl Word for SslNegotiation {
    const WORDS: &'static [(&'static str, Self)] =
        &[("postgres", Self::Postgres), ("direct", Self::Direct)];
}

/// `sslcertmode`: whether a client certificate is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SslCertMode {
    /// Never.
    Disable,
    /// If the server asks and there is one.
    #[default]
    Allow,
    /// The server must ask, and there must be one.
    Require,
}

impl Word for SslCertMode {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("disable", Self::Disable),
        ("allow", Self::Allow),
        ("require", Self::Require),
    ];
}

impl Word for ChannelBindingPolicy {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("disable", Self::Disable),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
    ];
}

/// `target_session_attrs`: which servers will do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TargetSessionAttrs {
    /// Every one.
    #[default]
    Any,
    /// Transactions may write.
    ReadWrite,
    /// Transactions may not write.
    ReadOnly,
    /// Not in hot standby.
    Primary,
    /// In hot standby.
    Standby,
    /// In hot standby, or any if none is.
    PreferStandby,
}

impl Word for TargetSessionAttrs {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("any", Self::Any),
        ("read-write", Self::ReadWrite),
        ("read-only", Self::ReadOnly),
        ("primary", Self::Primary),
        ("standby", Self::Standby),
        ("prefer-standby", Self::PreferStandby),
    ];
}

/// `load_balance_hosts`: the order in which hosts, and the addresses of a host, are tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LoadBalanceHosts {
    /// As they are given.
    #[default]
    Disable,
    /// A random one, anew for each connection.
    Random,
}

impl Word for LoadBalanceHosts {
    const WORDS: &'static [(&'static str, Self)] =
        &[("disable", Self::Disable), ("random", Self::Random)];
}

/// A TLS version that this program speaks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TlsVersion {
    /// TLS 1.2
    V12,
    /// TLS 1.3
    V13,
}

/// The place of a protocol version among libpq's, `None` for no bound.
fn tls_version_rank(keyword: Keyword, value: &str) -> Result<Option<usize>, ConninfoError> {
    if value.is_empty() {
        return Ok(None);
    }
    let known = ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];
    let rank = known
        .iter()
        .position(|name| name.eq_ignore_ascii_case(value));
    rank.map(Some)
        .ok_or_else(|| ConninfoError::invalid(keyword, value))
}

/// `ssl_min_protocol_version` and `ssl_max_protocol_version`. TLS below 1.2 is not implemented:
/// a lower minimum has no effect, a lower maximum is refused.
pub(super) fn tls_versions(
    minimum: &str,
    maximum: Option<&str>,
) -> Result<(TlsVersion, TlsVersion), ConninfoError> {
    let low = tls_version_rank(Keyword::SslMinProtocolVersion, minimum)?;
    let text = maximum.unwrap_or_default();
    let high = tls_version_rank(Keyword::SslMaxProtocolVersion, text)?;
    if let (Some(low), Some(high)) = (low, high)
        && low > high
    {
        return Err(ConninfoError::TlsVersionRange {
            minimum: minimum.to_owned(),
            maximum: text.to_owned(),
        });
    }
    let lowest = match low {
        Some(3..) => TlsVersion::V13,
        _ => TlsVersion::V12,
    };
    match high {
        Some(0 | 1) => Err(ConninfoError::unsupported(
            Keyword::SslMaxProtocolVersion,
            text,
            "TLS 1.2 is the lowest version here",
        )),
        Some(2) => Ok((lowest, TlsVersion::V12)),
        _ => Ok((lowest, TlsVersion::V13)),
    }
}

/// A whole number as C's `strtol` takes it, with blanks around it, within an `int`.
pub(super) fn integer(keyword: Keyword, value: &str) -> Result<i32, ConninfoError> {
    let trimmed = value.trim_matches(is_space);
    trimmed.parse().map_err(
        |std::num::ParseIntError { .. }| ConninfoError::InvalidInteger {
            option: keyword.name(),
            value: value.to_owned(),
        },
    )
}

/// A port number; an empty text is the default.
pub(super) fn port(value: &str) -> Result<u16, ConninfoError> {
    if value.is_empty() {
        return Ok(5432);
    }
    match u16::try_from(integer(Keyword::Port, value)?) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(ConninfoError::InvalidPort {
            value: value.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_versions_below_1_2_are_no_lower_bound_and_no_upper_bound() {
        use TlsVersion::{V12, V13};
        for (minimum, maximum, expected) in [
            ("TLSv1.2", None, (V12, V13)),
            ("tlsV1", Some(""), (V12, V13)),
            ("", Some("TLSv1.2"), (V12, V12)),
            ("TLSv1.3", Some("TLSv1.3"), (V13, V13)),
        ] {
            assert_eq!(tls_versions(minimum, maximum).unwrap(), expected);
        }
        for (minimum, maximum, message) in [
            ("TLSv1.3", "TLSv1.2", "invalid SSL protocol version range"),
            (
                "TLSv1",
                "TLSv1.1",
                "connection option ssl_max_protocol_version=TLSv1.1 is not",
            ),
            (
                "SSLv3",
                "TLSv1.2",
                "invalid ssl_min_protocol_version value: \"SSLv3\"",
            ),
            (
                "TLSv1.2",
                "1.3",
                "invalid ssl_max_protocol_version value: \"1.3\"",
            ),
        ] {
            let error = tls_versions(minimum, Some(maximum))
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn integers_and_ports_are_read_as_libpq_does() {
        assert_eq!(integer(Keyword::ConnectTimeout, " -7\t").unwrap(), -7);
        assert_eq!((port("").unwrap(), port(" 1 ").unwrap()), (5432, 1));
        for text in ["", "1x", "2147483648", "1 2", "0x1"] {
            assert_eq!(
                integer(Keyword::ConnectTimeout, text)
                    .unwrap_err()
                    .to_string(),
                format!(
                    "invalid integer value \"{text}\" for connection option \"connect_timeout\""
                )
            );
        }
        for text in ["0", "65536", "-1"] {
            let message = format!("invalid port number: \"{text}\"");
            assert_eq!(port(text).unwrap_err().to_string(), message);
        }
    }
}
