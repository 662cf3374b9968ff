//! What a receiver cannot do gets one line that says so, and leaves the archive as it was.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use tests::{
    ArchiveDirectory, Cluster, Proxy, Receiver, ReceiverBuilder, Verdict, Version,
    unprivileged_user,
};

use crate::for_each_version;

/// The receiver ends by itself, badly, with one line that holds all of `words`; no file of the
/// archive has changed.
#[track_caller]
pub(crate) fn assert_ends_without_change(
    receiver: ReceiverBuilder,
    archive: &ArchiveDirectory,
    words: &[&str],
) {
    let before = archive.snapshot();
    let (status, log) = receiver.run();
    assert_eq!(status.code(), Some(1), "{log}");
    // The hint belongs to the line before it.
    let lines = log.replace("\nwal-receiver: hint: ", " ");
    let says_all = |line: &str| {
        line.starts_with("wal-receiver: error: ") && words.iter().all(|word| line.contains(word))
    };
    assert!(
        lines.lines().any(says_all),
        "no line with {words:?} in:\n{log}"
    );
    let after = archive.snapshot();
    assert!(after.keys().eq(before.keys()), "{:?}\n{log}", after.keys());
    assert!(after == before, "the archive's bytes have changed:\n{log}");
}

/// An archive with some WAL of the cluster, from which nobody streams any more.
pub(crate) fn archive_of(cluster: &Cluster) -> ArchiveDirectory {
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(cluster, archive.path()).start();
    cluster.wait_streaming("wal_receiver");
    let end = cluster.write_wal(2);
    receiver.wait_flushed(cluster, "wal_receiver", end);
    assert!(receiver.stop().success(), "{}", receiver.log());
    archive
}

/// The receiver of this archive, which gives up where it would try again.
fn once(cluster: &Cluster, archive: &ArchiveDirectory) -> ReceiverBuilder {
    Receiver::of(cluster, archive.path()).arg("--no-loop")
}

#[test]
fn a_wrong_password() {
    let cluster = Cluster::builder(Version::V15)
        .hba("local replication all scram-sha-256\nlocal all all trust")
        .start();
    cluster.sql("ALTER USER postgres PASSWORD 'right'");
    let archive = ArchiveDirectory::new();
    let wrong = once(&cluster, &archive).env("PGPASSWORD", "wrong");
    assert_ends_without_change(
        wrong,
        &archive,
        &[
            "password authentication failed",
            "postgres",
            "check user and password",
        ],
    );
    let none = once(&cluster, &archive).arg("--no-password");
    assert_ends_without_change(none, &archive, &["password"]);
    let mut right = once(&cluster, &archive).env("PGPASSWORD", "right").start();
    cluster.wait_streaming("wal_receiver");
    assert!(right.stop().success(), "{}", right.log());
}

#[test]
fn a_user_without_the_right_to_replicate() {
    let cluster = Cluster::start_new(Version::V15);
    cluster.sql("CREATE USER nobody");
    let archive = ArchiveDirectory::new();
    let receiver = once(&cluster, &archive).args(["-U", "nobody"]);
    assert_ends_without_change(
        receiver,
        &archive,
        &["role needs the REPLICATION attribute"],
    );
}

#[test]
fn a_start_that_the_server_has_not_reached() {
    let cluster = Cluster::start_new(Version::V15);
    let archive = ArchiveDirectory::new();
    let receiver = once(&cluster, &archive).args(["--start", "7/0"]);
    let words = ["7/0", "timeline 1", "server's WAL", "connect to", "--start"];
    assert_ends_without_change(receiver, &archive, &words);
}

for_each_version!(a_slot_that_does_not_exist);

fn a_slot_that_does_not_exist(version: Version) {
    let cluster = Cluster::start_new(version);
    let archive = ArchiveDirectory::new();
    let receiver = once(&cluster, &archive).args(["--slot", "absent"]);
    assert_ends_without_change(
        receiver,
        &archive,
        &["\"absent\"", "does not exist", "--create-slot"],
    );
}

