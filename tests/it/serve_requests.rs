//! What clients ask of our server, well and badly: each is answered as PostgreSQL would, and
//! nobody else is disturbed.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use tests::{EmbeddedServer, GeneratedArchive, Link, Receiver, Version, wait_until};
use walproto::result::SlotInfo;
use walproto::{Lsn, TimelineId};

fn serve(archive: &GeneratedArchive) -> EmbeddedServer {
    EmbeddedServer::start(EmbeddedServer::config(), archive.path())
}

fn connect(server: &EmbeddedServer) -> Link {
    Link::new(&server.conninfo(), std::path::Path::new("/")).unwrap()
}

#[test]
fn identity_and_parameters_are_those_of_the_archives_server() {
    let archive = GeneratedArchive::new(300_000, 150_018);
    let server = serve(&archive);
    let mut link = connect(&server);
    let identity = link.identify_system();
    assert_eq!(identity.system_id, GeneratedArchive::SYSTEM_ID);
    assert_eq!(
        (identity.timeline, identity.xlogpos),
        (TimelineId::FIRST, archive.end())
    );
    for (name, value) in [
        ("server_version", "15.18"),
        ("wal_segment_size", "1MB"),
        ("data_directory_mode", "0700"),
        ("in_hot_standby", "on"),
    ] {
        assert_eq!(link.show(name), value);
    }
    let mut other = connect(&server);
    assert_ne!(link.process_id(), other.process_id());
}

#[test]
fn psql_reads_the_answers() {
    let archive = GeneratedArchive::new(300_000, 150_018);
    let server = serve(&archive);
    let psql = |command: &str| {
        let (status, said) = Receiver::psql(Version::V15, &server.conninfo(), command).run();
        (status.success(), said)
    };
    let identity = format!("{}|1|{}|\n", GeneratedArchive::SYSTEM_ID, archive.end());
    assert_eq!(psql("IDENTIFY_SYSTEM"), (true, identity));
    for (command, said) in [
        (
            "CREATE_REPLICATION_SLOT a PHYSICAL (RESERVE_WAL)",
            "a|0/0||\n".to_owned(),
        ),
        (
            "READ_REPLICATION_SLOT a",
            format!("physical|{}|1\n", archive.end()),
        ),
        ("READ_REPLICATION_SLOT b", "||\n".to_owned()),
        (
            "DROP_REPLICATION_SLOT a",
            "DROP_REPLICATION_SLOT\n".to_owned(),
        ),
    ] {
        assert_eq!(psql(command), (true, said), "{command}");
    }
    for (command, words) in [
        (
            "SELECT 1",
            "cannot execute SQL commands in WAL sender for physical replication",
        ),
        (
            "SHOW shared_buffers",
            "unrecognized configuration parameter \"shared_buffers\"",
        ),
        (
            "TIMELINE_HISTORY 2",
            "could not open file \"pg_wal/00000002.history\"",
        ),
        (
            "DROP_REPLICATION_SLOT a",
            "replication slot \"a\" does not exist",
        ),
        (
            "CREATE_REPLICATION_SLOT \"A\" PHYSICAL",
            "contains invalid character",
        ),
        (
            "CREATE_REPLICATION_SLOT a LOGICAL p",
            "this server keeps WAL and has no databases",
        ),
        ("BASE_BACKUP", "base backups are not supported"),
        (
            "IDENTIFY_SYSTEM 1",
            "invalid replication command at byte 16",
        ),
    ] {
        let (success, said) = psql(command);
        assert!(!success && said.contains(words), "{command}: {said}");
    }
}

