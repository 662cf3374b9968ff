//! How the server stops: everybody gets all there is first, however far behind, and nobody holds it
//! up for ever.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use tests::{
    ArchiveDirectory, EmbeddedServer, GeneratedArchive, Link, Receiver, Serving, Signal, Version,
};
use walproto::{Lsn, TimelineId};
use walsender::StandbyState;

use crate::serve_standbys::{archived, follower, wait_state};

/// More than the buffers of two sockets hold: a client that takes nothing is behind by then.
const MORE_THAN_SOCKETS_HOLD: usize = 32 << 20;

#[test]
fn a_stop_waits_until_a_client_that_has_all_has_confirmed_it() {
    let (cluster, archive, mut receiver) = archived(Version::V15);
    let mut server = EmbeddedServer::start(EmbeddedServer::config(), archive.path());
    let copy = ArchiveDirectory::new();
    let client = follower(&server.conninfo(), "client", &copy);
    wait_state(&server, "client", StandbyState::Streaming);
    server.wait_flushed("client", cluster.flush_lsn());
    client.signal(Signal::STOP);
    let end = cluster.write_wal(1);
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    assert!(receiver.stop().success(), "{}", receiver.log());
    server.stop_without_waiting();
    wait_state(&server, "client", StandbyState::Stopping);
    assert!(!server.has_stopped());
    client.signal(Signal::CONT);
    server.stop();
    let start = cluster.segment_size().start_of(Lsn(end.0 - 1));
    copy.assert_same_wal(&cluster, TimelineId::FIRST, start, end);
}

/// The WAL in the segments of a directory, one after the other.
pub(crate) fn wal_in(directory: &Path) -> Vec<u8> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_stem().is_some_and(|stem| stem.len() == 24))
        .collect();
    files.sort();
    files
        .iter()
        .flat_map(|path| fs::read(path).unwrap())
        .collect()
}

#[test]
fn a_stop_sends_all_to_a_pg_receivewal_that_has_fallen_behind() {
    let mut archive = GeneratedArchive::new(300_000, 150_018);
    let mut server = EmbeddedServer::start(EmbeddedServer::config(), archive.path());
    let copy = ArchiveDirectory::new();
    let mut receivewal = Receiver::pg_receivewal(Version::V15, &server.conninfo(), copy.path())
        .args(["--synchronous", "--no-loop"])
        .start();
    wait_state(&server, "pg_receivewal", StandbyState::Streaming);
    receivewal.signal(Signal::STOP);
    archive.write(MORE_THAN_SOCKETS_HOLD);
    server.stop_without_waiting();
    wait_state(&server, "pg_receivewal", StandbyState::Stopping);
    assert!(!server.has_stopped());
    receivewal.signal(Signal::CONT);
    server.stop();
    receivewal.wait_exit();
    let wal = wal_in(copy.path());
    assert!(wal[..archive.wal().len()] == *archive.wal());
}

#[test]
fn a_stop_sends_all_to_a_client_that_is_still_catching_up() {
    let archive = GeneratedArchive::new(MORE_THAN_SOCKETS_HOLD, 150_018);
    let mut server = EmbeddedServer::start(EmbeddedServer::config(), archive.path());
    let mut link = Link::new(&server.conninfo(), Path::new("/")).unwrap();
    link.begin_stream(GeneratedArchive::START);
    wait_state(&server, "link", StandbyState::Catchup);
    server.stop_without_waiting();
    wait_state(&server, "link", StandbyState::Stopping);
    assert!(link.receive(archive.wal().len()) == archive.wal());
    drop(link);
    server.stop();
}

#[test]
fn a_client_that_takes_nothing_does_not_hold_up_a_stop_for_ever() {
    let archive = GeneratedArchive::new(MORE_THAN_SOCKETS_HOLD, 150_018);
    let mut config = EmbeddedServer::config();
    config.limits.wal_sender_timeout = Some(Duration::from_secs(4));
    let mut server = EmbeddedServer::start(config, archive.path());
    let mut link = Link::new(&server.conninfo(), Path::new("/")).unwrap();
    link.begin_stream(GeneratedArchive::START);
    wait_state(&server, "link", StandbyState::Catchup);
    server.stop_without_waiting();
    wait_state(&server, "link", StandbyState::Stopping);
    server.stop();
}

#[test]
fn a_connection_that_says_nothing_does_not_hold_up_a_stop() {
    let archive = GeneratedArchive::new(300_000, 150_018);
    let mut config = EmbeddedServer::config();
    config.limits.authentication_timeout = Duration::from_secs(3600);
    let server = EmbeddedServer::start(config, archive.path());
    let _silent = TcpStream::connect(server.tcp_address()).unwrap();
    // Who comes later is welcomed later.
    let mut witness = Link::new(&server.conninfo(), Path::new("/")).unwrap();
    assert_eq!(witness.show("wal_segment_size"), "1MB");
    server.stop();
}

#[test]
fn a_second_signal_ends_the_program_though_a_client_is_waited_for() {
    let archive = GeneratedArchive::new(MORE_THAN_SOCKETS_HOLD, 150_018);
    let mut serving = Serving::start(archive.path());
    let mut link = Link::new(&serving.conninfo(), Path::new("/")).unwrap();
    link.begin_stream(GeneratedArchive::START);
    // It has got something, and takes no more.
    drop(link.receive(1));
    serving.signal(Signal::TERM);
    serving.wait_for_log("received interrupt signal, stopping");
    assert_eq!(serving.exit_status(), None);
    serving.signal(Signal::TERM);
    assert_eq!(serving.wait_exit().code(), Some(128 + 15));
}
