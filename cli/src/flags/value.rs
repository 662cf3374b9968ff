//! The values of options.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::time::Duration;

use walproto::Lsn;
use walsender::parse_duration;

use super::error::UsageError;
use super::number::strtol;

/// The most seconds that fit PostgreSQL's int of milliseconds.
const MAX_SECONDS: u32 = i32::MAX.unsigned_abs() / 1000;
/// More threads than any machine has processors would only take memory.
const MAX_JOBS: usize = 1024;

/// The value of an option, as it was given.
pub(crate) struct Value {
    /// The option's long name with its dashes.
    option: &'static str,
    value: OsString,
}

impl Value {
    pub(super) const fn new(option: &'static str, value: OsString) -> Self {
        Self { option, value }
    }

    pub(super) fn raw(self) -> OsString {
        self.value
    }

    pub(super) fn text(self) -> Result<String, UsageError> {
        text(self.option.trim_start_matches('-'), self.value)
    }

    /// A time in seconds, `None` for 0.
    pub(super) fn seconds(self) -> Result<Option<Duration>, UsageError> {
        let option = self.option;
        self.seconds_of(option)
    }

    /// As [`Self::seconds`], with another name of the option in messages.
    ///
    /// Source: src/fe_utils/option_utils.c, `option_parse_int` (PG 15).
    pub(super) fn seconds_of(self, option: &'static str) -> Result<Option<Duration>, UsageError> {
        let value = self.text()?;
        let (number, rest) = strtol(&value);
        if !rest.trim_ascii_start().is_empty() {
            return Err(UsageError::InvalidNumber { option, value });
        }
        match u32::try_from(number) {
            Ok(0) => Ok(None),
            Ok(seconds @ 1..=MAX_SECONDS) => Ok(Some(Duration::from_secs(seconds.into()))),
            _ => Err(UsageError::OutOfRange {
                option,
                max: MAX_SECONDS,
            }),
        }
    }

    /// A time in seconds, and not 0.
    pub(super) fn some_seconds(self) -> Result<Duration, UsageError> {
        let (option, value) = (self.option, self.value.clone());
        self.seconds()?.ok_or_else(|| UsageError::Unexpected {
            option,
            value: value.to_string_lossy().into_owned(),
            expected: "a number of seconds from 1 on",
        })
    }

    /// A position; `0/0` is none, as with `pg_receivewal`.
    pub(super) fn position(
        self,
        refused: impl FnOnce(String) -> UsageError,
    ) -> Result<Option<Lsn>, UsageError> {
        let value = self.text()?;
        match value.parse::<Lsn>() {
            Ok(lsn) => Ok((!lsn.is_invalid()).then_some(lsn)),
            Err(_invalid) => Err(refused(value)),
        }
    }

    /// What `read` makes of the value, which is to be what is `expected`.
    fn read<T>(
        self,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, UsageError> {
        let option = self.option;
        let value = self.text()?;
        read(&value).ok_or(UsageError::Unexpected {
            option,
            value,
            expected,
        })
    }

    pub(super) fn count(self) -> Result<usize, UsageError> {
        self.read("a whole number", whole_number)
    }

    pub(super) fn jobs(self) -> Result<NonZeroUsize, UsageError> {
        self.read("a whole number from 1 to 1024", |value| {
            NonZeroUsize::new(whole_number(value)?).filter(|jobs| jobs.get() <= MAX_JOBS)
        })
    }

    /// Source: src/backend/utils/misc/guc.c, `authentication_timeout` (PG 15).
    pub(super) fn authentication_timeout(self) -> Result<Duration, UsageError> {
        let expected = "a time of more than 0, in ms, s, min or h, or without a unit for s";
        self.read(expected, |value| {
            parse_duration(value, Duration::from_secs(1)).filter(|timeout| !timeout.is_zero())
        })
    }

    /// `None` for 0, which is never.
    ///
    /// Source: src/backend/utils/misc/guc.c, `wal_sender_timeout` (PG 15).
    pub(super) fn wal_sender_timeout(self) -> Result<Option<Duration>, UsageError> {
        let expected = "a time in ms, s, min or h, or without a unit for ms";
        let timeout = self.read(expected, |value| {
            parse_duration(value, Duration::from_millis(1))
        })?;
        Ok(Some(timeout).filter(|timeout| !timeout.is_zero()))
    }

    /// A size in bytes.
    pub(super) fn size(self) -> Result<u64, UsageError> {
        let expected = "a number with kB, MB, GB or TB, or without a unit for MB";
        self.read(expected, size)
    }
}

/// A value or an operand, if it is text.
pub(crate) fn text(name: &'static str, value: OsString) -> Result<String, UsageError> {
    let text = value.into_string();
    text.map_err(|_bytes| UsageError::NotUtf8 { option: name })
}

fn whole_number(value: &str) -> Option<usize> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| digits)
}

/// Units are PostgreSQL's, which are powers of 1024.
///
/// Source: src/backend/utils/misc/guc.c, `max_slot_wal_keep_size`, `memory_unit_conversion_table`
/// (PG 15).
fn size(value: &str) -> Option<u64> {
    let unit_at = value.find(|c: char| !c.is_ascii_digit());
    let (digits, unit) = value.split_at(unit_at.unwrap_or(value.len()));
    let shift = match unit.trim_ascii() {
        "kB" => 10,
        "" | "MB" => 20,
        "GB" => 30,
        "TB" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_postgresql_s_units() {
        for (text, bytes) in [
            ("0", 0),
            ("3", 3 << 20),
            ("64kB", 64 << 10),
            ("2 MB", 2 << 20),
            ("1TB", 1 << 40),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "MB", "-1", "+1", "1gb", "1.5GB", "1B", "99999999TB"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
