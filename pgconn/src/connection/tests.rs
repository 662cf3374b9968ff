use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use walproto::Lsn;
use walproto::client::SessionTimes;

use super::*;
use crate::conninfo::{ConnectionConfig, Password, PasswordPrompt};
use crate::hosts::{Answered, Suits, ask_all, connect_any};
use crate::scripted::{
    Server, V15, authentication, config, error, message, read_message, read_startup, welcome,
};

const TIMES: SessionTimes = SessionTimes {
    receive_timeout: None,
    status_interval: None,
};

async fn connect(conninfo: &str) -> Result<Connection, ConnectError> {
    connect_any(&config(conninfo), TIMES).await
}

/// What all hosts answer, of which nothing is asked.
async fn greet_all(config: &ConnectionConfig) -> Answered<'_, (), ()> {
    ask_all(config, TIMES, |connection| async { (connection, Ok(())) }).await
}

async fn refusal(conninfo: &str) -> ConnectError {
    match connect(conninfo).await {
        Ok(connection) => panic!("connected to {}", connection.server()),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_refusal_says_who_refused_why_and_what_to_do() {
    for (sqlstate, advice, transient) in [
        ("28P01", " (check user and password)", false),
        (
            "28000",
            " (check the user, and that pg_hba.conf has a line for database",
            false,
        ),
        (
            "42501",
            " (the role needs the REPLICATION attribute)",
            false,
        ),
        ("53300", " (raise max_wal_senders or max_connections)", true),
        ("57P03", "", true),
    ] {
        let server = Server::answering(error("FATAL", sqlstate));
        let error = refusal(&format!("host={}", server.host())).await;
        let expected = format!(
            "connection to server on socket \"{}/.s.PGSQL.5432\" failed: FATAL: no [SQLSTATE \
             {sqlstate}]{advice}",
            server.host()
        );
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert_eq!(error.is_transient(), transient, "{sqlstate}");
        let state = error.attempts[0].failure.sqlstate().unwrap();
        assert_eq!(state.as_str(), sqlstate);
    }
}

#[tokio::test]
async fn the_startup_packet_carries_what_was_configured() {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let server = Server::start(move |mut stream| {
        let sender = sender.clone();
        async move {
            sender.send(read_startup(&mut stream).await).await.unwrap();
            stream.write_all(&welcome(&[V15])).await.unwrap();
        }
    });
    let conninfo = format!(
        "host={} options='-c a=b' client_encoding=auto",
        server.host()
    );
    let connection = connect(&conninfo).await.unwrap();
    let packet = String::from_utf8(receiver.recv().await.unwrap()).unwrap();
    let expected = "\0\u{3}\0\0user\0me\0database\0replication\0application_name\0wal_receiver\0\
                    options\0-c a=b\0replication\0true\0client_encoding\0UTF8\0\0";
    assert_eq!(packet, expected);
    assert_eq!(connection.server_version(), ServerVersion(150_018));
    assert_eq!(connection.parameter("server_version"), Some("15.18"));
}

#[tokio::test]
async fn servers_before_13_are_refused() {
    let server = Server::answering(welcome(&[("server_version", "12.22")]));
    let error = refusal(&format!("host={}", server.host())).await;
    assert!(
        error.to_string().ends_with(
            "server version 12.22 is not supported; use a server of version 13 or later"
        ) && !error.is_transient(),
        "{error}"
    );
}

#[tokio::test]
async fn hosts_are_tried_until_one_works_and_all_that_failed_are_named() {
    let refusing = Server::answering(error("FATAL", "28P01"));
    let starting = Server::answering(error("FATAL", "57P03"));
    let working = Server::answering(welcome(&[V15]));
    let hosts = format!("host=/missing,{},{}", refusing.host(), starting.host());
    let error = refusal(&hosts).await;
    assert_eq!(error.attempts.len(), 3);
    let text = error.to_string();
    assert!(
        text.contains("\"/missing/.s.PGSQL.5432\" failed: No such file"),
        "{text}"
    );
    assert!(text.contains("28P01") && text.contains("57P03"), "{text}");

    let connection = connect(&format!("{hosts},{}", working.host()))
        .await
        .unwrap();
    assert!(connection.server().contains(working.host()));
}

#[tokio::test]
async fn target_session_attrs_picks_by_what_servers_report() {
    let server = |standby: &str, read_only: &str| {
        Server::answering(welcome(&[
            V15,
            ("in_hot_standby", standby),
            ("default_transaction_read_only", read_only),
        ]))
    };
    let (standby, read_only, primary) = (
        server("on", "off"),
        server("off", "on"),
        server("off", "off"),
    );
    let hosts = format!(
        "host={},{},{}",
        standby.host(),
        read_only.host(),
        primary.host()
    );
    for (wanted, expected) in [
        ("any", &standby),
        ("read-write", &primary),
        ("read-only", &standby),
        ("primary", &read_only),
        ("standby", &standby),
        ("prefer-standby", &standby),
    ] {
        let connection = connect(&format!("{hosts} target_session_attrs={wanted}")).await;
        let server = connection.unwrap().server().to_owned();
        assert!(server.contains(expected.host()), "{wanted}: {server}");
    }
    let only = format!("host={} target_session_attrs", primary.host());
    connect(&format!("{only}=prefer-standby")).await.unwrap();
    let error = refusal(&format!("{only}=standby")).await.to_string();
    let expected = "server is not in hot standby mode (target_session_attrs=standby)";
    assert!(error.ends_with(expected), "{error}");

    let all = config(&format!("{hosts},/missing target_session_attrs=primary"));
    let answered = greet_all(&all).await;
    let suits: Vec<_> = answered.answers.iter().map(|answer| answer.suits).collect();
    let no = Suits::No {
        wanted: "primary",
        found: "server is in hot standby mode",
    };
    assert_eq!(suits, [no, Suits::Well, Suits::Well]);
    assert_eq!(answered.failed.len(), 1);
}

/// The answer to SHOW of one value.
fn shown(value: &str) -> Vec<u8> {
    let column = b"\0\x01name\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0";
    let length = u32::try_from(value.len()).unwrap().to_be_bytes();
    let row = [b"\0\x01", &length[..], value.as_bytes()].concat();
    [
        message(b'T', column),
        message(b'D', &row),
        message(b'C', b"SHOW\0"),
        message(b'Z', b"I"),
    ]
    .concat()
}

#[tokio::test]
async fn a_server_that_reports_nothing_is_asked_by_show() {
    for (value, wanted, fits) in [
        ("on", "standby", true),
        ("on", "primary", false),
        ("off", "primary", true),
        ("off", "read-only", false),
    ] {
        let server = Server::start(move |mut stream| async move {
            read_startup(&mut stream).await;
            let hello = welcome(&[("server_version", "13.23")]);
            stream.write_all(&hello).await.unwrap();
            let (tag, query) = read_message(&mut stream).await;
            assert_eq!(
                (tag, &query[..]),
                (b'Q', &b"SHOW transaction_read_only\0"[..])
            );
            stream.write_all(&shown(value)).await.unwrap();
            let _closed_by_client = stream.read(&mut [0; 64]).await;
        });
        let conninfo = format!("host={} target_session_attrs={wanted}", server.host());
        assert_eq!(connect(&conninfo).await.is_ok(), fits, "{value} {wanted}");
    }
}

#[tokio::test]
async fn a_refused_command_leaves_the_connection_usable() {
    let server = Server::start(|mut stream| async move {
        read_startup(&mut stream).await;
        stream.write_all(&welcome(&[V15])).await.unwrap();
        read_message(&mut stream).await;
        let refused = [error("ERROR", "42704"), message(b'Z', b"I")].concat();
        stream.write_all(&refused).await.unwrap();
        read_message(&mut stream).await;
        stream.write_all(&shown("16MB")).await.unwrap();
        let (tag, _) = read_message(&mut stream).await;
        assert_eq!(tag, b'X');
    });
    let mut connection = connect(&format!("host={}", server.host())).await.unwrap();
    let error = connection.show("nonsense").await.unwrap_err();
    assert_eq!(error.sqlstate().unwrap().as_str(), "42704");
    assert!(
        error.to_string().starts_with("SHOW nonsense: ERROR: no"),
        "{error}"
    );
    let setting = connection.show("wal_segment_size").await.unwrap();
    assert_eq!(setting.value, "16MB");
    connection.close().await;
}

#[tokio::test]
async fn a_missing_password_is_asked_for_once() {
    let server = Server::start(|mut stream| async move {
        read_startup(&mut stream).await;
        stream.write_all(&authentication(3)).await.unwrap();
        let Ok(tag) = stream.read_u8().await else {
            return;
        };
        assert_eq!(
            (tag, read_startup(&mut stream).await),
            (b'p', b"typed\0".to_vec())
        );
        stream.write_all(&welcome(&[V15])).await.unwrap();
    });
    let mut config = config(&format!("host={}", server.host()));
    let error = connect_any(&config, TIMES).await.map(|_| ()).unwrap_err();
    assert!(error.is_password_missing() && !error.is_transient());

    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    config.password_prompt = Some(PasswordPrompt::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(Password::new("typed"))
    }));
    for _ in 0..2 {
        connect_any(&config, TIMES).await.unwrap();
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_refused_password_from_a_file_names_the_file() {
    let server = Server::start(|mut stream| async move {
        read_startup(&mut stream).await;
        stream.write_all(&authentication(3)).await.unwrap();
        let (_, password) = read_message(&mut stream).await;
        assert_eq!(password, b"from file\0");
        stream.write_all(&error("FATAL", "28P01")).await.unwrap();
    });
    let path = std::path::Path::new(server.host()).join("pgpass");
    let line = format!("{}:5432:replication:me:from file\n", server.host());
    std::fs::write(&path, line).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let conninfo = format!("host={} passfile={}", server.host(), path.display());
    let error = refusal(&conninfo).await.to_string();
    let expected = format!("(password retrieved from file \"{}\")", path.display());
    assert!(error.ends_with(&expected), "{error}");
}

#[tokio::test]
async fn requirepeer_is_the_user_that_runs_the_server() {
    let server = Server::answering(welcome(&[V15]));
    let me = crate::conninfo::user_name(nix::unistd::geteuid().as_raw()).unwrap();
    let host = format!("host={} requirepeer", server.host());
    connect(&format!("{host}={me}")).await.unwrap();
    let error = refusal(&format!("{host}=nobody-else")).await.to_string();
    let expected =
        format!("requirepeer specifies \"nobody-else\", but actual peer user name is \"{me}\"");
    assert!(error.ends_with(&expected), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_given_up_after_connect_timeout() {
    let server = Server::start(|mut stream| async move {
        read_startup(&mut stream).await;
        std::future::pending().await
    });
    let error = refusal(&format!("host={} connect_timeout=3", server.host())).await;
    let expected = "failed: timeout expired: no connection within 3 s (connect_timeout)";
    assert!(error.to_string().ends_with(expected), "{error}");
    assert!(error.is_transient());
}

/// An address that takes connections and never says a word, as that of a process that is stopped.
async fn silent() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_silent_from_the_start_is_given_up_after_the_receive_timeout() {
    let (_listener, port) = silent().await;
    let times = SessionTimes {
        receive_timeout: Some(Duration::from_secs(60)),
        ..TIMES
    };
    for sslmode in ["disable", "require", "require sslnegotiation=direct"] {
        let config = config(&format!("host=127.0.0.1 port={port} sslmode={sslmode}"));
        let error = connect_any(&config, times).await.err().unwrap();
        let expected = "failed: timeout expired: no connection within 60 s (receive timeout)";
        assert!(error.to_string().ends_with(expected), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_host_does_not_keep_us_from_the_one_that_answers() {
    let (_listener, port) = silent().await;
    let server = Server::start(|mut stream| async move {
        read_startup(&mut stream).await;
        stream.write_all(&welcome(&[V15])).await.unwrap();
        let _closed_by_client = stream.read(&mut [0; 64]).await;
    });
    let hosts = format!("host=127.0.0.1,{} port={port},5432", server.host());
    let began = tokio::time::Instant::now();
    let config = config(&hosts);
    let answered = greet_all(&config).await;
    assert!(began.elapsed() < Duration::from_secs(10));
    let names: Vec<_> = answered
        .answers
        .iter()
        .map(|answer| answer.connection.server())
        .collect();
    assert!(
        names.len() == 1 && names[0].contains(server.host()),
        "{names:?}"
    );
    let failed: Vec<_> = answered
        .failed
        .iter()
        .map(|a| a.failure.to_string())
        .collect();
    let expected = "timeout expired: no connection within 5 s (since another host answered)";
    assert_eq!(failed, [expected]);
    assert!(answered.failed[0].server.contains(&port.to_string()));
}

#[tokio::test]
async fn of_several_hosts_that_want_a_password_one_has_it_asked_for() {
    let servers = [(); 3].map(|()| {
        Server::start(|mut stream| async move {
            read_startup(&mut stream).await;
            stream.write_all(&authentication(3)).await.unwrap();
            if let Ok(tag) = stream.read_u8().await {
                assert_eq!(tag, b'p');
                assert_eq!(read_startup(&mut stream).await, b"typed\0");
                stream.write_all(&welcome(&[V15])).await.unwrap();
                let _closed_by_client = stream.read(&mut [0; 64]).await;
            }
        })
    });
    let hosts = servers.each_ref().map(Server::host).join(",");
    let mut config = config(&format!("host={hosts}"));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    config.password_prompt = Some(PasswordPrompt::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(Password::new("typed"))
    }));
    let answered = greet_all(&config).await;
    assert_eq!(answered.answers.len(), servers.len());
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

/// What came first on each connection to a TCP server that has no TLS: a request for TLS, or a
/// startup packet, which it refuses with `sqlstate` or takes.
async fn first_packets(sslmode: &str, refuse: Option<&str>) -> (bool, Vec<&'static str>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let conninfo = format!("host=localhost hostaddr=127.0.0.1 port={port} sslmode={sslmode}");
    let mut seen = Vec::new();
    let serve = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let packet = read_startup(&mut stream).await;
            if packet == b"\x04\xd2\x16\x2f" {
                seen.push("tls");
                stream.write_all(b"N").await.unwrap();
                // A client that wants TLS or nothing goes now.
                if stream.peek(&mut [0]).await.unwrap() == 0 {
                    continue;
                }
                read_startup(&mut stream).await;
            }
            seen.push("plain");
            let answer = match refuse {
                Some(sqlstate) => error("FATAL", sqlstate),
                None => welcome(&[V15]),
            };
            stream.write_all(&answer).await.unwrap();
        }
    };
    let connected = tokio::select! {
        biased;
        result = connect(&conninfo) => result.is_ok(),
        () = serve => unreachable!("it serves for ever"),
    };
    (connected, seen)
}

#[tokio::test]
async fn both_errors_of_the_ways_that_sslmode_allows_are_shown() {
    for (sslmode, ways) in [
        ("prefer", ["with TLS", "without TLS"]),
        ("allow", ["without TLS", "with TLS"]),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let packet = read_startup(&mut stream).await;
                if packet == b"\x04\xd2\x16\x2f" {
                    // A handshake that fails: this is not TLS.
                    stream.write_all(b"Sx").await.unwrap();
                } else {
                    stream.write_all(&error("FATAL", "28P01")).await.unwrap();
                }
            }
        };
        let conninfo = format!("host=127.0.0.1 port={port} sslmode={sslmode}");
        let refused = tokio::select! {
            refused = refusal(&conninfo) => refused,
            () = serve => unreachable!("it serves for ever"),
        };
        let attempts = &refused.attempts;
        assert_eq!(attempts.len(), 2, "{refused}");
        for (attempt, way) in attempts.iter().zip(ways) {
            assert!(attempt.server.ends_with(&format!(", {way}")), "{refused}");
            let is_refusal = attempt.failure.sqlstate().is_some();
            assert_eq!(is_refusal, way == "without TLS", "{refused}");
        }
    }
}

#[tokio::test]
async fn sslmode_decides_what_is_tried_first_and_second() {
    for (sslmode, refuse, connected, packets) in [
        ("disable", None, true, &["plain"][..]),
        ("allow", None, true, &["plain"]),
        ("allow", Some("28000"), false, &["plain", "tls", "plain"]),
        ("allow", Some("57P03"), false, &["plain"]),
        ("prefer", None, true, &["tls", "plain"]),
        ("prefer", Some("28000"), false, &["tls", "plain"]),
        ("require", None, false, &["tls"]),
    ] {
        let found = first_packets(sslmode, refuse).await;
        assert_eq!(found, (connected, packets.to_vec()), "{sslmode} {refuse:?}");
    }
}

/// WAL whose bytes tell their position.
fn wal(start: usize, length: usize) -> Vec<u8> {
    (start..start + length)
        .map(|position| position.wrapping_mul(2_654_435_761).to_be_bytes()[4])
        .collect()
}

fn xlog_data(start: usize, length: usize) -> Vec<u8> {
    let position = u64::try_from(start).unwrap().to_be_bytes();
    let header = [b"w", &position[..], &[0; 8], &[0; 8]].concat();
    message(b'd', &[header, wal(start, length)].concat())
}

/// A server that streams `chunks` of WAL after START_REPLICATION, in pieces of `piece` bytes.
fn streaming(chunks: Vec<usize>, piece: usize) -> Server {
    Server::start(move |mut stream| {
        let chunks = chunks.clone();
        async move {
            read_startup(&mut stream).await;
            stream.write_all(&welcome(&[V15])).await.unwrap();
            read_message(&mut stream).await;
            let mut bytes = message(b'W', b"\0\0\0");
            let mut position = 0;
            for length in chunks {
                bytes.extend(xlog_data(position, length));
                position += length;
            }
            for piece in bytes.chunks(piece) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            let _closed_by_client = stream.read(&mut [0; 64]).await;
        }
    })
}

fn start_replication(connection: &mut Connection) {
    let command = Command::parse("START_REPLICATION 0/0 TIMELINE 1").unwrap();
    connection.send(&command).unwrap();
}

#[tokio::test]
async fn wal_arrives_whole_whatever_buffers_it_is_cut_by() {
    let chunks: Vec<_> = (0..60).map(|n| [1, 131_072, 77_777, 8192][n % 4]).collect();
    let total = chunks.iter().sum();
    let server = streaming(chunks, 100_003);
    let mut connection = connect(&format!("host={}", server.host())).await.unwrap();
    start_replication(&mut connection);
    assert_eq!(connection.event().await.unwrap(), Event::CopyStarted);
    // Some payloads are kept, so that buffers cannot be used again.
    let (mut kept, mut received) = (Vec::new(), 0);
    while received < total {
        let Event::WalData { start, data, .. } = connection.event().await.unwrap() else {
            panic!("only WAL was sent");
        };
        assert_eq!(start, Lsn(received as u64));
        assert!(data == wal(received, data.len()), "WAL at {start}");
        received += data.len();
        kept.push(data);
        kept.truncate(7);
    }
    let first: Vec<_> = kept.concat();
    assert!(first == wal(0, first.len()));
}

#[tokio::test]
async fn an_event_may_be_given_up_and_asked_for_again() {
    let chunks = vec![10; 50];
    let server = streaming(chunks, 3);
    let mut connection = connect(&format!("host={}", server.host())).await.unwrap();
    start_replication(&mut connection);
    let mut received = 0;
    while received < 500 {
        let event = tokio::select! {
            biased;
            event = connection.event() => event.unwrap(),
            () = tokio::task::yield_now() => continue,
        };
        if let Event::WalData { start, data, .. } = event {
            assert_eq!(
                (start, &data[..]),
                (Lsn(received as u64), &wal(received, 10)[..])
            );
            received += 10;
        }
    }
}

#[tokio::test]
async fn what_a_server_says_last_is_heard_although_nothing_can_be_written() {
    let (go, gone) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (order, done) = (Arc::clone(&go), Arc::clone(&gone));
    let server = Server::start(move |mut stream| {
        let (order, done) = (Arc::clone(&order), Arc::clone(&done));
        async move {
            read_startup(&mut stream).await;
            stream.write_all(&welcome(&[V15])).await.unwrap();
            order.notified().await;
            stream.write_all(&error("FATAL", "57P01")).await.unwrap();
            drop(stream);
            done.notify_one();
        }
    });
    let mut connection = connect(&format!("host={}", server.host())).await.unwrap();
    go.notify_one();
    gone.notified().await;
    // The server is gone: this cannot be written any more.
    let error = connection.show("wal_segment_size").await.unwrap_err();
    assert_eq!(error.sqlstate().unwrap().as_str(), "57P01", "{error}");
}

#[tokio::test]
async fn a_farewell_that_came_with_the_welcome_is_heard() {
    let farewell = [welcome(&[V15]), error("FATAL", "57P01")].concat();
    let server = Server::answering(farewell);
    let mut connection = connect(&format!("host={}", server.host())).await.unwrap();
    let error = connection.show("wal_segment_size").await.unwrap_err();
    assert_eq!(error.sqlstate().unwrap().as_str(), "57P01", "{error}");
}
