//! What a segment of the largest size costs a receiver.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use tests::{ArchiveDirectory, Cluster, Proxy, Receiver, Verdict, Version, wait_until};

use crate::proxied::Proxied;

/// What a reconnect and a commit may write, in bytes. The fault to find writes 1 GiB.
const PER_RECONNECT: u64 = 16 << 20;

/// How many bytes the receiver has written by system calls so far. Space that is reserved only, as by
/// `fallocate`, is not in it.
fn written(receiver: &Receiver) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", receiver.pid())).unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.unwrap().parse().unwrap()
}

/// The segments that are prepared, and which files they are.
fn prepared(archive: &ArchiveDirectory) -> Vec<(OsString, u64, Option<SystemTime>)> {
    let entries = fs::read_dir(archive.path().join(".wal-receiver/prepared")).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            let created = metadata.created().ok();
            (entry.file_name(), metadata.ino(), created)
        })
        .collect();
    files.sort();
    files
}

#[test]
fn a_reconnect_does_not_write_another_segment_of_zeros() {
    let cluster = Cluster::builder(Version::V15)
        .segment_size_mib(1024)
        .conf("min_wal_size", "2GB")
        .conf("wal_init_zero", "off")
        .start();
    let size = cluster.segment_size();
    let proxied = Proxied::from(cluster);
    let cluster = &proxied.cluster;
    let cut = Arc::new(AtomicBool::new(false));
    let proxy = Proxy::start(cluster, {
        let cut = Arc::clone(&cut);
        move |message| {
            let cuts = message.wal().is_some() && cut.swap(false, Ordering::SeqCst);
            if cuts { Verdict::Cut } else { Verdict::Forward }
        }
    });
    let mut receiver = proxied.streaming(&proxy);
    let start = cluster.write_wal(1);
    receiver.wait_flushed(cluster, "wal_receiver", start);
    // One segment is prepared for the whole run, in the background.
    wait_until("the next segment to be prepared", || {
        written(&receiver) >= size.bytes()
    });
    let ready = prepared(&proxied.archive);
    assert_eq!(ready.len(), 1, "{ready:?}");
    for reconnect in 1..=5 {
        let before = written(&receiver);
        let connections = proxy.connections();
        cut.store(true, Ordering::SeqCst);
        let end = cluster.write_wal(1);
        receiver.wait_flushed(cluster, "wal_receiver", end);
        assert!(proxy.connections() > connections, "{}", receiver.log());
        let bytes = written(&receiver) - before;
        assert!(
            bytes < PER_RECONNECT,
            "reconnect {reconnect} wrote {bytes} bytes:\n{}",
            receiver.log()
        );
    }
    assert_eq!(size.start_of(start), size.start_of(cluster.flush_lsn()));
    // After the end of the process nothing is prepared any more.
    assert!(receiver.stop().success(), "{}", receiver.log());
    assert_eq!(prepared(&proxied.archive), ready);
}
