//! How much memory a receiver takes that has to catch up.

use tests::{ArchiveDirectory, Cluster, Receiver};

use crate::for_each_version;

for_each_version!(memory_stays_bounded_while_catching_up);

/// The most memory in bytes that the process ever had.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.unwrap().parse::<u64>().unwrap() << 10
}

fn memory_stays_bounded_while_catching_up(version: tests::Version) {
    let cluster = Cluster::builder(version).segment_size_mib(64).start();
    cluster.sql("SELECT pg_create_physical_replication_slot('behind', true)");
    let end = cluster.write_wal(200);
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(&cluster, archive.path())
        .args(["--slot", "behind"])
        .start();
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    // The queue to the disk, what is read into beside it, and an unoptimised program; a segment
    // would not fit.
    let peak = peak_memory(receiver.pid());
    assert!(peak < 48 << 20, "{peak} bytes");
}
