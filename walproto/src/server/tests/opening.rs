//! How a session begins, and what PostgreSQL said to the same packets.

use super::*;
use crate::backend::BackendMessage;
use crate::server::ReplicationMode;

const TLS: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const GSS: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";

/// A session of a version at its beginning.
fn session(version: ServerVersion) -> ServerSession {
    ServerSession::new(Instant::now(), PgTimestamp(0), version, TIMES)
}

fn say(session: &mut ServerSession, bytes: &[u8]) -> Result<(), ServerError> {
    let now = session.now;
    let mut input = BytesMut::from(bytes);
    let result = session.handle_input(now, &mut input);
    assert!(result.is_err() || input.is_empty());
    result
}

fn sent(session: &mut ServerSession) -> BytesMut {
    let mut out = BytesMut::new();
    session.poll_transmit(&mut out);
    out
}

fn events(session: &mut ServerSession) -> Vec<Event> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

/// A packet with a version and parameters.
fn packet(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for text in parameters.iter().flat_map(|(name, value)| [name, value]) {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap();
    [&length.to_be_bytes()[..], &body].concat()
}

const REP: &[(&str, &str)] = &[("user", "postgres"), ("replication", "true")];

fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [REP, more].concat()
}

/// What the one client event asks for.
fn requested(version: ServerVersion, packet: &[u8]) -> Box<StartupRequest> {
    let mut session = session(version);
    say(&mut session, packet).unwrap();
    match events(&mut session).pop() {
        Some(Event::Startup(request)) => request,
        other => panic!("{other:?}"),
    }
}

/// The error that the session answers a packet with, and fails with.
fn refused(version: ServerVersion, packet: &[u8]) -> String {
    let mut session = session(version);
    let error = say(&mut session, packet).unwrap_err();
    assert!(session.is_over());
    assert_eq!(session.next_timeout(), None);
    let mut out = sent(&mut session);
    let mut messages = std::iter::from_fn(|| Frame::take(&mut out, |_| 1000).unwrap());
    let message = messages.find(|frame| frame.tag == Tag(b'E')).unwrap();
    match BackendMessage::decode(message).unwrap() {
        BackendMessage::ErrorResponse(message) => {
            assert!(message.severity.ends_connection());
            if let ServerError::Refused(refused) = error {
                assert_eq!(refused, message);
            }
            format!("{} {}", message.sqlstate, message.message)
        }
        other => panic!("{other:?}"),
    }
}

/// What PostgreSQL 13.23, 15.18 and 18.4 said, to 18.4's `3.2` in place of their `3.0`.
#[test]
fn what_is_no_session_for_replication_is_refused_as_by_postgresql() {
    for (version, newest) in [(VERSIONS[0], "3.0"), (V15, "3.0"), (VERSIONS[5], "3.2")] {
        for (packet, expected) in [
            (
                packet(0x4_0001, REP),
                format!("0A000 unsupported frontend protocol 4.1: server supports 3.0 to {newest}"),
            ),
            (
                packet(0x3_0000, &[("user", "x"), ("replication", "maybe")]),
                "22023 invalid value for parameter \"replication\": \"maybe\"".to_owned(),
            ),
            (
                packet(0x3_0000, &[("replication", "true")]),
                "28000 no PostgreSQL user name specified in startup packet".to_owned(),
            ),
            (
                b"\0\0\0\x0e\0\x03\0\0user\0p".to_vec(),
                "08P01 invalid startup packet layout: expected terminator as last byte".to_owned(),
            ),
            (
                packet(0x3_0000, &with(&[("options", "-c geqo")])),
                "42601 -c geqo requires a value".to_owned(),
            ),
        ] {
            assert_eq!(refused(version, &packet), expected);
        }
    }
}

