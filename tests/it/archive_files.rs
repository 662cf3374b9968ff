//! Files of the archive that are not as the receiver left them.

use std::fs;

use tests::{ArchiveDirectory, Cluster, Receiver, Version};

use crate::refused::{archive_of, assert_ends_without_change};

/// An archive with some segments of 1 MiB.
fn archived() -> (Cluster, ArchiveDirectory) {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let archive = archive_of(&cluster);
    (cluster, archive)
}

fn last_file(archive: &ArchiveDirectory) -> String {
    archive.files().pop().unwrap()
}

#[test]
fn a_segment_that_was_acknowledged_and_is_gone_is_missed() {
    let (cluster, archive) = archived();
    let last = last_file(&archive);
    assert!(last.ends_with(".partial"), "{last}");
    fs::remove_file(archive.path().join(last)).unwrap();
    let words = ["timeline 1", "ends at 0/", "up to 0/", "put back"];
    assert_ends_without_change(Receiver::of(&cluster, archive.path()), &archive, &words);
}

#[test]
fn a_segment_that_is_missing_between_others_is_told_at_each_start_and_stops_nothing() {
    let (cluster, archive) = archived();
    let files = archive.files();
    // Neither the oldest nor the last one.
    let name = &files[files.len() - 2];
    assert!(name.len() == 24 && files.len() > 2, "{files:?}");
    fs::remove_file(archive.path().join(name)).unwrap();
    for _ in 0..2 {
        let mut receiver = Receiver::of(&cluster, archive.path()).start();
        let end = cluster.write_wal(1);
        receiver.wait_flushed(&cluster, "wal_receiver", end);
        assert!(receiver.stop().success());
        let log = receiver.log();
        let told: Vec<_> = log.lines().filter(|line| line.contains(name)).collect();
        assert_eq!(told.len(), 1, "{log}");
        let words = ["warning:", "missing", "from 0/", "to 0/", "put them back"];
        assert!(words.iter().all(|word| told[0].contains(word)), "{log}");
    }
    assert!(!archive.files().contains(name));
}

#[test]
fn a_completed_segment_that_was_cut_short_is_refused() {
    let (cluster, archive) = archived();
    let name = archive.files().remove(0);
    let path = archive.path().join(&name);
    let content = fs::read(&path).unwrap();
    fs::write(&path, &content[..content.len() / 2]).unwrap();
    let words = [
        path.to_str().unwrap(),
        "524288 bytes",
        "expected 1048576",
        "move it away",
    ];
    assert_ends_without_change(Receiver::of(&cluster, archive.path()), &archive, &words);
}

#[test]
fn a_flipped_bit_in_a_completed_segment_near_the_end_is_found() {
    let (cluster, archive) = archived();
    let files = archive.files();
    let name = &files[files.len() - 2];
    assert_eq!(name.len(), 24, "{files:?}");
    let path = archive.path().join(name);
    let mut content = fs::read(&path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&path, content).unwrap();
    let words = [
        path.to_str().unwrap(),
        "timeline 1",
        "0/",
        "offset",
        "expected",
        "found",
        "replace the file",
    ];
    assert_ends_without_change(Receiver::of(&cluster, archive.path()), &archive, &words);
}

#[test]
fn a_history_that_is_gone_is_fetched_from_a_server_that_has_it_and_else_asked_for() {
    let primary = Cluster::start_new(Version::V15);
    let standby = primary.standby("second");
    standby.promote();
    let archive = archive_of(&standby);
    let path = archive.path().join("00000002.history");
    let history = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let words = ["the history of timeline 2", "put back"];
    assert_ends_without_change(Receiver::of(&primary, archive.path()), &archive, &words);

    let mut receiver = Receiver::of(&standby, archive.path()).start();
    let line = receiver.wait_for_log("warning:");
    assert!(line.contains("history of timeline 2 was missing"), "{line}");
    receiver.wait_flushed(&standby, "wal_receiver", standby.write_wal(1));
    assert_eq!(fs::read(&path).unwrap(), history);
    assert_eq!(receiver.log().matches("warning:").count(), 1);
}

#[test]
fn files_of_two_clusters_are_refused() {
    let (cluster, archive) = archived();
    let other = Cluster::builder(Version::V15)
        .segment_size_mib(1)
        .own_identity()
        .start();
    let others = archive_of(&other);
    let mixed = ArchiveDirectory::new();
    let theirs = others.files().remove(0);
    let copy = |from: &ArchiveDirectory, name: &str, to: &str| {
        fs::copy(from.path().join(name), mixed.path().join(to)).unwrap();
    };
    for name in archive.files() {
        copy(&archive, &name, &name);
    }
    // Both clusters are as young as each other, so the first names are the same.
    copy(&others, &theirs, &theirs);
    let words = [
        &cluster.system_id().to_string(),
        &other.system_id().to_string(),
        &*mixed.path().join(&theirs).display().to_string(),
        "sort the files",
    ];
    assert_ends_without_change(Receiver::of(&cluster, mixed.path()), &mixed, &words);
}

#[test]
fn a_damaged_identity_is_refused() {
    let (cluster, archive) = archived();
    let path = archive.path().join(".wal-receiver/identity.json");
    let mut content = fs::read(&path).unwrap();
    let digit = content.iter().rposition(u8::is_ascii_digit).unwrap();
    content[digit] ^= 1;
    fs::write(&path, &content).unwrap();
    let words = [path.to_str().unwrap(), "is damaged", "expected", "put back"];
    assert_ends_without_change(Receiver::of(&cluster, archive.path()), &archive, &words);
    assert_eq!(fs::read(&path).unwrap(), content);
}

#[test]
fn a_damaged_watermark_is_refused() {
    let (cluster, archive) = archived();
    let path = archive.path().join(".wal-receiver/watermark");
    let content: Vec<u8> = fs::read(&path)
        .unwrap()
        .iter()
        .map(|byte| byte ^ 1)
        .collect();
    fs::write(&path, &content).unwrap();
    let words = [path.to_str().unwrap(), "is damaged", "put back"];
    assert_ends_without_change(Receiver::of(&cluster, archive.path()), &archive, &words);
    assert_eq!(fs::read(&path).unwrap(), content);
}

#[test]
fn a_damaged_history_file_is_refused() {
    let primary = Cluster::start_new(Version::V15);
    let standby = primary.standby("second");
    standby.promote();
    let archive = archive_of(&standby);
    let path = archive.path().join("00000002.history");
    let content = fs::read_to_string(&path).unwrap();
    fs::write(&path, content.replacen("0/", "1/", 1)).unwrap();
    let words = [path.to_str().unwrap(), "is damaged", "expected", "put back"];
    assert_ends_without_change(Receiver::of(&standby, archive.path()), &archive, &words);
}
