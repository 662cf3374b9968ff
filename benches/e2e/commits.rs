//! Commits that wait for their only synchronous standby.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::fs::statvfs;
use tests::{ArchiveDirectory, Cluster};

use crate::bulk_load::BulkLoad;
use crate::lab::{Lab, OURS, in_turn, mib, tcp_address, tcp_conninfo};
use crate::machine::settle;
use crate::process::{Program, Usage, tree_usage};
use crate::record::{Run, distribution, quantile};
use crate::source::{pgbench, pgbench_tables};

pub(crate) const SCENARIO: &str = "commits";
pub(crate) const WITH_BULK: &str = "commits-bulk";

pub(crate) const ALONE: &str = "no standby";
pub(crate) const PG_RECEIVEWAL: &str = "pg_receivewal --synchronous";
/// A receiver whose sync costs nothing: nobody who does what `pg_receivewal` does can be faster.
pub(crate) const IN_MEMORY: &str = "bound: pg_receivewal into tmpfs";
pub(crate) const STANDBY: &str = "PostgreSQL standby, on";
pub(crate) const REMOTE_APPLY: &str = "PostgreSQL standby, remote_apply";

const SYSTEMS: [&str; 6] = [ALONE, OURS, PG_RECEIVEWAL, IN_MEMORY, STANDBY, REMOTE_APPLY];
const BULK_SYSTEMS: [&str; 5] = [ALONE, OURS, PG_RECEIVEWAL, IN_MEMORY, STANDBY];

/// The `application_name` of whoever is the synchronous standby.
const NAME: &str = "measured";

/// What keeps the WAL that the PostgreSQL standby has not received yet.
const STANDBY_SLOT: &str = "standby";

/// A memory file system, if there is one.
const MEMORY: &str = "/dev/shm";

/// More WAL than commits alone make, in bytes a second.
const MOST_WAL_PER_S: u64 = 20_000_000;

/// More WAL than they make together with a bulk load.
const MOST_WAL_PER_S_WITH_BULK: u64 = 500_000_000;

/// How a case is called in the results.
pub(crate) fn case(clients: u32) -> String {
    match clients {
        1 => "1 client".to_owned(),
        clients => format!("{clients} clients"),
    }
}

/// A primary with pgbench's tables, and a standby of it that is started when it is its turn.
#[derive(Debug)]
struct Primary {
    cluster: Cluster,
    standby: Cluster,
}

/// Measures both scenarios, as far as they are wanted.
pub(crate) fn measure(lab: &mut Lab) {
    let mut primary = Primary::start(lab.arguments.duration);
    let systems = possible(lab, SCENARIO, &SYSTEMS, MOST_WAL_PER_S);
    let bulk_systems = possible(lab, WITH_BULK, &BULK_SYSTEMS, MOST_WAL_PER_S_WITH_BULK);
    let clients = lab.arguments.clients.clone();
    for round in 1..=lab.arguments.rounds {
        crate::probes::measure(lab, round);
        for &clients in &clients {
            for system in in_turn(&systems, round) {
                let run = primary.run(lab, SCENARIO, system, clients, round);
                lab.record(run);
            }
        }
        for &clients in &clients {
            if !bulk_systems.is_empty() {
                primary.let_go_of_wal();
            }
            for system in in_turn(&bulk_systems, round) {
                let run = primary.run(lab, WITH_BULK, system, clients, round);
                lab.record(run);
            }
        }
    }
}

/// Those of the systems that are wanted in a scenario and can be measured here: a receiver that has
/// no more room would keep its primary's commits waiting for ever.
fn possible(
    lab: &mut Lab,
    scenario: &str,
    systems: &[&'static str],
    most_wal_per_s: u64,
) -> Vec<&'static str> {
    if !lab.wants(scenario) {
        return Vec::new();
    }
    let free = statvfs(MEMORY).map_or(0, |memory| memory.f_bavail * memory.f_frsize);
    let needed = lab.arguments.duration.as_secs() * most_wal_per_s;
    if free < needed {
        lab.note(&format!(
            "{MEMORY} has no {needed} bytes free: the bound in memory of {scenario} is missing."
        ));
    }
    let is_possible = |&&system: &&&str| system != IN_MEMORY || free >= needed;
    systems.iter().filter(is_possible).copied().collect()
}

impl Primary {
    fn start(warm_up: Duration) -> Self {
        // Bulk loads make more WAL than a disk should have to keep.
        let cluster = Lab::cluster()
            .conf("fsync", "on")
            .conf("wal_keep_size", "0")
            .start();
        pgbench_tables(&cluster, 10);
        BulkLoad::prepare(&cluster);
        let conninfo = tcp_conninfo(tcp_address(&cluster), NAME);
        let slot = format!("SELECT pg_create_physical_replication_slot('{STANDBY_SLOT}', true)");
        cluster.sql(&slot);
        let conf =
            format!("primary_conninfo = '{conninfo}'\nprimary_slot_name = '{STANDBY_SLOT}'\n");
        let standby = cluster.base_backup().unpack("standby.signal", &conf);
        let primary = Self { cluster, standby };
        primary.let_go_of_wal();
        Program::run(transactions(&primary.cluster, 8, warm_up));
        primary
    }

