//! WAL that nobody needs is removed beside whoever fills and serves the archive.

use std::fs;
use std::path::Path;

use tests::{
    ArchiveDirectory, Cluster, EmbeddedServer, GeneratedArchive, Receiver, Signal, Version,
    segment_name, wait_until,
};
use walproto::{Lsn, SegmentSize, TimelineId};
use walsender::StandbyState;

use crate::for_each_version;
use crate::serve_standbys::{archived, wait_state};
use crate::serve_stop::wal_in;

for_each_version!(a_slot_that_lost_its_wal_is_read_as_on_postgresql);

/// Runs `wal-receiver prune` with more arguments, which has to succeed, and gives what it says.
#[track_caller]
fn prune(archive: &Path, arguments: &[&str]) -> String {
    let program = Receiver::bare().arg("prune").arg("-D").arg(archive);
    let (status, said) = program.args(arguments).run();
    assert!(status.success(), "{said}");
    said
}

/// What a replication command is answered, and whether it is.
fn psql(conninfo: &str, command: &str) -> (bool, String) {
    let (status, said) = Receiver::psql(Version::V15, conninfo, command).run();
    (status.success(), said)
}

/// The name of the segment with the byte at `lsn`, in archives with segments of 1 MiB.
fn name_of(lsn: Lsn) -> String {
    let size = SegmentSize::new(1 << 20).unwrap();
    segment_name(TimelineId::FIRST, lsn, size)
}

/// The names of the complete segments in a directory.
fn complete(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.len() == 24)
        .collect();
    names.sort();
    names
}

#[test]
fn a_dry_run_prints_what_pg_archivecleanup_does_and_removes_nothing() {
    let archive = GeneratedArchive::new(5 << 20, 150_018);
    let before = complete(archive.path());
    for keep in [&before[0], &before[2], &format!("{}.partial", before[3])] {
        let (status, theirs) = Receiver::pg_archivecleanup(Version::V15)
            .arg("-n")
            .arg(archive.path())
            .arg(keep)
            .run();
        assert!(status.success(), "{theirs}");
        let mut theirs: Vec<&str> = theirs.lines().collect();
        theirs.sort_unstable();
        let ours = prune(archive.path(), &["-n", keep]);
        assert_eq!(ours.lines().collect::<Vec<_>>(), theirs, "{keep}");
    }
    assert_eq!(complete(archive.path()), before);
}

#[test]
fn what_a_slot_of_a_running_server_needs_stays() {
    let mut archive = GeneratedArchive::new(2 << 20, 150_018);
    let server = EmbeddedServer::start(EmbeddedServer::config(), archive.path());
    let reserved = archive.end();
    let create = "CREATE_REPLICATION_SLOT kept PHYSICAL RESERVE_WAL";
    assert!(psql(&server.conninfo(), create).0);
    archive.write(5 << 20);
    let newest = name_of(archive.end());
    let said = prune(archive.path(), &[&newest]);
    let first = archive.path().join(name_of(GeneratedArchive::START));
    assert!(said.contains(&format!("removed file \"{}\"", first.display())));
    assert!(said.contains("for replication slot \"kept\""), "{said}");
    assert_eq!(complete(archive.path())[0], name_of(reserved));
    assert!(psql(&server.conninfo(), "DROP_REPLICATION_SLOT kept").0);
    // Of the end the last complete segment stays.
    let last = complete(archive.path()).pop().unwrap();
    let said = prune(archive.path(), &[&newest]);
    assert!(!said.contains("for replication slot"), "{said}");
    assert_eq!(complete(archive.path()), [last]);
}

#[test]
fn a_stream_goes_on_while_segments_are_removed() {
    let mut archive = GeneratedArchive::new(300_000, 150_018);
    let server = EmbeddedServer::start(EmbeddedServer::config(), archive.path());
    let create = "CREATE_REPLICATION_SLOT s PHYSICAL RESERVE_WAL";
    assert!(psql(&server.conninfo(), create).0);
    let copy = ArchiveDirectory::new();
    let mut receivewal = Receiver::pg_receivewal(Version::V15, &server.conninfo(), copy.path())
        .args(["--synchronous", "--no-loop", "-S", "s"])
        .start();
    wait_state(&server, "pg_receivewal", StandbyState::Streaming);
    for round in 0..12 {
        // For a while it takes nothing, and falls behind by more than sockets hold.
        match round {
            3 => receivewal.signal(Signal::STOP),
            9 => receivewal.signal(Signal::CONT),
            _ => {}
        }
        archive.write(3 << 20);
        prune(archive.path(), &[&name_of(archive.end())]);
    }
    server.wait_flushed("pg_receivewal", archive.end());
    // Where it stands is saved now and then, and by then it needs no more.
    wait_until("what was streamed to be removed", || {
        prune(archive.path(), &[&name_of(archive.end())]);
        complete(archive.path()).len() == 1
    });
    assert!(receivewal.stop().success(), "{}", receivewal.log());
    let wal = wal_in(copy.path());
    assert!(wal[..archive.wal().len()] == *archive.wal());
}

fn a_slot_that_lost_its_wal_is_read_as_on_postgresql(version: Version) {
    let create = "CREATE_REPLICATION_SLOT s PHYSICAL RESERVE_WAL";
    let read = "READ_REPLICATION_SLOT s";
    let (cluster, archive, mut receiver) = archived(version);
    cluster.reload_with("wal_keep_size", "0");
    cluster.reload_with("max_slot_wal_keep_size", "1MB");
    let server = EmbeddedServer::start(EmbeddedServer::config(), archive.path());
    let both = [cluster.conninfo(), server.conninfo()];
    for conninfo in &both {
        let (created, said) = psql(conninfo, create);
        assert!(created, "{said}");
    }
    let end = cluster.write_wal(6);
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    wait_until("the server's slot to be lost", || {
        cluster.sql("CHECKPOINT");
        status_of_slot(&cluster).as_deref() == Some("lost")
    });
    let keep = name_of(end);
    let said = prune(archive.path(), &["--max-slot-keep-size=1MB", &keep]);
    assert!(said.contains("removed file"), "{said}");
    let [theirs, ours] = both.map(|conninfo| psql(&conninfo, read));
    // Before 15 there is no such command.
    assert_eq!((theirs.0, ours.0), (version >= Version::V15, theirs.0));
    if theirs.0 {
        assert_eq!(ours, theirs);
        assert_eq!(ours.1, "physical||\n");
    }
    // It cannot be used any more.
    let copy = ArchiveDirectory::new();
    let client = if version > Version::V15 {
        Version::V18
    } else {
        Version::V15
    };
    let (status, said) = Receiver::pg_receivewal(client, &server.conninfo(), copy.path())
        .args(["--no-loop", "-S", "s"])
        .run();
    assert!(!status.success());
    assert!(said.contains("\"s\""), "{said}");
    assert_eq!(complete(copy.path()), Vec::<String>::new());
}

fn status_of_slot(cluster: &Cluster) -> Option<String> {
    cluster.text("SELECT wal_status FROM pg_replication_slots WHERE slot_name = 's'")
}
