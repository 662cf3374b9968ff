//! WAL that is not enough for a base backup: what the server's settings were is in the WAL, and is
//! named when it arrives and by `verify`.

use std::fs;

use serde_json::{Value, json};
use tests::{ArchiveDirectory, Cluster, Receiver, Version, wait_until};
use walproto::{Lsn, TimelineId};

use crate::for_each_version;

for_each_version!(weak_wal_is_named);

fn verify(archive: &ArchiveDirectory, arguments: &[&str]) -> (Option<i32>, String) {
    let run = Receiver::bare().args(["verify", "-D"]).arg(archive.path());
    let (status, text) = run.args(arguments).run();
    (status.code(), text)
}

fn at<'a>(found: &'a Value, place: &str) -> &'a Value {
    found.pointer(place).unwrap_or(&Value::Null)
}

fn lsn(found: &Value, place: &str) -> Lsn {
    at(found, place).as_str().unwrap().parse().unwrap()
}

/// Where `pg_waldump` finds the records that this is said of.
fn found_by_waldump(archive: &ArchiveDirectory, cluster: &Cluster, words: &str) -> Vec<Lsn> {
    let size = cluster.segment_size();
    let (start, end) = archive_range(archive);
    let lines = archive
        .waldump_lines(cluster.version(), TimelineId::FIRST, size, start, end)
        .unwrap();
    let lines = lines.iter().filter(|line| line.contains(words));
    let at = |line: &String| {
        let (_, at) = line.split_once("lsn: ").unwrap();
        at.split_once(',').unwrap().0.parse().unwrap()
    };
    lines.map(at).collect()
}

fn archive_range(archive: &ArchiveDirectory) -> (Lsn, Lsn) {
    let (_, text) = verify(archive, &["--json"]);
    let found: Value = serde_json::from_str(&text).unwrap();
    (lsn(&found, "/ranges/0/start"), lsn(&found, "/ranges/0/end"))
}

fn weak_wal_is_named(version: Version) {
    let mut cluster = Cluster::builder(version).segment_size_mib(1).start();
    cluster.sql("ALTER SYSTEM SET wal_keep_size = '256MB'");
    cluster.restart();
    let archive = ArchiveDirectory::new();
    let told = cluster.directory().join("events");
    let command = format!(
        "echo \"$WAL_RECEIVER_EVENT $WAL_RECEIVER_LSN $WAL_RECEIVER_MESSAGE\" >> '{}'",
        told.display()
    );
    let mut receiver = Receiver::of(&cluster, archive.path())
        .args(["--on-event", &command])
        .start();
    cluster.wait_streaming("wal_receiver");
    cluster.write_wal(1);

    // Nothing can be streamed under it, so all of it arrives afterwards.
    cluster.sql("ALTER SYSTEM SET wal_level = 'minimal'");
    cluster.sql("ALTER SYSTEM SET max_wal_senders = 0");
    cluster.restart();
    cluster.write_wal(2);
    cluster.sql("ALTER SYSTEM RESET wal_level");
    cluster.sql("ALTER SYSTEM RESET max_wal_senders");
    cluster.restart();
    cluster.wait_streaming("wal_receiver");
    let end = cluster.write_wal(1);
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    let minimal = "was written under wal_level = minimal: no earlier base backup can be";
    wait_until("the warning", || receiver.log().contains(minimal));
    assert!(
        receiver
            .log()
            .contains("hint: Set wal_level to replica or higher")
    );

    cluster.reload_with("full_page_writes", "off");
    let off = "was written under full_page_writes = off";
    wait_until("the other warning", || receiver.log().contains(off));
    // Neither warning is repeated on the next connection.
    cluster.restart();
    cluster.wait_streaming("wal_receiver");
    cluster.sql("CHECKPOINT");
    cluster.reload_with("full_page_writes", "on");
    let end = cluster.write_wal(1);
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    assert!(receiver.stop().success(), "{}", receiver.log());
    for words in [minimal, off] {
        let log = receiver.log();
        assert_eq!(log.matches(words).count(), 1, "{log}");
        let told = fs::read_to_string(&told).unwrap();
        let event = told.lines().find(|line| line.contains(words)).unwrap();
        assert!(event.starts_with("weak_wal 0/"), "{told}");
    }

    let (code, text) = verify(&archive, &["--json", "--jobs=2"]);
    assert_eq!(code, Some(1), "{text}");
    let found: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(at(&found, "/problems/0/kind"), &json!("minimal_wal"));
    assert_eq!(at(&found, "/problems/1"), &Value::Null, "{found}");
    assert_eq!(
        at(&found, "/warnings/0/kind"),
        &json!("no_full_page_writes")
    );
    assert_eq!(at(&found, "/warnings/1"), &Value::Null, "{found}");
    let (from, end) = (
        lsn(&found, "/problems/0/lsn"),
        lsn(&found, "/problems/0/end"),
    );
    if version >= Version::V15 {
        let minimal = found_by_waldump(&archive, &cluster, "wal_level=minimal");
        let replica = found_by_waldump(&archive, &cluster, "wal_level=replica");
        assert_eq!(minimal, [from]);
        assert!(replica.contains(&end), "{replica:?}");
        let changes = found_by_waldump(&archive, &cluster, "FPW_CHANGE");
        let warned = ["start", "end"].map(|name| lsn(&found, &format!("/warnings/0/{name}")));
        assert_eq!(changes, warned);
    }
    let (_, text) = verify(&archive, &[]);
    assert!(
        text.contains(&format!(
            "bad: timeline 1, {from}: WAL from here to {end} was written under wal_level = minimal; \
             no earlier base backup can be recovered past it; take a new base backup"
        )),
        "{text}"
    );
    assert!(text.contains("warning: timeline 1 from 0/"), "{text}");
}
