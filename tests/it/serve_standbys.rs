//! Standbys and receivers behind our server: promotions, slots, and what a policy makes
//! of their reports.

use tests::{
    ArchiveDirectory, Cluster, EmbeddedServer, Link, Receiver, Serving, Signal, Version, wait_until,
};
use walproto::result::TimelineEnd;
use walproto::{Lsn, TimelineId};
use walsender::StandbyState;

use crate::for_each_version;
use crate::hosts::either;

for_each_version!(a_promotion_upstream_is_followed_behind_the_server);

fn second() -> TimelineId {
    TimelineId::new(2).unwrap()
}

#[track_caller]
pub(crate) fn wait_rows(standby: &Cluster, expected: &str) {
    wait_until(&format!("{expected} rows on the standby"), || {
        standby.text("SELECT count(*)::text FROM t").as_deref() == Some(expected)
    });
}

/// A standby and `pg_receivewal` behind the server of an archive go over to a new timeline with
/// it, each on one connection.
fn a_promotion_upstream_is_followed_behind_the_server(version: Version) {
    let mut primary = Cluster::builder(version).segment_size_mib(1).start();
    primary.sql("CREATE TABLE t (i int)");
    let promoted = primary.standby("second");
    let archive = ArchiveDirectory::new();
    let _receiver = Receiver::bare()
        .arg("-D")
        .arg(archive.path())
        .args(["-d", &either(&primary, &promoted)])
        .start();
    primary.wait_streaming("wal_receiver");
    let backup = primary.base_backup();
    let server = EmbeddedServer::start(EmbeddedServer::config(), archive.path());
    let mut behind = backup.unpack(
        "standby.signal",
        &format!(
            "primary_conninfo = '{} application_name=behind'\n",
            server.conninfo()
        ),
    );
    behind.start();
    let copy = ArchiveDirectory::new();
    // One that is older than the server refuses it.
    let client = if version > Version::V15 {
        Version::V18
    } else {
        Version::V15
    };
    let mut receivewal = Receiver::pg_receivewal(client, &server.conninfo(), copy.path())
        .arg("--synchronous")
        .start();
    wait_until("pg_receivewal to be streamed to", || {
        let standby = server.standby("pg_receivewal");
        standby.is_some_and(|standby| standby.sent.is_some())
    });
    let connected = server.standby("pg_receivewal").unwrap().process_id;
    primary.sql("INSERT INTO t VALUES (1)");
    wait_rows(&behind, "1");
    primary.stop();
    promoted.promote();
    promoted.wait_streaming("wal_receiver");
    promoted.sql("INSERT INTO t VALUES (2)");
    wait_rows(&behind, "2");
    let end = promoted.write_wal(2);
    server.wait_flushed("pg_receivewal", end);
    let standby = server.standby("pg_receivewal").unwrap();
    assert_eq!(
        (standby.process_id, standby.timeline),
        (connected, Some(second()))
    );
    assert!(receivewal.stop().success(), "{}", receivewal.log());
    let history = std::fs::read(copy.path().join("00000002.history")).unwrap();
    let theirs = promoted.data_directory().join("pg_wal/00000002.history");
    assert_eq!(history, std::fs::read(theirs).unwrap());
    let switch_point = String::from_utf8(history).unwrap();
    let switch_point: Lsn = switch_point
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let start = promoted.segment_size().start_of(switch_point);
    copy.assert_same_wal(&promoted, second(), start, end);
    assert_timelines_are_served(&server, start, switch_point);
}

/// What is answered to one who starts at, after, and before the end of the first timeline.
fn assert_timelines_are_served(server: &EmbeddedServer, start: Lsn, switch_point: Lsn) {
    let mut link = Link::new(&server.conninfo(), std::path::Path::new("/")).unwrap();
    let at_once = link.end_of_stream(&format!("START_REPLICATION {switch_point} TIMELINE 1"));
    let end = TimelineEnd {
        next_timeline: second(),
        switch_point,
    };
    assert_eq!(TimelineEnd::decode(&at_once), Ok(end));
    let after = Lsn(switch_point.0 + 8);
    let refused = link.refused_stream(&format!("START_REPLICATION {after} TIMELINE 1"));
    assert_eq!(refused.sqlstate.as_str(), "XX000");
    assert!(
        refused.message.contains("is not in this server's history"),
        "{refused}"
    );
    // The new timeline's first segment begins with what the old one had.
    let length = usize::try_from(switch_point.0 - start.0).unwrap();
    let of = |timeline: u32| {
        let command = format!("START_REPLICATION {start} TIMELINE {timeline}");
        let mut link = Link::new(&server.conninfo(), std::path::Path::new("/")).unwrap();
        link.stream_command(&command, length)
    };
    assert!(of(2) == of(1));
}

