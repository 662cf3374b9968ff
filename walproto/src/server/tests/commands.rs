//! What a client may say when no WAL is streamed, and what PostgreSQL answers to it.

use super::*;
use crate::backend::BackendMessage;
use crate::command::NewSlot;
use crate::result::{SlotInfo, TimelineHistoryFile};

/// The header of a message, and the body.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

fn query(text: &str) -> Vec<u8> {
    message(b'Q', &[text.as_bytes(), b"\0"].concat())
}

/// A session that waits for a command.
fn idle(version: ServerVersion) -> ServerSession {
    Pair::ready(version).server
}

fn say(session: &mut ServerSession, bytes: &[u8]) -> Result<BytesMut, ServerError> {
    let now = session.now;
    let mut input = BytesMut::from(bytes);
    session.handle_input(now, &mut input)?;
    Ok(input)
}

fn sent(session: &mut ServerSession) -> BytesMut {
    let mut out = BytesMut::new();
    session.poll_transmit(&mut out);
    out
}

/// The messages that are sent, an error as its SQLSTATE and text, others by their tags.
fn answer(session: &mut ServerSession) -> Vec<String> {
    let mut out = sent(session);
    let mut texts = Vec::new();
    while let Some(frame) = Frame::take(&mut out, |_| 1000).unwrap() {
        let tag = char::from(frame.tag.0).to_string();
        texts.push(match BackendMessage::decode(frame).unwrap() {
            BackendMessage::ErrorResponse(e) => {
                format!("{} {} {}", e.severity, e.sqlstate, e.message)
            }
            _ => tag,
        });
    }
    texts
}

/// IDENTIFY_SYSTEM of 15.18 and of 18.4: they differ in the type of the timeline.
fn identity_bytes(timeline_type: &[u8; 6]) -> Vec<u8> {
    [
        &b"T\x00\x00\x00o\x00\x04systemid\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\
           \xff\xff\xff\x00\x00timeline\x00\x00\x00\x00\x00\x00\x00"[..],
        timeline_type,
        b"\xff\xff\xff\xff\x00\x00xlogpos\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\
          \xff\xff\xff\x00\x00dbname\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\
          \xff\xff\x00\x00D\x00\x00\x003\x00\x04\x00\x00\x00\x137711459320158903699\x00\x00\x00\
          \x011\x00\x00\x00\t0/3000060\xff\xff\xff\xffC\x00\x00\x00\x14IDENTIFY_SYSTEM\x00Z\x00\
          \x00\x00\x05I",
    ]
    .concat()
}

#[test]
fn identify_system_is_answered_byte_by_byte_as_by_postgresql() {
    for version in VERSIONS {
        let mut session = idle(version);
        say(&mut session, &query("IDENTIFY_SYSTEM")).unwrap();
        let table = identity().encode(version);
        session.answer(&table).unwrap();
        let int4 = b"\x00\x00\x00\x17\x00\x04";
        let int8 = b"\x00\x00\x00\x14\x00\x08";
        let timeline = if version < ServerVersion::V16 {
            int4
        } else {
            int8
        };
        assert_eq!(sent(&mut session), identity_bytes(timeline), "{version}");
    }
}

/// What every version said, from 13.23 to 18.4.
#[test]
fn the_answers_to_commands_end_by_their_names() {
    for version in VERSIONS {
        let mut session = idle(version);
        for (text, name) in [
            ("IDENTIFY_SYSTEM", "IDENTIFY_SYSTEM"),
            ("SHOW wal_segment_size", "SHOW"),
            (
                "CREATE_REPLICATION_SLOT \"s\" PHYSICAL RESERVE_WAL",
                "CREATE_REPLICATION_SLOT",
            ),
            ("DROP_REPLICATION_SLOT \"s\"", "DROP_REPLICATION_SLOT"),
            ("TIMELINE_HISTORY 2", "TIMELINE_HISTORY"),
        ] {
            say(&mut session, &query(text)).unwrap();
            assert!(matches!(session.poll_event(), Some(Event::Command(_))));
            session.complete().unwrap();
            let complete = message(b'C', &[name.as_bytes(), b"\0"].concat());
            let ready = message(b'Z', b"I");
            assert_eq!(sent(&mut session), [complete, ready].concat());
        }
    }
}

