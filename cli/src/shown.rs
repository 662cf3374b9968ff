//! The form in which text leaves the program: what a peer or a file name holds cannot end a line,
//! move a terminal's cursor or reorder what is read.

use std::fmt::Write;

use serde::Serialize;
use walproto::{ForeignText, is_unsafe};

/// The longest text of one message, in bytes: room for each host of a list with its reason.
pub(crate) const MAX_TEXT: usize = 16 << 10;

/// A text as it may be shown in a line.
pub(crate) fn on_one_line(text: &str) -> String {
    ForeignText::new(text).limit(MAX_TEXT).to_string()
}

/// A value as JSON on one line. Characters that [`on_one_line`] escapes are escaped in JSON's way,
/// so a program decodes them.
///
/// # Errors
/// When the value has no form in JSON.
pub(crate) fn json(value: &impl Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string(value)?;
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string does not fail.
                let _always = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    Ok(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_no_unsafe_characters_and_loses_nothing() {
        let text = "a\x1b\u{7f}\u{9b}\u{202e}\u{e0001}\n\"\\ü";
        let written = json(&text).unwrap();
        assert!(!written.chars().any(is_unsafe), "{written:?}");
        assert!(
            written.contains("\\u009b\\u202e\\udb40\\udc01"),
            "{written}"
        );
        assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
    }
}
