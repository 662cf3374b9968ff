//! Standard error, shared between messages and one live line below them.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

/// Return to the first column and erase the line.
const CLEAR: &str = "\r\x1b[K";
/// What is longer than the terminal is wide is cut off (DECAWM): the rest of it would become a
/// line of its own, which is not erased with the first.
const NO_WRAP: &str = "\x1b[?7l";
/// As it is for everybody else.
const WRAP: &str = "\x1b[?7h";

/// A place for messages, below which one line may be kept up to date.
///
/// What cannot be written is dropped: a receiver does not stop because nobody reads its messages.
pub(crate) struct Screen<W = io::Stderr> {
    inner: Mutex<Inner<W>>,
}

struct Inner<W> {
    output: W,
    /// The line that is shown now, empty for none.
    line: String,
}

impl Screen {
    /// Standard error.
    pub(crate) fn stderr() -> Self {
        Self::new(io::stderr())
    }
}

impl<W: Write> Screen<W> {
    fn new(output: W) -> Self {
        Self {
            inner: Mutex::new(Inner {
                output,
                line: String::new(),
            }),
        }
    }

    /// Writes whole lines of messages, above the live line.
    fn message(&self, lines: &[u8]) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { output, line } = &mut *inner;
        if line.is_empty() {
            drop(output.write_all(lines));
        } else {
            let shown = shown(line);
            let text = [CLEAR.as_bytes(), lines, shown.as_bytes()].concat();
            drop(output.write_all(&text));
        }
        drop(output.flush());
    }

    /// Shows a live line, or with an empty one none.
    pub(crate) fn show(&self, line: &str) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.line != line {
            line.clone_into(&mut inner.line);
            let text = format!("{CLEAR}{}", shown(line));
            drop(inner.output.write_all(text.as_bytes()));
            drop(inner.output.flush());
        }
    }
}

/// What writes a line that stays on one.
fn shown(line: &str) -> String {
    if line.is_empty() {
        String::new()
    } else {
        format!("{NO_WRAP}{line}{WRAP}")
    }
}

/// Where the log writes its messages; each comes in one piece.
impl<W: Write> Write for &Screen<W> {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        self.message(message);
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(screen: Screen<Vec<u8>>) -> String {
        String::from_utf8(screen.inner.into_inner().unwrap().output).unwrap()
    }

    #[test]
    fn without_a_live_line_messages_are_written_as_they_are() {
        let screen = Screen::new(Vec::new());
        (&screen).write_all(b"one\n").unwrap();
        screen.show("");
        (&screen).write_all(b"two\n").unwrap();
        assert_eq!(written(screen), "one\ntwo\n");
    }

    #[test]
    fn a_live_line_stays_below_the_messages() {
        let screen = Screen::new(Vec::new());
        screen.show("at 1");
        screen.show("at 1");
        (&screen).write_all(b"message\n").unwrap();
        screen.show("at 2");
        screen.show("");
        (&screen).write_all(b"end\n").unwrap();
        assert_eq!(
            written(screen),
            "\r\x1b[K\x1b[?7lat 1\x1b[?7h\r\x1b[Kmessage\n\x1b[?7lat 1\x1b[?7h\
             \r\x1b[K\x1b[?7lat 2\x1b[?7h\r\x1b[Kend\n"
        );
    }

    #[test]
    fn what_cannot_be_written_is_dropped() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let screen = Screen::new(Closed);
        screen.show("line");
        assert!((&screen).write_all(b"message\n").is_ok());
    }
}
