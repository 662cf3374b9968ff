//! What connections of strangers leave in the server's log.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;
use tests::{GeneratedArchive, Receiver, Serving, wait_for};

/// More than the limiter lets through at once, and than a log should hold.
const MANY: usize = 3000;

fn connect(server: &Serving) -> TcpStream {
    TcpStream::connect(("127.0.0.1", server.port())).unwrap()
}

/// What `status` says of the server's failed connections.
fn failed_connections(archive: &GeneratedArchive) -> Value {
    let status = Receiver::bare()
        .args(["status", "--json", "-D"])
        .arg(archive.path());
    let (status, said) = status.run();
    assert!(status.success(), "{said}");
    let document: Value = serde_json::from_str(&said).unwrap();
    let failed = document.pointer("/server/failed_connections");
    failed.unwrap().clone()
}

#[test]
fn a_connection_without_a_byte_leaves_no_line() {
    let archive = GeneratedArchive::new(10_000, 150_018);
    let server = Serving::start(archive.path());
    let before = server.log();
    for number in 0..20 {
        let stream = connect(&server);
        if number % 2 == 0 {
            // Closing then resets the connection, as some health checks do.
            let linger = Some(std::time::Duration::ZERO);
            socket2::SockRef::from(&stream).set_linger(linger).unwrap();
        }
    }
    // What comes after them was accepted after them.
    let mut noisy = connect(&server);
    noisy.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let log = wait_for("the line about the last connection", || {
        let log = server.log();
        (log.len() > before.len()).then_some(log)
    });
    let lines: Vec<_> = log.strip_prefix(&before).unwrap().lines().collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    // The line is written before `status` shows the count.
    tests::wait_until("the last connection to be counted", || {
        failed_connections(&archive)["unauthenticated"] == 1
    });
}

#[test]
fn thousands_of_bad_connections_leave_a_few_lines_and_their_number() {
    let archive = GeneratedArchive::new(10_000, 150_018);
    let server = Serving::start(archive.path());
    for _ in 0..MANY {
        let mut stream = connect(&server);
        // A startup packet of four gigabytes.
        stream.write_all(&[0xFF; 8]).unwrap();
        // It ends when the server has dealt with it.
        let _ = stream.read(&mut [0; 512]);
    }
    let failed = wait_for("all of them to be counted", || {
        let failed = failed_connections(&archive);
        (failed["unauthenticated"] == MANY).then_some(failed)
    });
    assert_eq!(failed["refused"], 0);
    let log = server.log();
    assert!(log.lines().count() < 30, "{log}");
    assert!(log.contains("connection from 127.0.0.1:"), "{log}");
}

#[test]
fn the_number_of_suppressed_lines_is_shown_and_refusals_are_logged_with_their_reason() {
    let archive = GeneratedArchive::new(10_000, 150_018);
    // Without rules no client may connect by TCP.
    let mut server = Serving::start_with(archive.path(), 0, &[]);
    for _ in 0..30 {
        let (status, said) = Receiver::psql(
            tests::Version::V15,
            &format!("{} replication=true", server.conninfo()),
            "IDENTIFY_SYSTEM",
        )
        .run();
        assert!(!status.success(), "{said}");
    }
    let reason = "no pg_hba.conf entry for replication connection from host";
    let log = server.log();
    assert_eq!(log.matches(reason).count(), 10, "{log}");
    assert_eq!(failed_connections(&archive)["refused"], 30);
    server.wait_for_log("20 messages suppressed: refused connections");
}
