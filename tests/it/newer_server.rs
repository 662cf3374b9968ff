//! A server newer than any that this program was made for.

use tests::{ArchiveDirectory, Cluster, Message, Proxy, Receiver, Verdict, Version};
use walproto::{MAJORS, TimelineId};

const PAGE: usize = 8192;
/// No version of PostgreSQL has this one.
const MAGIC: [u8; 2] = 0xD1FF_u16.to_le_bytes();

/// Makes a server look like PostgreSQL 99, whose pages differ in their magic number alone. The
/// header of a page is not covered by any checksum.
fn pretend(message: &mut Message) -> Verdict {
    if message.tag == b'S' && message.body.starts_with(b"server_version\0") {
        message.body = b"server_version\x0099.1\0".to_vec();
    }
    if let Some((start, wal)) = message.wal() {
        for (index, byte) in wal.iter_mut().enumerate() {
            let offset = (usize::try_from(start.0).unwrap() + index) % PAGE;
            if let Some(part) = MAGIC.get(offset) {
                *byte = *part;
            }
        }
    }
    Verdict::Forward
}

#[test]
fn all_known_versions_are_tested() {
    let tested = [
        Version::V13,
        Version::V14,
        Version::V15,
        Version::V16,
        Version::V17,
        Version::V18,
    ];
    let known = MAJORS.iter().map(|major| major.number);
    assert!(known.eq(tested.iter().map(|version| version.number())));
}

#[test]
fn an_unknown_page_magic_of_a_newer_server_is_kept_with_one_warning() {
    let cluster = Cluster::builder(Version::V18).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let start = cluster.segment_size().start_of(cluster.flush_lsn());
    let proxy = Proxy::start(&cluster, pretend);
    let warnings = |receiver: &Receiver| receiver.log().matches("unknown WAL page magic").count();
    let run = || {
        let conninfo = proxy.conninfo();
        let receiver = Receiver::bare().arg("-D").arg(archive.path());
        // Or else the server may be in the next segment by the time of the first connection.
        let receiver = receiver.args(["--start", &start.to_string()]);
        let mut receiver = receiver.args(["-d", &conninfo]).start();
        let end = cluster.write_wal(2);
        receiver.wait_flushed(&cluster, "wal_receiver", end);
        receiver
    };
    let mut first = run();
    first.wait_for_log(
        "warning: unknown WAL page magic 0xD1FF of server version 99.1, records are checked as",
    );
    assert!(first.stop().success());
    assert_eq!(warnings(&first), 1);
    // The archive knows it now.
    let mut second = run();
    assert!(second.stop().success());
    assert_eq!(warnings(&second), 0);
    let size = cluster.segment_size();
    let file = archive.file_of(TimelineId::FIRST, start, size).unwrap();
    assert_eq!(std::fs::read(file).unwrap()[..2], MAGIC);
}

#[test]
fn an_unknown_page_magic_of_a_known_server_is_corruption() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let proxy = Proxy::start(&cluster, |message| match message.tag {
        b'S' => Verdict::Forward,
        _ => pretend(message),
    });
    let (status, log) = Receiver::bare()
        .arg("-D")
        .arg(archive.path())
        .args(["-n", "-d", &proxy.conninfo()])
        .run();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains("0xD1FF") && log.contains("page magic number"),
        "{log}"
    );
    let names = archive.files();
    let full = |name: &String| name.len() == 24;
    assert!(!names.iter().any(full), "{names:?}");
}