#[test]
fn a_slot_in_use_is_tried_again_until_it_is_free() {
    let cluster = Cluster::start_new(Version::V15);
    cluster.sql("SELECT pg_create_physical_replication_slot('one', true)");
    let (holds, waits) = (ArchiveDirectory::new(), ArchiveDirectory::new());
    let with_slot = |archive: &ArchiveDirectory, name: &str| {
        Receiver::of(&cluster, archive.path())
            .args(["-v", "--slot", "one"])
            .env("PGAPPNAME", name)
            .start()
    };
    let mut first = with_slot(&holds, "first");
    cluster.wait_streaming("first");
    let mut second = with_slot(&waits, "second");
    second.wait_for_log("in use");
    // Errors that come again are logged from time to time.
    second.wait_for_log("more times since it was last logged");
    let log = second.log();
    assert_eq!(
        log.matches("max_slot_wal_keep_size is -1").count(),
        1,
        "{log}"
    );
    assert!(!log.contains("starting log streaming"), "{log}");
    assert!(first.stop().success(), "{}", first.log());
    cluster.wait_streaming("second");
    let end = cluster.write_wal(1);
    second.wait_flushed(&cluster, "second", end);
}

#[test]
fn a_server_older_than_13() {
    let cluster = Cluster::start_new(Version::V15);
    // No such server is at hand: a later one says that it is one.
    let proxy = Proxy::start(&cluster, |message| {
        let version = b"server_version\0";
        if message.tag == b'S' && message.body.starts_with(version) {
            message.body.truncate(version.len());
            message.body.extend_from_slice(b"12.22\0");
        }
        Verdict::Forward
    });
    let archive = ArchiveDirectory::new();
    let receiver =
        Receiver::bare()
            .arg("-D")
            .arg(archive.path())
            .args(["--no-loop", "-d", &proxy.conninfo()]);
    assert_ends_without_change(
        receiver,
        &archive,
        &["12.22", "use a server of version 13 or later"],
    );
}

#[test]
fn another_cluster() {
    let cluster = Cluster::start_new(Version::V15);
    let archive = archive_of(&cluster);
    let other = Cluster::builder(Version::V15).own_identity().start();
    let (ours, theirs) = (cluster.system_id(), other.system_id());
    assert_ne!(ours, theirs);
    assert_ends_without_change(
        Receiver::of(&other, archive.path()),
        &archive,
        &[
            &ours.to_string(),
            &theirs.to_string(),
            "use an empty directory",
        ],
    );
}

#[test]
fn another_segment_size() {
    let mut cluster = Cluster::start_new(Version::V15);
    let archive = archive_of(&cluster);
    cluster.stop();
    cluster.run_offline("pg_resetwal", &["--wal-segsize=1"]);
    cluster.start();
    assert_ends_without_change(
        Receiver::of(&cluster, archive.path()),
        &archive,
        &["16777216", "1048576", "use an empty directory"],
    );
}

/// A cluster that keeps no WAL for anybody when it makes a checkpoint, which it is told to.
fn keeps_nothing(version: Version) -> Cluster {
    Cluster::builder(version)
        .segment_size_mib(1)
        .conf("wal_keep_size", "0")
        .conf("min_wal_size", "2MB")
        .conf("max_slot_wal_keep_size", "1MB")
        .start()
}

for_each_version!(wal_that_the_server_has_removed, a_lost_slot);

fn wal_that_the_server_has_removed(version: Version) {
    let cluster = keeps_nothing(version);
    let archive = archive_of(&cluster);
    cluster.write_wal(8);
    cluster.sql("CHECKPOINT");
    let receiver = once(&cluster, &archive);
    assert_ends_without_change(
        receiver,
        &archive,
        &["WAL from 0/", "timeline 1", "removed"],
    );
    let (_, log) = once(&cluster, &archive).run();
    let hint = "wal-receiver: hint: Fetch it from another archive of this cluster, or begin again in \
                a new directory with a new base backup.";
    assert!(log.contains(hint), "{log}");
    let link = tempfile::tempdir().unwrap();
    let (_, log) = Receiver::as_pg_receivewal(link.path())
        .args(["-D", archive.path().to_str().unwrap(), "-d"])
        .arg(cluster.conninfo())
        .run();
    assert!(log.contains("barman receive-wal --reset"), "{log}");
}

fn a_lost_slot(version: Version) {
    let cluster = keeps_nothing(version);
    cluster.sql("SELECT pg_create_physical_replication_slot('lost', true)");
    let archive = archive_of(&cluster);
    cluster.write_wal(8);
    cluster.sql("CHECKPOINT");
    let status = "SELECT wal_status FROM pg_replication_slots";
    assert_eq!(cluster.text(status).as_deref(), Some("lost"));
    let receiver = once(&cluster, &archive).args(["--slot", "lost"]);
    // Up to 14 no replication command tells that the slot is lost, but the WAL is gone with it.
    let words: &[&str] = if version >= Version::V15 {
        &["\"lost\"", "lost:"]
    } else {
        &["removed"]
    };
    assert_ends_without_change(receiver, &archive, words);
}

