//! Connection strings as libpq reads them, and where the values come from that they leave out.
//!
//! [`Conninfo`] is what one string says, [`ConnectionConfig`] what a connection needs: the string,
//! completed by a service file, the environment and the defaults, each value checked.
//!
//! Source: the PostgreSQL manual, "Database Connection Control Functions", "Environment
//! Variables", "The Connection Service File"; src/interfaces/libpq/fe-connect.c (PG 15).

mod config;
mod error;
mod keyword;
mod os_user;
mod password;
mod quoted;
mod uri;
mod value;

use std::collections::BTreeMap;
use std::fmt;

pub use config::{
    ConnectionConfig, Endpoint, EnvironmentLookup, HostCandidate, KeepaliveSettings, Overrides,
    TlsSettings,
};
pub use error::{ConninfoError, UriError};
pub use keyword::Keyword;
pub(crate) use os_user::user_name;
pub use password::{Password, PasswordPrompt};
pub use value::{
    LoadBalanceHosts, SslCertMode, SslMode, SslNegotiation, TargetSessionAttrs, TlsVersion,
};

/// The key words and values of one connection string.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Conninfo {
    values: BTreeMap<Keyword, String>,
}

impl Conninfo {
    /// Reads a connection string: a URI if it begins with `postgresql://` or `postgres://`,
    /// `keyword = value` pairs otherwise. Of repeated key words the last one counts.
    ///
    /// # Errors
    /// When libpq would refuse the text. Values are not looked into yet.
    pub fn parse(text: &str) -> Result<Self, ConninfoError> {
        match uri::without_scheme(text) {
            Some(rest) => uri::parse(text, rest),
            None => quoted::parse(text),
        }
    }

    /// The value of a key word, empty ones included.
    #[must_use]
    pub fn get(&self, keyword: Keyword) -> Option<&str> {
        self.values.get(&keyword).map(String::as_str)
    }

    /// Sets a key word, replacing what it had.
    ///
    /// # Errors
    /// When the value holds a NUL byte.
    pub fn set(&mut self, keyword: Keyword, value: impl Into<String>) -> Result<(), ConninfoError> {
        let value = value.into();
        if value.contains('\0') {
            return Err(ConninfoError::NulByte {
                name: keyword.name(),
            });
        }
        self.values.insert(keyword, value);
        Ok(())
    }

    /// Forgets key words whose value is empty, and `keyword`.
    pub(crate) fn remove_empty_and(&mut self, keyword: Keyword) {
        self.values
            .retain(|key, value| *key != keyword && !value.is_empty());
    }

    /// The key words that are set, in libpq's order.
    pub fn iter(&self) -> impl Iterator<Item = (Keyword, &str)> {
        self.values
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
    }

    /// The string in `keyword='value'` form, which [`Conninfo::parse`] reads back. Passwords are
    /// in it: it is not for logs, for which `Debug` is.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (keyword, value) in self.iter() {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(keyword.name());
            text.push('=');
            quoted::push_quoted(&mut text, value);
        }
        text
    }

    /// Stores a key word by name, with the two old spellings that libpq still takes.
    fn store(&mut self, name: &str, value: String) -> Result<(), ConninfoError> {
        if name == "requiressl" {
            let mode = if value.starts_with('1') {
                "require"
            } else {
                "prefer"
            };
            return self.set(Keyword::Sslmode, mode);
        }
        let keyword = Keyword::from_name(name).ok_or_else(|| ConninfoError::UnknownOption {
            name: name.to_owned(),
        })?;
        self.set(keyword, value)
    }
}

impl fmt::Debug for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(keyword, value)| {
                let shown = if keyword.is_secret() { "..." } else { value };
                (keyword.name(), shown)
            }))
            .finish()
    }
}

/// Whether C's `isspace` is true in the C locale.
fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

#[cfg(test)]
mod tests;
