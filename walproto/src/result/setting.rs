//! The reply to `SHOW`, and the values that a receiver asks for.

use std::time::Duration;

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

    /// The value of a parameter that is a plain number, as `wal_block_size`.
    ///
    /// # Errors
    /// When the value is none.
    pub fn unsigned(&self) -> Result<u32, ResultError> {
        read_digits(&self.value, 10).ok_or_else(|| self.fault("value", "a number"))
    }

    /// The value of a parameter that is a time and is kept in milliseconds, as
    /// `wal_sender_timeout`: the greatest unit that divides it, as in `1min`, and 0 without one.
    ///
    /// # Errors
    /// When the value is none.
    ///
    /// Source: src/backend/utils/misc/guc.c, `convert_int_from_base_unit` (PG 15).
    pub fn duration(&self) -> Result<Duration, ResultError> {
        let digits = self
            .value
            .trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let milliseconds = match self.value.strip_prefix(digits) {
            Some("" | "ms") => Some(1),
            Some("s") => Some(1000),
            Some("min") => Some(60_000),
            Some("h") => Some(3_600_000),
            Some("d") => Some(86_400_000),
            _ => None,
        };
        read_digits(digits, 10)
            .zip(milliseconds)
            .map(|(number, unit)| Duration::from_millis(u64::from(number) * unit))
            .ok_or_else(|| self.fault("value", "a time"))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(value: &str) -> Setting {
        Setting {
            name: "x".to_owned(),
            value: value.to_owned(),
        }
    }

    #[test]
    fn times_have_the_units_that_servers_show() {
        for (text, milliseconds) in [
            ("0", 0),
            ("1500ms", 1500),
            ("59s", 59_000),
            ("1min", 60_000),
            ("2h", 7_200_000),
        ] {
            assert_eq!(
                setting(text).duration(),
                Ok(Duration::from_millis(milliseconds))
            );
        }
        for text in ["", "ms", "1us", "-1", "1 min", "4294967296"] {
            assert!(setting(text).duration().is_err(), "{text:?}");
        }
    }

    #[test]
    fn numbers_have_neither_sign_nor_unit() {
        assert_eq!(setting("8192").unsigned(), Ok(8192));
        for text in ["", "-1", "8kB", " 1"] {
            assert!(setting(text).unsigned().is_err(), "{text:?}");
        }
    }
}