#[test]
fn a_connection_to_a_database_is_a_request_like_others_and_can_be_refused_once_authenticated() {
    for parameters in [
        vec![("user", "postgres"), ("database", "postgres")],
        vec![("user", "postgres"), ("replication", "off")],
    ] {
        let mut session = session(V15);
        say(&mut session, &packet(0x3_0000, &parameters)).unwrap();
        let Some(Event::Startup(request)) = session.poll_event() else {
            panic!("no request");
        };
        assert_eq!(request.replication, ReplicationMode::Off);
        session.authenticate_trust().unwrap();
        assert_eq!(events(&mut session), [Event::Authenticated]);
        session.reject(ServerMessage::fatal(SqlState::FEATURE_NOT_SUPPORTED, "no"));
        let mut out = sent(&mut session);
        let tags = std::iter::from_fn(|| Frame::take(&mut out, |_| 1000).unwrap());
        let tags: Vec<u8> = tags.map(|frame| frame.tag.0).collect();
        assert_eq!(tags, b"RE");
        assert!(session.is_over());
    }
}

#[test]
fn a_packet_of_an_impossible_length_is_not_answered() {
    for bytes in [
        &b"\0\0\0\x03"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01",
    ] {
        let mut session = session(V15);
        let error = say(&mut session, bytes).unwrap_err();
        assert!(matches!(error, ServerError::Startup { .. }));
        assert!(sent(&mut session).is_empty());
        assert!(session.is_over());
    }
}

#[test]
fn replication_is_asked_for_by_a_word_or_its_beginning() {
    for (word, physical) in [
        ("true", true),
        ("T", true),
        ("1", true),
        ("on", true),
        ("YES", true),
        ("y", true),
        ("false", false),
        ("0", false),
        ("of", false),
        ("n", false),
    ] {
        let packet = packet(0x3_0000, &[("user", "x"), ("replication", word)]);
        let expected = match physical {
            true => ReplicationMode::Physical,
            false => ReplicationMode::Off,
        };
        assert_eq!(requested(V15, &packet).replication, expected, "{word}");
    }
    for word in ["", "o", "truer", "2", "Database", "10"] {
        let packet = packet(0x3_0000, &[("user", "x"), ("replication", word)]);
        assert!(refused(V15, &packet).starts_with("22023"), "{word}");
    }
    let parameters = [
        ("user", "x"),
        ("replication", "database"),
        ("database", "d"),
    ];
    let request = requested(V15, &packet(0x3_0000, &parameters));
    assert_eq!(request.replication, ReplicationMode::Database);
    assert_eq!(request.database.as_deref(), Some("d"));
}

/// The answers of 15.18 and 18.4 to versions and options, up to what they said of authentication.
#[test]
fn the_protocol_is_negotiated_as_by_postgresql() {
    let options = with(&[("_pq_.x", "1"), ("_pq_.yy", "")]);
    const OPTIONS: &[u8] = b"v\0\0\0\x1b\0\x03\0\0\0\0\0\x02_pq_.x\0_pq_.yy\0";
    const ONLY_3_0: &[u8] = b"v\0\0\0\x0c\0\x03\0\0\0\0\0\0";
    let v18 = VERSIONS[5];
    for (version, asked, parameters, answer, protocol) in [
        (V15, 0x3_0000, REP, &b""[..], "3.0"),
        (V15, 0x3_0001, REP, ONLY_3_0, "3.0"),
        (V15, 0x3_0002, REP, ONLY_3_0, "3.0"),
        (V15, 0x3_0000, &options, OPTIONS, "3.0"),
        (v18, 0x3_0000, REP, b"", "3.0"),
        (v18, 0x3_0001, REP, b"", "3.1"),
        (v18, 0x3_0002, REP, b"", "3.2"),
        (
            v18,
            0x3_0009,
            REP,
            b"v\0\0\0\x0c\0\x03\0\x02\0\0\0\0",
            "3.2",
        ),
        (v18, 0x3_0000, &options, OPTIONS, "3.0"),
    ] {
        let mut session = session(version);
        say(&mut session, &packet(asked, parameters)).unwrap();
        assert_eq!(&sent(&mut session)[..], answer, "{version} {asked:x}");
        let Some(Event::Startup(request)) = session.poll_event() else {
            panic!();
        };
        assert_eq!(request.protocol.to_string(), protocol);
        session.authenticate_trust().unwrap();
        let longest = if protocol == "3.2" { 256 } else { 4 };
        let welcome = |session: &mut ServerSession, length| {
            session.welcome([], 1, Bytes::from(vec![7; length]))
        };
        for length in [0, 3, longest + 1] {
            let error = welcome(&mut session, length).unwrap_err();
            assert!(
                matches!(error, ServerError::SecretKeyLength { .. }),
                "{error}"
            );
        }
        sent(&mut session);
        welcome(&mut session, longest).unwrap();
        let (header, process_id, ready) = (5, 4, 6);
        assert_eq!(
            sent(&mut session).len(),
            header + process_id + longest + ready
        );
    }
}