#[test]
fn a_start_that_cannot_be_is_refused_with_postgresqls_sqlstate() {
    let archive = GeneratedArchive::new(300_000, 150_018);
    let server = serve(&archive);
    let mut link = connect(&server);
    let end = archive.end();
    for (command, sqlstate, words) in [
        (
            "START_REPLICATION 0/100000 TIMELINE 1",
            "58P01",
            "has already been removed",
        ),
        (
            &format!("START_REPLICATION {} TIMELINE 1", Lsn(end.0 + 8)),
            "XX000",
            "is ahead of the WAL flush position",
        ),
        (
            &format!("START_REPLICATION {end} TIMELINE 7"),
            "XX000",
            "requested timeline 7 is not in this server's history",
        ),
        (
            &format!("START_REPLICATION SLOT x {end} TIMELINE 1"),
            "42704",
            "\"x\" does not exist",
        ),
    ] {
        let refused = link.refused_stream(command);
        assert_eq!(refused.sqlstate.as_str(), sqlstate, "{refused}");
        assert!(refused.message.contains(words), "{refused}");
    }
    // The connection goes on.
    let wal = archive.wal();
    assert!(link.stream(GeneratedArchive::START, wal.len()) == wal);
}

#[test]
fn a_slot_is_used_by_one_and_waited_for_by_others() {
    let archive = GeneratedArchive::new(300_000, 150_018);
    let server = serve(&archive);
    let mut holder = connect(&server);
    holder
        .execute("CREATE_REPLICATION_SLOT one PHYSICAL")
        .unwrap();
    let start = GeneratedArchive::START;
    let pid = holder.process_id();
    let wal = holder.stream_command(&format!("START_REPLICATION SLOT one {start}"), 8);
    assert_eq!(wal, archive.wal()[..8]);
    let mut other = connect(&server);
    let taken = other.refused_stream(&format!("START_REPLICATION SLOT one {start}"));
    assert_eq!(taken.sqlstate.as_str(), "55006");
    assert_eq!(
        taken.message,
        format!("replication slot \"one\" is active for PID {pid}")
    );
    let refused = other.execute("DROP_REPLICATION_SLOT one").unwrap_err();
    assert_eq!(refused.sqlstate.as_str(), "55006");
    let waiting = std::thread::spawn(move || {
        let dropped = other.execute("DROP_REPLICATION_SLOT one WAIT");
        (dropped.is_ok(), other)
    });
    wait_until("the slot to be waited for", || {
        server.standby("link").is_some()
    });
    assert!(!waiting.is_finished());
    drop(holder);
    let (dropped, mut other) = waiting.join().unwrap();
    assert!(dropped);
    let table = other.execute("READ_REPLICATION_SLOT one").unwrap();
    assert_eq!(SlotInfo::decode(&table), Ok(None));
}

#[test]
fn what_a_client_says_last_counts() {
    let archive = GeneratedArchive::new(300_000, 150_018);
    let server = serve(&archive);
    let mut link = connect(&server);
    link.execute("CREATE_REPLICATION_SLOT one PHYSICAL")
        .unwrap();
    let start = GeneratedArchive::START;
    let command = format!("START_REPLICATION SLOT one {start}");
    let wal = link.stream_command(&command, archive.wal().len());
    assert!(wal == archive.wal());
    link.finish(archive.end());
    let table = link.execute("READ_REPLICATION_SLOT one").unwrap();
    let slot = SlotInfo::decode(&table).unwrap().unwrap();
    assert_eq!(slot.restart_lsn, Some(archive.end()));
}

#[test]
fn a_temporary_slot_goes_with_its_connection() {
    let archive = GeneratedArchive::new(300_000, 150_018);
    let server = serve(&archive);
    let mut link = connect(&server);
    link.execute("CREATE_REPLICATION_SLOT t TEMPORARY PHYSICAL (RESERVE_WAL)")
        .unwrap();
    let mut other = connect(&server);
    let mut is_there = || {
        let table = other.execute("READ_REPLICATION_SLOT t").unwrap();
        SlotInfo::decode(&table).unwrap().is_some()
    };
    assert!(is_there());
    drop(link);
    wait_until("the slot to go", || !is_there());
}

/// What the server says to bytes, up to its end of the connection.
fn answer_to(server: &EmbeddedServer, bytes: &[u8]) -> Vec<u8> {
    let mut stream = raw(server);
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut said = Vec::new();
    // What was refused may be reset rather than closed.
    let _ = stream.read_to_end(&mut said);
    said
}

