//! What is seen by who starts the program by hand.

use tests::{ArchiveDirectory, Cluster, Receiver, Version, wait_until};

#[test]
fn a_terminal_has_a_line_with_position_rate_and_lag() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(&cluster, archive.path())
        .arg("-v")
        .on_terminal()
        .start();
    let end = cluster.write_wal(2);
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    // Whatever comes after it is received too, and told in the next line.
    let durable = |log: &str| -> Option<walproto::Lsn> {
        let (_, line) = log.rsplit_once("\x1b[?7ltimeline 1  durable ")?;
        let (lsn, rest) = line.split_once("  ")?;
        let (rate, lag) = rest.split_once("/s  lag ")?;
        let number = |text: &str| text.split(' ').next()?.parse::<f64>().ok();
        number(rate).and(number(lag))?;
        lsn.parse().ok()
    };
    wait_until("a line with the end of WAL", || {
        durable(&receiver.log()).is_some_and(|lsn| lsn >= end)
    });
    assert!(receiver.stop().success(), "{}", receiver.log());
    // Messages are lines of their own, and the line is gone in the end.
    wait_until("the line to be erased", || {
        receiver.log().ends_with("\x1b[?7h\r\x1b[K")
    });
    let message = "\r\x1b[Kwal-receiver: received interrupt signal, exiting\r\n";
    assert!(receiver.log().contains(message), "{:?}", receiver.log());
}

#[test]
fn no_line_is_kept_where_messages_are_json() {
    let cluster = Cluster::start_new(Version::V15);
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(&cluster, archive.path())
        .args(["-v", "--log-format", "json"])
        .on_terminal()
        .start();
    receiver.wait_flushed(&cluster, "wal_receiver", cluster.flush_lsn());
    receiver.wait_for_log("streaming_started");
    assert!(receiver.stop().success(), "{}", receiver.log());
    wait_until("the last message", || {
        receiver.log().contains("stop_requested")
    });
    assert!(!receiver.log().contains('\x1b'), "{:?}", receiver.log());
}
