//! What differs between the major versions of PostgreSQL: one row for each.

use super::ServerVersion;
use crate::startup::ProtocolVersion;

/// A major version of PostgreSQL that is known here.
///
/// A row says what the version has of its own; what it took over from the version before is said
/// there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Major {
    /// As in 15 for 15.18.
    pub number: u32,
    /// `XLOG_PAGE_MAGIC` (src/include/access/xlog_internal.h).
    pub page_magic: u16,
    /// The newest version of the protocol that its servers speak.
    pub protocol: ProtocolVersion,
    /// The built-in resource managers that came with it, in the order of their IDs, by the names
    /// that `pg_waldump` prints (src/include/access/rmgrlist.h).
    pub new_resource_managers: &'static [&'static str],
    /// The words that begin a replication command since it (src/backend/replication/repl_scanner.l).
    pub new_commands: &'static [&'static str],
    /// The parameters that its servers report by themselves, and older ones do not (`GUC_REPORT` in
    /// src/backend/utils/misc/guc_tables.c).
    pub newly_reported: &'static [&'static str],
}

/// All known major versions, oldest first.
pub const MAJORS: [Major; 6] = [V13, V14, V15, V16, V17, V18];

const V13: Major = Major {
    number: 13,
    page_magic: 0xD106,
    protocol: ProtocolVersion::V3_0,
    new_resource_managers: &[
        "XLOG",
        "Transaction",
        "Storage",
        "CLOG",
        "Database",
        "Tablespace",
        "MultiXact",
        "RelMap",
        "Standby",
        "Heap2",
        "Heap",
        "Btree",
        "Hash",
        "Gin",
        "Gist",
        "Sequence",
        "SPGist",
        "BRIN",
        "CommitTs",
        "ReplicationOrigin",
        "Generic",
        "LogicalMessage",
    ],
    new_commands: &[
        "BASE_BACKUP",
        "CREATE_REPLICATION_SLOT",
        "DROP_REPLICATION_SLOT",
        "IDENTIFY_SYSTEM",
        "SHOW",
        "START_REPLICATION",
        "TIMELINE_HISTORY",
    ],
    newly_reported: &[
        "application_name",
        "client_encoding",
        "DateStyle",
        "integer_datetimes",
        "IntervalStyle",
        "is_superuser",
        "server_encoding",
        "server_version",
        "session_authorization",
        "standard_conforming_strings",
        "TimeZone",
    ],
};

const V14: Major = Major {
    number: 14,
    page_magic: 0xD10D,
    newly_reported: &["default_transaction_read_only", "in_hot_standby"],
    ..V13.without_news()
};

const V15: Major = Major {
    number: 15,
    page_magic: 0xD110,
    new_commands: &["READ_REPLICATION_SLOT"],
    ..V14.without_news()
};

const V16: Major = Major {
    number: 16,
    page_magic: 0xD113,
    newly_reported: &["scram_iterations"],
    ..V15.without_news()
};

const V17: Major = Major {
    number: 17,
    page_magic: 0xD116,
    new_commands: &["ALTER_REPLICATION_SLOT", "UPLOAD_MANIFEST"],
    ..V16.without_news()
};

const V18: Major = Major {
    number: 18,
    page_magic: 0xD118,
    protocol: ProtocolVersion::V3_2,
    newly_reported: &["search_path"],
    ..V17.without_news()
};

/// The version since which extensions may have resource managers.
const CUSTOM_RESOURCE_MANAGERS_SINCE: u32 = 15;
/// The first ID of those (`RM_MIN_CUSTOM_ID`).
const FIRST_CUSTOM_RESOURCE_MANAGER: u8 = 128;

impl Major {
    /// The row without what came with its version, for the next one to begin with.
    const fn without_news(self) -> Self {
        Self {
            new_resource_managers: &[],
            new_commands: &[],
            newly_reported: &[],
            ..self
        }
    }

    /// The oldest version that is supported.
    pub const OLDEST: Self = V13;
    /// The newest version that is known.
    pub const NEWEST: Self = V18;

