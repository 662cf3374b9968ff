//! An answer in HTTP where one in PostgreSQL's protocol was expected: a proxy's that has no server
//! to connect to, or a web server's.

/// How much of a status line is shown.
const MAX_SHOWN: usize = 80;

/// The first line of an answer in HTTP, as far as it is there; `None` for anything else. It is
/// shortened, and every byte that is not printable ASCII is replaced.
#[must_use]
pub fn status_line(answer: &[u8]) -> Option<String> {
    if !answer.starts_with(b"HTTP/") {
        return None;
    }
    let line = answer.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
    let printable = |byte: &u8| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '?',
    };
    Some(line.iter().take(MAX_SHOWN).map(printable).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_has_a_status_line_and_it_is_printable_and_short() {
        for (answer, shown) in [
            (
                &b"HTTP/1.1 503 Service Unavailable\r\nServer: x\r\n\r\n"[..],
                Some("HTTP/1.1 503 Service Unavailable"),
            ),
            (
                b"HTTP/1.0 400 Bad\x1b[2J\xff\nrest",
                Some("HTTP/1.0 400 Bad?[2J?"),
            ),
            (b"HTTP/", Some("HTTP/")),
            (b"HTTP", None),
            (b"R\0\0\0\x08", None),
            (b"", None),
        ] {
            assert_eq!(status_line(answer).as_deref(), shown);
        }
        let long = [b"HTTP/1.1 ", &[b'x'; 1000][..]].concat();
        assert_eq!(status_line(&long).unwrap().len(), MAX_SHOWN);
    }
}
