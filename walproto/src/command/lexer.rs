//! Splits a replication command into tokens.
//!
//! Keywords are in capitals only, names without quotes are folded to lower case, a name in
//! double quotes has no escape for a double quote, and there are no comments.
//!
//! Source: src/backend/replication/repl_scanner.l (PG 13 to 18).

use super::error::{CommandError, CommandFault, Found};
use super::name::{Identifier, Literal};
use crate::Lsn;

/// The words that are no names unless quoted.
const KEYWORDS: [&str; 21] = [
    "ALTER_REPLICATION_SLOT",
    "BASE_BACKUP",
    "CREATE_REPLICATION_SLOT",
    "DROP_REPLICATION_SLOT",
    "EXPORT_SNAPSHOT",
    "IDENTIFY_SYSTEM",
    "LOGICAL",
    "NOEXPORT_SNAPSHOT",
    "PHYSICAL",
    "READ_REPLICATION_SLOT",
    "RESERVE_WAL",
    "SHOW",
    "SLOT",
    "START_REPLICATION",
    "TEMPORARY",
    "TIMELINE",
    "TIMELINE_HISTORY",
    "TWO_PHASE",
    "UPLOAD_MANIFEST",
    "USE_SNAPSHOT",
    "WAIT",
];

/// A token of a replication command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Token<'a> {
    /// A word without quotes, as it was written: a keyword or a name.
    Word(&'a str),
    /// A name in double quotes.
    QuotedName(Identifier),
    /// A text in single quotes.
    Literal(Literal),
    /// An unsigned number.
    Number(u32),
    /// A position.
    Lsn(Lsn),
    /// Any other character.
    Symbol(char),
}

impl Token<'_> {
    /// The name that the token is, `None` for a keyword and for what is no name.
    pub(super) fn name(&self) -> Option<Identifier> {
        match self {
            Self::Word(word) if KEYWORDS.contains(word) => None,
            Self::Word(word) => Some(fold(word)),
            Self::QuotedName(name) => Some(name.clone()),
            Self::Literal(_) | Self::Number(_) | Self::Lsn(_) | Self::Symbol(_) => None,
        }
    }

    /// The name that the token is where keywords are names too.
    pub(super) fn name_or_keyword(&self) -> Option<Identifier> {
        match self {
            Self::Word(word) => Some(fold(word)),
            _ => self.name(),
        }
    }

    /// The token for a message.
    pub(super) fn found(&self) -> Found {
        match self {
            Self::Word(word) => Found::text(word),
            Self::QuotedName(name) => Found::text(name.as_str()),
            Self::Literal(text) => Found::text(text.as_str()),
            Self::Number(number) => Found::Text(number.to_string()),
            Self::Lsn(lsn) => Found::Text(lsn.to_string()),
            Self::Symbol(symbol) => Found::Text(symbol.to_string()),
        }
    }
}

/// A token and the offset that it begins at, in bytes.
pub(super) type Positioned<'a> = (usize, Token<'a>);

/// Yields the tokens of a text without NUL.
#[derive(Clone, Debug)]
pub(super) struct Lexer<'a> {
    rest: &'a str,
    position: usize,
}

impl<'a> Lexer<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self {
            rest: text,
            position: 0,
        }
    }

    /// The next token, `None` at the end; afterwards [`Self::position`] is its end.
    pub(super) fn next(&mut self) -> Result<Option<Positioned<'a>>, CommandError> {
        // A vertical tab is white space from 16 on.
        self.take_while(|b| b.is_ascii_whitespace() || b == 0x0B);
        let start = self.position;
        let Some(first) = self.rest.chars().next() else {
            return Ok(None);
        };
        let token = if let Some(lsn) = self.lsn()? {
            Token::Lsn(lsn)
        } else if first.is_ascii_digit() {
            let digits = self.take_while(|b| b.is_ascii_digit());
            let too_large = || CommandError::new(start, CommandFault::NumberTooLarge);
            Token::Number(digits.parse().ok().ok_or_else(too_large)?)
        } else if starts_name(first) {
            let is_part = |b: u8| b.is_ascii_alphanumeric() || b"_$".contains(&b) || b >= 0x80;
            Token::Word(self.take_while(is_part))
        } else if first == '"' {
            let (name, _) = self.quoted('"', start)?;
            Token::QuotedName(truncate(name.to_owned()))
        } else if first == '\'' {
            Token::Literal(self.literal(start)?)
        } else {
            self.skip(first.len_utf8());
            Token::Symbol(first)
        };
        Ok(Some((start, token)))
    }

    /// The offset of what follows the last token, in bytes.
    pub(super) const fn position(&self) -> usize {
        self.position
    }

    /// A position, if one is next: it wins over a number or a word, as the longest match.
    fn lsn(&mut self) -> Result<Option<Lsn>, CommandError> {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_hexdigit).count();
        let high = digits(self.rest);
        let low = match self.rest.split_at_checked(high) {
            Some((_, after)) => after.strip_prefix('/').map_or(0, digits),
            None => 0,
        };
        if high == 0 || low == 0 {
            return Ok(None);
        }
        let start = self.position;
        let lsn = self.skip(high + 1 + low).parse().ok();
        let too_long = || CommandError::new(start, CommandFault::InvalidLsn);
        lsn.ok_or_else(too_long).map(Some)
    }

    /// The text up to the closing `quote`, which is skipped too, and whether another follows.
    fn quoted(&mut self, quote: char, start: usize) -> Result<(&'a str, bool), CommandError> {
        self.skip(1);
        let Some((inside, after)) = self.rest.split_once(quote) else {
            return Err(CommandError::new(start, CommandFault::UnterminatedQuote));
        };
        self.skip(inside.len() + 1);
        Ok((inside, after.starts_with(quote)))
    }

    fn literal(&mut self, start: usize) -> Result<Literal, CommandError> {
        let mut text = String::new();
        loop {
            let (inside, doubled) = self.quoted('\'', start)?;
            text += inside;
            if !doubled {
                break;
            }
            text.push('\'');
        }
        Ok(Literal::from_checked(text))
    }

    fn take_while(&mut self, accept: impl Fn(u8) -> bool) -> &'a str {
        let length = self.rest.bytes().take_while(|&b| accept(b)).count();
        self.skip(length)
    }

    /// Goes `length` bytes on. They end where a character ends: what is counted is either ASCII
    /// or takes every byte of the characters beyond it.
    fn skip(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .unwrap_or((self.rest, ""));
        self.rest = rest;
        self.position += taken.len();
        taken
    }
}

const fn starts_name(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

/// A word as PostgreSQL takes it for a name. Only ASCII is folded, as in a multibyte encoding.
///
/// Source: src/backend/parser/scansup.c, `downcase_truncate_identifier` (PG 15).
fn fold(word: &str) -> Identifier {
    truncate(word.to_ascii_lowercase())
}

/// A text without double quote and NUL, cut off where PostgreSQL cuts off a name.
fn truncate(mut name: String) -> Identifier {
    let fits = |&end: &usize| name.is_char_boundary(end);
    let end = (0..=Identifier::MAX_LENGTH).rev().find(fits).unwrap_or(0);
    name.truncate(end);
    Identifier::from_checked(name)
}
