//! Reading and building the tables of replies.

use bytes::Bytes;

use super::{Column, DataType, Reply, ResultError, ResultFault, ResultSet};
use crate::{Lsn, TimelineId};

/// A row of a reply, read column by column from the left: by place, as libpq's clients do, not
/// by name.
pub(super) struct Row<'a> {
    reply: Reply,
    values: std::slice::Iter<'a, Option<Bytes>>,
}

/// What a position looks like in text.
const LSN_FORM: &str = "a position like 16/B374D848";

impl<'a> Row<'a> {
    /// The only row of a table with at least `columns` columns.
    pub(super) fn only(
        table: &'a ResultSet,
        reply: Reply,
        columns: usize,
    ) -> Result<Self, ResultError> {
        let [row] = table.rows() else {
            let found = table.rows().len();
            let reason = ResultFault::Rows { found };
            return Err(ResultError { reply, reason });
        };
        Self::of(row, reply, columns)
    }

    /// A row with at least `columns` columns.
    pub(super) fn of(
        row: &'a [Option<Bytes>],
        reply: Reply,
        columns: usize,
    ) -> Result<Self, ResultError> {
        if row.len() < columns {
            let reason = ResultFault::Columns {
                expected: columns,
                found: row.len(),
            };
            return Err(ResultError { reply, reason });
        }
        Ok(Self {
            reply,
            values: row.iter(),
        })
    }

    /// The next value as it came.
    pub(super) fn bytes(&mut self, column: &'static str) -> Result<Bytes, ResultError> {
        match self.values.next() {
            Some(Some(value)) => Ok(value.clone()),
            Some(None) | None => Err(self.fault(ResultFault::Null { column })),
        }
    }

    /// The next value as text, `None` for NULL.
    pub(super) fn optional_text(
        &mut self,
        column: &'static str,
    ) -> Result<Option<&'a str>, ResultError> {
        let Some(Some(value)) = self.values.next() else {
            return Ok(None);
        };
        match std::str::from_utf8(value) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(self.value_fault(column, "UTF-8", value)),
        }
    }

    pub(super) fn text(&mut self, column: &'static str) -> Result<&'a str, ResultError> {
        let text = self.optional_text(column)?;
        text.ok_or_else(|| self.fault(ResultFault::Null { column }))
    }

    /// The next value as what `read` makes of its text, `None` for NULL.
    pub(super) fn optional<T>(
        &mut self,
        column: &'static str,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ResultError> {
        let Some(text) = self.optional_text(column)? else {
            return Ok(None);
        };
        match read(text) {
            Some(value) => Ok(Some(value)),
            None => Err(self.value_fault(column, expected, text.as_bytes())),
        }
    }

    pub(super) fn required<T>(
        &mut self,
        column: &'static str,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ResultError> {
        let value = self.optional(column, expected, read)?;
        value.ok_or_else(|| self.fault(ResultFault::Null { column }))
    }

    /// The next value, which has to be NULL.
    pub(super) fn none<T>(&mut self, column: &'static str) -> Result<Option<T>, ResultError> {
        self.optional(column, "NULL", |_| None)
    }

    pub(super) fn lsn(&mut self, column: &'static str) -> Result<Lsn, ResultError> {
        self.required(column, LSN_FORM, |text| text.parse().ok())
    }

    pub(super) fn optional_lsn(
        &mut self,
        column: &'static str,
    ) -> Result<Option<Lsn>, ResultError> {
        self.optional(column, LSN_FORM, |text| text.parse().ok())
    }

    pub(super) fn timeline(&mut self, column: &'static str) -> Result<TimelineId, ResultError> {
        self.required(column, "the number of a timeline", read_timeline)
    }

    pub(super) fn optional_timeline(
        &mut self,
        column: &'static str,
    ) -> Result<Option<TimelineId>, ResultError> {
        self.optional(column, "the number of a timeline", read_timeline)
    }

    const fn fault(&self, reason: ResultFault) -> ResultError {
        ResultError {
            reply: self.reply,
            reason,
        }
    }

    fn value_fault(
        &self,
        column: &'static str,
        expected: &'static str,
        value: &[u8],
    ) -> ResultError {
        let start = value.get(..64).unwrap_or(value);
        self.fault(ResultFault::Value {
            column,
            expected,
            found: String::from_utf8_lossy(start).into_owned(),
        })
    }
}

/// A timeline as a server prints it: to 15 `IDENTIFY_SYSTEM` has it as int4, so that the upper
/// half of all timelines is negative there.
fn read_timeline(text: &str) -> Option<TimelineId> {
    if text.starts_with('-') {
        let number: i32 = text.parse().ok()?;
        TimelineId::new(number.cast_unsigned())
    } else {
        text.parse().ok()
    }
}

/// A table of columns and rows of the same width.
pub(super) fn table<const N: usize>(
    columns: [(&str, DataType); N],
    rows: impl IntoIterator<Item = [Option<Bytes>; N]>,
) -> ResultSet {
    ResultSet {
        columns: columns
            .into_iter()
            .map(|(name, data_type)| Column {
                name: name.to_owned(),
                data_type,
            })
            .collect(),
        rows: rows.into_iter().map(Vec::from).collect(),
    }
}

/// The text of a value.
pub(super) fn value(value: impl ToString) -> Option<Bytes> {
    Some(Bytes::from(value.to_string()))
}
