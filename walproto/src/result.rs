//! What a server answers to a replication command: a table of text values, and its meaning.
//!
//! Each reply is a type with `decode`, from the table that any server from 13 to 18 sends, and
//! `encode`, to the table that a server of a version sends.
//!
//! Source: the PostgreSQL manual, "Streaming Replication Protocol", and
//! src/backend/replication/walsender.c (PG 13 to 18).

mod backup;
mod error;
mod reply;
mod setting;
mod table;
#[cfg(test)]
mod tests;

pub use backup::{BackupPosition, BackupTablespace, BackupTablespaces};
pub use error::{Reply, ResultError, ResultFault};
pub use reply::{
    CreatedSlot, IdentifySystem, SlotInfo, SlotType, TimelineEnd, TimelineHistoryFile,
};
pub use setting::Setting;

use bytes::Bytes;

/// A table as a server sends it: `RowDescription`, then any number of `DataRow`s.
///
/// Values are the bytes of the text format, `None` for NULL. Every row has one value for each
/// column.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ResultSet {
    columns: Vec<Column>,
    rows: Vec<Vec<Option<Bytes>>>,
}

/// A column of a [`ResultSet`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    /// The name that the server gave it.
    pub name: String,
    /// Its data type.
    pub data_type: DataType,
}

/// A data type of PostgreSQL by its object identifier (`Oid` in `pg_type`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DataType(pub u32);

impl DataType {
    /// `bytea`
    pub const BYTEA: Self = Self(17);
    /// `int8`
    pub const INT8: Self = Self(20);
    /// `int4`
    pub const INT4: Self = Self(23);
    /// `text`
    pub const TEXT: Self = Self(25);
    /// `oid`
    pub const OID: Self = Self(26);

    /// The size in bytes that `RowDescription` carries: -1 for a type of variable length
    /// (`typlen`).
    #[must_use]
    pub const fn size(self) -> i16 {
        match self {
            Self::INT8 => 8,
            Self::INT4 | Self::OID => 4,
            _ => -1,
        }
    }
}

/// A row whose number of values is not the number of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("row {row} has {found} values, expected {expected}")]
pub struct RowWidthError {
    /// The row, counted from 1.
    pub row: usize,
    /// The number of columns.
    pub expected: usize,
    /// The number of values in the row.
    pub found: usize,
}

impl ResultSet {
    /// A table without rows.
    #[must_use]
    pub const fn new(columns: Vec<Column>) -> Self {
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row at the end.
    ///
    /// # Errors
    /// When the row does not have one value for each column.
    pub fn push_row(&mut self, values: Vec<Option<Bytes>>) -> Result<(), RowWidthError> {
        if values.len() != self.columns.len() {
            return Err(RowWidthError {
                row: self.rows.len() + 1,
                expected: self.columns.len(),
                found: values.len(),
            });
        }
        self.rows.push(values);
        Ok(())
    }

    /// The columns, in the server's order.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The rows, in the server's order.
    #[must_use]
    pub fn rows(&self) -> &[Vec<Option<Bytes>>] {
        &self.rows
    }
}
