//! The JSON form of the log.

use std::fmt;
use std::time::SystemTime;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::observe::control::document::timestamp;
use crate::shown::on_one_line;

/// An object a line: `timestamp`, `level`, and the event's fields, `message` among them.
///
/// Texts are escaped as in the text form, so what a program decodes has no control characters
/// either.
pub(super) struct JsonFormat;

impl<S, N> FormatEvent<S, N> for JsonFormat
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
        let mut members = Members(vec![
            ("timestamp", timestamp(SystemTime::now()).into()),
            ("level", event.metadata().level().as_str().into()),
        ]);
        event.record(&mut members);
        let mut separator = '{';
        for (name, value) in members.0 {
            write!(writer, "{separator}\"{name}\":{value}")?;
            separator = ',';
        }
        writeln!(writer, "}}")
    }
}

/// What an object holds, in order.
struct Members(Vec<(&'static str, Value)>);

impl Members {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.push((field.name(), value.into()));
    }
}

impl Visit for Members {
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
        self.add(field, on_one_line(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, on_one_line(&format!("{value:?}")));
    }
}
