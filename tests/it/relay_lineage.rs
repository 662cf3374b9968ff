//! Servers of another past, in front of a relay: those behind it get WAL of one lineage only.

use std::sync::Arc;

use segstore::{OsDisk, published_position};
use tests::{ArchiveDirectory, Receiver, Version, wait_until};
use walproto::{Lsn, TimelineId};

use crate::for_each_version;
use crate::refused::assert_ends_without_change;
use crate::relay::{wait_archived, wait_receives, wait_rows};
use crate::relay_failover::Family;

for_each_version!(
    a_zombie_primary_is_not_followed_and_nothing_of_its_wal_is_served,
    a_promotion_without_acknowledged_wal_reaches_nobody_who_has_that_wal,
);

fn second() -> TimelineId {
    TimelineId::new(2).unwrap()
}

/// The end of what the archive has, of which its primary writes no more.
fn durable_end(archive: &ArchiveDirectory) -> Lsn {
    let position = published_position(Arc::new(OsDisk::new()), archive.path());
    position.unwrap().unwrap().record_end
}

fn a_zombie_primary_is_not_followed_and_nothing_of_its_wal_is_served(version: Version) {
    let Family {
        mut primary,
        mut heir,
        mut other,
        archive,
        mut relay,
        ..
    } = Family::new(version, &[]);
    heir.start();
    other.start();
    primary.sql("INSERT INTO t VALUES (1)");
    wait_archived(&archive, primary.flush_lsn());
    wait_rows(&heir, "1");
    primary.kill9();
    heir.promote();
    heir.sql("INSERT INTO t VALUES (2)");
    wait_rows(&other, "2");
    wait_receives(&other, "received_tli", "2");

    // It comes back, and has soon more WAL than the new primary.
    primary.start();
    primary.sql("INSERT INTO t VALUES (-1), (-2), (-3)");
    primary.write_wal(4);
    relay.kill9();
    relay.start_again();
    heir.sql("INSERT INTO t VALUES (3)");
    wait_rows(&other, "3");
    let end = heir.flush_lsn();
    wait_archived(&archive, end);
    heir.stop();
    // Now it is the only one who answers.
    let older = "server is on timeline 1, older than timeline 2 of the archive";
    let line = relay.wait_for_log(older);
    assert!(line.contains("promot"), "{line}");
    let before = archive.snapshot();
    primary.write_wal(1);
    relay.kill9();
    relay.start_again();
    relay.wait_for_log(older);
    wait_receives(&other, "received_tli", "2");
    assert_eq!(primary.reported_flush("wal_receiver"), None);
    assert!(archive.snapshot() == before, "{}", relay.log());
    assert!(other.flush_lsn() <= durable_end(&archive));
    wait_rows(&other, "3");

    heir.start();
    heir.sql("INSERT INTO t VALUES (4)");
    wait_rows(&other, "4");
    let end = heir.flush_lsn();
    wait_archived(&archive, end);
    let start = heir.segment_size().start_of(end);
    archive.assert_same_wal(&heir, second(), start, end);
    archive.assert_same_wal(&other, second(), start, end);
    assert!(relay.stop().success(), "{}", relay.log());
    // Where nobody else may come, it ends.
    let alone = Receiver::of(&primary, archive.path()).args([
        "--trust-loopback",
        "--listen",
        "127.0.0.1:0",
    ]);
    assert_ends_without_change(alone, &archive, &["timeline 1", "timeline 2", "promot"]);
}

fn a_promotion_without_acknowledged_wal_reaches_nobody_who_has_that_wal(version: Version) {
    let Family {
        mut primary,
        mut heir,
        mut other,
        archive,
        mut relay,
        backup,
    } = Family::new(version, &[]);
    heir.start();
    other.start();
    primary.sql("INSERT INTO t VALUES (1)");
    wait_rows(&heir, "1");
    // From here on it gets nothing more.
    heir.reload_with("primary_conninfo", "");
    wait_until("the standby to have left the relay", || {
        heir.text("SELECT pid::text FROM pg_stat_wal_receiver")
            .is_none()
    });
    primary.set_synchronous_standbys("wal_receiver");
    primary.wait_sync_state("wal_receiver", "sync");
    primary.commit("INSERT INTO t VALUES (2)");
    primary.write_wal(2);
    primary.commit("INSERT INTO t VALUES (3)");
    primary.kill9();
    let end = durable_end(&archive);
    wait_rows(&other, "3");
    wait_until("the standby to have all that was acknowledged", || {
        other.flush_lsn() >= end
    });
    let before = archive.snapshot();
    heir.promote();
    heir.sql("INSERT INTO t VALUES (-2), (-3), (-4)");
    // It does not choose between the two, and says so.
    assert_eq!(relay.wait_exit().code(), Some(1), "{}", relay.log());
    let line = relay.wait_for_log("timeline 2 left timeline 1 at ");
    let end_text = end.to_string();
    for word in [end_text.as_str(), "lacks"] {
        assert!(line.contains(word), "{word}: {line}");
    }
    let hint = "shut down the old one and use --follow-fork";
    assert!(relay.log().contains(hint), "{}", relay.log());
    assert!(archive.snapshot() == before, "{}", relay.log());

    // Told to follow, it keeps what the other branch has aside.
    relay.start_again_with(&["--follow-fork"]);
    relay.wait_for_log("lacks");
    let mut third = relay.standby(&backup, "third", "");
    third.start();
    wait_rows(&third, "4");
    wait_receives(&third, "received_tli", "2");
    let theirs = heir.flush_lsn();
    wait_archived(&archive, theirs);
    for (name, content) in before {
        let now = std::fs::read(archive.path().join(&name)).unwrap();
        assert!(now == content, "{name} has changed");
    }
    // Whoever has that too stays where it is, and is told nothing of the new branch.
    wait_until("the standby to see that it is on another branch", || {
        other.log().contains("before current recovery point")
    });
    let size = other.segment_size();
    archive.assert_same_wal(&other, TimelineId::FIRST, size.start_of(end), end);
    assert!(other.flush_lsn() >= end);
    assert_eq!(other.timeline(), TimelineId::FIRST);
    wait_rows(&other, "3");
    let segments = std::fs::read_dir(other.data_directory().join("pg_wal")).unwrap();
    let of_second = segments
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("00000002") && !name.ends_with(".history"));
    assert_eq!(of_second.collect::<Vec<_>>(), [""; 0]);
    archive.assert_same_wal(&heir, second(), size.start_of(theirs), theirs);
    assert!(relay.stop().success(), "{}", relay.log());
}
