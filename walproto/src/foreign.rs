//! Text that a peer chose, made safe to show.

use std::fmt::{self, Write};

/// Text from a peer, or from a file that others can write, as it may be shown: in a log, on a
/// terminal, in an error.
///
/// Its [`Display`](fmt::Display) escapes every character that moves a cursor, ends a line, changes
/// the direction of text or is invisible, and bytes that are not UTF-8. It cuts text that is longer
/// than its limit, and says how many bytes were cut. Backslashes stay as they are, so text that was
/// escaped before does not change.
///
/// ```
/// use walproto::ForeignText;
///
/// let message = "done\x1b[2K\r\nFATAL: none";
/// assert_eq!(
///     ForeignText::new(message).to_string(),
///     "done\\u{1b}[2K\\r\\nFATAL: none"
/// );
/// assert_eq!(ForeignText::new("abcdef").limit(4).to_string(), "abcd... (2 more bytes)");
/// assert_eq!(ForeignText::from_bytes(b"a\xff").to_string(), "a\\xff");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ForeignText<T> {
    text: T,
    limit: usize,
}

impl<T: fmt::Display> ForeignText<T> {
    /// The limit of a text for which no other one is set, in bytes of what is shown.
    pub const LIMIT: usize = 1 << 10;

    /// Wraps a text.
    pub const fn new(text: T) -> Self {
        Self {
            text,
            limit: Self::LIMIT,
        }
    }

    /// The same with another limit, in bytes of what is shown.
    #[must_use]
    pub fn limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }
}

impl<'a> ForeignText<BytesAsText<'a>> {
    /// Wraps bytes, which need not be UTF-8.
    #[must_use]
    pub const fn from_bytes(bytes: &'a [u8]) -> Self {
        Self::new(BytesAsText(bytes))
    }
}

impl<T: fmt::Display> fmt::Display for ForeignText<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut escaped = Escaped {
            out: f,
            room: self.limit,
            cut: 0,
        };
        write!(escaped, "{}", self.text)?;
        match escaped.cut {
            0 => Ok(()),
            1 => f.write_str("... (1 more byte)"),
            cut => write!(f, "... ({cut} more bytes)"),
        }
    }
}

/// Bytes as text, those that are not UTF-8 as `\xff`.
#[derive(Clone, Copy, Debug)]
pub struct BytesAsText<'a>(&'a [u8]);

impl fmt::Display for BytesAsText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Escapes what is written to it, as long as there is room.
struct Escaped<'a, 'f> {
    out: &'a mut fmt::Formatter<'f>,
    /// How many bytes may still be shown.
    room: usize,
    /// How many bytes are not.
    cut: usize,
}

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| self.write_char(c))
    }

    fn write_char(&mut self, c: char) -> fmt::Result {
        let escape = is_unsafe(c).then(|| c.escape_default());
        let length = escape.as_ref().map_or(c.len_utf8(), ExactSizeIterator::len);
        // After a cut nothing more is shown, even if it is short enough.
        if self.cut > 0 || length > self.room {
            self.cut = self.cut.saturating_add(c.len_utf8());
            return Ok(());
        }
        self.room -= length;
        match escape {
            Some(escape) => write!(self.out, "{escape}"),
            None => self.out.write_char(c),
        }
    }
}

/// Whether a character does something else than to be seen where it stands.
///
/// Source: Unicode, the general categories Cc, Cf, Zl and Zp; of Cf those that hide text, or show
/// it in another order than it has.
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: impl fmt::Display, limit: usize) -> String {
        ForeignText::new(text).limit(limit).to_string()
    }

    #[test]
    fn controls_and_bidirectional_overrides_are_escaped_and_other_text_is_not() {
        for (text, expected) in [
            ("no such slot", "no such slot"),
            ("für »x« 日本 é", "für »x« 日本 é"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\x1b]0;t\x07", "\\u{1b}]0;t\\u{7}"),
            ("\u{9b}2J\u{7f}\0", "\\u{9b}2J\\u{7f}\\u{0}"),
            ("\u{202e}evil\u{2066}", "\\u{202e}evil\\u{2066}"),
            ("\u{2028}\u{feff}\u{200b}", "\\u{2028}\\u{feff}\\u{200b}"),
            ("C:\\x", "C:\\x"),
        ] {
            assert_eq!(shown(text, 100), expected);
            // Text that is escaped twice on its way is not changed the second time.
            assert_eq!(shown(expected, 100), expected);
        }
        assert_eq!(
            ForeignText::from_bytes(b"a\xff\xc3\xa9\xe2\x82\x1b").to_string(),
            "a\\xffé\\xe2\\x82\\u{1b}"
        );
    }

    #[test]
    fn a_cut_is_marked_and_splits_neither_a_character_nor_an_escape() {
        assert_eq!(shown("abc", 3), "abc");
        assert_eq!(shown("abcd", 3), "abc... (1 more byte)");
        assert_eq!(shown("ééa", 3), "é... (3 more bytes)");
        assert_eq!(shown("ab\x1bc", 6), "ab... (2 more bytes)");
        let long = "x".repeat(5000);
        let cut = ForeignText::new(&long).to_string();
        assert_eq!(cut.len(), 1024 + "... (3976 more bytes)".len());
    }

    proptest! {
        #[test]
        fn no_unsafe_character_leaves_whatever_the_bytes(
            bytes: Vec<u8>,
            text in "\\PC*|[\0-\u{1f}\u{7f}-\u{9f}\u{200b}-\u{206f}]*",
            limit in 0usize..60,
        ) {
            for shown in [
                ForeignText::from_bytes(&bytes).limit(limit).to_string(),
                shown(&text, limit),
            ] {
                prop_assert!(!shown.chars().any(is_unsafe), "{shown:?}");
                prop_assert!(shown.len() <= limit + "... (18446744073709551615 more bytes)".len());
            }
        }
    }
}
