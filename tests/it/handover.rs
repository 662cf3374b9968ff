//! One directory, filled in turns by PostgreSQL's program and ours, with and without compression.

use std::fs;
use std::io::Read;
use std::path::Path;

use tests::{ArchiveDirectory, Cluster, Receiver, Version, segment_name, wait_until};
use walproto::{Lsn, TimelineId};

/// The content of a segment, whichever way it is stored, and whether it is complete.
fn segment(archive: &Path, name: &str) -> Option<(Vec<u8>, bool)> {
    let file = |suffix: &str| fs::File::open(archive.join(format!("{name}{suffix}"))).ok();
    let content_of = |growing: &str| {
        let mut content = Vec::new();
        if let Some(mut plain) = file(growing) {
            plain.read_to_end(&mut content).unwrap();
        } else if let Some(gzip) = file(&format!(".gz{growing}")) {
            let mut decoder = flate2::read::GzDecoder::new(gzip);
            decoder.read_to_end(&mut content).unwrap();
        } else if let Some(lz4) = file(&format!(".lz4{growing}")) {
            let mut decoder = lz4_flex::frame::FrameDecoder::new(lz4);
            decoder.read_to_end(&mut content).unwrap();
        } else {
            content = zstd::decode_all(file(&format!(".zst{growing}"))?).unwrap();
        }
        Some(content)
    };
    let complete = content_of("").map(|content| (content, true));
    complete.or_else(|| content_of(".partial").map(|content| (content, false)))
}

/// Asserts that the archive has all of the cluster's WAL from `start` to `end`: complete segments,
/// and the last one as it grows.
fn assert_has_all(archive: &ArchiveDirectory, cluster: &Cluster, start: Lsn, end: Lsn) {
    let size = cluster.segment_size();
    let mut at = start;
    while at < end {
        let name = segment_name(TimelineId::FIRST, at, size);
        let found = segment(archive.path(), &name);
        assert!(found.is_some(), "{name} is not among {:?}", archive.files());
        let (content, complete) = found.unwrap();
        let next = Lsn(at.0 + size.bytes());
        let length = usize::try_from(next.min(end).0 - at.0).unwrap();
        let theirs = fs::read(cluster.data_directory().join("pg_wal").join(&name)).unwrap();
        assert!(
            content.get(..length) == theirs.get(..length),
            "{name} differs"
        );
        assert_eq!(complete, next <= end, "{name} among {:?}", archive.files());
        at = next;
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Program {
    Model,
    Ours,
}
use Program::{Model, Ours};

#[test]
fn a_directory_is_filled_in_turns_without_a_gap() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let start = cluster.segment_size().start_of(cluster.flush_lsn());
    // `pg_receivewal` does not know .zst, so that comes last.
    for (program, compression) in [
        (Model, "none"),
        (Ours, "none"),
        (Model, "gzip:1"),
        (Ours, "gzip:1"),
        (Model, "lz4"),
        (Ours, "none"),
        (Ours, "lz4"),
        (Model, "none"),
        (Model, "lz4"),
        (Ours, "zstd"),
        (Ours, "gzip"),
    ] {
        let mut receiver = match program {
            Model => Receiver::pg_receivewal(Version::V15, &cluster.conninfo(), archive.path()),
            Ours => Receiver::as_pg_receivewal(cluster.directory())
                .arg("-D")
                .arg(archive.path())
                .args(["-d", &cluster.conninfo()]),
        }
        .args(["-Z", compression, "--synchronous", "-v"])
        .start();
        cluster.wait_streaming("pg_receivewal");
        let end = cluster.write_wal(2);
        receiver.wait_flushed(&cluster, "pg_receivewal", end);
        assert!(receiver.stop().success());
        let turn = format!("{program:?} with {compression}:\n{}", receiver.log());
        wait_until("the receiver to be gone from the server", || {
            let count = "SELECT count(*)::text FROM pg_stat_replication";
            cluster.text(count).unwrap() == "0"
        });
        println!("{turn}{:?}", archive.files());
        if program == Ours {
            assert_has_all(&archive, &cluster, start, end);
        }
    }
}
