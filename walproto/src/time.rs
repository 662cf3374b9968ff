//! Points in time as PostgreSQL writes them.

use std::time::{Duration, SystemTime};

/// Seconds from 1970-01-01 to 2000-01-01, both UTC.
const UNIX_EPOCH_TO_POSTGRES_EPOCH: Duration = Duration::from_secs(946_684_800);

/// Microseconds since 2000-01-01 00:00:00 UTC, without leap seconds (`TimestampTz`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct PgTimestamp(pub i64);

impl PgTimestamp {
    /// The same point in time; one outside of 64 bits of microseconds becomes the nearest.
    #[must_use]
    pub fn from_system_time(time: SystemTime) -> Self {
        let epoch = SystemTime::UNIX_EPOCH + UNIX_EPOCH_TO_POSTGRES_EPOCH;
        Self(match time.duration_since(epoch) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |m| -m),
        })
    }

    /// The same point in time, or `None` where the system's clock cannot express it.
    #[must_use]
    pub fn to_system_time(self) -> Option<SystemTime> {
        let epoch = SystemTime::UNIX_EPOCH.checked_add(UNIX_EPOCH_TO_POSTGRES_EPOCH)?;
        let distance = Duration::from_micros(self.0.unsigned_abs());
        if self.0 >= 0 {
            epoch.checked_add(distance)
        } else {
            epoch.checked_sub(distance)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn zero_is_the_beginning_of_2000() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_800);
        assert_eq!(PgTimestamp::from_system_time(start), PgTimestamp(0));
        assert_eq!(
            PgTimestamp::from_system_time(SystemTime::UNIX_EPOCH).0,
            -946_684_800_000_000
        );
    }

    proptest! {
        #[test]
        fn a_point_in_time_survives_the_round_trip(micros in -1i64 << 55..1 << 55) {
            let time = PgTimestamp(micros).to_system_time().unwrap();
            prop_assert_eq!(PgTimestamp::from_system_time(time), PgTimestamp(micros));
        }

        #[test]
        fn no_timestamp_panics(micros: i64) {
            let _ = PgTimestamp(micros).to_system_time().map(PgTimestamp::from_system_time);
        }
    }
}