    /// The version with this number, `None` for one that is not known.
    #[must_use]
    pub fn numbered(number: u32) -> Option<&'static Self> {
        MAJORS.iter().find(|major| major.number == number)
    }

    /// The version of a server. An older or newer one than those that are known is treated as the
    /// nearest of them.
    #[must_use]
    pub fn of(version: ServerVersion) -> &'static Self {
        up_to(version.major()).last().unwrap_or(&MAJORS[0])
    }

    /// The version whose WAL pages carry `magic`, `None` for a number that is not known.
    #[must_use]
    pub fn of_page_magic(magic: u16) -> Option<&'static Self> {
        MAJORS.iter().find(|major| major.page_magic == magic)
    }

    /// The first release of this version.
    #[must_use]
    pub const fn first_release(&self) -> ServerVersion {
        ServerVersion(self.number * 10_000)
    }

    /// Whether a record of this version may have the resource manager `id`.
    #[must_use]
    pub fn has_resource_manager(&self, id: u8) -> bool {
        builtin_resource_managers(self.number)
            .nth(usize::from(id))
            .is_some()
            || self.number >= CUSTOM_RESOURCE_MANAGERS_SINCE && id >= FIRST_CUSTOM_RESOURCE_MANAGER
    }

    /// The name of a built-in resource manager of any version, `None` for an extension's.
    #[must_use]
    pub fn resource_manager_name(id: u8) -> Option<&'static str> {
        builtin_resource_managers(Self::NEWEST.number).nth(usize::from(id))
    }

    /// The parameters that a server of a version reports by itself. A server that is newer than
    /// what is known reports at least those of the newest known one.
    pub fn reported_parameters(version: ServerVersion) -> impl Iterator<Item = &'static str> {
        up_to(version.major()).flat_map(|major| major.newly_reported.iter().copied())
    }

    /// The version since which `word` begins a replication command, `None` for any other word.
    #[must_use]
    pub fn since_command(word: &[u8]) -> Option<&'static Self> {
        let has = |commands: &[&str]| commands.iter().any(|known| known.as_bytes() == word);
        MAJORS.iter().find(|major| has(major.new_commands))
    }
}

fn up_to(number: u32) -> impl Iterator<Item = &'static Major> {
    MAJORS
        .iter()
        .take_while(move |major| major.number <= number)
}

fn builtin_resource_managers(number: u32) -> impl Iterator<Item = &'static str> {
    up_to(number).flat_map(|major| major.new_resource_managers.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_page_magics_are_told_from_each_other() {
        for (index, major) in MAJORS.iter().enumerate() {
            assert_eq!(Major::numbered(major.number), Some(major));
            assert_eq!(Major::of_page_magic(major.page_magic), Some(major));
            if let Some(next) = MAJORS.get(index + 1) {
                assert_eq!(next.number, major.number + 1);
                assert!(next.page_magic > major.page_magic);
                assert!(next.protocol >= major.protocol);
            }
        }
        assert_eq!(MAJORS.first(), Some(&Major::OLDEST));
        assert_eq!(MAJORS.last(), Some(&Major::NEWEST));
        assert_eq!(Major::numbered(12), None);
        assert_eq!(Major::numbered(19), None);
        assert_eq!(Major::of_page_magic(0xD119), None);
    }

    #[test]
    fn resource_managers_of_extensions_exist_from_15_on() {
        for major in &MAJORS {
            assert!(major.has_resource_manager(0));
            assert!(major.has_resource_manager(21));
            assert!(!major.has_resource_manager(22));
            assert!(!major.has_resource_manager(127));
            assert_eq!(major.has_resource_manager(128), major.number >= 15);
        }
        assert_eq!(Major::resource_manager_name(21), Some("LogicalMessage"));
        assert_eq!(Major::resource_manager_name(22), None);
        assert_eq!(Major::resource_manager_name(200), None);
    }

    #[test]
    fn a_newer_server_has_what_the_newest_known_one_has() {
        let of = |version| Major::reported_parameters(ServerVersion(version)).collect::<Vec<_>>();
        assert_eq!(of(130_023).len(), 11);
        assert!(!of(150_018).contains(&"scram_iterations"));
        assert!(of(180_000).contains(&"search_path"));
        assert_eq!(of(190_000), of(180_004));
    }

    #[test]
    fn a_command_is_known_since_a_version() {
        let since = |word: &str| Major::since_command(word.as_bytes()).map(|major| major.number);
        assert_eq!(since("IDENTIFY_SYSTEM"), Some(13));
        assert_eq!(since("READ_REPLICATION_SLOT"), Some(15));
        assert_eq!(since("UPLOAD_MANIFEST"), Some(17));
        assert_eq!(since("SELECT"), None);
    }
}