fn raw(server: &EmbeddedServer) -> TcpStream {
    let stream = TcpStream::connect(server.tcp_address()).unwrap();
    stream.set_read_timeout(Some(tests::DEADLINE)).unwrap();
    stream
}

fn startup(parameters: &[&str]) -> Vec<u8> {
    let mut body = vec![0, 3, 0, 0];
    for text in parameters {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap();
    [&length.to_be_bytes()[..], &body].concat()
}

fn message(tag: u8, length: u32, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

#[test]
fn malformed_messages_end_their_connection_and_no_other() {
    let archive = GeneratedArchive::new(300_000, 150_018);
    let server = serve(&archive);
    let mut witness = connect(&server);
    let hello = startup(&["user", "any", "replication", "true"]);
    let after_hello = |bytes: &[u8]| [&hello[..], bytes].concat();
    let cases: [(&str, Vec<u8>, Option<&str>); 9] = [
        ("http", b"GET / HTTP/1.1\r\n\r\n".to_vec(), None),
        ("a packet of 4 GiB", vec![0xff; 8], None),
        ("a truncated packet", hello[..20].to_vec(), None),
        (
            "a truncated query",
            after_hello(&message(b'Q', 100, b"IDENTIFY")),
            None,
        ),
        ("no replication", startup(&["user", "any"]), Some("0A000")),
        ("no user", startup(&["replication", "true"]), Some("28000")),
        (
            "plain bytes after a request for TLS",
            [&b"\0\0\0\x08\x04\xd2\x16\x2f"[..], &hello].concat(),
            Some("08P01"),
        ),
        (
            "a query of 1 GiB",
            after_hello(&message(b'Q', 1 << 30, b"")),
            Some("08P01"),
        ),
        (
            "an unknown message",
            after_hello(&message(b'~', 4, b"")),
            Some("08P01"),
        ),
    ];
    for (what, bytes, sqlstate) in cases {
        let said = answer_to(&server, &bytes);
        let said = String::from_utf8_lossy(&said);
        match sqlstate {
            Some(sqlstate) => assert!(said.contains(&format!("C{sqlstate}\0")), "{what}: {said:?}"),
            None => assert!(!said.contains("replication"), "{what}: {said:?}"),
        }
        assert_eq!(witness.show("wal_segment_size"), "1MB");
    }
}

#[test]
fn copy_messages_outside_of_a_stream_are_skipped() {
    let archive = GeneratedArchive::new(300_000, 150_018);
    let server = serve(&archive);
    let mut bytes = startup(&["user", "any", "replication", "true"]);
    bytes.extend(message(b'd', 5, b"x"));
    bytes.extend(message(b'c', 4, b""));
    bytes.extend(message(b'Q', 4 + 14, b"SHOW is_super\0"));
    bytes.extend(message(b'X', 4, b""));
    let said = String::from_utf8_lossy(&answer_to(&server, &bytes)).into_owned();
    // One error, for the command.
    assert_eq!(said.matches("VERROR\0").count(), 1, "{said:?}");
    assert!(said.contains("C42704\0"), "{said:?}");
}

/// Answers that are longer than what is kept of them at a time come all the same, though the client
/// says nothing more.
#[test]
fn commands_that_come_together_are_all_answered() {
    let archive = GeneratedArchive::new(300_000, 150_018);
    let server = serve(&archive);
    let mut stream = raw(&server);
    let hello = startup(&["user", "any", "replication", "true"]);
    stream.write_all(&hello).unwrap();
    let wrong = message(b'Q', 4 + 2, b"(\0");
    for count in [1, 10, 100, 333, 500, 1000, 3000] {
        stream.write_all(&wrong.repeat(count)).unwrap();
        let mut answered = 0;
        while answered < count {
            let mut header = [0; 5];
            stream.read_exact(&mut header).unwrap();
            let [tag, length @ ..] = header;
            let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
            stream.read_exact(&mut body).unwrap();
            answered += usize::from(tag == b'E');
        }
    }
}

#[test]
fn a_thousand_silent_connections_keep_nobody_out() {
    let archive = GeneratedArchive::new(300_000, 150_018);
    let mut config = EmbeddedServer::config();
    config.limits.authentication_timeout = Duration::from_secs(3600);
    let server = EmbeddedServer::start(config, archive.path());
    let mut witness = connect(&server);
    let silent: Vec<TcpStream> = (0..1000).map(|_| raw(&server)).collect();
    assert_eq!(witness.show("wal_segment_size"), "1MB");
    let mut newcomer = connect(&server);
    assert_eq!(newcomer.show("wal_segment_size"), "1MB");
    // Of those that say nothing only so many are kept.
    wait_until("the oldest to be closed", || {
        let mut first = &silent[0];
        first.set_nonblocking(true).unwrap();
        matches!(first.read(&mut [0]), Ok(0))
    });
    drop(silent);
}

#[test]
fn a_client_that_does_not_say_who_it_is_in_time_is_closed() {
    let archive = GeneratedArchive::new(300_000, 150_018);
    let mut config = EmbeddedServer::config();
    config.limits.authentication_timeout = Duration::from_millis(50);
    let server = EmbeddedServer::start(config, archive.path());
    let mut silent = raw(&server);
    let mut said = Vec::new();
    silent.read_to_end(&mut said).unwrap();
}

#[test]
fn limits_of_connections_are_told() {
    let archive = GeneratedArchive::new(300_000, 150_018);
    let mut config = EmbeddedServer::config();
    config.limits.connections = 2;
    config.limits.connections_per_user = 1;
    let server = EmbeddedServer::start(config, archive.path());
    let connect = |user: &str| {
        let conninfo = format!("{} user={user}", server.conninfo());
        Link::new(&conninfo, std::path::Path::new("/"))
    };
    let refusal = |user: &str| {
        let error = connect(user).err().unwrap();
        let state = error.attempts.first().unwrap().failure.sqlstate();
        (state.unwrap().to_string(), error.to_string())
    };
    let first = connect("a").unwrap();
    let (state, text) = refusal("a");
    assert_eq!(state, "53300");
    assert!(
        text.contains("too many connections for role \"a\""),
        "{text}"
    );
    let _second = connect("b").unwrap();
    let (state, text) = refusal("c");
    assert_eq!(state, "53300");
    assert!(text.contains("sorry, too many clients already"), "{text}");
    drop(first);
    wait_until("the first to be forgotten", || connect("a").is_ok());
}

/// Who is told that there is no room may take two seconds to hear it, and is counted until then.
#[test]
fn clients_that_are_refused_for_lack_of_room_hold_no_more_than_unknown_ones() {
    const CLIENTS: usize = 400;
    let archive = GeneratedArchive::new(300_000, 150_018);
    let mut config = EmbeddedServer::config();
    config.limits.connections = 0;
    let server = EmbeddedServer::start(config, archive.path());
    let open_files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open_files();
    let hello = startup(&["user", "any", "replication", "true"]);
    let mut refused = Vec::new();
    for _ in 0..CLIENTS {
        let mut stream = raw(&server);
        stream.write_all(&hello).unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        assert!(String::from_utf8_lossy(&said).contains("C53300\0"));
        // It has heard it, and does not go.
        refused.push(stream);
    }
    let held = open_files() - before - CLIENTS;
    assert!(held < 200, "{held} connections are held");
    drop(refused);
}

#[test]
fn a_client_that_falls_silent_while_it_is_streamed_to_is_closed() {
    let archive = GeneratedArchive::new(300_000, 150_018);
    let mut config = EmbeddedServer::config();
    config.limits.wal_sender_timeout = Some(Duration::from_millis(100));
    let server = EmbeddedServer::start(config, archive.path());
    let mut silent = connect(&server);
    let _some = silent.stream(GeneratedArchive::START, 8);
    wait_until("the silent client to be forgotten", || {
        server.standby("link").is_none()
    });
}
