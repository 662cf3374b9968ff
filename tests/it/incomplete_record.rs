//! A record that is not complete where the server's WAL ends, because of a damaged length or for
//! good.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tests::{Cluster, Message, Proxy, Receiver, Verdict, Version, wait_until};
use walproto::Lsn;

use crate::proxied::Proxied;

const PAGE: u64 = 8192;
/// What a flipped bit adds to a record's length: more than is going to be written.
const ADDED: u32 = 1 << 16;

/// A receiver that does not wait for long.
fn start(proxied: &Proxied, proxy: &Proxy) -> Receiver {
    let receiver = proxied.receiver(proxy).arg("--receive-timeout=2").start();
    proxied.cluster.wait_streaming("wal_receiver");
    receiver
}

/// A cluster that has little to write, at the beginning of a segment: the next page, whose header
/// would tell, is far away.
fn idle_cluster(wal_sender_timeout: &str) -> Cluster {
    let cluster = Cluster::builder(Version::V15)
        .segment_size_mib(1)
        .conf("wal_sender_timeout", wal_sender_timeout)
        .start();
    cluster.sql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
    cluster.sql("SELECT pg_switch_wal()");
    cluster
}

/// Where a record was made longer on the way, and the length it had then.
type Lengthened = Arc<Mutex<Option<(Lsn, u32)>>>;

/// A proxy that makes one record longer on its way, the first one of a message after it was armed.
fn lengthening(cluster: &Cluster, armed: &Arc<AtomicBool>) -> (Proxy, Lengthened) {
    let lengthened = Lengthened::default();
    let (armed, noted) = (Arc::clone(armed), Arc::clone(&lengthened));
    let proxy = Proxy::start(cluster, move |message| {
        // A message goes on after a record's end, or else with a page's header.
        if let Some((start, wal)) = message.wal()
            && !start.0.is_multiple_of(PAGE)
            && let Some(length) = wal.first_chunk_mut::<4>()
            && armed.swap(false, Ordering::SeqCst)
        {
            let claimed = u32::from_le_bytes(*length) ^ ADDED;
            *length = claimed.to_le_bytes();
            *noted.lock().unwrap() = Some((start, claimed));
        }
        Verdict::Forward
    });
    (proxy, lengthened)
}

/// A synchronous commit whose WAL lies behind a record that was made longer: when it returns, the
/// archive has what the primary wrote.
fn commit_behind_a_lengthened_record(wal_sender_timeout: &str) {
    let proxied = Proxied::from(idle_cluster(wal_sender_timeout));
    let cluster = &proxied.cluster;
    let armed = Arc::new(AtomicBool::new(false));
    let (proxy, lengthened) = lengthening(cluster, &armed);
    let mut receiver = start(&proxied, &proxy);
    cluster.set_synchronous_standbys("wal_receiver");
    // It is no candidate before it has received anything.
    cluster.sql("SET synchronous_commit = local; INSERT INTO t VALUES (2)");
    cluster.wait_sync_state("wal_receiver", "sync");
    armed.store(true, Ordering::SeqCst);
    cluster.commit("INSERT INTO t VALUES (3)");
    proxied.assert_same_up_to(cluster.flush_lsn());
    let (lsn, claimed) = lengthened.lock().unwrap().unwrap();
    assert!(claimed > ADDED, "{claimed}");
    let line = receiver.wait_for_log("error:");
    let words = [
        "timeline 1".to_owned(),
        format!("record at {lsn}"),
        format!("{claimed} bytes"),
    ];
    assert!(words.iter().all(|word| line.contains(word)), "{line}");
    assert_eq!(proxy.connections(), 2, "{}", receiver.log());
}

#[test]
fn a_record_made_longer_on_the_way_is_fetched_again_from_an_idle_primary() {
    commit_behind_a_lengthened_record("60s");
}

/// What a proxy lets through of a server that stops in the middle of a record.
#[derive(Debug, Default)]
struct Torn {
    /// Whether the next record is to be torn.
    armed: bool,
    /// Where the WAL ends that gets through.
    end: Option<Lsn>,
    keepalives: usize,
    /// Whether the next connection is the first without an end.
    cut: bool,
}

impl Torn {
    fn pass(&mut self, message: &mut Message) -> Verdict {
        if std::mem::take(&mut self.cut) {
            self.end = None;
            return Verdict::Cut;
        }
        if let Some((start, wal)) = message.wal() {
            let length = wal.len();
            if !start.0.is_multiple_of(PAGE) && std::mem::take(&mut self.armed) {
                self.end = Some(Lsn(start.0 + 20));
            }
            if let Some(end) = self.end {
                let Some(kept) = end.checked_sub(start).filter(|kept| *kept > 0) else {
                    return Verdict::Drop;
                };
                let kept = length.min(usize::try_from(kept).unwrap());
                message.body.truncate(message.body.len() - (length - kept));
            }
        } else if let Some(wal_end) = message.keepalive_wal_end() {
            self.keepalives += 1;
            if let Some(end) = self.end {
                wal_end.copy_from_slice(&end.0.to_be_bytes());
            }
        }
        Verdict::Forward
    }
}

#[test]
fn a_server_that_stops_inside_a_record_for_good_is_asked_once_more_and_then_waited_for() {
    let proxied = Proxied::from(idle_cluster("60s"));
    let cluster = &proxied.cluster;
    let torn = Arc::new(Mutex::new(Torn::default()));
    let passing = Arc::clone(&torn);
    let proxy = Proxy::start(cluster, move |message| {
        passing.lock().unwrap().pass(message)
    });
    let mut receiver = start(&proxied, &proxy);
    cluster.sql("INSERT INTO t VALUES (2)");
    receiver.wait_flushed(cluster, "wal_receiver", cluster.flush_lsn());
    torn.lock().unwrap().armed = true;
    cluster.sql("INSERT INTO t VALUES (3)");
    let end = cluster.flush_lsn();
    let error = receiver.wait_for_log("error:");
    let warning = receiver.wait_for_log("warning: WAL record at");
    let torn_at = torn.lock().unwrap().end.unwrap();
    for line in [error, warning] {
        let words = [
            "timeline 1",
            " bytes",
            &format!("record at {}", Lsn(torn_at.0 - 20)),
            &format!("incomplete at {torn_at}"),
        ];
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
    }
    // It meets it again and again, and says and does no more about it.
    let seen = torn.lock().unwrap().keepalives;
    wait_until("more keepalives", || {
        torn.lock().unwrap().keepalives >= seen + 3
    });
    let log = receiver.log();
    assert_eq!(log.matches("WAL record at").count(), 2, "{log}");
    assert_eq!(proxy.connections(), 2, "{log}");
    assert_eq!(receiver.exit_status(), None);
    torn.lock().unwrap().cut = true;
    proxied.assert_flushed(&mut receiver, end);
    assert_eq!(proxy.connections(), 3, "{}", receiver.log());
}

#[test]
fn a_record_made_longer_on_the_way_is_not_acknowledged_to_a_primary_that_asks() {
    // It asks every half second, and waits for an answer that says all it has sent.
    commit_behind_a_lengthened_record("1s");
}
