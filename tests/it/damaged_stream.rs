//! What a server, or whatever lies on the way, may do to the stream beyond one flipped bit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tests::{Cluster, Proxy, Receiver, Verdict, Version};
use walproto::{Lsn, TimelineId};

use crate::proxied::Proxied;

const PAGE: u64 = 8192;

/// The start of a page some way into what the primary is about to write.
fn page_ahead(cluster: &Cluster) -> Lsn {
    Lsn((cluster.flush_lsn().0 + 40 * PAGE).next_multiple_of(PAGE))
}

#[test]
fn page_headers_that_are_damaged_on_the_way_are_fetched_again() {
    let proxied = Proxied::new(Version::V15);
    let cluster = &proxied.cluster;
    let first = page_ahead(cluster);
    // Magic number, flags, timeline, address, remaining length, padding.
    let bytes = [0, 3, 4, 8, 16, 20];
    let pages: Vec<Lsn> = (0..6).map(|n| Lsn(first.0 + n * 5 * PAGE)).collect();
    let mut to_flip: Vec<Lsn> = pages
        .iter()
        .zip(bytes)
        .map(|(page, at)| Lsn(page.0 + at))
        .collect();
    let proxy = Proxy::start(cluster, move |message| {
        // One at a time: each is found only when those before it were sent again.
        if let Some(&next) = to_flip.first()
            && let Some(byte) = message.wal_byte(next)
        {
            *byte ^= 1;
            to_flip.remove(0);
        }
        Verdict::Forward
    });
    let mut receiver = proxied.streaming(&proxy);
    let end = cluster.write_wal(1);
    receiver.wait_flushed(cluster, "wal_receiver", end);
    let log = receiver.log();
    let size = cluster.segment_size();
    for page in pages {
        let name = tests::segment_name(TimelineId::FIRST, page, size);
        let words = [
            &format!("invalid WAL at {page} on timeline 1"),
            &format!("\"{name}.partial\", offset {}", size.offset_of(page)),
            "found",
            "sent again",
        ];
        let says_all = |line: &str| words.iter().all(|word| line.contains(*word));
        assert!(log.lines().any(says_all), "{words:?}\n{log}");
    }
    proxied.assert_same_up_to(end);
}

#[test]
fn a_page_that_is_damaged_each_time_is_named_and_received_once_it_is_mended() {
    let proxied = Proxied::new(Version::V15);
    let cluster = &proxied.cluster;
    let page = page_ahead(cluster);
    let mended = Arc::new(AtomicBool::new(false));
    let is_mended = Arc::clone(&mended);
    let proxy = Proxy::start(cluster, move |message| {
        if let Some(byte) = message.wal_byte(Lsn(page.0 + 8))
            && !is_mended.load(Ordering::SeqCst)
        {
            *byte ^= 1;
        }
        Verdict::Forward
    });
    let mut receiver = proxied.streaming(&proxy);
    cluster.write_wal(1);
    let line = receiver.wait_for_log("3 times in a row");
    let found = Lsn(page.0 ^ 1);
    let words = [
        "pg_waldump",
        "timeline 1",
        &format!("invalid WAL at {page}"),
        &format!("expected {page}, found {found}"),
        ".partial\", offset ",
        "is kept",
    ];
    assert!(words.iter().all(|word| line.contains(word)), "{line}");
    // What precedes the page, but for a record that goes on there, is kept.
    let (_, kept) = line.split_once("up to ").unwrap();
    let kept: Lsn = kept.split_once(',').unwrap().0.parse().unwrap();
    assert!(kept <= page && kept.0 > page.0 - 2 * PAGE, "{kept} {page}");
    proxied.assert_same_up_to(kept);
    let told = cluster.reported_flush("wal_receiver");
    assert!(told.is_none_or(|told| told <= kept), "{told:?} {kept}");
    // The receiver resumes once the server's WAL is good.
    mended.store(true, Ordering::SeqCst);
    let end = cluster.write_wal(1);
    proxied.assert_flushed(&mut receiver, end);
}

#[test]
fn a_hole_that_is_there_each_time_is_never_skipped() {
    let proxied = Proxied::new(Version::V15);
    let cluster = &proxied.cluster;
    let missing = page_ahead(cluster);
    let proxy = Proxy::start(cluster, move |message| {
        match message.wal_byte(missing).is_some() {
            true => Verdict::Drop,
            false => Verdict::Forward,
        }
    });
    let mut receiver = proxied.receiver(&proxy).arg("--no-loop").start();
    cluster.wait_streaming("wal_receiver");
    cluster.write_wal(2);
    assert_eq!(receiver.wait_exit().code(), Some(1));
    let log = receiver.log();
    let says = |line: &str| {
        line.contains("timeline 1")
            && line.contains("expected WAL at 0/")
            && line.contains("received WAL at 0/")
    };
    assert!(log.lines().any(says), "{log}");
    // It goes on where the hole begins, not behind it.
    let mut receiver = Receiver::of(cluster, proxied.archive.path()).start();
    let end = cluster.write_wal(1);
    proxied.assert_flushed(&mut receiver, end);
}

#[test]
fn a_message_of_no_protocol_is_an_error_and_not_the_end() {
    let proxied = Proxied::new(Version::V15);
    let cluster = &proxied.cluster;
    let lsn = page_ahead(cluster);
    let proxy = proxied.trouble_once(lsn, |message| {
        message.tag = b'!';
        Verdict::Forward
    });
    let mut receiver = proxied.streaming(&proxy);
    let end = cluster.write_wal(1);
    let line = receiver.wait_for_log("error:");
    assert!(line.contains('!'), "{line}");
    proxied.assert_flushed(&mut receiver, end);
}