/// A primary, an archive of its WAL, and whoever fills that.
pub(crate) fn archived(version: Version) -> (Cluster, ArchiveDirectory, Receiver) {
    let cluster = Cluster::builder(version).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let receiver = Receiver::of(&cluster, archive.path()).start();
    cluster.wait_streaming("wal_receiver");
    (cluster, archive, receiver)
}

/// Our receiver behind a server, under a name.
pub(crate) fn follower(conninfo: &str, name: &str, archive: &ArchiveDirectory) -> Receiver {
    Receiver::bare()
        .arg("-D")
        .arg(archive.path())
        .args(["-d", &format!("{conninfo} application_name={name}")])
        .start()
}

#[track_caller]
pub(crate) fn wait_state(server: &EmbeddedServer, name: &str, state: StandbyState) {
    wait_until(&format!("{name} to be {}", state.name()), || {
        let standby = server.standby(name);
        standby.is_some_and(|standby| standby.state == state)
    });
}

/// What the policy has, as a flushed position.
fn met(server: &EmbeddedServer) -> Option<Lsn> {
    let confirmed = *server.handle().confirmed().borrow();
    confirmed?.progress?.flush
}

#[test]
fn any_one_of_two_is_enough_and_none_is_not() {
    let (cluster, archive, mut receiver) = archived(Version::V15);
    let mut config = EmbeddedServer::config();
    config.policy = Some("ANY 1 (s1, s2)".parse().unwrap());
    let server = EmbeddedServer::start(config, archive.path());
    wait_until("the policy to be unmet", || {
        server.handle().confirmed().borrow().is_some()
    });
    assert_eq!(met(&server), None);
    let copies = [ArchiveDirectory::new(), ArchiveDirectory::new()];
    let clients = [("s1", &copies[0]), ("s2", &copies[1])]
        .map(|(name, copy)| follower(&server.conninfo(), name, copy));
    for name in ["s1", "s2"] {
        wait_state(&server, name, StandbyState::Streaming);
        assert_eq!(server.standby(name).unwrap().sync_priority, 1);
    }
    let mut write = |wanted: &str| {
        cluster.sql(&format!("CREATE TABLE {wanted} (i int)"));
        let end = cluster.flush_lsn();
        receiver.wait_flushed(&cluster, "wal_receiver", end);
        end
    };
    let end = write("with_both");
    wait_until("one of both", || met(&server) >= Some(end));
    clients[0].signal(Signal::STOP);
    let end = write("with_one");
    wait_until("the other one", || met(&server) >= Some(end));
    clients[1].signal(Signal::STOP);
    let end = write("with_none");
    // Both have been sent it by now, and neither can have said that it has it.
    wait_until("both to be sent it", || {
        ["s1", "s2"]
            .iter()
            .all(|name| server.standby(name).and_then(|standby| standby.sent) >= Some(end))
    });
    assert!(met(&server).is_some_and(|flushed| flushed < end));
    clients[0].signal(Signal::CONT);
    wait_until("the one that goes on", || met(&server) >= Some(end));
}

/// The position in the answer to READ_REPLICATION_SLOT.
fn restart_of(slot: &str) -> Lsn {
    slot.split('|').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_slot_survives_sigkill_and_keeps_its_place() {
    let (cluster, archive, mut receiver) = archived(Version::V15);
    let mut serving = Serving::start(archive.path());
    let psql = |serving: &Serving, command: &str| {
        let (status, said) = Receiver::psql(Version::V15, &serving.conninfo(), command).run();
        assert!(status.success(), "{said}");
        said
    };
    let reserved = cluster.flush_lsn();
    receiver.wait_flushed(&cluster, "wal_receiver", reserved);
    psql(
        &serving,
        "CREATE_REPLICATION_SLOT kept PHYSICAL (RESERVE_WAL)",
    );
    serving.kill9_and_restart(archive.path());
    let slot = psql(&serving, "READ_REPLICATION_SLOT kept");
    assert!(restart_of(&slot) >= reserved, "{slot}");
    // Used, it moves; stopped, that is saved.
    let copy = ArchiveDirectory::new();
    let client = Receiver::bare()
        .arg("-D")
        .arg(copy.path())
        .args(["-d", &serving.conninfo(), "--slot", "kept"])
        .start();
    let end = cluster.write_wal(2);
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    wait_until("the slot to move", || {
        restart_of(&psql(&serving, "READ_REPLICATION_SLOT kept")) >= end
    });
    drop(client);
    assert!(serving.stop().success(), "{}", serving.log());
    let serving = Serving::start(archive.path());
    let slot = psql(&serving, "READ_REPLICATION_SLOT kept");
    assert!(restart_of(&slot) >= end, "{slot}");
}
