//! The `keyword = value` form.
//!
//! Source: src/interfaces/libpq/fe-connect.c, `conninfo_parse` (PG 15).

use std::iter::Peekable;
use std::str::Chars;

use super::{Conninfo, ConninfoError, is_space};

pub(super) fn parse(text: &str) -> Result<Conninfo, ConninfoError> {
    let mut conninfo = Conninfo::default();
    let mut input = text.chars().peekable();
    loop {
        skip_spaces(&mut input);
        if input.peek().is_none() {
            return Ok(conninfo);
        }
        let name = key(&mut input)?;
        skip_spaces(&mut input);
        let value = if input.next_if_eq(&'\'').is_some() {
            quoted_value(&mut input)?
        } else {
            bare_value(&mut input)
        };
        conninfo.store(&name, value)?;
    }
}

/// Takes the name and its `=`, with blanks between them.
fn key(input: &mut Peekable<Chars<'_>>) -> Result<String, ConninfoError> {
    let mut name = String::new();
    while let Some(next) = input.next_if(|c| *c != '=' && !is_space(*c)) {
        name.push(next);
    }
    skip_spaces(input);
    match input.next_if_eq(&'=') {
        Some(_) => Ok(name),
        None => Err(ConninfoError::MissingEquals { name }),
    }
}

fn bare_value(input: &mut Peekable<Chars<'_>>) -> String {
    let mut value = String::new();
    while let Some(next) = input.next_if(|c| !is_space(*c)) {
        match next {
            '\\' => value.extend(input.next()),
            other => value.push(other),
        }
    }
    value
}

fn quoted_value(input: &mut Peekable<Chars<'_>>) -> Result<String, ConninfoError> {
    let mut value = String::new();
    while let Some(next) = input.next() {
        match next {
            '\'' => return Ok(value),
            '\\' => value.extend(input.next()),
            other => value.push(other),
        }
    }
    Err(ConninfoError::UnterminatedQuote)
}

fn skip_spaces(input: &mut Peekable<Chars<'_>>) {
    while input.next_if(|c| is_space(*c)).is_some() {}
}

pub(super) fn push_quoted(text: &mut String, value: &str) {
    text.push('\'');
    for character in value.chars() {
        if matches!(character, '\'' | '\\') {
            text.push('\\');
        }
        text.push(character);
    }
    text.push('\'');
}
