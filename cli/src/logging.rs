//! Messages on standard error: PostgreSQL's text form, or one JSON object a line.
//!
//! Whatever a message is made of, it leaves here as one line without control characters.

mod json;

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use self::json::JsonFormat;
use crate::flags::{LogFormat, UsageError};
use crate::screen::Screen;
use crate::shown::on_one_line;

/// Sends every message of this process, down to `level`, to `screen` from now on.
pub(crate) fn init(program: &str, format: LogFormat, level: Level, screen: Arc<Screen>) {
    let subscriber = subscriber(program, format, level, screen);
    // Fails only when it is called twice, which `main` does not.
    let _only_once = tracing::subscriber::set_global_default(subscriber);
}

fn subscriber<W>(
    program: &str,
    format: LogFormat,
    level: Level,
    writer: W,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(writer);
    match format {
        LogFormat::Text => {
            let program = program.to_owned();
            Box::new(builder.event_format(TextFormat { program }).finish())
        }
        LogFormat::Json => Box::new(builder.event_format(JsonFormat).finish()),
    }
}

/// What the system says of an error, without the number that Rust adds to it.
pub(crate) fn without_numbers(text: &str) -> String {
    const BEFORE: &str = " (os error ";
    let mut parts = text.split(BEFORE);
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                shown.push_str(rest);
            }
            _ => shown.extend([BEFORE, part]),
        }
    }
    shown
}

/// A text with `#` in place of each number and position in it: what stays the same of an error that
/// comes with every try.
pub(crate) fn without_positions(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_digit() || matches!(c, 'A'..='F' | '/');
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_part) {
        let (before, from) = rest.split_at(start);
        shown.push_str(before);
        let end = from.find(|c| !is_part(c)).unwrap_or(from.len());
        let (run, after) = from.split_at(end);
        if run.contains(|c: char| c.is_ascii_digit()) {
            shown.push('#');
        } else {
            shown.push_str(run);
        }
        rest = after;
    }
    shown + rest
}

/// An error and what caused it, on one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    without_numbers(&whole_chain(error))
}

fn whole_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// What a mistake on the command line looks like. It is text whatever the format, which may not
/// be known yet.
pub(crate) fn usage_error(program: &str, error: &UsageError) -> String {
    let prefix = if error.is_from_getopt() {
        ""
    } else {
        "error: "
    };
    let hint = if error.hints_at_help() {
        format!("{program}: hint: Try \"{program} --help\" for more information.\n")
    } else {
        String::new()
    };
    let error = on_one_line(&error.to_string());
    format!("{program}: {prefix}{error}\n{hint}")
}

/// `PROGRAM: [error: |warning: ]MESSAGE`, then detail and hint in lines of their own.
///
/// Source: src/common/logging.c, `pg_log_generic_v` (PG 15).
struct TextFormat {
    program: String,
}

impl<S, N> FormatEvent<S, N> for TextFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            _ => "",
        };
        let program = &self.program;
        // Libraries leave the numbers in.
        let message = on_one_line(&without_numbers(fields.text("message")));
        writeln!(writer, "{program}: {level}{message}")?;
        for name in ["detail", "hint"] {
            let text = fields.text(name);
            if !text.is_empty() {
                writeln!(writer, "{program}: {name}: {}", on_one_line(text))?;
            }
        }
        Ok(())
    }
}

