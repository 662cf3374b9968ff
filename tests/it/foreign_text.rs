//! Text of hostile servers and clients: it neither reaches a terminal nor a command as it came, and
//! no amount of it fills the log.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use bytes::BytesMut;
use tests::{
    ArchiveDirectory, Cluster, GeneratedArchive, Proxy, Receiver, ReceiverBuilder, Serving,
    Verdict, Version,
};
use walproto::backend::{AuthenticationRequest, BackendMessage};
use walproto::error::{ServerMessage, Severity, SqlState};
use walproto::is_unsafe;

/// A cleared screen, a bell, a line that is not ours, and text in reverse.
const HOSTILE: &str = "a\x1b[2J\u{9b}2J\x07\r\nwal-receiver: all is well\u{202e}live\u{85}";
/// How it is shown.
const SHOWN: &str = "a\\u{1b}[2J\\u{9b}2J\\u{7}\\r\\nwal-receiver: all is well\\u{202e}live\\u{85}";

/// The log has no character that does more than to be seen, and no line that a peer made up.
#[track_caller]
fn assert_clean(log: &str) {
    let hostile = log.chars().find(|c| *c != '\n' && is_unsafe(*c));
    assert_eq!(hostile, None, "{log:?}");
    let fake = |line: &str| line.starts_with("wal-receiver: all is well");
    assert!(!log.lines().any(fake), "{log}");
}

/// The text as a JSON string has it.
fn in_json(text: &str) -> String {
    text.replace('\\', "\\\\")
}

/// The port of a server that answers each startup packet with this, and then closes.
fn answering(answer: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // It ends with the test's process.
    thread::spawn(move || {
        for client in listener.incoming() {
            let answer = answer.clone();
            thread::spawn(move || {
                let mut client = client.unwrap();
                let mut packet = [0; 4096];
                // The request for TLS first.
                if client.read(&mut packet).unwrap_or(0) == 8 {
                    let _gone = client.write_all(b"N");
                    let _gone = client.read(&mut packet);
                }
                let _gone = client.write_all(&answer);
            });
        }
    });
    port
}

fn encoded(messages: impl IntoIterator<Item = BackendMessage>) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    for message in messages {
        message.encode(&mut bytes).unwrap();
    }
    bytes.to_vec()
}

fn refusal() -> BackendMessage {
    let message = ServerMessage::fatal(SqlState::INVALID_PASSWORD, HOSTILE)
        .with_detail(HOSTILE)
        .with_hint(HOSTILE);
    BackendMessage::ErrorResponse(Box::new(message))
}

fn once(archive: &ArchiveDirectory, port: u16, format: &str) -> ReceiverBuilder {
    Receiver::bare()
        .args(["--no-loop", "--log-format", format, "-d"])
        .arg(format!("host=127.0.0.1 port={port} user=any"))
        .arg("-D")
        .arg(archive.path())
}

#[test]
fn an_error_of_a_server_that_is_not_authenticated_is_escaped_in_both_formats() {
    let port = answering(encoded([refusal()]));
    for (format, shown) in [("text", SHOWN.to_owned()), ("json", in_json(SHOWN))] {
        let archive = ArchiveDirectory::new();
        let (status, log) = once(&archive, port, format).run();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains(&shown), "{log}");
        assert_clean(&log);
    }
}

#[test]
fn a_flood_of_notices_is_counted_and_a_long_text_is_cut() {
    let notice = ServerMessage::new(
        Severity::Notice,
        SqlState::INTERNAL_ERROR,
        HOSTILE.to_owned() + &"x".repeat(4000),
    );
    let notice = BackendMessage::NoticeResponse(Box::new(notice));
    let welcome = BackendMessage::Authentication(AuthenticationRequest::Ok);
    let notices = std::iter::repeat_n(notice, 5000);
    let answer = encoded(
        std::iter::once(welcome)
            .chain(notices)
            .chain(std::iter::once(refusal())),
    );
    assert!(answer.len() > 20_000_000);
    let port = answering(answer);
    for format in ["text", "json"] {
        let archive = ArchiveDirectory::new();
        let (status, log) = once(&archive, port, format).run();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.len() < 30_000, "{} bytes", log.len());
        assert_eq!(log.matches("NOTICE: a").count(), 10, "{log}");
        assert!(log.contains(" more bytes)"), "{log}");
        assert!(log.contains("4990 more notices of the server"), "{log}");
        assert_clean(&log);
    }
}

#[test]
fn a_command_of_on_event_gets_escaped_text() {
    let cluster = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let proxy = Proxy::start(&cluster, |message| {
        if message.tag == b'W' {
            message.tag = b'E';
            message.body = format!("SERROR\0C58P01\0M{HOSTILE}\0\0").into_bytes();
        }
        Verdict::Forward
    });
    let start = cluster.segment_size().start_of(cluster.flush_lsn());
    let archive = ArchiveDirectory::new();
    let noted = tempfile::NamedTempFile::new().unwrap();
    let command = format!(
        "printf %s \"$WAL_RECEIVER_MESSAGE\" > '{}'",
        noted.path().display()
    );
    let (status, log) = Receiver::bare()
        .args(["-d", &proxy.conninfo(), "--on-event", &command])
        // Without a start the receiver asks for the oldest WAL first, and takes the answer for that.
        .args(["--start", &start.to_string(), "-D"])
        .arg(archive.path())
        .run();
    assert_eq!(status.code(), Some(1), "{log}");
    assert_clean(&log);
    let told = fs::read_to_string(noted.path()).unwrap();
    assert!(told.contains(SHOWN), "{told:?} in {log}");
    assert!(!told.chars().any(is_unsafe), "{told:?}");
}

/// A client that says who it is, asks for nonsense, and is gone.
fn nonsense(port: u16, user: &str, command: &str) {
    let mut startup = BytesMut::new();
    startup.extend_from_slice(&[0, 3, 0, 0]);
    for text in [
        "user",
        user,
        "replication",
        "true",
        "application_name",
        HOSTILE,
        "",
    ] {
        startup.extend_from_slice(text.as_bytes());
        startup.extend_from_slice(b"\0");
    }
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let send = |client: &mut TcpStream, tag: &[u8], body: &[u8]| {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        // The server may have closed the connection already.
        let _gone = client.write_all(&[tag, &length, body].concat());
    };
    send(&mut client, b"", &startup);
    send(&mut client, b"Q", format!("{command}\0").as_bytes());
    send(&mut client, b"\x1b", HOSTILE.as_bytes());
    let mut answers = Vec::new();
    let _gone = client.read_to_end(&mut answers);
}

#[test]
fn a_client_s_names_and_commands_are_escaped_in_the_log_and_the_status() {
    let archive = GeneratedArchive::new(300_000, 150_018);
    for format in ["text", "json"] {
        let mut serving = Serving::start_with(
            archive.path(),
            0,
            &["--trust-loopback", "--verbose", "--log-format", format],
        );
        let port = serving.port();
        for user in [HOSTILE, "any"] {
            nonsense(port, user, HOSTILE);
            nonsense(
                port,
                user,
                &format!("START_REPLICATION SLOT \"{HOSTILE}\" 0/0"),
            );
        }
        assert!(serving.stop().success(), "{}", serving.log());
        let log = serving.log();
        assert!(log.contains("live"), "{log}");
        assert_clean(&log);
    }
}
