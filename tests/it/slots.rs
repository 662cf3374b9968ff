//! Slots that cannot be streamed from.

use tests::{ArchiveDirectory, Cluster, Receiver, Version};

use crate::for_each_version;
use crate::refused::assert_ends_without_change;

for_each_version!(a_logical_slot_is_refused);

fn a_logical_slot_is_refused(version: Version) {
    let cluster = Cluster::builder(version)
        .conf("wal_level", "logical")
        .start();
    cluster.sql("SELECT pg_create_logical_replication_slot('other', 'test_decoding')");
    let archive = ArchiveDirectory::new();
    let receiver = Receiver::of(&cluster, archive.path()).args(["--slot", "other"]);
    assert_ends_without_change(
        receiver,
        &archive,
        &["\"other\"", "physical", "use another slot"],
    );
}

#[test]
fn a_slot_in_use_is_named_with_its_holder() {
    let cluster = Cluster::start_new(Version::V15);
    cluster.sql("SELECT pg_create_physical_replication_slot('one', true)");
    let (holds, waits) = (ArchiveDirectory::new(), ArchiveDirectory::new());
    let with_slot =
        |archive: &ArchiveDirectory| Receiver::of(&cluster, archive.path()).args(["--slot", "one"]);
    let _first = with_slot(&holds).start();
    cluster.wait_streaming("wal_receiver");
    let holder = cluster
        .text("SELECT active_pid::text FROM pg_replication_slots")
        .unwrap();
    let receiver = with_slot(&waits).arg("--no-loop");
    let words = ["\"one\"", "in use", &format!("PID {holder}")];
    assert_ends_without_change(receiver, &waits, &words);
}
