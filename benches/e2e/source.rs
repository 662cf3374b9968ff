//! A primary with much WAL of the kinds that real ones write, and an archive of it.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tests::{ArchiveDirectory, Cluster, wait_until};
use walproto::{Lsn, TimelineId};

use crate::lab::{Lab, tcp_address, tcp_conninfo};
use crate::process::Program;

/// The slot that keeps the WAL, of which every receiver gets a copy.
const BASE_SLOT: &str = "base";

/// The primary.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) cluster: Cluster,
    /// The beginning of the first segment.
    pub(crate) start: Lsn,
    /// The end of what is received, within the last segment.
    pub(crate) end: Lsn,
}

impl Source {
    pub(crate) const TIMELINE: TimelineId = TimelineId::FIRST;

    /// Makes at least `size` bytes of WAL: a third each of small transactions, of rows in bulk,
    /// and of new indexes.
    pub(crate) fn make(size: u64) -> Self {
        println!("making {size} bytes of WAL");
        // The server's own durability is not measured here.
        let cluster = Lab::cluster().conf("fsync", "off").start();
        let slot = format!("SELECT pg_create_physical_replication_slot('{BASE_SLOT}', true)");
        cluster.sql(&slot);
        let restart = cluster
            .text("SELECT restart_lsn::text FROM pg_replication_slots")
            .unwrap();
        let start = cluster.segment_size().start_of(restart.parse().unwrap());
        let until = |share: u64| Lsn(start.0 + size * share / 3);
        small_transactions(&cluster, size, until(1));
        rows_in_bulk(&cluster, size, until(2));
        new_indexes(&cluster, until(3));
        cluster.switch_wal();
        let end = cluster.flush_lsn();
        // A receiver stops once it has WAL from beyond its end, so there must be some.
        cluster.sql("CHECKPOINT");
        Self {
            cluster,
            start,
            end,
        }
    }

    /// How many bytes there are to receive.
    pub(crate) fn length(&self) -> u64 {
        self.end.bytes_since(self.start)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        tcp_address(&self.cluster)
    }

    /// A slot of that name at the beginning of the WAL, in place of one that is there.
    pub(crate) fn copy_slot(&self, name: &str) {
        let inactive = format!(
            "SELECT (count(*) = 0)::text FROM pg_replication_slots
             WHERE slot_name = '{name}' AND active"
        );
        wait_until("the slot to be free", || {
            self.cluster.text(&inactive).as_deref() == Some("true")
        });
        self.cluster.sql(&format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
             WHERE slot_name = '{name}'"
        ));
        self.cluster.sql(&format!(
            "SELECT pg_copy_physical_replication_slot('{BASE_SLOT}', '{name}')"
        ));
    }

    /// The arguments by which a receiver gets all of the WAL through a slot and then ends. They are
    /// the same for ours and for `pg_receivewal`.
    pub(crate) fn receive_all(&self, command: &mut Command, archive: &ArchiveDirectory) {
        let conninfo = tcp_conninfo(self.address(), "measured");
        self.copy_slot("measured");
        command
            .arg("-D")
            .arg(archive.path())
            .args(["-d", &conninfo, "--slot", "measured", "--no-loop"])
            .args(["--endpos", &self.end.to_string()]);
    }

    /// An archive of it, made by our receiver.
    pub(crate) fn archive(&self, lab: &Lab) -> ArchiveDirectory {
        let archive = ArchiveDirectory::new();
        let mut command = lab.ours();
        self.receive_all(&mut command, &archive);
        Program::run(command);
        self.assert_same_wal(&archive);
        archive
    }

    /// An archive has to have what the server has written.
    pub(crate) fn assert_same_wal(&self, archive: &ArchiveDirectory) {
        archive.assert_same_wal(&self.cluster, Self::TIMELINE, self.start, self.end);
    }
}

/// `pgbench` as the superuser through the Unix socket.
pub(crate) fn pgbench(cluster: &Cluster) -> Command {
    let mut command = Lab::postgres("pgbench");
    command
        .args(["-h", cluster.socket_directory().to_str().unwrap()])
        .args(["-p", &cluster.port().to_string(), "-U", "postgres"]);
    command
}

/// Makes pgbench's tables, with so many times 100,000 rows.
pub(crate) fn pgbench_tables(cluster: &Cluster, scale: u32) {
    let mut command = pgbench(cluster);
    // Room on each page lets a new row version stay on it.
    command.args(["-i", "-q", "-F", "80", "-s", &scale.to_string(), "postgres"]);
    Program::run(command);
}

fn small_transactions(cluster: &Cluster, size: u64, until: Lsn) {
    // 100,000 rows make some 15 MB of WAL: their making must not be all there is.
    pgbench_tables(
        cluster,
        u32::try_from(size / 150_000_000).unwrap().clamp(1, 20),
    );
    let step = Duration::from_secs(if size < 1_000_000_000 { 1 } else { 5 });
    while cluster.flush_lsn() < until {
        // The first change of each page after it brings the whole page.
        cluster.sql("CHECKPOINT");
        let mut command = pgbench(cluster);
        command
            .args(["-n", "-N", "-M", "prepared", "-c", "8", "-j", "2"])
            .args(["-T", &step.as_secs().to_string(), "postgres"]);
        Program::run(command);
    }
}

fn rows_in_bulk(cluster: &Cluster, size: u64, until: Lsn) {
    cluster.sql("CREATE TABLE bulk (id bigint, number float8, body text)");
    // A row takes some 150 bytes.
    let rows = (size / 150 / 20).clamp(10_000, 500_000);
    let file = cluster.data_directory().join("bulk.copy");
    cluster.sql(&format!(
        "COPY (SELECT i, random(), repeat(md5(i::text), 3) FROM generate_series(1, {rows}) i)
         TO '{}'",
        file.display()
    ));
    while cluster.flush_lsn() < until {
        cluster.sql(&format!("COPY bulk FROM '{}'", file.display()));
    }
}

fn new_indexes(cluster: &Cluster, until: Lsn) {
    cluster.sql("SET maintenance_work_mem = '256MB'; CREATE INDEX ON bulk (number)");
    for column in ["id", "body", "number"].into_iter().cycle() {
        if cluster.flush_lsn() >= until {
            return;
        }
        cluster.sql(&format!(
            "SET maintenance_work_mem = '256MB'; CREATE INDEX again ON bulk ({column});
             DROP INDEX again"
        ));
    }
}
