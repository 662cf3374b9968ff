//! The URI form: `postgresql://[user[:password]@][host][:port][,...][/dbname][?key=value&...]`.
//!
//! Source: src/interfaces/libpq/fe-connect.c, `conninfo_uri_parse_options`,
//! `conninfo_uri_parse_params`, `conninfo_uri_decode` (PG 15; the treatment of spaces is PG 18's).

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::{Conninfo, ConninfoError, Keyword, UriError};

/// What follows the scheme, if the text has one that libpq takes for a URI's.
pub(super) fn without_scheme(text: &str) -> Option<&str> {
    text.strip_prefix("postgresql://")
        .or_else(|| text.strip_prefix("postgres://"))
}

pub(super) fn parse(uri: &str, rest: &str) -> Result<Conninfo, ConninfoError> {
    let mut conninfo = Conninfo::default();
    let rest = user_and_password(&mut conninfo, rest)?;
    let (rest, terminator) = hosts(&mut conninfo, uri, rest)?;
    let query = match terminator {
        Some('/') => {
            let (dbname, query) = match rest.split_once('?') {
                Some((dbname, query)) => (dbname, Some(query)),
                None => (rest, None),
            };
            store_decoded(&mut conninfo, Keyword::Dbname, dbname)?;
            query
        }
        Some(_) => Some(rest),
        None => None,
    };
    if let Some(query) = query {
        parameters(&mut conninfo, query)?;
    }
    Ok(conninfo)
}

/// Takes `user:password@`, which is there only if an `@` comes before the first `/`.
fn user_and_password<'a>(conninfo: &mut Conninfo, rest: &'a str) -> Result<&'a str, ConninfoError> {
    let Some((credentials, after)) = rest.split_once('@') else {
        return Ok(rest);
    };
    if credentials.contains('/') {
        return Ok(rest);
    }
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    store_decoded(conninfo, Keyword::User, user)?;
    store_decoded(conninfo, Keyword::Password, password)?;
    Ok(after)
}

/// Takes the hosts with their ports, and the character that ends them.
fn hosts<'a>(
    conninfo: &mut Conninfo,
    uri: &str,
    mut rest: &'a str,
) -> Result<(&'a str, Option<char>), ConninfoError> {
    let mut hosts = String::new();
    let mut ports = String::new();
    loop {
        let (host, after) = host(uri, rest)?;
        hosts.push_str(host);
        let (_, mut terminator, mut after) = split_at_any(after, &[':', '/', '?', ',']);
        if terminator == Some(':') {
            let port;
            (port, terminator, after) = split_at_any(after, &['/', '?', ',']);
            ports.push_str(port);
        }
        rest = after;
        if terminator != Some(',') {
            store_decoded(conninfo, Keyword::Host, &hosts)?;
            store_decoded(conninfo, Keyword::Port, &ports)?;
            return Ok((rest, terminator));
        }
        hosts.push(',');
        ports.push(',');
    }
}

/// Takes one host, without the brackets of an IPv6 address.
fn host<'a>(uri: &str, rest: &'a str) -> Result<(&'a str, &'a str), UriError> {
    let Some(bracketed) = rest.strip_prefix('[') else {
        let (host, ..) = split_at_any(rest, &[':', '/', '?', ',']);
        return Ok((host, rest.strip_prefix(host).unwrap_or(rest)));
    };
    let Some((address, after)) = bracketed.split_once(']') else {
        return Err(UriError::UnclosedBracket { uri: masked(uri) });
    };
    if address.is_empty() {
        return Err(UriError::EmptyAddress { uri: masked(uri) });
    }
    match after.chars().next() {
        None | Some(':' | '/' | '?' | ',') => Ok((address, after)),
        Some(character) => Err(UriError::UnexpectedCharacter {
            character,
            position: uri.len() - after.len() + 1,
            uri: masked(uri),
        }),
    }
}

