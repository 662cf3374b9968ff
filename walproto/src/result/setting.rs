//! The reply to `SHOW`, and the values that a receiver asks for.

use super::table::{Row, table, value};
use super::{DataType, Reply, ResultError, ResultFault, ResultSet};
use crate::SegmentSize;

/// The reply to `SHOW` of one configuration parameter.
///
/// Source: src/backend/utils/misc/guc.c, `ShowGUCConfigOption` (PG 15).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// The parameter's name as the server spells it.
    pub name: String,
    /// Its value, with a unit if the parameter has one.
    pub value: String,
}

impl Setting {
    /// Reads a reply.
    ///
    /// # Errors
    /// When the table is no such reply.
    pub fn decode(result: &ResultSet) -> Result<Self, ResultError> {
        let mut row = Row::only(result, Reply::Show, 1)?;
        let name = result.columns().first().map(|column| column.name.clone());
        Ok(Self {
            name: name.unwrap_or_default(),
            value: row.text("value")?.to_owned(),
        })
    }

    /// The reply as servers send it.
    #[must_use]
    pub fn encode(&self) -> ResultSet {
        table([(&self.name, DataType::TEXT)], [[value(&self.value)]])
    }

    /// `wal_segment_size`: a number and its unit, as in `16MB`.
    #[must_use]
    pub fn of_segment_size(size: SegmentSize) -> Self {
        let mib = size.bytes() >> 20;
        Self {
            name: "wal_segment_size".to_owned(),
            value: match mib {
                1024 => "1GB".to_owned(),
                _ => format!("{mib}MB"),
            },
        }
    }

    /// The value of `wal_segment_size`.
    ///
    /// # Errors
    /// When the value is none.
    ///
    /// Source: src/bin/pg_basebackup/streamutil.c, `RetrieveWalSegSize` (PG 15).
    pub fn segment_size(&self) -> Result<SegmentSize, ResultError> {
        let in_units = |unit, shift: u32| {
            let number = self.value.strip_suffix(unit)?;
            let number = read_digits(number, 10)?;
            SegmentSize::new(u64::from(number) << shift).ok()
        };
        in_units("MB", 20)
            .or_else(|| in_units("GB", 30))
            .ok_or_else(|| self.fault("wal_segment_size", "a power of two from 1MB to 1GB"))
    }

    /// `data_directory_mode`: permissions in octal, as in `0700`.
    #[must_use]
    pub fn of_directory_mode(mode: u32) -> Self {
        Self {
            name: "data_directory_mode".to_owned(),
            value: format!("{mode:04o}"),
        }
    }

    /// The value of `data_directory_mode`: the permission bits of a directory.
    ///
    /// # Errors
    /// When the value is none.
    pub fn directory_mode(&self) -> Result<u32, ResultError> {
        read_digits(&self.value, 8)
            .filter(|mode| *mode <= 0o777)
            .ok_or_else(|| self.fault("data_directory_mode", "permissions in octal"))
    }

    /// The value of a parameter that is `on` or `off`, as `in_hot_standby` or
    /// `transaction_read_only`.
    ///
    /// # Errors
    /// When the value is neither.
    pub fn boolean(&self) -> Result<bool, ResultError> {
        match self.value.as_str() {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(self.fault("value", "on or off")),
        }
    }

    fn fault(&self, column: &'static str, expected: &'static str) -> ResultError {
        ResultError {
            reply: Reply::Show,
            reason: ResultFault::Value {
                column,
                expected,
                found: self.value.chars().take(64).collect(),
            },
        }
    }
}

/// An unsigned number without sign or space.
fn read_digits(text: &str, radix: u32) -> Option<u32> {
    let digits = text.chars().all(|c| c.is_digit(radix));
    digits.then(|| u32::from_str_radix(text, radix).ok())?
}
