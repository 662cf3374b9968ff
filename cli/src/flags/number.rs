//! Numbers as C reads them.

/// Reads a decimal number with `strtol`'s idea of one: white space before it and a sign are
/// skipped, no digits at all are 0. Returns the number and what follows it; a number that 64
/// bits do not hold becomes the nearest.
pub(super) fn strtol(text: &str) -> (i64, &str) {
    let start = text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0B');
    let (negative, digits) = match start.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, start.strip_prefix('+').unwrap_or(start)),
    };
    let rest = digits.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = digits.strip_suffix(rest).unwrap_or(digits);
    if digits.is_empty() {
        return (0, text);
    }
    let number = digits.parse::<i64>().unwrap_or(i64::MAX);
    (if negative { -number } else { number }, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_strtol_does() {
        for (text, number, rest) in [
            ("", 0, ""),
            ("12", 12, ""),
            (" \t+7x", 7, "x"),
            ("-3,4", -3, ",4"),
            ("x", 0, "x"),
            ("-", 0, "-"),
            (" - 1", 0, " - 1"),
            ("99999999999999999999 ", i64::MAX, " "),
        ] {
            assert_eq!(strtol(text), (number, rest), "{text:?}");
        }
    }
}