/// What 13.23 and 15.18, and 18.4, reported of this name.
#[test]
fn the_name_of_an_application_is_cleaned_as_by_postgresql() {
    let startup = packet(0x3_0000, &with(&[("application_name", "t\u{fc}\x01r")]));
    for version in VERSIONS {
        let expected = if version < ServerVersion::V16 {
            "t???r"
        } else {
            r"t\xc3\xbc\x01r"
        };
        assert_eq!(requested(version, &startup).application_name, expected);
    }
    let long = "x".repeat(64);
    let startup = packet(0x3_0000, &with(&[("application_name", &long)]));
    assert_eq!(requested(V15, &startup).application_name, "x".repeat(63));
    assert_eq!(requested(V15, &packet(0x3_0000, REP)).application_name, "");
}

#[test]
fn parameters_come_from_options_and_then_by_name() {
    let request = requested(
        V15,
        &packet(
            0x3_0000,
            &with(&[
                ("wal_sender_timeout", "10s"),
                ("options", "-c wal_sender_timeout=5s -c Application_Name=a"),
                ("application_name", "b"),
            ]),
        ),
    );
    let pair = |value: &str| ("wal_sender_timeout".to_owned(), value.to_owned());
    assert_eq!(request.settings, [pair("5s"), pair("10s")]);
    assert_eq!(request.application_name, "b");
    let options = [("options", "--application-name=a")];
    let request = requested(V15, &packet(0x3_0000, &with(&options)));
    assert_eq!(request.application_name, "a");
}

#[test]
fn a_user_is_a_name_of_postgresql() {
    let long = "x".repeat(64);
    let parameters = [("replication", "1"), ("user", "y"), ("user", &long)];
    let request = requested(V15, &packet(0x3_0000, &parameters));
    assert_eq!(request.user, "x".repeat(63));
    let cut = format!("{}\u{e9}", "x".repeat(62));
    let parameters = [("replication", "1"), ("user", cut.as_str())];
    assert!(refused(V15, &packet(0x3_0000, &parameters)).starts_with("22021"));
    let mut latin = packet(0x3_0000, &[("replication", "1"), ("user", "?")]);
    let wrong = latin.iter().position(|&b| b == b'?').unwrap();
    latin[wrong] = 0xE9;
    assert!(refused(V15, &latin).starts_with("22021"));
}

#[test]
fn tls_is_accepted_or_refused_by_the_driver_and_asked_for_once() {
    for accept in [true, false] {
        let mut session = session(V15);
        say(&mut session, TLS).unwrap();
        assert_eq!(events(&mut session), [Event::TlsRequested]);
        assert!(sent(&mut session).is_empty());
        if accept {
            session.accept_tls().unwrap();
        } else {
            session.refuse_tls().unwrap();
        }
        let answer = if accept { b"S" } else { b"N" };
        assert_eq!(&sent(&mut session)[..], answer);
        assert!(session.accept_tls().is_err() && session.refuse_tls().is_err());
        say(&mut session, &packet(0x3_0000, REP)).unwrap();
        assert!(matches!(events(&mut session)[..], [Event::Startup(_)]));
    }
    let mut session = session(V15);
    say(&mut session, TLS).unwrap();
    session.refuse_tls().unwrap();
    let error = say(&mut session, TLS).unwrap_err();
    assert_eq!(
        error.to_string(),
        "FATAL: unsupported frontend protocol 1234.5679: server supports 3.0 to 3.0 \
         [SQLSTATE 0A000]"
    );
}

