//! Clients that ask for what our server does not have, again and again: health checks, HA managers,
//! standbys on another fork. They get PostgreSQL's answers, and the log stays readable.

use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use socket2::SockRef;
use tests::{GeneratedArchive, Link, Receiver, Serving, Version};

/// What HAProxy's `option pgsql-check user haproxy` sends.
const CHECK: &[u8] = b"\0\0\0\x16\0\x03\0\0user\0haproxy\0\0";

/// Checks the server as HAProxy does: the first message decides, and the connection is reset.
/// Gives the beginning of the answer.
fn check(port: u16) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream.write_all(CHECK).unwrap();
    let mut answer = vec![0; 9];
    stream.read_exact(&mut answer).unwrap();
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    answer
}

fn lines_with(log: &str, text: &str) -> usize {
    log.lines().filter(|line| line.contains(text)).count()
}

#[test]
fn a_health_check_is_answered_by_a_request_for_authentication_and_is_one_line_at_most() {
    let archive = GeneratedArchive::new(300_000, 150_018);
    let directory = tempfile::tempdir().unwrap();
    let (rules, users) = (directory.path().join("hba"), directory.path().join("users"));
    // A user without a password is enough for a check, and can do nothing else.
    std::fs::write(&users, "").unwrap();
    std::fs::set_permissions(&users, Permissions::from_mode(0o600)).unwrap();
    for (line, answer, expected_lines) in [
        (
            "host replication all 127.0.0.1/32 trust",
            &b"R\0\0\0\x08\0\0\0\0"[..],
            1,
        ),
        // The request names SCRAM-SHA-256.
        (
            "host replication haproxy 127.0.0.1/32 scram-sha-256",
            b"R\0\0\0\x17\0\0\0\x0a",
            0,
        ),
    ] {
        std::fs::write(&rules, format!("{line}\n")).unwrap();
        let options = ["--hba-file", rules.to_str().unwrap(), "--users-file"];
        let options = [&options[..], &[users.to_str().unwrap()]].concat();
        let mut serving = Serving::start_with(archive.path(), 0, &options);
        for _ in 0..30 {
            assert_eq!(check(serving.port()), answer, "{line}");
        }
        assert!(serving.stop().success());
        let log = serving.log();
        assert_eq!(
            lines_with(&log, "connection from 127.0.0.1:"),
            expected_lines,
            "{log}"
        );
        let refused = "refused: user=\"haproxy\" database=\"haproxy\": this server keeps WAL";
        assert_eq!(lines_with(&log, refused), expected_lines, "{log}");
        assert_eq!(lines_with(&log, "warning: "), expected_lines, "{log}");
    }
}

#[test]
fn a_connection_to_a_database_learns_nothing_before_it_is_authenticated() {
    let archive = GeneratedArchive::new(300_000, 150_018);
    let directory = tempfile::tempdir().unwrap();
    let (rules, users) = (directory.path().join("hba"), directory.path().join("users"));
    std::fs::write(&users, "").unwrap();
    std::fs::set_permissions(&users, Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&rules, "host replication a all scram-sha-256\n").unwrap();
    let options = ["--hba-file", rules.to_str().unwrap(), "--users-file"];
    let options = [&options[..], &[users.to_str().unwrap()]].concat();
    let serving = Serving::start_with(archive.path(), 0, &options);
    for (user, words) in [
        ("a", "password authentication failed for user \"a\""),
        ("b", "no pg_hba.conf entry for replication connection"),
    ] {
        let conninfo = format!(
            "host=127.0.0.1 port={} user={user} dbname=d",
            serving.port()
        );
        let (status, said) = Receiver::psql(Version::V15, &conninfo, "SELECT 1")
            .env("PGPASSWORD", "wrong")
            .args(["--no-password", "-d", &conninfo])
            .run();
        assert!(!status.success());
        assert!(
            said.contains(words) && !said.contains("databases"),
            "{said}"
        );
    }
}

#[test]
fn sql_and_wal_that_is_not_there_are_logged_once_for_each_client_and_request() {
    let archive = GeneratedArchive::new(300_000, 150_018);
    let mut serving = Serving::start(archive.path());
    let end = archive.end();
    for _ in 0..5 {
        let (status, said) = Receiver::psql(Version::V15, &serving.conninfo(), "SELECT 1").run();
        assert!(!status.success(), "{said}");
        let conninfo = format!("{} application_name=s1", serving.conninfo());
        let mut link = Link::new(&conninfo, Path::new("/")).unwrap();
        for start in ["0/300000 TIMELINE 7", "1/0 TIMELINE 1"] {
            link.refused_stream(&format!("START_REPLICATION {start}"));
        }
    }
    serving.stop();
    let log = serving.log();
    for text in [
        "asks for SQL, which this server cannot execute: \"SELECT 1\"",
        "(application_name=\"s1\") failed: requested timeline 7 is not in this server's history, \
         which leads to timeline 1",
        "streaming from 0/300000 on timeline 7 to client 127.0.0.1:",
        &format!(
            "(application_name=\"s1\") failed: requested starting point 1/0 is ahead of the WAL \
             flush position of this server {end} on timeline 1"
        ),
        "streaming from 1/0 on timeline 1 to client 127.0.0.1:",
    ] {
        assert_eq!(lines_with(&log, text), 1, "{text}\n{log}");
    }
    // The first one is about --trust-loopback.
    assert_eq!(lines_with(&log, "warning: "), 4, "{log}");
}

#[test]
fn the_refusal_of_a_base_backup_says_where_to_take_one() {
    let archive = GeneratedArchive::new(300_000, 150_018);
    let serving = Serving::start(archive.path());
    let (status, said) = Receiver::psql(Version::V15, &serving.conninfo(), "BASE_BACKUP").run();
    assert!(!status.success());
    assert!(
        said.contains(
            "HINT:  Take the base backup from the server that this archive receives its WAL from."
        ),
        "{said}"
    );
}
