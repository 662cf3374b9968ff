//! The fields of a line: values with or without quotes, between blanks and commas.
//!
//! Source: src/backend/libpq/hba.c, `next_token`, `tokenize_auth_file` (PG 15).

use super::HbaFault;

/// The longest value (`MAX_TOKEN` of PG 15, less the byte that ends it).
const MAX_VALUE: usize = 255;

/// A value in a field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Value {
    pub(crate) text: String,
    /// Whether it begins with a quote, so that it is no keyword.
    quoted: bool,
}

impl Value {
    /// Whether this is the keyword, not the name of something in quotes.
    pub(crate) fn is_keyword(&self, keyword: &str) -> bool {
        !self.quoted && self.text == keyword
    }

    /// Whether it begins with a character that has a meaning without quotes.
    pub(crate) fn begins_with(&self, character: char) -> bool {
        !self.quoted && self.text.starts_with(character)
    }
}

/// The lines of a file with their numbers, of which those joined by a backslash at the end are
/// one.
pub(crate) fn lines(content: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut lines = Vec::new();
    let mut joined: Option<(usize, Vec<u8>)> = None;
    for (index, raw) in content.split(|byte| *byte == b'\n').enumerate() {
        let end = raw.iter().rposition(|byte| *byte != b'\r');
        let line = end.and_then(|end| raw.get(..=end)).unwrap_or_default();
        let (number, mut text) = joined.take().unwrap_or((index + 1, Vec::new()));
        match line.strip_suffix(b"\\") {
            Some(part) => {
                text.extend_from_slice(part);
                joined = Some((number, text));
            }
            None => {
                text.extend_from_slice(line);
                lines.push((number, text));
            }
        }
    }
    lines.extend(joined);
    lines
}

/// The fields of a line, each a list of at least one value; none for a line that is blank or a
/// comment.
pub(crate) fn fields(line: &str) -> Result<Vec<Vec<Value>>, HbaFault> {
    let mut fields: Vec<Vec<Value>> = Vec::new();
    let mut rest = line;
    let mut after_comma = false;
    while let Some((value, comma)) = value(&mut rest)? {
        match fields.last_mut() {
            Some(field) if after_comma => field.push(value),
            _ => fields.push(vec![value]),
        }
        after_comma = comma;
    }
    Ok(fields)
}

/// The next value, and whether a comma ends it.
fn value(rest: &mut &str) -> Result<Option<(Value, bool)>, HbaFault> {
    let is_blank = |c: char| matches!(c, ' ' | '\t' | '\r');
    let mut value = Value {
        text: String::new(),
        quoted: false,
    };
    let (mut in_quotes, mut after_quote, mut any, mut comma) = (false, false, false, false);
    let text = rest.trim_start_matches(|c| is_blank(c) || c == ',');
    let mut end = text.len();
    for (index, character) in text.char_indices() {
        match character {
            '#' if !in_quotes => {
                // The rest is a comment.
                *rest = "";
                return Ok(any.then_some((value, false)));
            }
            c if !in_quotes && (is_blank(c) || c == ',') => {
                comma = c == ',';
                end = index + 1;
                break;
            }
            '"' => {
                value.quoted |= !any;
                any = true;
                if in_quotes {
                    after_quote = true;
                } else if after_quote {
                    // Two quotes inside quotes are one.
                    value.text.push('"');
                    after_quote = false;
                }
                in_quotes = !in_quotes;
            }
            c => {
                any = true;
                after_quote = false;
                value.text.push(c);
            }
        }
    }
    if in_quotes {
        return Err(HbaFault::UnterminatedQuote);
    }
    if value.text.len() > MAX_VALUE {
        return Err(HbaFault::TooLong { limit: MAX_VALUE });
    }
    (_, *rest) = text.split_at(end);
    Ok(any.then_some((value, comma)))
}