fn parameters(conninfo: &mut Conninfo, query: &str) -> Result<(), ConninfoError> {
    let mut rest = Some(query);
    while let Some(text) = rest.filter(|text| !text.is_empty()) {
        let (parameter, after) = match text.split_once('&') {
            Some((parameter, after)) => (parameter, Some(after)),
            None => (text, None),
        };
        rest = after;
        let Some((name, value)) = parameter.split_once('=') else {
            return Err(UriError::MissingEquals {
                parameter: parameter.to_owned(),
            }
            .into());
        };
        if value.contains('=') {
            return Err(UriError::ExtraEquals {
                parameter: name.to_owned(),
            }
            .into());
        }
        let name = decode(name)?;
        let secret = Keyword::from_name(&name).is_some_and(Keyword::is_secret);
        let value = decode(value).map_err(|error| hide(error, secret))?;
        match (name.as_str(), value.as_str()) {
            // As JDBC spells it.
            ("ssl", "true") => conninfo.set(Keyword::Sslmode, "require")?,
            _ => match conninfo.store(&name, value) {
                Err(ConninfoError::UnknownOption { name }) => {
                    return Err(UriError::UnknownParameter { parameter: name }.into());
                }
                other => other?,
            },
        }
    }
    Ok(())
}

/// The text before the first of `separators`, that separator, and the text after it.
fn split_at_any<'a>(text: &'a str, separators: &[char]) -> (&'a str, Option<char>, &'a str) {
    match text.find(separators) {
        Some(at) => {
            let (before, tail) = text.split_at(at);
            let mut after = tail.chars();
            let separator = after.next();
            (before, separator, after.as_str())
        }
        None => (text, None, ""),
    }
}

/// Stores a part of the URI; an empty part leaves the key word to the other sources.
fn store_decoded(
    conninfo: &mut Conninfo,
    keyword: Keyword,
    text: &str,
) -> Result<(), ConninfoError> {
    if text.is_empty() {
        return Ok(());
    }
    let value = decode(text).map_err(|error| hide(error, keyword.is_secret()))?;
    conninfo.set(keyword, value)
}

fn decode(text: &str) -> Result<String, UriError> {
    let trimmed = text.trim_matches(' ');
    if trimmed.contains(' ') {
        return Err(UriError::Space {
            text: text.to_owned(),
        });
    }
    let mut tail = trimmed;
    while let Some((_, after)) = tail.split_once('%') {
        let mut digits = after.chars();
        let (high, low) = (digits.next(), digits.next());
        if ![high, low]
            .iter()
            .all(|c| c.is_some_and(|c| c.is_ascii_hexdigit()))
        {
            return Err(UriError::InvalidPercent {
                text: text.to_owned(),
            });
        }
        if (high, low) == (Some('0'), Some('0')) {
            return Err(UriError::EncodedNul {
                text: text.to_owned(),
            });
        }
        tail = digits.as_str();
    }
    match percent_decode_str(trimmed).decode_utf8() {
        Ok(decoded) => Ok(Cow::into_owned(decoded)),
        Err(std::str::Utf8Error { .. }) => Err(UriError::NotUtf8 {
            text: text.to_owned(),
        }),
    }
}

/// The fault without the text that has it, where that is a secret.
fn hide(error: UriError, secret: bool) -> UriError {
    let hidden = || "...".to_owned();
    match error {
        UriError::InvalidPercent { .. } if secret => UriError::InvalidPercent { text: hidden() },
        UriError::EncodedNul { .. } if secret => UriError::EncodedNul { text: hidden() },
        UriError::Space { .. } if secret => UriError::Space { text: hidden() },
        UriError::NotUtf8 { .. } if secret => UriError::NotUtf8 { text: hidden() },
        other => other,
    }
}

/// The URI without its password and query, which may hold one too.
fn masked(uri: &str) -> String {
    let shown = uri.split_once('?').map_or(uri, |(before, _)| before);
    let Some((scheme, rest)) = shown.split_once("://") else {
        return shown.to_owned();
    };
    match rest.split_once('@') {
        Some((credentials, after)) if !credentials.contains('/') => {
            match credentials.split_once(':') {
                Some((user, _)) => format!("{scheme}://{user}:...@{after}"),
                None => shown.to_owned(),
            }
        }
        _ => shown.to_owned(),
    }
}
