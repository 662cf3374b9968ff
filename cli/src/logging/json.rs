//! The JSON form of the log.

use std::fmt;
use std::time::SystemTime;

use serde_json::Value;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::Fields;
use crate::shown::on_one_line;
use crate::timestamp::timestamp;

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
        let mut fields = Fields(vec![
            ("timestamp", timestamp(SystemTime::now()).into()),
            ("level", event.metadata().level().as_str().into()),
        ]);
        event.record(&mut fields);
        let mut separator = '{';
        for (name, value) in fields.0 {
            let value = match value {
                Value::String(text) => on_one_line(&text).into(),
                value => value,
            };
            write!(writer, "{separator}\"{name}\":{value}")?;
            separator = ',';
        }
        writeln!(writer, "}}")
    }
}
