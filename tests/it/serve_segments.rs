//! Segments of other sizes and compressed ones are served as they were.

use std::fs;

use tests::{
    ArchiveDirectory, Cluster, EmbeddedServer, Receiver, Version, segment_name, wait_until,
};
use walproto::TimelineId;

/// What a `pg_receivewal` that has the first segment gets of an archive is the same as the
/// primary has, to the end.
fn assert_served(segment_size_mib: u64, compression: &str, suffix: &str) {
    let cluster = Cluster::builder(Version::V15)
        .segment_size_mib(segment_size_mib)
        .start();
    let size = cluster.segment_size();
    let start = size.start_of(cluster.flush_lsn());
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(&cluster, archive.path())
        .args(["-Z", compression])
        .start();
    cluster.wait_streaming("wal_receiver");
    let end = cluster.write_wal(segment_size_mib * 2 + 1);
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    let first = segment_name(TimelineId::FIRST, start, size);
    let archived = archive.path().join(format!("{first}{suffix}"));
    wait_until("the first segment to be archived", || archived.exists());
    assert!(receiver.stop().success(), "{}", receiver.log());

    let copy = ArchiveDirectory::new();
    let theirs = cluster.data_directory().join("pg_wal").join(&first);
    fs::copy(theirs, copy.path().join(&first)).unwrap();
    let server = EmbeddedServer::start(EmbeddedServer::config(), archive.path());
    let mut original = Receiver::pg_receivewal(Version::V15, &server.conninfo(), copy.path())
        .arg("--synchronous")
        .start();
    server.wait_flushed("pg_receivewal", end);
    assert!(original.stop().success(), "{}", original.log());
    copy.assert_same_wal(&cluster, TimelineId::FIRST, start, end);
}

#[test]
fn segments_of_64_mib_are_served() {
    assert_served(64, "none", "");
}

#[test]
fn segments_that_gzip_has_compressed_are_served() {
    assert_served(1, "gzip", ".gz");
}

#[test]
fn segments_that_lz4_has_compressed_are_served() {
    assert_served(1, "lz4", ".lz4");
}

#[test]
fn segments_that_zstd_has_compressed_are_served() {
    assert_served(1, "zstd", ".zst");
}
