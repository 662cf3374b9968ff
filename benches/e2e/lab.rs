//! What all scenarios need: the arguments, the programs, and the place for what was measured.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tests::{Cluster, ClusterBuilder, Version};

use crate::args::Arguments;
use crate::machine::{Machine, wait_until_quiet};
use crate::process::Usage;
use crate::record::{Report, Run};

/// Our program's name in the results.
pub(crate) const OURS: &str = "wal-receiver";

/// The environment variable that chooses another build of our program, as for the tests.
const PROGRAM: &str = "WAL_RECEIVER_BIN";

/// A billion bytes.
const GB: f64 = 1e9;

/// The invocation.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) arguments: Arguments,
    pub(crate) wal_receiver: PathBuf,
    pub(crate) report: Report,
}

impl Lab {
    /// The version of PostgreSQL that all is measured with, the one with all of its programs.
    pub(crate) const VERSION: Version = Version::V15;

    pub(crate) fn new(arguments: Arguments, command: String) -> Self {
        let wal_receiver = wal_receiver();
        wait_until_quiet(arguments.patience);
        let machine = Machine::find(&wal_receiver, Self::VERSION);
        println!("{machine}");
        let mut lab = Self {
            arguments,
            wal_receiver,
            report: Report {
                machine,
                command,
                notes: Vec::new(),
                runs: Vec::new(),
            },
        };
        if std::env::var_os(PROGRAM).is_some() {
            lab.note(&format!(
                "{PROGRAM} has chosen the program: commit and build are the harness's own."
            ));
        }
        if cfg!(debug_assertions) {
            lab.note("Compiled without optimisation: the figures mean nothing.");
        }
        lab
    }

    /// Whether a scenario was asked for.
    pub(crate) fn wants(&self, scenario: &str) -> bool {
        self.arguments.scenarios.contains(&scenario)
    }

    /// Something that a reader of the figures has to know.
    pub(crate) fn note(&mut self, text: &str) {
        println!("NOTE: {text}");
        if !self.report.notes.iter().any(|note| note == text) {
            self.report.notes.push(text.to_owned());
        }
    }

    /// Keeps what a run has shown, and prints it.
    pub(crate) fn record(&mut self, mut run: Run) {
        for value in run
            .values
            .values_mut()
            .chain(run.curve.iter_mut().flatten())
        {
            *value = rounded(*value);
        }
        let values: Vec<String> = run
            .values
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        println!(
            "{} | {} | {} | round {} | {}",
            run.scenario,
            run.case,
            run.system,
            run.round,
            values.join(" ")
        );
        self.report.runs.push(run);
    }

    /// Our program.
    pub(crate) fn ours(&self) -> Command {
        Command::new(&self.wal_receiver)
    }

    /// Whether the help that our program gives for these words tells of an option: this harness
    /// measures older and newer ones.
    pub(crate) fn ours_has(&self, words: &[&str], option: &str) -> bool {
        let mut command = self.ours();
        command.args(words).arg("--help").stdin(Stdio::null());
        let help = command.output().unwrap().stdout;
        String::from_utf8_lossy(&help).contains(option)
    }

    /// One of PostgreSQL's client programs.
    pub(crate) fn postgres(name: &str) -> Command {
        let program = Self::VERSION.client_program(name);
        Command::new(program.unwrap_or_else(|| panic!("PostgreSQL has no {name} here")))
    }

    /// A cluster that is to be measured, or to be a source.
    pub(crate) fn cluster() -> ClusterBuilder {
        Cluster::builder(Self::VERSION)
            .listen_on_tcp()
            .conf("shared_buffers", "256MB")
            .conf("wal_keep_size", "64GB")
            .conf("max_wal_size", "64GB")
            .conf("max_connections", "100")
            .conf("max_wal_senders", "250")
    }
}

/// The systems of a round in the order of that round: every other one is turned around, so that
/// who comes later is not always the same.
pub(crate) fn in_turn<T: Copy>(systems: &[T], round: u32) -> Vec<T> {
    let mut systems = systems.to_vec();
    if round.is_multiple_of(2) {
        systems.reverse();
    }
    systems
}

/// Our program, which lies beside this one unless `WAL_RECEIVER_BIN` says otherwise.
fn wal_receiver() -> PathBuf {
    let program = std::env::var_os(PROGRAM).map_or_else(
        || std::env::current_exe().unwrap().with_file_name(OURS),
        PathBuf::from,
    );
    assert!(
        program.exists(),
        "{} is not there: cargo build --package wal-receiver, in the same profile",
        program.display()
    );
    program
}

/// Where a cluster listens on TCP.
pub(crate) fn tcp_address(cluster: &Cluster) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], cluster.tcp_port().unwrap()))
}

/// A connection string for replication over TCP, under a name.
pub(crate) fn tcp_conninfo(address: SocketAddr, application_name: &str) -> String {
    format!(
        "host={} port={} user=postgres application_name={application_name}",
        address.ip(),
        address.port()
    )
}

/// The figures of something that moved `bytes` in `seconds`.
pub(crate) fn throughput(bytes: u64, seconds: f64, usage: Usage) -> Vec<(&'static str, f64)> {
    let gb = bytes as f64 / GB;
    let mut values = vec![
        ("gb_per_s", gb / seconds),
        ("cpu_s_per_gb", usage.cpu_seconds / gb),
    ];
    if usage.peak_bytes > 0 {
        values.push(("peak_mib", mib(usage.peak_bytes)));
    }
    values
}

/// A figure with as many digits as can mean something.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = 10_f64.powf(4.0 - value.abs().log10().floor());
    (value * digits).round() / digits
}

pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The bytes of all files of a directory whose names are those of complete segments.
pub(crate) fn complete_segments(directory: &Path) -> Vec<PathBuf> {
    let mut segments: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
        .collect();
    segments.sort();
    segments
}