#[test]
fn an_archive_that_another_receiver_fills() {
    let cluster = Cluster::start_new(Version::V15);
    let archive = ArchiveDirectory::new();
    let mut first = Receiver::of(&cluster, archive.path()).start();
    cluster.wait_streaming("wal_receiver");
    let (status, log) = Receiver::of(&cluster, archive.path()).run();
    assert!(!status.success(), "{log}");
    let holder = format!("process {}", first.pid());
    assert!(log.contains("locked") && log.contains(&holder), "{log}");
    let end = cluster.write_wal(1);
    first.wait_flushed(&cluster, "wal_receiver", end);
}

#[test]
fn a_directory_that_does_not_exist() {
    let cluster = Cluster::start_new(Version::V15);
    let path = cluster.directory().join("absent");
    let (status, log) = Receiver::of(&cluster, &path).run();
    assert!(!status.success(), "{log}");
    assert!(log.contains(path.to_str().unwrap()), "{log}");
    assert!(!path.exists());
}

#[test]
fn a_directory_that_cannot_be_written() {
    let cluster = Cluster::start_new(Version::V15);
    let archive = ArchiveDirectory::new();
    let receiver = Receiver::of(&cluster, archive.path())
        .arg("--no-loop")
        .with_small_disk(archive.path(), "ro");
    let directory = archive.path().to_str().unwrap();
    assert_ends_without_change(
        receiver,
        &archive,
        &[directory, "Read-only file system", "mount"],
    );
}

#[test]
fn a_certificate_that_does_not_verify() {
    let cluster = Cluster::builder(Version::V15).listen_on_tcp().start();
    let data = cluster.data_directory();
    write_certificate(&data);
    cluster.reload_with("ssl", "on");
    let other = cluster.directory().join("other");
    fs::create_dir(&other).unwrap();
    write_certificate(&other);
    let archive = ArchiveDirectory::new();
    let verifying = |root: &Path, host: &str| {
        let conninfo = format!(
            "host={host} hostaddr=127.0.0.1 port={} user=postgres sslmode=verify-full \
             sslrootcert={}",
            cluster.tcp_port().unwrap(),
            root.join("server.crt").display()
        );
        Receiver::bare()
            .arg("-D")
            .arg(archive.path())
            .args(["--no-loop", "-d", &conninfo])
    };
    assert_ends_without_change(verifying(&other, "localhost"), &archive, &["certificate"]);
    assert_ends_without_change(verifying(&data, "elsewhere"), &archive, &["elsewhere"]);
    let mut right = verifying(&data, "localhost").start();
    cluster.wait_streaming("wal_receiver");
    let encrypted = "SELECT bool_and(ssl)::text FROM pg_stat_ssl
                     JOIN pg_stat_replication USING (pid)";
    assert_eq!(cluster.text(encrypted).as_deref(), Some("true"));
    assert!(right.stop().success(), "{}", right.log());
}

/// A certificate for `localhost` that signs itself, `server.crt`, with its key, `server.key`.
fn write_certificate(directory: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(directory.join("server.crt"), made.cert.pem()).unwrap();
    let key = directory.join("server.key");
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let (user, group) = unprivileged_user().unzip();
    chown(key, user, group).unwrap();
}

#[test]
fn foreign_files_are_left_alone() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let foreign = [
        "README",
        "000000010000000000000001.backup",
        "000000010000000000000001.00000028.backup",
        "00000001000000000000000G",
        "0000000100000000000000010",
        "000000010000000000000001.partial.old",
        "core",
    ];
    for name in foreign {
        fs::write(archive.path().join(name), name).unwrap();
    }
    fs::create_dir(archive.path().join("0000000F00000000000000FF")).unwrap();
    let start = cluster.segment_size().start_of(cluster.flush_lsn());
    let mut receiver = Receiver::of(&cluster, archive.path()).start();
    cluster.wait_streaming("wal_receiver");
    let end = cluster.write_wal(2);
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    assert!(receiver.stop().success(), "{}", receiver.log());
    archive.assert_same_wal(&cluster, cluster.timeline(), start, end);
    for name in foreign {
        assert_eq!(fs::read_to_string(archive.path().join(name)).unwrap(), name);
    }
}
