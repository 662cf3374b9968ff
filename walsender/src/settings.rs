//! The parameters of the server that clients are told and may ask for.

use std::time::Duration;

use segstore::SlotLimits;
use walproto::error::{ServerMessage, SqlState};
use walproto::result::Setting;
use walproto::{Major, SegmentSize, ServerVersion};

use crate::config::ServeConfig;

/// What the parameters of one connection are made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings<'a> {
    /// The version of the server whose WAL it is.
    pub(crate) version: ServerVersion,
    pub(crate) segment_size: SegmentSize,
    pub(crate) data_directory_mode: u32,
    pub(crate) config: &'a ServeConfig,
    pub(crate) user: &'a str,
    pub(crate) application_name: &'a str,
    pub(crate) wal_sender_timeout: Option<Duration>,
    pub(crate) slots: SlotLimits,
}

impl Settings<'_> {
    /// The parameters that every client is told when it comes in.
    ///
    /// Source: src/backend/utils/misc/guc.c, those with `GUC_REPORT` (PG 13 to 18).
    pub(crate) fn reported(&self) -> Vec<(&'static str, String)> {
        let value = |name| self.value(name).map(|value| (name, value));
        Major::reported_parameters(self.version)
            .filter_map(value)
            .collect()
    }

    /// Answers `SHOW`. The names of parameters are the same in capitals.
    pub(crate) fn show(&self, name: &str) -> Result<Setting, ServerMessage> {
        let canonical = NAMES
            .iter()
            .find(|known| known.eq_ignore_ascii_case(name))
            .copied();
        let found = canonical.and_then(|name| Some((name, self.value(name)?)));
        match found {
            Some((name, value)) => Ok(Setting {
                name: name.to_owned(),
                value,
            }),
            None => Err(ServerMessage::error(
                SqlState::UNDEFINED_OBJECT,
                format!("unrecognized configuration parameter \"{name}\""),
            )),
        }
    }

    /// The value of a parameter by the name that PostgreSQL spells, `None` for one that the
    /// version does not have.
    fn value(&self, name: &'static str) -> Option<String> {
        let version = self.version;
        let limits = &self.config.limits;
        let fixed = |value: &str| Some(value.to_owned());
        match name {
            "application_name" => fixed(self.application_name),
            "session_authorization" => fixed(self.user),
            "server_version" => Some(version.to_string()),
            "server_version_num" => Some(version.0.to_string()),
            "wal_segment_size" => Some(Setting::of_segment_size(self.segment_size).value),
            "data_directory_mode" => Some(format!("{:04o}", self.data_directory_mode)),
            "block_size" | "wal_block_size" => Some(segstore::BLOCK_SIZE.to_string()),
            // As a standby has it: nothing can be written here, and no transaction says so.
            "in_hot_standby" if version < ServerVersion::V14 => None,
            "in_hot_standby" | "transaction_read_only" | "hot_standby" => fixed("on"),
            "default_transaction_read_only" | "is_superuser" => fixed("off"),
            "integer_datetimes" | "standard_conforming_strings" => fixed("on"),
            // There is no database here whose encoding could be told.
            "client_encoding" | "server_encoding" => fixed("SQL_ASCII"),
            "DateStyle" => fixed("ISO, MDY"),
            "IntervalStyle" => fixed("postgres"),
            "TimeZone" => fixed("UTC"),
            "scram_iterations" if version < ServerVersion::V16 => None,
            "scram_iterations" => fixed("4096"),
            "search_path" => fixed("\"$user\", public"),
            "wal_level" => fixed("replica"),
            "max_wal_senders" => Some(limits.connections.to_string()),
            "max_replication_slots" => Some(self.slots.max_slots.to_string()),
            "max_slot_wal_keep_size" => Some(match self.slots.max_keep_bytes {
                None => "-1".to_owned(),
                Some(bytes) => show_mib(bytes >> 20),
            }),
            "ssl" => fixed(if self.config.access.tls.is_some() {
                "on"
            } else {
                "off"
            }),
            "synchronous_standby_names" => {
                let policy = self.config.policy.as_ref();
                Some(policy.map(ToString::to_string).unwrap_or_default())
            }
            "authentication_timeout" => Some(show_duration(limits.authentication_timeout)),
            "wal_sender_timeout" => {
                Some(show_duration(self.wal_sender_timeout.unwrap_or_default()))
            }
            _ => None,
        }
    }
}

/// The parameters that this server has.
const NAMES: [&str; 30] = [
    "application_name",
    "authentication_timeout",
    "block_size",
    "client_encoding",
    "data_directory_mode",
    "DateStyle",
    "default_transaction_read_only",
    "hot_standby",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "max_replication_slots",
    "max_slot_wal_keep_size",
    "max_wal_senders",
    "scram_iterations",
    "search_path",
    "server_encoding",
    "server_version",
    "server_version_num",
    "session_authorization",
    "ssl",
    "standard_conforming_strings",
    "synchronous_standby_names",
    "TimeZone",
    "transaction_read_only",
    "wal_block_size",
    "wal_level",
    "wal_segment_size",
    "wal_sender_timeout",
];

