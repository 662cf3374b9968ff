//! The names and texts that occur in commands: each type holds only what its printed form can
//! carry, so that no value can end its quotes and add something to the command.

use std::fmt;

use crate::SlotName;

/// A name in a replication command: of a slot, or of an output plugin.
///
/// The grammar takes names that PostgreSQL refuses later, as `CREATE_REPLICATION_SLOT "A B"`,
/// and what it then answers depends on the command: only the creation of a slot says that the
/// name is invalid, the others say that there is no such slot. So a command holds any name that
/// the grammar takes, and who executes it applies [`SlotName::new`].
///
/// It has at most [`Identifier::MAX_LENGTH`] bytes and holds neither a double quote, for which
/// the replication grammar knows no escape, nor a NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Identifier(String);

/// Why a text cannot stand in a replication command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidText {
    /// A name with a double quote.
    #[error("the name {name:?} contains a double quote, which a replication command cannot carry")]
    DoubleQuote {
        /// The refused name.
        name: String,
    },
    /// A name or text with a NUL.
    #[error("{text:?} contains a zero byte, which a replication command cannot carry")]
    Nul {
        /// The refused text.
        text: String,
    },
    /// A name that PostgreSQL would cut off.
    #[error("the name {name:?} is longer than {} bytes", Identifier::MAX_LENGTH)]
    TooLong {
        /// The refused name.
        name: String,
    },
}

impl Identifier {
    /// The longest name in bytes (`NAMEDATALEN` - 1): PostgreSQL cuts off what is longer.
    pub const MAX_LENGTH: usize = 63;

    /// Checks a name.
    ///
    /// # Errors
    /// When no command can carry the name as it is.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidText> {
        let name = name.into();
        check_quotable(&name)?;
        if name.len() > Self::MAX_LENGTH {
            return Err(InvalidText::TooLong { name });
        }
        Ok(Self(name))
    }

    /// The name without quotes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name of which the lexer knows that a command can carry it.
    pub(super) const fn from_checked(name: String) -> Self {
        Self(name)
    }

    /// The name in double quotes, as libpq's clients send the names of slots.
    pub(super) fn quoted(&self) -> impl fmt::Display {
        Quoted(&self.0)
    }
}

impl From<SlotName> for Identifier {
    fn from(name: SlotName) -> Self {
        Self(name.as_str().to_owned())
    }
}

impl From<&SlotName> for Identifier {
    fn from(name: &SlotName) -> Self {
        Self(name.as_str().to_owned())
    }
}

/// In double quotes where the name needs them to be read back.
impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_name(f, &self.0)
    }
}

/// The name of a configuration parameter, as in `SHOW wal_segment_size` or `SHOW my.parameter`.
///
/// Each part between dots is an [`Identifier`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SettingName(String);

impl SettingName {
    /// Checks a name.
    ///
    /// # Errors
    /// When no command can carry the name as it is.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidText> {
        let name = name.into();
        check_quotable(&name)?;
        if name
            .split('.')
            .any(|part| part.len() > Identifier::MAX_LENGTH)
        {
            return Err(InvalidText::TooLong { name });
        }
        Ok(Self(name))
    }

    /// A name made of checked parts.
    pub(super) const fn from_checked(name: String) -> Self {
        Self(name)
    }

    /// The name without quotes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SettingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.split('.').enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            write_name(f, part)?;
        }
        Ok(())
    }
}

/// A text in a command, as the label of a base backup: anything without a NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Literal(String);

impl Literal {
    /// Checks a text.
    ///
    /// # Errors
    /// When the text contains a NUL.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidText> {
        let text = text.into();
        if text.contains('\0') {
            return Err(InvalidText::Nul { text });
        }
        Ok(Self(text))
    }

    /// A text of which the lexer knows that it has no NUL.
    pub(super) const fn from_checked(text: String) -> Self {
        Self(text)
    }

    /// The text without quotes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// In single quotes. A backslash stands for itself in a replication command.
impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0.replace('\'', "''"))
    }
}

struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// A name without capital letters needs no quotes: every keyword is in capitals.
fn write_name(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    let mut characters = name.bytes();
    let plain = characters
        .next()
        .is_some_and(|first| first.is_ascii_lowercase() || first == b'_')
        && characters.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_$".contains(&b));
    if plain {
        f.write_str(name)
    } else {
        write!(f, "{}", Quoted(name))
    }
}

fn check_quotable(name: &str) -> Result<(), InvalidText> {
    if name.contains('"') {
        Err(InvalidText::DoubleQuote {
            name: name.to_owned(),
        })
    } else if name.contains('\0') {
        Err(InvalidText::Nul {
            text: name.to_owned(),
        })
    } else {
        Ok(())
    }
}