#[test]
fn a_command_that_a_version_does_not_have_may_be_sql() {
    for (text, since) in [
        ("READ_REPLICATION_SLOT \"x\"", ServerVersion::V15),
        (
            "ALTER_REPLICATION_SLOT \"x\" (FAILOVER)",
            ServerVersion::V17,
        ),
        (" UPLOAD_MANIFEST;", ServerVersion::V17),
    ] {
        for version in VERSIONS {
            let mut session = idle(version);
            say(&mut session, &query(text)).unwrap();
            let event = session.poll_event().unwrap();
            if version < since {
                assert_eq!(event, Event::Sql(text.to_owned()));
                // A table is no answer to it, but it has to have one.
                let sqlstate = SqlState::FEATURE_NOT_SUPPORTED;
                session
                    .fail(ServerMessage::error(sqlstate, "no SQL"))
                    .unwrap();
                assert_eq!(answer(&mut session), ["ERROR 0A000 no SQL", "Z"]);
            } else {
                assert!(matches!(event, Event::Command(_)), "{event:?}");
            }
        }
    }
    for text in ["SELECT 1", "", ";", "identify_system", "\""] {
        let mut session = idle(V15);
        say(&mut session, &query(text)).unwrap();
        assert_eq!(session.poll_event(), Some(Event::Sql(text.to_owned())));
    }
}

#[test]
fn both_ways_to_write_options_are_understood_in_all_versions() {
    for version in VERSIONS {
        for text in [
            "CREATE_REPLICATION_SLOT \"s\" PHYSICAL RESERVE_WAL",
            "CREATE_REPLICATION_SLOT \"s\" PHYSICAL (RESERVE_WAL)",
        ] {
            let mut session = idle(version);
            say(&mut session, &query(text)).unwrap();
            let Some(Event::Command(Command::CreateReplicationSlot(create))) = session.poll_event()
            else {
                panic!();
            };
            assert_eq!(create.kind, NewSlot::Physical { reserve_wal: true });
        }
    }
}

#[test]
fn a_command_that_is_none_is_refused_and_the_next_one_taken() {
    let mut session = idle(V15);
    for text in [
        "IDENTIFY_SYSTEM x",
        "TIMELINE_HISTORY 0",
        "START_REPLICATION 0/0 TIMELINE 0",
        "CREATE_REPLICATION_SLOT \"s\" PHYSICAL FOO",
        "CREATE_REPLICATION_SLOT \"s\" PHYSICAL TWO_PHASE",
        "DROP_REPLICATION_SLOT \"a\" \"b\"",
    ] {
        say(&mut session, &query(text)).unwrap();
        assert_eq!(session.poll_event(), None);
        let answer = answer(&mut session);
        assert!(
            answer[0].starts_with("ERROR 42601 invalid replication command at byte"),
            "{answer:?}"
        );
        assert_eq!(answer[1..], ["Z"]);
    }
    let not_utf8 = message(b'Q', b"TIMELINE_HISTORY \xFF\0");
    say(&mut session, &not_utf8).unwrap();
    assert!(answer(&mut session)[0].starts_with("ERROR 22021"));
    say(&mut session, &query("IDENTIFY_SYSTEM")).unwrap();
    assert_eq!(
        session.poll_event(),
        Some(Event::Command(Command::IdentifySystem))
    );
}

/// What 15.18 said to the same bytes; they are the same in the other versions.
#[test]
fn what_is_no_command_is_refused_as_by_postgresql() {
    let extended = "ERROR 08P01 extended query protocol not supported in a replication connection";
    let function = "ERROR 08P01 fastpath function calls not supported in a replication connection";
    let parse = message(b'P', b"\0\0\0\0");
    let sync = message(b'S', b"");
    let command = query("IDENTIFY_SYSTEM");
    let mut session = idle(V15);
    for (bytes, expected) in [
        (parse.clone(), &[extended][..]),
        (sync.clone(), &["Z"]),
        (
            [&parse[..], &command, &parse, &sync].concat(),
            &[extended, "Z"],
        ),
        (message(b'B', b"x"), &[extended]),
        (
            [message(b'E', b""), message(b'D', b""), sync.clone()].concat(),
            &["Z"],
        ),
        (message(b'C', b""), &[extended]),
        (sync.clone(), &["Z"]),
        (message(b'F', b""), &[function, "Z"]),
        ([message(b'H', b""), sync.clone()].concat(), &["Z"]),
        (
            [
                message(b'd', b"x"),
                message(b'c', b""),
                message(b'f', b"\0"),
                sync,
            ]
            .concat(),
            &["Z"],
        ),
    ] {
        assert!(say(&mut session, &bytes).unwrap().is_empty());
        assert_eq!(answer(&mut session), expected, "{bytes:?}");
        assert_eq!(session.poll_event(), None);
    }
    say(&mut session, &message(b'Q', b"xy")).unwrap();
    let unterminated = answer(&mut session);
    assert!(unterminated[0].starts_with("ERROR 08P01"));
    assert_eq!(unterminated[1..], ["Z"]);
}

