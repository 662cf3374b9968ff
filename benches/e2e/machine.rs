//! On what the figures were made.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tests::Version;

/// The machine and the versions of all that was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// When the measurement began, UTC.
    pub(crate) date: String,
    /// The processor's name.
    pub(crate) processor: String,
    /// How many processors there are for us.
    pub(crate) processors: usize,
    /// Memory in MiB.
    pub(crate) memory_mib: u64,
    /// How many processes wanted a processor before the measurement began, on average over the
    /// last minute: others' work is in the figures if it is not near 0.
    pub(crate) load: f64,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The type of the file system that WAL was written to.
    pub(crate) file_system: String,
    /// The commit of this repository, with `-dirty` if files were changed.
    pub(crate) commit: String,
    /// Of our program.
    pub(crate) wal_receiver: String,
    /// How our program was compiled: `release` or `debug`.
    pub(crate) profile: String,
    /// Of PostgreSQL's programs.
    pub(crate) postgres: String,
}

impl Machine {
    /// This one.
    pub(crate) fn find(wal_receiver: &Path, version: Version) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':')).map(|(_, v)| v);
            value.unwrap_or("unknown").trim().to_owned()
        };
        let memory = field(&meminfo, "MemTotal");
        let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        Self {
            date: said_by(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"])),
            processor: field(&cpuinfo, "model name"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kib >> 10,
            load: load(),
            kernel: kernel.trim().to_owned(),
            file_system: file_system(&std::env::temp_dir()),
            commit: commit(),
            wal_receiver: said_by(Command::new(wal_receiver).arg("--version")),
            profile: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            }
            .to_owned(),
            postgres: said_by(Command::new(version.server_program("postgres")).arg("--version")),
        }
    }
}

/// A list in the form of Markdown.
impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            date,
            processor,
            processors,
            memory_mib,
            load,
            kernel,
            file_system,
            commit,
            wal_receiver,
            profile,
            postgres,
        } = self;
        writeln!(f, "- {date}")?;
        writeln!(
            f,
            "- {processors} processors ({processor}), {memory_mib} MiB of memory, Linux {kernel}, \
             load before {load:.2}"
        )?;
        writeln!(
            f,
            "- WAL of servers and receivers on one {file_system} file system, connections over TCP \
             on loopback"
        )?;
        writeln!(f, "- {wal_receiver}, commit {commit}, {profile} build")?;
        write!(f, "- {postgres}")
    }
}

/// Up to which load a machine counts as quiet.
pub(crate) const QUIET_LOAD: f64 = 0.5;

/// Waits until the machine is quiet, but no longer than `patience`: what the compiler did a moment
/// ago is still in the load.
pub(crate) fn wait_until_quiet(patience: Duration) {
    let deadline = Instant::now() + patience;
    while load() > QUIET_LOAD && Instant::now() < deadline {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Source: proc(5), `/proc/loadavg`.
fn load() -> f64 {
    let loadavg = fs::read_to_string("/proc/loadavg").unwrap();
    loadavg.split(' ').next().unwrap().parse().unwrap()
}

fn commit() -> String {
    let mut git = Command::new("git");
    git.current_dir(env!("CARGO_MANIFEST_DIR"));
    said_by(git.args(["describe", "--always", "--dirty", "--exclude=*"]))
}

/// The first line of what a program prints, or that it is unknown.
fn said_by(command: &mut Command) -> String {
    let output = command.output().ok().filter(|out| out.status.success());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let line = text.and_then(|text| text.lines().next().map(str::to_owned));
    line.unwrap_or_else(|| "unknown".to_owned())
}

/// The type of the file system at a path.
fn file_system(path: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let of_path = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (mount, kind) = (Path::new(fields.next()?), fields.next()?);
        path.starts_with(mount)
            .then(|| (mount.components().count(), kind))
    });
    // Of several at one place the last one is seen.
    let seen = of_path.max_by_key(|&(depth, _)| depth);
    seen.map_or("unknown", |(_, kind)| kind).to_owned()
}

/// Writes all dirty pages to the disk, so that nobody's writes are paid by the next one measured.
pub(crate) fn settle() {
    rustix::fs::sync();
}

/// Reads files, so that they are in the page cache.
pub(crate) fn read_all(files: &[PathBuf]) {
    let mut buffer = vec![0; 1 << 20];
    for path in files {
        let mut file = File::open(path).unwrap();
        while file.read(&mut buffer).unwrap() > 0 {}
    }
}

/// Empties the page cache.
///
/// # Errors
/// When the harness may not, which takes root.
pub(crate) fn drop_page_cache() -> std::io::Result<()> {
    settle();
    fs::write("/proc/sys/vm/drop_caches", "1")
}