#[test]
fn gssapi_is_refused_at_once_and_tls_may_be_asked_for_after_it() {
    let mut session = session(V15);
    say(&mut session, GSS).unwrap();
    assert_eq!(&sent(&mut session)[..], b"N");
    say(&mut session, TLS).unwrap();
    assert_eq!(events(&mut session), [Event::TlsRequested]);
    session.accept_tls().unwrap();
    // Within TLS neither can be asked for.
    assert!(say(&mut session, GSS).is_err());
}

/// Somebody in between could otherwise put a startup packet before the TLS handshake.
#[test]
fn bytes_that_come_with_a_request_for_encryption_are_an_attack() {
    for request in [TLS, GSS] {
        let together = [request, &packet(0x3_0000, REP)].concat();
        let told = refused(V15, &together);
        assert!(told.starts_with("08P01 received unencrypted data after"));
    }
    let mut session = session(V15);
    say(&mut session, TLS).unwrap();
    let error = say(&mut session, b"\x16").unwrap_err();
    assert_eq!(
        error.to_string(),
        "received unencrypted data after SSL request"
    );
    assert!(session.accept_tls().is_err());
    assert_eq!(sent(&mut session).first(), Some(&b'E'));
}

#[test]
fn a_request_to_cancel_is_told_and_not_answered() {
    let mut session = session(V15);
    let cancel = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\x12\x67key!";
    say(&mut session, cancel).unwrap();
    assert_eq!(
        events(&mut session),
        [Event::Cancel {
            process_id: 4711,
            secret_key: Bytes::from_static(b"key!"),
        }]
    );
    assert!(session.is_over() && sent(&mut session).is_empty());
    session.handle_eof(session.now).unwrap();
    assert_eq!(events(&mut session), []);
}

#[test]
fn who_is_not_authenticated_in_time_is_disconnected() {
    let mut session = session(V15);
    let due = session.next_timeout().unwrap();
    assert_eq!(due, session.now + Duration::from_secs(60));
    session
        .handle_timeout(due - Duration::from_nanos(1))
        .unwrap();
    // What is done before the welcome does not give more time.
    say(&mut session, TLS).unwrap();
    session.accept_tls().unwrap();
    say(&mut session, &packet(0x3_0000, REP)).unwrap();
    session.authenticate_trust().unwrap();
    assert_eq!(session.next_timeout(), Some(due));
    let error = session.handle_timeout(due).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the client took more than 60s for session setup"
    );
    let told = String::from_utf8_lossy(&sent(&mut session)).into_owned();
    assert!(told.contains("C57014\0Mcanceling authentication due to timeout\0"));
}

#[test]
fn a_client_that_goes_before_it_is_welcome_is_no_error() {
    for packets in [vec![], vec![TLS.to_vec()], vec![packet(0x3_0000, REP)]] {
        let mut session = session(V15);
        packets
            .iter()
            .for_each(|packet| say(&mut session, packet).unwrap());
        events(&mut session);
        session.handle_eof(session.now).unwrap();
        assert_eq!(events(&mut session), [Event::Terminated]);
        assert!(session.is_over());
    }
    let mut session = session(V15);
    let now = session.now;
    session
        .handle_input(now, &mut BytesMut::from(&TLS[..3]))
        .unwrap();
    let error = session.handle_eof(now).unwrap_err();
    assert!(matches!(error, ServerError::UnexpectedEof { .. }));
}

#[test]
fn a_driver_rejects_with_its_own_words() {
    let mut session = session(V15);
    say(&mut session, &packet(0x3_0000, REP)).unwrap();
    let sqlstate = SqlState::TOO_MANY_CONNECTIONS;
    session.reject(ServerMessage::error(sqlstate, "too many"));
    session.reject(ServerMessage::error(sqlstate, "way too many"));
    assert!(session.is_over());
    let told = String::from_utf8_lossy(&sent(&mut session)).into_owned();
    assert!(
        told.ends_with("SFATAL\0VFATAL\0C53300\0Mtoo many\0\0"),
        "{told}"
    );
    // What the client still says is thrown away.
    say(&mut session, b"anything").unwrap();
}