/// The units of a time, the greatest first, in milliseconds.
const UNITS: [(&str, u128); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("min", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// A time in the greatest unit that it is a multiple of, as `SHOW` has it.
fn show_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let fits = |(_, unit): &&(&str, u128)| milliseconds.is_multiple_of(*unit);
    match UNITS.iter().find(fits) {
        Some((name, unit)) if milliseconds > 0 => format!("{}{name}", milliseconds / unit),
        _ => "0".to_owned(),
    }
}

/// A number of mebibytes in the greatest unit that it is a multiple of.
fn show_mib(mib: u64) -> String {
    match mib {
        0 => "0".to_owned(),
        _ if mib.is_multiple_of(1 << 20) => format!("{}TB", mib >> 20),
        _ if mib.is_multiple_of(1 << 10) => format!("{}GB", mib >> 10),
        _ => format!("{mib}MB"),
    }
}

/// The value that a client gives `wal_sender_timeout` for its own connection.
pub(crate) fn wal_sender_timeout(value: &str) -> Result<Option<Duration>, ServerMessage> {
    let timeout = parse_duration(value, Duration::from_millis(1)).ok_or_else(|| {
        ServerMessage::fatal(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("invalid value for parameter \"wal_sender_timeout\": \"{value}\""),
        )
    })?;
    Ok(Some(timeout).filter(|timeout| !timeout.is_zero()))
}

/// A time as PostgreSQL's parameters have it: a whole number with one of the units `ms`, `s`,
/// `min`, `h` and `d`, or without one in units of `unit`. `None` for
/// anything else, and for more than 2^31 - 1 milliseconds, 24 days.
///
/// Source: src/backend/utils/misc/guc.c, `parse_int` (PG 15).
#[must_use]
pub fn parse_duration(text: &str, unit: Duration) -> Option<Duration> {
    let text = text.trim();
    let number_end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, name) = text.split_at(number_end);
    let unit = match name.trim() {
        "" => unit.as_millis(),
        name => UNITS.iter().find(|(known, _)| *known == name)?.1,
    };
    let number = u128::from(number.parse::<u32>().ok()?);
    let milliseconds = i32::try_from(number.checked_mul(unit)?).ok()?;
    Some(Duration::from_millis(u64::try_from(milliseconds).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(version: u32, config: &ServeConfig) -> Settings<'_> {
        Settings {
            version: ServerVersion(version),
            segment_size: SegmentSize::DEFAULT,
            data_directory_mode: 0o750,
            config,
            user: "u",
            application_name: "a",
            wal_sender_timeout: config.limits.wal_sender_timeout,
            slots: SlotLimits {
                max_slots: 10,
                max_keep_bytes: Some(3 << 30),
            },
        }
    }

    fn show(version: u32, name: &str) -> Option<(String, String)> {
        let config = ServeConfig::new(Vec::new());
        let setting = settings(version, &config).show(name).ok()?;
        Some((setting.name, setting.value))
    }

    #[test]
    fn what_receivers_ask_for_is_answered_as_a_standby_would() {
        for (name, value) in [
            ("wal_segment_size", "16MB"),
            ("data_directory_mode", "0750"),
            ("server_version", "15.18"),
            ("transaction_read_only", "on"),
            ("in_hot_standby", "on"),
            ("wal_sender_timeout", "1min"),
            ("max_slot_wal_keep_size", "3GB"),
            ("synchronous_standby_names", ""),
        ] {
            let expected = Some((name.to_owned(), value.to_owned()));
            assert_eq!(show(150_018, name), expected);
        }
        let date_style = Some(("DateStyle".to_owned(), "ISO, MDY".to_owned()));
        assert_eq!(show(150_018, "datestyle"), date_style);
        assert_eq!(show(150_018, "shared_buffers"), None);
        assert_eq!(show(130_023, "in_hot_standby"), None);
    }

    #[test]
    fn every_parameter_has_a_value_in_some_version_and_is_found_by_its_name() {
        for name in NAMES {
            let found = show(180_004, name).map(|(name, _)| name);
            assert_eq!(found.as_deref(), Some(name));
        }
    }

    #[test]
    fn what_is_reported_depends_on_the_version() {
        let count = |version| {
            let config = ServeConfig::new(Vec::new());
            settings(version, &config).reported().len()
        };
        let counts = [130_023, 140_023, 150_018, 160_014, 180_004].map(count);
        assert_eq!(counts, [11, 13, 13, 14, 15]);
    }

    #[test]
    fn times_have_units() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (text, expected) in [
            ("0", None),
            ("1500", Some(Duration::from_millis(1500))),
            ("10s", seconds(10)),
            (" 2 min ", seconds(120)),
            ("1h", seconds(3600)),
        ] {
            assert_eq!(wal_sender_timeout(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "s",
            "-1",
            "1.5s",
            "1 y",
            "2147483648",
            "25d",
            "99999999999999999999",
        ] {
            assert!(wal_sender_timeout(text).is_err(), "{text}");
        }
        assert_eq!(parse_duration("3", Duration::from_secs(1)), seconds(3));
        assert_eq!(
            parse_duration("3ms", Duration::from_secs(1)),
            Some(Duration::from_millis(3))
        );
        for (milliseconds, shown) in [(0, "0"), (90_000, "90s"), (7_200_000, "2h"), (5, "5ms")] {
            assert_eq!(show_duration(Duration::from_millis(milliseconds)), shown);
        }
    }
}
