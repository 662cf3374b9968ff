//! Several promotions in a row behind our server, one of which took a number that another branch
//! had, or followed that branch before it had any WAL.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use segstore::SegmentName;
use tests::{
    ArchiveDirectory, Cluster, EmbeddedServer, Receiver, Version, unprivileged_user, wait_until,
};
use walproto::{Lsn, TimelineId};

use crate::for_each_version;
use crate::serve_standbys::{follower, wait_rows};

for_each_version!(
    timelines_2_3_and_5_are_followed_behind_the_server,
    a_timeline_without_wal_is_passed_over_behind_the_server,
);

/// Has the servers' user own a file, as all in a data directory.
fn give_away(file: &Path) {
    let (user, group) = unprivileged_user().unzip();
    chown(file, user, group).unwrap();
}

/// Starts a stopped server as a standby and promotes it.
fn start_on_next_timeline(cluster: &mut Cluster) {
    let signal = cluster.data_directory().join("standby.signal");
    fs::write(&signal, "").unwrap();
    give_away(&signal);
    cluster.start();
    cluster.promote();
}

fn history_of(cluster: &Cluster, timeline: u32) -> PathBuf {
    let name = format!("pg_wal/{timeline:08X}.history");
    cluster.data_directory().join(name)
}

/// The timeline that a history file's was promoted from, and where.
fn parent_of(history: &Path) -> (u32, Lsn) {
    let content = fs::read_to_string(history).unwrap();
    let mut fields = content.lines().last().unwrap().split_whitespace();
    let timeline = fields.next().unwrap().parse().unwrap();
    (timeline, fields.next().unwrap().parse().unwrap())
}

#[track_caller]
fn assert_same_history(directory: &Path, cluster: &Cluster, timeline: u32) {
    let ours = directory.join(format!("{timeline:08X}.history"));
    let theirs = fs::read(history_of(cluster, timeline)).unwrap();
    assert_eq!(fs::read(ours).unwrap(), theirs, "{timeline}");
}

/// A standby, `pg_receivewal` and our own receiver follow from timeline 2 to 3 and 5. The standby
/// asks for the history of 4 too, which no WAL on the way is of.
fn timelines_2_3_and_5_are_followed_behind_the_server(version: Version) {
    follow_five(version, |primary, _| {
        // It knows of the other timeline, and does not take that for its own.
        let conf = primary.data_directory().join("postgresql.auto.conf");
        fs::write(conf, "recovery_target_timeline = 'current'\n").unwrap();
        3
    });
}

/// The same with 5 descending from 4, which both begin where 3 ends: as when a server is promoted
/// and at once another one that follows it.
fn a_timeline_without_wal_is_passed_over_behind_the_server(version: Version) {
    follow_five(version, |primary, switch_point| {
        // What a standby has of 4 that got no record of it: what it begins with.
        let segment = |number| {
            let timeline = TimelineId::new(number).unwrap();
            let last = Lsn(switch_point.0 - 1);
            let name = SegmentName::of(timeline, last, primary.segment_size());
            primary.data_directory().join(format!("pg_wal/{name}"))
        };
        fs::copy(segment(3), segment(4)).unwrap();
        give_away(&segment(4));
        let conf = primary.data_directory().join("postgresql.auto.conf");
        fs::write(conf, "").unwrap();
        4
    });
}

/// What `prepare` does to the stopped primary, which knows that timeline 4 begins at a position,
/// says which timeline is left for 5.
fn follow_five(version: Version, prepare: impl FnOnce(&Cluster, Lsn) -> u32) {
    let mut primary = Cluster::builder(version).segment_size_mib(1).start();
    primary.sql("CREATE TABLE t (i int)");
    primary.stop();
    start_on_next_timeline(&mut primary);
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(&primary, archive.path()).arg("-v").start();
    primary.wait_streaming("wal_receiver");
    let backup = primary.base_backup();
    primary.write_wal(1);
    let server = EmbeddedServer::start(EmbeddedServer::config(), archive.path());
    let mut behind = backup.unpack(
        "standby.signal",
        &format!("primary_conninfo = '{}'\n", server.conninfo()),
    );
    behind.start();
    let copies = [ArchiveDirectory::new(), ArchiveDirectory::new()];
    // One that is older than the server refuses it.
    let client = if version > Version::V15 {
        Version::V18
    } else {
        Version::V15
    };
    let mut original = Receiver::pg_receivewal(client, &server.conninfo(), copies[0].path())
        .arg("--synchronous")
        .start();
    let mut ours = follower(&server.conninfo(), "ours", &copies[1]);
    let names = ["pg_receivewal", "ours"];
    for name in names {
        wait_until(&format!("{name} to be streamed to"), || {
            let standby = server.standby(name);
            standby.is_some_and(|standby| standby.sent.is_some())
        });
    }
    let start = primary.segment_size().start_of(primary.flush_lsn());
    primary.sql("INSERT INTO t VALUES (1)");
    wait_rows(&behind, "1");
    primary.stop();
    start_on_next_timeline(&mut primary);
    primary.sql("INSERT INTO t VALUES (2)");
    wait_rows(&behind, "2");
    primary.stop();
    // Timeline 4 is that of another one, which only its history is known of.
    let mut other = primary.snapshot();
    start_on_next_timeline(&mut other);
    assert_eq!(other.timeline().number(), 4);
    let fourth = history_of(&primary, 4);
    fs::copy(history_of(&other, 4), &fourth).unwrap();
    give_away(&fourth);
    drop(other);
    let (_, switch_point) = parent_of(&fourth);
    let parent = prepare(&primary, switch_point);
    start_on_next_timeline(&mut primary);
    let fifth = TimelineId::new(5).unwrap();
    assert_eq!(primary.timeline(), fifth);
    primary.sql("INSERT INTO t VALUES (3)");
    wait_rows(&behind, "3");
    let end = primary.write_wal(2);
    for name in names {
        server.wait_flushed(name, end);
        assert_eq!(server.standby(name).unwrap().timeline, Some(fifth));
    }
    assert!(original.stop().success(), "{}", original.log());
    assert!(ours.stop().success(), "{}", ours.log());
    assert!(receiver.stop().success(), "{}", receiver.log());
    for archive in [&archive, &copies[1]] {
        let verify = Receiver::bare().args(["verify", "-D"]).arg(archive.path());
        let (status, text) = verify.run();
        assert!(status.success(), "{text}");
    }
    // A primary may still be a standby on timeline 4 when it is met, but it is not met for ever.
    for log in [receiver.log(), ours.log()] {
        assert!(log.matches("00000004").count() < 10, "{log}");
    }
    for timeline in 2..=5 {
        assert_same_history(archive.path(), &primary, timeline);
        assert_same_history(copies[1].path(), &primary, timeline);
    }
    for timeline in [3, 5] {
        assert_same_history(copies[0].path(), &primary, timeline);
    }
    assert_same_history(&behind.data_directory().join("pg_wal"), &primary, 4);
    let (left, fork) = parent_of(&history_of(&primary, 5));
    assert_eq!((left, fork), (parent, switch_point));
    let begin = primary.segment_size().start_of(fork);
    for copy in &copies {
        copy.assert_same_wal(&primary, fifth, begin.max(start), end);
    }
}
