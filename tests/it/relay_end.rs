//! A relay whose receiving ends by an error: this is made known at once, and no client can delay
//! the end of the process.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::{ArchiveDirectory, Cluster, Link, Receiver, Relay, Signal, Version, wait_until};

/// A relay, and a client of it that confirms nothing and asked never to be taken for dead. The
/// relay's upstream can be replaced by another cluster, which ends receiving.
struct Ending {
    primary: Cluster,
    _directory: tempfile::TempDir,
    noted: std::path::PathBuf,
    archive: ArchiveDirectory,
    relay: Relay,
    client: Link,
}

impl Ending {
    fn new() -> Self {
        let primary = Cluster::builder(Version::V15).segment_size_mib(1).start();
        let directory = tempfile::tempdir().unwrap();
        let noted = directory.path().join("noted");
        let server = directory.path().join("server");
        symlink(primary.socket_directory(), &server).unwrap();
        let (host, port) = (server.display(), primary.port());
        let conninfo = format!("host={host} port={port} user=postgres");
        let archive = ArchiveDirectory::new();
        let start = primary.segment_size().start_of(primary.flush_lsn());
        let command = format!(
            "echo \"$WAL_RECEIVER_EVENT $WAL_RECEIVER_MESSAGE\" >> '{}'",
            noted.display()
        );
        let options = ["--start", &start.to_string(), "--on-event", &command];
        let mut relay = Relay::start(&conninfo, archive.path(), &options);
        let end = primary.write_wal(2);
        relay.wait_flushed(&primary, end);
        let endless = format!("{} options='-c wal_sender_timeout=0'", relay.conninfo());
        let mut client = Link::new(&endless, Path::new("/")).unwrap();
        client.begin_stream(start);
        drop(client.receive(1));
        Self {
            primary,
            _directory: directory,
            noted,
            archive,
            relay,
            client,
        }
    }

    /// Ends receiving, and waits until the log says so.
    fn end_receiving(&mut self) {
        let other = Cluster::builder(Version::V15).own_identity().start();
        let server = self._directory.path().join("server");
        fs::remove_file(&server).unwrap();
        symlink(other.socket_directory(), &server).unwrap();
        self.primary.stop();
        self.relay.wait_for_log("wal-receiver: error: ");
        let limit = "clients have 10 seconds to receive the durable WAL";
        self.relay.wait_for_log(limit);
    }
}

#[test]
fn a_relay_makes_the_end_of_receiving_known_at_once_and_ends_soon_whatever_a_client_does() {
    let mut ending = Ending::new();
    ending.end_receiving();
    let known = Instant::now();
    wait_until("a note of the event", || ending.noted.exists());
    let shown = Receiver::bare()
        .args(["status", "--json", "-D"])
        .arg(ending.archive.path());
    let (_, said) = shown.run();
    let document: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    let receiver = &document["receiver"];
    assert_eq!(receiver["state"], "ended", "{said}");
    let reason = receiver["last_error"].as_str().unwrap();
    let log = ending.relay.log();
    assert!(log.contains(&format!("error: {reason}\n")), "{log}");
    assert_eq!(document["server"]["standbys"][0]["state"], "stopping");
    let noted = fs::read_to_string(&ending.noted).unwrap();
    assert!(noted.contains(reason), "{noted}");
    let status = ending.relay.wait_exit();
    assert_eq!(status.code(), Some(1), "{}", ending.relay.log());
    let took = known.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
    let log = ending.relay.log();
    assert!(
        log.contains("clients that have not confirmed all WAL in time: 1"),
        "{log}"
    );
    assert_eq!(log.matches(reason).count(), 1, "{log}");
    drop(ending.client);
}

#[test]
fn the_first_signal_ends_a_relay_at_once_whose_receiving_has_ended() {
    let mut ending = Ending::new();
    ending.end_receiving();
    ending.relay.signal(Signal::TERM);
    let status = ending.relay.wait_exit();
    let log = ending.relay.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(!log.contains("have not confirmed all WAL"), "{log}");
}
