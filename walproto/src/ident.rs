//! What identifies a cluster and a replication slot.

use std::fmt;
use std::str::FromStr;

/// The number that `initdb` gives a cluster and that all its physical copies share
/// (`system_identifier`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SystemId(pub u64);

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is not a system identifier: an unsigned decimal number of 64 bits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid system identifier {text:?}, expected a decimal number")]
pub struct ParseSystemIdError {
    text: String,
}

impl FromStr for SystemId {
    type Err = ParseSystemIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.bytes().all(|b| b.is_ascii_digit())
            && let Ok(number) = text.parse()
        {
            return Ok(Self(number));
        }
        Err(ParseSystemIdError {
            text: text.chars().take(64).collect(),
        })
    }
}

/// The name of a replication slot: 1 to 63 characters of `a-z`, `0-9` and `_`.
///
/// Source: src/backend/replication/slot.c, `ReplicationSlotValidateName` (PG 15).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlotName(String);

/// A text that PostgreSQL would refuse as the name of a replication slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSlotName {
    /// No character at all.
    #[error("replication slot name is empty")]
    Empty,
    /// More than 63 characters.
    #[error("replication slot name \"{name}\" is too long, the limit is 63 characters")]
    TooLong {
        /// The refused name.
        name: String,
    },
    /// A character that is not allowed.
    #[error(
        "replication slot name \"{name}\" contains invalid character {character:?}, only lower \
         case letters, numbers and the underscore are allowed"
    )]
    InvalidCharacter {
        /// The refused name.
        name: String,
        /// Its first character that is not allowed.
        character: char,
    },
}

impl SlotName {
    /// The longest name in bytes (`NAMEDATALEN` - 1).
    pub const MAX_LENGTH: usize = 63;

    /// Checks a name as PostgreSQL does.
    ///
    /// # Errors
    /// When PostgreSQL would refuse the name.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidSlotName> {
        let name = name.into();
        let allowed = |c: &char| matches!(c, 'a'..='z' | '0'..='9' | '_');
        if name.is_empty() {
            return Err(InvalidSlotName::Empty);
        }
        if name.len() > Self::MAX_LENGTH {
            return Err(InvalidSlotName::TooLong { name });
        }
        match name.chars().find(|c| !allowed(c)) {
            Some(character) => Err(InvalidSlotName::InvalidCharacter { name, character }),
            None => Ok(Self(name)),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SlotName {
    type Err = InvalidSlotName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_names_are_checked_as_postgresql_does() {
        assert_eq!(
            SlotName::new("a_1").map(|n| n.to_string()),
            Ok("a_1".to_owned())
        );
        assert!(SlotName::new("x".repeat(63)).is_ok());
        assert_eq!(SlotName::new(""), Err(InvalidSlotName::Empty));
        assert!(matches!(
            SlotName::new("x".repeat(64)),
            Err(InvalidSlotName::TooLong { .. })
        ));
        for (name, bad) in [
            ("Slot", 'S'),
            ("a-b", '-'),
            ("a b", ' '),
            ("aé", 'é'),
            ("a\"", '"'),
        ] {
            assert!(matches!(
                SlotName::new(name),
                Err(InvalidSlotName::InvalidCharacter { character, .. }) if character == bad
            ));
        }
    }

    #[test]
    fn a_system_identifier_is_a_decimal_number_of_64_bits() {
        assert_eq!("18446744073709551615".parse(), Ok(SystemId(u64::MAX)));
        for text in ["", "+1", "-1", "0x1", "18446744073709551616", "1 "] {
            assert!(text.parse::<SystemId>().is_err(), "{text:?}");
        }
    }
}