/// The fields of an event, in order.
#[derive(Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.push((field.name(), value.into()));
    }

    /// A field that is text for people. The others repeat what the message says.
    fn text(&self, name: &str) -> &str {
        let named = self.0.iter().rev().find(|(other, _)| *other == name);
        named
            .and_then(|(_, value)| value.as_str())
            .unwrap_or_default()
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{self, Write};
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `act` logs.
    pub(crate) fn logged(format: LogFormat, act: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = {
            let lines = lines.clone();
            move || lines.clone()
        };
        tracing::subscriber::with_default(subscriber("prog", format, Level::INFO, writer), act);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_has_postgresql_s_prefixes() {
        let text = logged(LogFormat::Text, || {
            tracing::info!(lsn = "0/1", "at {}", 1);
            tracing::warn!(detail = "more", "odd: {}", io::Error::from_raw_os_error(5));
            tracing::error!(hint = %"do this", "bad");
            tracing::debug!("not shown");
        });
        assert_eq!(
            text,
            "prog: at 1\nprog: warning: odd: Input/output error\nprog: detail: more\n\
             prog: error: bad\nprog: hint: do this\n"
        );
    }

    #[test]
    fn json_is_one_object_a_line_with_the_fields_beside_the_message() {
        let text = logged(LogFormat::Json, || {
            tracing::info!(timeline = 3, lsn = "0/1", "line\nbreak \"quoted\"");
            tracing::error!("bad");
        });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("{\"timestamp\":\""), "{text}");
        for part in [
            "\"level\":\"INFO\"",
            "\"message\":\"line\\\\nbreak \\\"quoted\\\"\"",
            "\"timeline\":3",
            "\"lsn\":\"0/1\"",
        ] {
            assert!(lines[0].contains(part), "{part} in {text}");
        }
        assert!(lines[1].contains("\"level\":\"ERROR\""), "{text}");
    }

    #[test]
    fn no_control_character_of_a_message_is_written() {
        let hostile = "a\x1b[2J\u{9b}2J\x07\r\nprog: fake\u{202e}\u{85}";
        let shown = "a\\u{1b}[2J\\u{9b}2J\\u{7}\\r\\nprog: fake\\u{202e}\\u{85}";
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged(format, || {
                tracing::error!(hint = hostile, server = hostile, "{hostile}");
            });
            let (lines, shown) = match format {
                LogFormat::Text => (2, shown.to_owned()),
                LogFormat::Json => (1, shown.replace('\\', "\\\\")),
            };
            assert_eq!(text.lines().count(), lines, "{text}");
            assert!(text.contains(&shown), "{text}");
            let mut rest = text.chars().filter(|c| *c != '\n');
            assert!(!rest.any(walproto::is_unsafe), "{text:?}");
        }
        let long = logged(LogFormat::Text, || {
            tracing::info!("{}", "x".repeat(1 << 20))
        });
        assert!(long.len() < crate::shown::MAX_TEXT + 100, "{}", long.len());
    }

    #[test]
    fn mistakes_on_the_command_line_look_like_pg_receivewal_s() {
        let hint = "prog: hint: Try \"prog --help\" for more information.\n";
        assert_eq!(
            usage_error("prog", &UsageError::InvalidLetter { letter: 'x' }),
            format!("prog: invalid option -- 'x'\n{hint}")
        );
        assert_eq!(
            usage_error("prog", &UsageError::NoDirectory),
            format!("prog: error: no target directory specified\n{hint}")
        );
        let value = "x".to_owned();
        assert_eq!(
            usage_error("prog", &UsageError::EndPosition { value }),
            "prog: error: could not parse end position \"x\"\n"
        );
    }

    #[test]
    fn an_error_is_printed_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::other("inner"));
        assert_eq!(chain(&error), "outer: inner");
        let error = Outer(io::Error::from_raw_os_error(2));
        assert_eq!(chain(&error), "outer: No such file or directory");
        for (text, shown) in [
            ("a (os error 2): b (os error 13)!", "a: b!"),
            ("a (os error x) (os error 2", "a (os error x) (os error 2"),
        ] {
            assert_eq!(without_numbers(text), shown);
        }
    }

    #[test]
    fn what_stays_of_a_text_are_its_words() {
        for (text, expected) in [
            ("", ""),
            ("FATAL: BAD CAFE", "FATAL: BAD CAFE"),
            (
                "it ends at 0/64A000 (timeline 12)",
                "it ends at # (timeline #)",
            ),
            ("1/A, before 2F/B0 of \"db\"", "#, before # of \"db\""),
        ] {
            assert_eq!(without_positions(text), expected);
        }
    }
}
