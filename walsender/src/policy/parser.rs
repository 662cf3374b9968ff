//! The grammar of `synchronous_standby_names`.
//!
//! Source: src/backend/replication/syncrep_gram.y and syncrep_scanner.l (PG 15).

use std::fmt;
use std::str::FromStr;

use super::{Method, Name, SyncPolicy};

/// A text that is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The grammar does not allow what stands there.
    #[error("syntax error in the list of synchronous standbys at or near \"{found}\"")]
    Syntax {
        /// What stands there.
        found: String,
    },
    /// The text ends too early, or is empty.
    #[error("syntax error in the list of synchronous standbys at end of input")]
    End,
    /// A name without its closing quote.
    #[error("unterminated quoted name in the list of synchronous standbys at or near \"{found}\"")]
    Unterminated {
        /// The name, with the quote before it.
        found: String,
    },
    /// A number of standbys that is 0 or does not fit into 31 bits.
    #[error(
        "number of synchronous standbys ({number}) must be from 1 to {}",
        i32::MAX
    )]
    Number {
        /// The number.
        number: String,
    },
    /// More standbys than names.
    #[error(
        "number of synchronous standbys ({needed}) is greater than the number of names ({named}): \
         each name counts once"
    )]
    TooFewNames {
        /// How many standbys it takes.
        needed: usize,
        /// How many names there are.
        named: usize,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    Any,
    First,
    /// A name, without its quotes.
    Name(String),
    /// Digits: a number, or a name.
    Number(String),
    Comma,
    Open,
    Close,
}

impl FromStr for SyncPolicy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut tokens = Tokens::new(text);
        let (method, number) = match tokens.next()? {
            Some(Token::First) => (Method::First, Some(tokens.number()?)),
            Some(Token::Any) => (Method::Any, Some(tokens.number()?)),
            Some(Token::Number(digits)) if tokens.clone().next()? == Some(Token::Open) => {
                (Method::First, Some(digits))
            }
            _ => {
                tokens = Tokens::new(text);
                (Method::First, None)
            }
        };
        let names = match &number {
            Some(_) => {
                tokens.expect(&Token::Open)?;
                let names = tokens.names()?;
                tokens.expect(&Token::Close)?;
                names
            }
            None => tokens.names()?,
        };
        if tokens.next()?.is_some() {
            return Err(tokens.unexpected());
        }
        let number = number.unwrap_or_else(|| "1".to_owned());
        let needed = match number.parse::<i32>().map(usize::try_from) {
            Ok(Ok(needed)) if needed > 0 => needed,
            _ => return Err(PolicyError::Number { number }),
        };
        check_enough(needed, &names)?;
        Ok(Self {
            method,
            needed,
            names,
        })
    }
}

fn check_enough(needed: usize, names: &[Name]) -> Result<(), PolicyError> {
    let mut distinct = Vec::new();
    for name in names {
        match name {
            Name::Every => return Ok(()),
            Name::Is(name) => distinct.push(name.to_ascii_lowercase()),
        }
    }
    distinct.sort_unstable();
    distinct.dedup();
    let named = distinct.len();
    if needed > named {
        return Err(PolicyError::TooFewNames { needed, named });
    }
    Ok(())
}

#[derive(Clone)]
struct Tokens<'a> {
    rest: &'a str,
    /// The text of the last token.
    last: &'a str,
}

impl<'a> Tokens<'a> {
    const fn new(text: &'a str) -> Self {
        Self {
            rest: text,
            last: "",
        }
    }

    fn names(&mut self) -> Result<Vec<Name>, PolicyError> {
        let mut names = Vec::new();
        loop {
            names.push(match self.next()? {
                // In quotes too, as in PostgreSQL.
                Some(Token::Name(name)) if name == "*" => Name::Every,
                Some(Token::Name(name) | Token::Number(name)) => Name::Is(name),
                _ => return Err(self.unexpected()),
            });
            let mut ahead = self.clone();
            if ahead.next()? != Some(Token::Comma) {
                return Ok(names);
            }
            *self = ahead;
        }
    }

    fn number(&mut self) -> Result<String, PolicyError> {
        match self.next()? {
            Some(Token::Number(digits)) => Ok(digits),
            _ => Err(self.unexpected()),
        }
    }

    fn expect(&mut self, token: &Token) -> Result<(), PolicyError> {
        match self.next()? {
            Some(found) if found == *token => Ok(()),
            _ => Err(self.unexpected()),
        }
    }

    /// The error about the last token.
    fn unexpected(&self) -> PolicyError {
        match self.last {
            "" => PolicyError::End,
            found => PolicyError::Syntax {
                found: found.to_owned(),
            },
        }
    }

    fn next(&mut self) -> Result<Option<Token>, PolicyError> {
        let text = self.rest.trim_start_matches(is_space);
        let Some(first) = text.chars().next() else {
            (self.rest, self.last) = ("", "");
            return Ok(None);
        };
        let is_digit = |c: char| c.is_ascii_digit();
        let length = match first {
            '"' => return self.quoted(text).map(Some),
            _ if is_name_start(first) => text.find(|c| !is_name_part(c)).unwrap_or(text.len()),
            _ if is_digit(first) => text.find(|c| !is_digit(c)).unwrap_or(text.len()),
            _ => first.len_utf8(),
        };
        (self.last, self.rest) = text.split_at(length);
        Ok(Some(match self.last {
            "," => Token::Comma,
            "(" => Token::Open,
            ")" => Token::Close,
            "*" => Token::Name("*".to_owned()),
            word if word.eq_ignore_ascii_case("any") => Token::Any,
            word if word.eq_ignore_ascii_case("first") => Token::First,
            word if is_name_start(first) => Token::Name(word.to_owned()),
            digits if is_digit(first) => Token::Number(digits.to_owned()),
            _ => return Err(self.unexpected()),
        }))
    }

    /// A name in quotes, in which a quote is written twice.
    fn quoted(&mut self, text: &'a str) -> Result<Token, PolicyError> {
        let mut name = String::new();
        let mut characters = text.char_indices().skip(1);
        while let Some((index, character)) = characters.next() {
            if character != '"' {
                name.push(character);
                continue;
            }
            match characters.clone().next() {
                Some((_, '"')) => {
                    name.push('"');
                    characters.next();
                }
                _ => {
                    (self.last, self.rest) = text.split_at(index + 1);
                    return Ok(Token::Name(name));
                }
            }
        }
        Err(PolicyError::Unterminated {
            found: text.to_owned(),
        })
    }
}

const fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c' | '\x0b')
}

const fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

const fn is_name_part(c: char) -> bool {
    is_name_start(c) || c.is_ascii_digit() || c == '$'
}

/// A name that is read back, in quotes where it needs them.
pub(super) fn write_name(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    let keyword = name.eq_ignore_ascii_case("any") || name.eq_ignore_ascii_case("first");
    if !keyword && name.starts_with(is_name_start) && name.chars().all(is_name_part) {
        f.write_str(name)
    } else {
        write!(f, "\"{}\"", name.replace('"', "\"\""))
    }
}
