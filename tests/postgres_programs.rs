//! Where the programs of each PostgreSQL version are, and as whom the servers run.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

/// A supported major version of PostgreSQL.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Version(u32);

impl Version {
    /// The oldest that has everything that is relied upon.
    pub const V13: Self = Self(13);
    /// PostgreSQL 14.
    pub const V14: Self = Self(14);
    /// PostgreSQL 15, Debian 12's own, with all of its programs.
    pub const V15: Self = Self(15);
    /// PostgreSQL 16.
    pub const V16: Self = Self(16);
    /// PostgreSQL 17.
    pub const V17: Self = Self(17);
    /// PostgreSQL 18.
    pub const V18: Self = Self(18);

    /// The major version number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Whether `WAL_RECEIVER_SKIP_POSTGRES` says to leave this version out, which is printed.
    #[must_use]
    pub fn is_skipped(self) -> bool {
        let skipped = std::env::var("WAL_RECEIVER_SKIP_POSTGRES").unwrap_or_default();
        let skip = skipped
            .split_whitespace()
            .any(|version| version == self.0.to_string());
        if skip {
            println!("SKIPPED: PostgreSQL {self}, as WAL_RECEIVER_SKIP_POSTGRES says");
        }
        skip
    }

    /// The path of a server program: `postgres`, `initdb` or `pg_ctl`.
    #[must_use]
    pub fn server_program(self, name: &str) -> PathBuf {
        self.directories().server.join(name)
    }

    /// The path of a client program such as `pg_waldump`; `None` for 13 and 14, which have none.
    #[must_use]
    pub fn client_program(self, name: &str) -> Option<PathBuf> {
        Some(self.directories().client?.join(name))
    }

    fn directories(self) -> Directories {
        static FOUND: OnceLock<Mutex<HashMap<Version, Directories>>> = OnceLock::new();
        let mut found = FOUND.get_or_init(Mutex::default).lock().unwrap();
        found
            .entry(self)
            .or_insert_with(|| Directories::find(self))
            .clone()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Clone)]
struct Directories {
    server: PathBuf,
    client: Option<PathBuf>,
}

impl Directories {
    fn find(version: Version) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/fetch-postgres");
        let output = Command::new(&script)
            .arg(version.to_string())
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
        assert!(
            output.status.success(),
            "no PostgreSQL {version}, and no test without: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let line = String::from_utf8(output.stdout).unwrap();
        let fields: Vec<&str> = line.split_whitespace().collect();
        Self {
            server: PathBuf::from(fields[1]),
            client: (fields[2] != "-").then(|| PathBuf::from(fields[2])),
        }
    }
}

/// The user and group ids of `postgres`, as whom servers run when the tests run as root: PostgreSQL
/// refuses to. `None` when the tests have no such rights to give up.
#[must_use]
pub fn unprivileged_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let fields: Vec<&str> = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields[0] == "postgres")
        .expect("as root the tests need a user postgres: run scripts/install-postgres");
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}
