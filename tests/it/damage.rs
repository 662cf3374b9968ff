//! WAL that is not as the primary wrote it, on the way or on the disk, is never acknowledged.

use std::fs::File;
use std::os::unix::fs::FileExt;

use tests::{Cluster, Load, Message, Proxy, Receiver, Verdict, Version, wait_until};
use walproto::{Lsn, TimelineId};

use crate::for_each_version;
use crate::proxied::{Proxied, through};
use crate::refused::{archive_of, assert_ends_without_change};

/// A position some way into what the primary is about to write.
fn ahead(cluster: &Cluster) -> Lsn {
    Lsn(cluster.flush_lsn().0 + 300_000)
}

/// Streams past one trouble on the way, after which all there is has to be archived and the
/// connection to have been made anew; gives the receiver's log.
fn fetched_again(
    version: Version,
    options: &[&str],
    trouble: impl FnMut(&mut Message, Lsn) -> Verdict + Send + 'static,
) -> String {
    let proxied = Proxied::new(version);
    let bad = ahead(&proxied.cluster);
    let mut trouble = trouble;
    let proxy = proxied.trouble_once(bad, move |message| trouble(message, bad));
    let mut receiver = proxied.receiver(&proxy).args(options).start();
    proxied.cluster.wait_streaming("wal_receiver");
    let end = proxied.cluster.write_wal(3);
    proxied.assert_flushed(&mut receiver, end);
    assert_eq!(proxy.connections(), 2, "{}", receiver.log());
    receiver.log()
}

for_each_version!(a_flipped_bit_is_found_and_fetched_again);

fn a_flipped_bit_is_found_and_fetched_again(version: Version) {
    let log = fetched_again(version, &[], |message, bad| {
        *message.wal_byte(bad).unwrap() ^= 0x10;
        Verdict::Forward
    });
    assert!(log.contains("timeline 1") && log.contains("at 0/"), "{log}");
}

#[test]
fn a_hole_in_the_stream_is_found_and_fetched_again() {
    let log = fetched_again(Version::V15, &[], |_, _| Verdict::Drop);
    assert!(log.contains("timeline 1 jumps"), "{log}");
}

#[test]
fn a_connection_that_is_cut_is_made_again() {
    fetched_again(Version::V15, &[], |_, _| Verdict::Cut);
}

#[test]
fn a_server_that_falls_silent_is_given_up() {
    let log = fetched_again(Version::V15, &["--receive-timeout=2"], |_, _| {
        Verdict::Stall
    });
    assert!(log.contains("nothing was heard from the server"), "{log}");
}

#[test]
fn a_bit_that_is_flipped_each_time_is_never_acknowledged() {
    let proxied = Proxied::new(Version::V15);
    let cluster = &proxied.cluster;
    let bad = ahead(cluster);
    let proxy = Proxy::start(cluster, move |message| {
        if let Some(byte) = message.wal_byte(bad) {
            *byte ^= 1;
        }
        Verdict::Forward
    });
    let mut receiver = proxied.streaming(&proxy);
    cluster.write_wal(1);
    receiver.wait_for_log("3 times in a row");
    assert!(receiver.stop().success(), "{}", receiver.log());
    let log = receiver.log();
    let name = tests::segment_name(TimelineId::FIRST, bad, cluster.segment_size());
    let words = ["timeline 1", &name, "offset", "expected"];
    let says_all = |line: &str| words.iter().all(|word| line.contains(word));
    assert!(
        log.lines().any(says_all),
        "no line with {words:?} in:\n{log}"
    );
    // The good part is kept, and what follows comes without the proxy.
    let mut receiver = Receiver::of(cluster, proxied.archive.path()).start();
    let end = cluster.write_wal(1);
    proxied.assert_flushed(&mut receiver, end);
}

#[test]
fn a_synchronous_commit_waits_out_the_damage() {
    let proxied = Proxied::new(Version::V15);
    let cluster = &proxied.cluster;
    let bad = Lsn(ahead(cluster).0 + 500_000);
    let proxy = proxied.trouble_once(bad, move |message| {
        *message.wal_byte(bad).unwrap() ^= 0x80;
        Verdict::Forward
    });
    let mut receiver = proxied.streaming(&proxy);
    cluster.set_synchronous_standbys("wal_receiver");
    let load = Load::start(cluster, 2, "on");
    wait_until("the damage to be met", || cluster.flush_lsn() > bad);
    load.wait_for_commits(50);
    load.finish();
    proxied.assert_flushed(&mut receiver, cluster.flush_lsn());
}

#[test]
fn damage_in_what_is_sent_again_stops_the_stream() {
    let cluster = Cluster::start_new(Version::V15);
    let archive = archive_of(&cluster);
    let end = cluster.flush_lsn();
    // Whatever of the archive's own WAL is sent again comes with one byte changed.
    let proxy = Proxy::start(&cluster, move |message| {
        if let Some((start, wal)) = message.wal()
            && start < end
        {
            let last = wal.len().min(usize::try_from(end.0 - start.0).unwrap());
            wal[last - 9] ^= 1;
        }
        Verdict::Forward
    });
    let receiver = through(&proxy, &archive).arg("--no-loop");
    assert_ends_without_change(receiver, &archive, &["timeline 1", "offset", "expected"]);
    let mut receiver = Receiver::of(&cluster, archive.path()).start();
    let end = cluster.write_wal(1);
    receiver.wait_flushed(&cluster, "wal_receiver", end);
}

#[test]
fn other_valid_wal_where_the_archive_has_its_own_stops_the_stream() {
    let mut cluster = Cluster::start_new(Version::V15);
    cluster.stop();
    let mut twin = cluster.snapshot();
    cluster.start();
    let archive = archive_of(&cluster);
    cluster.stop();
    // The same cluster and timeline, with WAL of its own, and more of it.
    twin.start();
    twin.sql("CREATE TABLE of_the_twin (i int)");
    twin.write_wal(4);
    let receiver = Receiver::of(&twin, archive.path());
    let words = [
        "at 0/",
        "timeline 1",
        ".partial",
        "offset",
        "expected",
        "found",
        "connect to the right server",
    ];
    assert_ends_without_change(receiver, &archive, &words);
}

#[test]
fn damage_in_what_was_acknowledged_stops_the_next_start() {
    let cluster = Cluster::start_new(Version::V15);
    let archive = archive_of(&cluster);
    let size = cluster.segment_size();
    let end = cluster.flush_lsn();
    let bad = Lsn(end.0 - 200_000);
    assert_eq!(size.segment_of(bad), size.segment_of(end));
    let path = archive.file_of(TimelineId::FIRST, bad, size).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, size.offset_of(bad)).unwrap();
    file.write_all_at(&[byte[0] ^ 4], size.offset_of(bad))
        .unwrap();
    let receiver = Receiver::of(&cluster, archive.path());
    let name = path.to_str().unwrap();
    assert_ends_without_change(receiver, &archive, &[name, "timeline 1", "offset"]);
}