    /// Removes the WAL that nobody needs any more.
    fn let_go_of_wal(&self) {
        // A page is written whole at its first change after a checkpoint. That is done now, and not
        // in the runs that come first.
        self.cluster
            .sql("CHECKPOINT; UPDATE pgbench_accounts SET abalance = 0 WHERE aid % 16 = 0");
        Program::run(transactions(&self.cluster, 8, Duration::from_secs(1)));
    }

    fn run(&mut self, lab: &Lab, scenario: &str, system: &str, clients: u32, round: u32) -> Run {
        let archive = match system {
            IN_MEMORY => tempfile::tempdir_in(MEMORY).map(|directory| {
                let archive = ArchiveDirectory::at(directory.path());
                (archive, Some(directory))
            }),
            _ => Ok((ArchiveDirectory::new(), None)),
        };
        let (archive, _memory) = archive.unwrap();
        let receiver = match system {
            ALONE => None,
            STANDBY | REMOTE_APPLY => {
                self.standby.start();
                None
            }
            OURS => Some(self.receiver(lab.ours(), &archive)),
            _ => {
                let mut command = Lab::postgres("pg_receivewal");
                command.arg("--synchronous");
                Some(self.receiver(command, &archive))
            }
        };
        let pid = match (&receiver, system) {
            (Some(receiver), _) => Some(receiver.pid()),
            (None, ALONE) => None,
            (None, _) => Some(self.standby.server_pid()),
        };
        let level = if system == REMOTE_APPLY {
            "remote_apply"
        } else {
            "on"
        };
        self.cluster.reload_with("synchronous_commit", level);
        if pid.is_some() {
            self.cluster.wait_streaming(NAME);
            self.cluster.reload_with("synchronous_standby_names", NAME);
            self.cluster.wait_sync_state(NAME, "sync");
        }
        let with_bulk = scenario == WITH_BULK;
        let measured = self.commit(clients, lab.arguments.duration, pid, with_bulk);
        self.cluster.reload_with("synchronous_standby_names", "");
        match receiver {
            Some(receiver) => assert!(receiver.stop().success(), "{system}"),
            None if pid.is_some() => self.standby.stop(),
            None => {}
        }
        let (values, curve) = measured;
        Run {
            scenario: scenario.to_owned(),
            case: case(clients),
            system: system.to_owned(),
            round,
            values,
            curve,
        }
    }

    fn receiver(&self, mut command: Command, archive: &ArchiveDirectory) -> Program {
        let conninfo = tcp_conninfo(tcp_address(&self.cluster), NAME);
        command
            .arg("-D")
            .arg(archive.path())
            .args(["-d", &conninfo]);
        Program::start(command)
    }

    /// Lets clients commit, and tells how it went and what the standby, if any, used for it.
    fn commit(
        &self,
        clients: u32,
        duration: Duration,
        standby: Option<u32>,
        with_bulk: bool,
    ) -> (BTreeMap<String, f64>, Vec<[f64; 2]>) {
        settle();
        let logs = tempfile::tempdir().unwrap();
        let bulk = with_bulk.then(|| BulkLoad::start(&self.cluster));
        let used = |pid: Option<u32>| pid.map_or_else(Usage::default, tree_usage);
        let before = used(standby);
        let wal_before = self.cluster.flush_lsn();
        let mut command = transactions(&self.cluster, clients, duration);
        command
            .arg("--log")
            .arg(format!("--log-prefix={}/t", logs.path().display()));
        Program::run(command);
        let wal = self.cluster.flush_lsn().bytes_since(wal_before);
        let after = used(standby);
        drop(bulk);
        let latencies = latencies(logs.path());
        let commits = latencies.len() as f64;
        let millis = |share| quantile(&latencies, share).unwrap();
        let mut values = vec![
            ("commits_per_s", commits / duration.as_secs_f64()),
            ("p50_ms", millis(0.5)),
            ("p99_ms", millis(0.99)),
            ("p999_ms", millis(0.999)),
            ("wal_mb_per_s", wal as f64 / 1e6 / duration.as_secs_f64()),
        ];
        if standby.is_some() {
            let cpu = after.cpu_seconds - before.cpu_seconds;
            values.push(("cpu_us_per_commit", cpu * 1e6 / commits));
            values.push(("peak_mib", mib(after.peak_bytes)));
        }
        let values = values.into_iter().map(|(name, v)| (name.to_owned(), v));
        (values.collect(), distribution(&latencies))
    }
}

/// Small transactions of so many clients, for so long.
fn transactions(cluster: &Cluster, clients: u32, duration: Duration) -> Command {
    let mut command = pgbench(cluster);
    command
        .args(["-n", "-N", "-M", "prepared"])
        .args([
            "-c",
            &clients.to_string(),
            "-j",
            &clients.min(2).to_string(),
        ])
        .args(["-T", &duration.as_secs().to_string(), "postgres"]);
    command
}

/// What each transaction took in ms, sorted.
///
/// Source: the PostgreSQL manual, pgbench, "Per-Transaction Logging": the third field has it in us.
fn latencies(directory: &Path) -> Vec<f64> {
    let mut millis = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let log = fs::read_to_string(entry.unwrap().path()).unwrap();
        millis.extend(log.lines().map(|line| {
            let micros = line.split(' ').nth(2).unwrap();
            micros.parse::<f64>().unwrap() / 1e3
        }));
    }
    assert!(!millis.is_empty(), "pgbench has logged no transaction");
    millis.sort_by(f64::total_cmp);
    millis
}
