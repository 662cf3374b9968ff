//! An error as it is logged.

use std::error::Error;

/// An error and what caused it, on one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    one_line(&text)
}

/// Names and values that are a client's to choose are part of what it is refused for, and a line is
/// to stay one.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            _ if c.is_control() => line.extend(c.escape_default()),
            _ => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io;

    #[test]
    fn what_a_client_says_makes_no_line_of_its_own() {
        let text = "user \"a\nERROR: \u{1b}[31mb\u{85}\" \u{fc}";
        let expected = "user \"a\\nERROR: \\u{1b}[31mb\\u{85}\" \u{fc}";
        assert_eq!(one_line(text), expected);
    }

    #[test]
    fn what_caused_an_error_is_part_of_it() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::other("in\nner"));
        assert_eq!(chain(&error), "outer: in\\nner");
    }
}
