//! The messages that make up a server's answer to a command.

use bytes::Bytes;

use super::error::ClientError;
use super::limits::{MAX_RESULT_LENGTH, MAX_ROWS};
use crate::backend::BackendMessage;
use crate::result::ResultSet;

/// An answer that is not complete yet: at most one table, then CommandComplete, as a rule once.
///
/// Twice is right at the end of a stream (walsender.c, `StartReplication`).
#[derive(Debug, Default)]
pub(super) struct Answer {
    table: Option<ResultSet>,
    /// The bytes of the values in the table.
    bytes: usize,
    complete: bool,
}

/// What became of a message of an answer.
pub(super) enum Taken {
    Yes,
    /// ReadyForQuery: this is all.
    Complete(Option<ResultSet>),
    /// The message has no place there.
    No,
}

impl Answer {
    pub(super) fn take(&mut self, message: BackendMessage) -> Result<Taken, ClientError> {
        match message {
            BackendMessage::RowDescription(columns) if self.table.is_none() && !self.complete => {
                self.table = Some(ResultSet::new(columns));
            }
            BackendMessage::DataRow(values) if !self.complete => {
                self.add_row(values)?;
            }
            BackendMessage::CommandComplete { .. } | BackendMessage::EmptyQueryResponse => {
                self.complete = true;
            }
            BackendMessage::ReadyForQuery { .. } if self.complete => {
                return Ok(Taken::Complete(self.table.take()));
            }
            _ => return Ok(Taken::No),
        }
        Ok(Taken::Yes)
    }

    fn add_row(&mut self, values: Vec<Option<Bytes>>) -> Result<(), ClientError> {
        let unexpected = ClientError::Unexpected {
            state: "the answer to a command",
            message: "DataRow",
        };
        let Some(table) = &mut self.table else {
            return Err(unexpected);
        };
        self.bytes = values
            .iter()
            .flatten()
            .fold(self.bytes, |sum, value| sum.saturating_add(value.len()));
        let too_many = |what, limit| Err(ClientError::TooMany { what, limit });
        if table.rows().len() == MAX_ROWS {
            return too_many("rows in an answer", MAX_ROWS);
        }
        if self.bytes > MAX_RESULT_LENGTH {
            return too_many("bytes in an answer", MAX_RESULT_LENGTH);
        }
        table.push_row(values).map_err(|_width| unexpected)
    }
}
