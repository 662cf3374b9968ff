//! The version of a PostgreSQL server.

mod major;

use std::fmt;
use std::str::FromStr;

pub use major::{MAJORS, Major};

/// The version of a PostgreSQL server as one number, as in `150018` for 15.18
/// (`server_version_num`).
///
/// The text form is that of the `server_version` parameter, which every server reports at the
/// beginning of a session: what a packager adds after the number is skipped.
///
/// ```
/// use walproto::ServerVersion;
/// let version: ServerVersion = "15.18 (Debian 15.18-0+deb12u1)".parse()?;
/// assert_eq!(version, ServerVersion(150_018));
/// assert_eq!((version.major(), version.to_string().as_str()), (15, "15.18"));
/// # Ok::<(), walproto::ParseServerVersionError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServerVersion(pub u32);

impl ServerVersion {
    /// The first release of 14.
    pub const V14: Self = Self(140_000);
    /// The first release of 15.
    pub const V15: Self = Self(150_000);
    /// The first release of 16.
    pub const V16: Self = Self(160_000);
    /// The first release of 17.
    pub const V17: Self = Self(170_000);
    /// The first release of 18.
    pub const V18: Self = Self(180_000);

    /// The major version, as in 15 for 15.18. Before 10 it had a second part, which is left out.
    #[must_use]
    pub const fn major(self) -> u32 {
        self.0 / 10_000
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = (self.major(), self.0 % 10_000);
        if major >= 10 {
            write!(f, "{major}.{minor}")
        } else {
            write!(f, "{major}.{}.{}", minor / 100, minor % 100)
        }
    }
}

/// A text that does not begin with the number of a PostgreSQL version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid server version {text:?}, expected one like 15.18")]
pub struct ParseServerVersionError {
    text: String,
}

impl FromStr for ServerVersion {
    type Err = ParseServerVersionError;

    /// Source: src/interfaces/libpq/fe-exec.c, `pqSaveParameterStatus` (PG 15).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || ParseServerVersionError {
            text: text.chars().take(64).collect(),
        };
        let number_end = text
            .bytes()
            .position(|b| !b.is_ascii_digit() && b != b'.')
            .unwrap_or(text.len());
        let (number, _) = text.split_at(number_end);
        let mut parts = number.split('.').filter(|part| !part.is_empty());
        let mut part = |limit: u32| match parts.next() {
            None => Ok(None),
            Some(digits) => match digits.parse() {
                Ok(value) if value < limit => Ok(Some(value)),
                _ => Err(invalid()),
            },
        };
        let major = part(1000)?.ok_or_else(invalid)?;
        if major >= 10 {
            let minor = part(10_000)?.unwrap_or(0);
            Ok(Self(major * 10_000 + minor))
        } else {
            let (minor, patch) = (part(100)?.unwrap_or(0), part(100)?.unwrap_or(0));
            Ok(Self(major * 10_000 + minor * 100 + patch))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_servers_report_is_understood() {
        for (text, number) in [
            ("13.23", 130_023),
            ("15.18 (Debian 15.18-0+deb12u1)", 150_018),
            ("18beta1", 180_000),
            ("19devel", 190_000),
            ("17rc1", 170_000),
            ("9.6.24", 90_624),
            ("9.1", 90_100),
        ] {
            assert_eq!(text.parse(), Ok(ServerVersion(number)), "{text}");
        }
        for text in ["", "x", ".", "devel", "15.10000", "1000.1", "9.100", "-15"] {
            assert!(text.parse::<ServerVersion>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn the_text_of_a_version_is_read_back(number in 80_000u32..10_000_000) {
            let version = ServerVersion(number);
            prop_assert_eq!(version.to_string().parse(), Ok(version));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text: String) {
            if let Ok(version) = text.parse::<ServerVersion>() {
                prop_assert_eq!(version.to_string().parse(), Ok(version));
            }
        }
    }
}
