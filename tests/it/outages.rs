//! What a receiver that has streamed, or serves, gets over: accounts and certificates that change
//! under it, and promotions at the wrong moment.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tests::{ArchiveDirectory, Cluster, Receiver, Relay, Version, wait_until};
use walproto::TimelineId;

use crate::for_each_version;
use crate::tls::Certificates;

for_each_version!(an_empty_relay_follows_a_promotion_exactly_where_its_stream_began);

/// A promoted standby whose last record ends where a segment does, which is where a new archive
/// began: nothing of the old timeline was received.
fn an_empty_relay_follows_a_promotion_exactly_where_its_stream_began(version: Version) {
    let mut primary = Cluster::builder(version).segment_size_mib(1).start();
    let standby = primary.standby("second");
    primary.write_wal(1);
    let size = primary.segment_size();
    wait_until("the standby to end with a segment", || {
        primary.sql("SELECT txid_current(); SELECT pg_switch_wal()");
        let end = primary.flush_lsn();
        wait_until("the standby to catch up", || standby.flush_lsn() >= end);
        size.offset_of(standby.flush_lsn()) == 0
    });
    primary.kill9();
    let start = standby.flush_lsn();
    assert_eq!(size.offset_of(start), 0, "{start}");
    let archive = ArchiveDirectory::new();
    let at = format!("--start={start}");
    let mut relay = Relay::start(&standby.conninfo(), archive.path(), &[&at]);
    standby.wait_streaming("wal_receiver");
    standby.promote();
    let end = standby.write_wal(2);
    relay.wait_flushed(&standby, end);
    let second = TimelineId::new(2).unwrap();
    archive.assert_same_wal(&standby, second, start, end);
    assert!(relay.stop().success(), "{}", relay.log());
    assert!(!relay.log().contains("error: "), "{}", relay.log());
}

/// Ends the connections of receivers.
fn disconnect(cluster: &Cluster) {
    cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication");
}

#[test]
fn a_password_that_is_changed_and_changed_back_is_waited_for() {
    let cluster = Cluster::builder(Version::V15)
        .hba("local replication all scram-sha-256\nlocal all all trust")
        .start();
    cluster.sql("CREATE USER archivist REPLICATION PASSWORD 'right'");
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(&cluster, archive.path())
        .args(["-U", "archivist"])
        .env("PGPASSWORD", "right")
        .start();
    cluster.wait_streaming("wal_receiver");
    cluster.sql("ALTER USER archivist PASSWORD 'other'");
    disconnect(&cluster);
    receiver.wait_for_log("password authentication failed");
    cluster.sql("ALTER USER archivist PASSWORD 'right' NOREPLICATION");
    receiver.wait_for_log("role needs the REPLICATION attribute");
    cluster.sql("ALTER USER archivist REPLICATION");
    let end = cluster.write_wal(1);
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    assert!(receiver.stop().success(), "{}", receiver.log());
}

#[test]
fn a_certificate_rotation_that_is_half_done_is_waited_for() {
    let (old, new) = (
        Certificates::new(&rcgen::PKCS_ECDSA_P256_SHA256),
        Certificates::new(&rcgen::PKCS_ECDSA_P256_SHA256),
    );
    let cluster = old.cluster(Version::V15);
    // The receiver's own copies, which are replaced later than the server's.
    let ours = tempfile::tempdir().unwrap();
    let copy = |from: &Certificates, names: &[(&str, &str)]| {
        for (name, to) in names {
            let to = ours.path().join(to);
            fs::copy(from.path(name), &to).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
        }
    };
    let names = [
        ("root.crt", "root.crt"),
        ("client.crt", "our.crt"),
        ("client.key", "our.key"),
    ];
    copy(&old, &names);
    let file = |name: &str| ours.path().join(name).display().to_string();
    let conninfo = format!(
        "host=localhost hostaddr=127.0.0.1 port={} user=certified sslmode=verify-full \
         sslrootcert={} sslcert={} sslkey={}",
        cluster.tcp_port().unwrap(),
        file("root.crt"),
        file("our.crt"),
        file("our.key")
    );
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::bare()
        .arg("-D")
        .arg(archive.path())
        .args(["-d", &conninfo])
        .start();
    cluster.wait_streaming("wal_receiver");

    let alternatives = vec![rcgen::SanType::DnsName("localhost".try_into().unwrap())];
    new.sign("server", "localhost", alternatives, true);
    new.sign("client", "certified", Vec::new(), false);
    let theirs = |name: &str| new.path(name).display().to_string();
    for (setting, name) in [
        ("ssl_cert_file", "server.crt"),
        ("ssl_key_file", "server.key"),
        ("ssl_ca_file", "root.crt"),
    ] {
        cluster.reload_with(setting, &theirs(name));
    }
    disconnect(&cluster);
    receiver.wait_for_log("trusted: ");
    // Half of ours, and a file that is not complete yet.
    copy(&new, &names[..1]);
    fs::write(file("our.key"), "").unwrap();
    receiver.wait_for_log("our.key");
    copy(&new, &names);
    cluster.wait_streaming("wal_receiver");
    let end = cluster.write_wal(1);
    receiver.wait_flushed(&cluster, "wal_receiver", end);
    assert!(receiver.stop().success(), "{}", receiver.log());
}
