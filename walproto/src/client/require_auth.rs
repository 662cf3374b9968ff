//! The connection parameter `require_auth`.

use std::fmt;
use std::str::FromStr;

/// A way for a server to find out who connects, as `require_auth` names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AuthMethod {
    /// The password as it is.
    Password,
    /// The password under MD5.
    Md5,
    /// GSSAPI.
    Gss,
    /// SSPI.
    Sspi,
    /// SCRAM-SHA-256, with or without channel binding.
    ScramSha256,
    /// The credentials of a Unix socket's peer, by a message that no server sends any more.
    Creds,
    /// A bearer token.
    OAuth,
    /// The server asks for nothing: it trusts the client, its address or its certificate.
    None,
}

impl AuthMethod {
    const ALL: [Self; 8] = [
        Self::Password,
        Self::Md5,
        Self::Gss,
        Self::Sspi,
        Self::ScramSha256,
        Self::Creds,
        Self::OAuth,
        Self::None,
    ];

    /// The name in `require_auth`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Md5 => "md5",
            Self::Gss => "gss",
            Self::Sspi => "sspi",
            Self::ScramSha256 => "scram-sha-256",
            Self::Creds => "creds",
            Self::OAuth => "oauth",
            Self::None => "none",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The methods that a server may ask for: `require_auth`. All of them, unless it is set.
///
/// The text is a list with commas between, either of the methods that are allowed or, each with
/// a `!` before it, of those that are not.
///
/// ```
/// use walproto::client::{AuthMethod, RequireAuth};
/// let some: RequireAuth = "scram-sha-256,md5".parse()?;
/// assert!(some.allows(AuthMethod::Md5) && !some.allows(AuthMethod::Password));
/// let most: RequireAuth = "!none,!password".parse()?;
/// assert!(most.allows(AuthMethod::Md5) && !most.allows(AuthMethod::Password));
/// # Ok::<(), walproto::client::InvalidRequireAuth>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequireAuth {
    allowed: u8,
}

impl Default for RequireAuth {
    fn default() -> Self {
        Self { allowed: u8::MAX }
    }
}

impl RequireAuth {
    /// Whether the server may ask for `method`.
    #[must_use]
    pub const fn allows(self, method: AuthMethod) -> bool {
        self.allowed & method.bit() != 0
    }
}

impl fmt::Display for RequireAuth {
    /// The methods that are allowed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for method in AuthMethod::ALL {
            if self.allows(method) {
                write!(f, "{separator}{method}")?;
                separator = ",";
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RequireAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no value of `require_auth`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRequireAuth {
    /// No such method.
    #[error("invalid require_auth method: \"{name}\"")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The same method twice.
    #[error("require_auth method \"{method}\" is specified more than once")]
    Repeated {
        /// The method.
        method: AuthMethod,
    },
    /// Methods with and without `!` in one list.
    #[error("require_auth method \"{method}\" cannot be mixed with {}", others(*.negative))]
    Mixed {
        /// The first method that differs from those before it.
        method: AuthMethod,
        /// Whether that one has a `!` before it.
        negative: bool,
    },
}

const fn others(negative: bool) -> &'static str {
    if negative {
        "non-negative methods"
    } else {
        "negative methods"
    }
}

impl FromStr for RequireAuth {
    type Err = InvalidRequireAuth;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let list_is_negative = text.starts_with('!');
        let mut listed = 0;
        for item in text.split(',') {
            let (negative, name) = match item.strip_prefix('!') {
                Some(name) => (true, name),
                None => (false, item),
            };
            let method = AuthMethod::ALL
                .into_iter()
                .find(|method| method.as_str() == name)
                .ok_or_else(|| InvalidRequireAuth::Unknown {
                    name: item.chars().take(64).collect(),
                })?;
            if negative != list_is_negative {
                return Err(InvalidRequireAuth::Mixed { method, negative });
            }
            if listed & method.bit() != 0 {
                return Err(InvalidRequireAuth::Repeated { method });
            }
            listed |= method.bit();
        }
        let allowed = if list_is_negative { !listed } else { listed };
        Ok(Self { allowed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_allows_exactly_what_it_names() {
        for method in AuthMethod::ALL {
            let only: RequireAuth = method.as_str().parse().unwrap();
            let but: RequireAuth = format!("!{method}").parse().unwrap();
            for other in AuthMethod::ALL {
                assert_eq!(only.allows(other), other == method, "{method} {other}");
                assert_eq!(but.allows(other), other != method, "!{method} {other}");
            }
            assert!(RequireAuth::default().allows(method));
        }
        assert_eq!("".parse(), Ok(RequireAuth::default()));
        let two: RequireAuth = "scram-sha-256,none".parse().unwrap();
        assert_eq!(two.to_string(), "scram-sha-256,none");
    }

    #[test]
    fn what_libpq_refuses_is_refused() {
        let refused = |text: &str| text.parse::<RequireAuth>().unwrap_err().to_string();
        assert_eq!(refused("scram"), "invalid require_auth method: \"scram\"");
        assert_eq!(refused("md5,"), "invalid require_auth method: \"\"");
        assert_eq!(
            refused("md5, none"),
            "invalid require_auth method: \" none\""
        );
        assert_eq!(
            refused("md5,none,md5"),
            "require_auth method \"md5\" is specified more than once"
        );
        assert_eq!(
            refused("!md5,none"),
            "require_auth method \"none\" cannot be mixed with negative methods"
        );
        assert_eq!(
            refused("md5,!none"),
            "require_auth method \"none\" cannot be mixed with non-negative methods"
        );
    }
}
