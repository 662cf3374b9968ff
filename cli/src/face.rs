//! The two faces of the program, told apart by the name it is called by.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use walreceiver::{Acknowledge, FirstStart, OnLostSlot, Reconnect, ReportedApply};

/// The version that `pg_receivewal --version` names, which tools compare with their server's:
/// the newest PostgreSQL that is tested against.
const POSTGRESQL_VERSION: &str = "18.4";

/// Whose defaults apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    /// PostgreSQL's `pg_receivewal`, to the letter: what a script or a service unit that calls
    /// it relies on.
    PgReceivewal,
    /// Our own: a synchronous standby that keeps the WAL.
    WalReceiver,
}

impl Face {
    /// The face of a program of this name.
    pub(crate) fn of(program: &str) -> Self {
        match program {
            "pg_receivewal" => Self::PgReceivewal,
            _ => Self::WalReceiver,
        }
    }

    /// The line that `--version` prints.
    pub(crate) fn version(self) -> String {
        match self {
            Self::PgReceivewal => format!("pg_receivewal (PostgreSQL) {POSTGRESQL_VERSION}"),
            Self::WalReceiver => format!("wal-receiver {}", env!("CARGO_PKG_VERSION")),
        }
    }

    /// The `application_name` unless the connection says otherwise. Ours has no hyphen, which
    /// would need quotes in `synchronous_standby_names`.
    pub(crate) const fn application_name(self) -> &'static str {
        match self {
            Self::PgReceivewal => "pg_receivewal",
            Self::WalReceiver => "wal_receiver",
        }
    }

    /// What a lost connection is followed by, if `longest` is the longest wait.
    pub(crate) fn reconnect(self, longest: Duration) -> Reconnect {
        match self {
            Self::PgReceivewal => Reconnect::Fixed(longest),
            Self::WalReceiver => Reconnect::Backoff {
                min: Duration::from_millis(200),
                max: longest,
            },
        }
    }

    /// Whether a primary that cannot be reached at the start ends the program.
    pub(crate) const fn first_connection_must_succeed(self) -> bool {
        matches!(self, Self::PgReceivewal)
    }

    /// Whether a new slot keeps WAL from its creation on, and not only from its first use.
    pub(crate) const fn reserve_wal(self) -> bool {
        matches!(self, Self::WalReceiver)
    }

    /// Where an archive begins.
    pub(crate) const fn first_start(self) -> FirstStart {
        match self {
            Self::PgReceivewal => FirstStart::ServerFlush,
            Self::WalReceiver => FirstStart::OldestWal,
        }
    }

    /// What to do about a slot that reserves no WAL. Ours creates none such.
    pub(crate) const fn lost_slot(self) -> OnLostSlot {
        match self {
            Self::PgReceivewal => OnLostSlot::Warn,
            Self::WalReceiver => OnLostSlot::Stop,
        }
    }

    /// Whether completed segments may be gone. Who archives with `pg_receivewal` takes them out of
    /// its directory, as barman does.
    pub(crate) const fn segments_are_moved(self) -> bool {
        matches!(self, Self::PgReceivewal)
    }

    /// Whether a clean end leaves the growing segment compressed, under a name such as
    /// `.gz.partial`.
    pub(crate) const fn compress_growing(self) -> bool {
        matches!(self, Self::PgReceivewal)
    }

    /// What is told as applied.
    pub(crate) const fn apply(self) -> ReportedApply {
        match self {
            Self::PgReceivewal => ReportedApply::Never,
            Self::WalReceiver => ReportedApply::Progress,
        }
    }

    /// When WAL is acknowledged.
    ///
    /// Without `--synchronous`, `pg_receivewal` tells its flush position only for the sake of a
    /// slot, and also with `--no-sync`. Ours acknowledges always, but never what is not synced.
    ///
    /// Source: src/bin/pg_basebackup/receivelog.c, `ReceiveXlogStream` (PG 15).
    pub(crate) const fn acknowledge(
        self,
        synchronous: bool,
        sync: bool,
        slot: bool,
    ) -> Acknowledge {
        match self {
            Self::PgReceivewal if synchronous => Acknowledge::Always,
            Self::PgReceivewal if slot => Acknowledge::SegmentEnd,
            Self::WalReceiver if sync => Acknowledge::Always,
            Self::PgReceivewal | Self::WalReceiver => Acknowledge::Never,
        }
    }

    /// Whether it warns of what may go wrong later. `pg_receivewal` does not, and what it writes
    /// may be somebody's mail every time.
    pub(crate) const fn advises(self) -> bool {
        matches!(self, Self::WalReceiver)
    }

    /// Whether a live line is shown on a terminal.
    pub(crate) const fn live_line(self) -> bool {
        matches!(self, Self::WalReceiver)
    }
}

/// The name that the program was called by, without its directory: what its messages begin with.
pub(crate) fn program_name(argv0: Option<&OsStr>) -> String {
    argv0
        .and_then(|argv0| Path::new(argv0).file_name())
        .map_or_else(
            || "wal-receiver".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_face_follows_the_base_name() {
        for (argv0, face) in [
            ("/usr/bin/pg_receivewal", Face::PgReceivewal),
            ("pg_receivewal", Face::PgReceivewal),
            ("./wal-receiver", Face::WalReceiver),
            ("pg_receivewal2", Face::WalReceiver),
            ("", Face::WalReceiver),
        ] {
            let program = program_name(Some(OsStr::new(argv0)));
            assert_eq!(Face::of(&program), face, "{argv0}");
        }
        assert_eq!(program_name(None), "wal-receiver");
    }

    #[test]
    fn acknowledgements_are_those_of_the_face() {
        use Acknowledge::{Always, Never, SegmentEnd};
        for (face, synchronous, sync, slot, expected) in [
            (Face::PgReceivewal, false, true, false, Never),
            (Face::PgReceivewal, false, true, true, SegmentEnd),
            (Face::PgReceivewal, false, false, true, SegmentEnd),
            (Face::PgReceivewal, true, true, false, Always),
            (Face::PgReceivewal, true, true, true, Always),
            (Face::WalReceiver, false, true, false, Always),
            (Face::WalReceiver, true, true, true, Always),
            (Face::WalReceiver, false, false, false, Never),
            (Face::WalReceiver, false, false, true, Never),
        ] {
            assert_eq!(face.acknowledge(synchronous, sync, slot), expected);
        }
    }

    #[test]
    fn pg_receivewal_s_version_is_in_postgresql_s_form() {
        let line = Face::PgReceivewal.version();
        let number = line.strip_prefix("pg_receivewal (PostgreSQL) ").unwrap();
        let (major, minor) = number.split_once('.').unwrap();
        assert!(major.parse::<u32>().unwrap() >= 18 && minor.parse::<u32>().is_ok());
    }
}