#[test]
fn what_is_no_message_ends_the_session_as_by_postgresql() {
    for (bytes, told) in [
        (
            message(b'p', b"\0"),
            "FATAL 08P01 invalid frontend message type 112",
        ),
        (
            message(b'x', b""),
            "FATAL 08P01 invalid frontend message type 120",
        ),
        // Known by its tag alone: who does not agree about messages does not about lengths.
        (
            b"x".to_vec(),
            "FATAL 08P01 invalid frontend message type 120",
        ),
        (
            b"Q\0\0\0\x03".to_vec(),
            "FATAL 08P01 message \"Q\" has the impossible length 3",
        ),
        (
            b"S\0\x01\0\0".to_vec(),
            "FATAL 08P01 message \"S\" has 65532 bytes, at most 9996 are accepted here",
        ),
    ] {
        let mut session = idle(V15);
        assert!(say(&mut session, &bytes).is_err());
        assert_eq!(answer(&mut session), [told]);
        assert!(session.is_over());
        // Nothing more is taken, and nothing more can be asked of it.
        assert!(say(&mut session, b"rest").unwrap().is_empty());
        assert!(session.complete().is_err());
    }
}

#[test]
fn a_client_that_goes_between_commands_is_no_error() {
    let mut session = idle(V15);
    say(&mut session, &message(b'X', b"")).unwrap();
    assert_eq!(session.poll_event(), Some(Event::Terminated));
    assert!(session.is_over());
    let mut session = idle(V15);
    session.handle_eof(session.now).unwrap();
    assert_eq!(session.poll_event(), Some(Event::Terminated));
    let mut session = idle(V15);
    say(&mut session, &message(b'P', b"")).unwrap();
    say(&mut session, &message(b'X', b"")).unwrap();
    assert_eq!(session.poll_event(), Some(Event::Terminated));
    // But in the middle of a command it is.
    let mut session = idle(V15);
    say(&mut session, &query("IDENTIFY_SYSTEM")).unwrap();
    let error = session.handle_eof(session.now).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the client closed the connection unexpectedly during IDENTIFY_SYSTEM"
    );
    let mut session = idle(V15);
    say(&mut session, &query("IDENTIFY_SYSTEM")[..9]).unwrap();
    assert!(session.handle_eof(session.now).is_err());
}

#[test]
fn a_command_waits_for_the_answer_to_the_one_before() {
    let mut session = idle(V15);
    let command = query("IDENTIFY_SYSTEM");
    let mut input = BytesMut::from(&[&command[..], &command].concat()[..]);
    let now = session.now;
    session.handle_input(now, &mut input).unwrap();
    assert_eq!(input, command);
    assert!(session.poll_event().is_some() && session.poll_event().is_none());
    session.complete().unwrap();
    session.handle_input(now, &mut input).unwrap();
    assert!(session.poll_event().is_some() && input.is_empty());
    // As much as may wait, and a byte more.
    input.resize(MAX_WAITING_LENGTH, b'Q');
    session.handle_input(now, &mut input).unwrap();
    input.extend_from_slice(b"Q");
    let error = session.handle_input(now, &mut input).unwrap_err();
    assert!(matches!(error, ServerError::NotWaiting { .. }), "{error}");
}

#[test]
fn refusals_do_not_pile_up_for_a_client_that_does_not_read() {
    let mut session = idle(V15);
    let now = session.now;
    let mut input = BytesMut::from(&message(b'F', b"").repeat(100_000)[..]);
    let mut taken = input.len();
    let mut calls = 0;
    while !input.is_empty() {
        session.handle_input(now, &mut input).unwrap();
        assert!(input.len() < taken);
        taken = input.len();
        let sent = sent(&mut session);
        assert!(sent.len() < 20_000, "{}", sent.len());
        calls += 1;
    }
    assert!(calls > 100);
}

#[test]
fn tables_and_errors_come_to_the_client_as_they_were() {
    for version in VERSIONS {
        let mut pair = Pair::ready(version);
        let history = TimelineHistoryFile {
            file_name: "00000002.history".to_owned(),
            content: Bytes::from_static(b"1\t0/3000060\tno recovery target specified\n\0\xFF"),
        };
        pair.execute(&Command::TimelineHistory(TimelineId::new(2).unwrap()));
        pair.server.answer(&history.encode(version)).unwrap();
        let events = pair.client_events();
        let [client::Event::Result(table), client::Event::Ready] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(TimelineHistoryFile::decode(table), Ok(history));
        if version < ServerVersion::V15 {
            continue;
        }
        let slot = "READ_REPLICATION_SLOT x".parse().unwrap();
        pair.execute(&slot);
        pair.server.answer(&SlotInfo::encode(None)).unwrap();
        let events = pair.client_events();
        let [client::Event::Result(table), client::Event::Ready] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(SlotInfo::decode(table), Ok(None));
    }
}
