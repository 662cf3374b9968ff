//! What a server may send that is no server, or means no good.

use proptest::prelude::*;

use super::*;
use crate::frame::HEADER_LENGTH;
use crate::noise::noise;

/// A session in each state that takes something from the server.
fn in_state(number: usize) -> Script {
    match number {
        0 => {
            let mut script = Script::new(Credentials {
                password: Some(b"x".to_vec()),
                ..Credentials::default()
            });
            script.sent();
            script
        }
        1 => {
            let mut script = in_state(0);
            script.say(BackendMessage::Authentication(AuthenticationRequest::Ok));
            script
        }
        2 => Script::ready(),
        3 => {
            let mut script = Script::ready();
            script.execute(&Command::IdentifySystem);
            script
        }
        4 => {
            let mut script = Script::ready();
            script.execute(&start_replication(0x100));
            script
        }
        5 => Script::streaming(0x100),
        6 => {
            let mut script = Script::streaming(0x100);
            script.say(BackendMessage::CopyDone);
            script
        }
        7 => {
            let mut script = Script::streaming(0x100);
            script.session.finish_copy(script.now);
            script
        }
        8 => {
            let mut script = in_state(7);
            script.say(BackendMessage::CopyDone);
            script
        }
        9 => {
            let mut script = Script::streaming(0x100);
            let message = error(Severity::Error, SqlState::INTERNAL_ERROR);
            script.say(BackendMessage::ErrorResponse(message));
            script
        }
        _ => {
            let mut script = Script::streaming(0x100);
            script.say(complete("COPY 0"));
            script
        }
    }
}

const STATES: usize = 11;

/// The greatest body that may be waited for in a state.
fn greatest(number: usize) -> usize {
    match number {
        0 | 1 => MAX_RESULT_LENGTH,
        _ => MAX_RESULT_LENGTH.max(MAX_WAL_LENGTH),
    }
}

#[test]
fn a_length_beyond_the_limit_is_refused_when_the_header_is_there() {
    for (state, tag, limit) in [
        (0, b'R', MAX_AUTHENTICATION_LENGTH),
        (0, b'E', MAX_SMALL_LENGTH),
        (0, b'H', MAX_SMALL_LENGTH),
        (1, b'S', MAX_SMALL_LENGTH),
        (3, b'D', MAX_RESULT_LENGTH),
        (3, b'C', MAX_SMALL_LENGTH),
        (3, b'd', MAX_SMALL_LENGTH),
        (5, b'd', MAX_WAL_LENGTH),
        (5, b'D', MAX_SMALL_LENGTH),
        (7, b'd', MAX_WAL_LENGTH),
    ] {
        let header = |length: usize| {
            let field = u32::try_from(length + 4).unwrap();
            [&[tag][..], &field.to_be_bytes()].concat()
        };
        let mut script = in_state(state);
        script.say_bytes(&header(limit)).unwrap();
        let mut script = in_state(state);
        let error = script.say_bytes(&header(limit + 1)).unwrap_err();
        assert!(
            matches!(error, ClientError::Frame { .. }),
            "{state} {error}"
        );
        let mut script = in_state(state);
        assert!(script.say_bytes(&header(limit)[..4]).is_ok());
    }
}

#[test]
fn endless_answers_are_cut_off() {
    let column = |name: &str| Column {
        name: name.to_owned(),
        data_type: DataType::TEXT,
    };
    let row = |length| BackendMessage::DataRow(vec![Some(vec![b'x'; length].into())]);
    for (length, rows) in [(1, 64), (MAX_RESULT_LENGTH / 4, 4)] {
        let mut script = in_state(3);
        script.say(BackendMessage::RowDescription(vec![column("a")]));
        for _ in 0..rows {
            script.say(row(length));
        }
        let error = script.try_say(row(length)).unwrap_err();
        assert!(matches!(error, ClientError::TooMany { .. }), "{error}");
    }
    let mut script = in_state(1);
    for number in 0..64 {
        script.say(parameter(&format!("p{number}"), "x"));
    }
    script.say(parameter("p0", "y"));
    assert_eq!(script.session.parameter("p0"), Some("y"));
    let error = script.try_say(parameter("p64", "x")).unwrap_err();
    assert_eq!(error.to_string(), "the server sent more than 64 parameters");
}

#[test]
fn an_answer_in_the_wrong_order_is_refused() {
    let column = || {
        vec![Column {
            name: "a".to_owned(),
            data_type: DataType::TEXT,
        }]
    };
    let table = || BackendMessage::RowDescription(column());
    let row = |values| BackendMessage::DataRow(vec![None; values]);
    for messages in [
        vec![row(1)],
        vec![ready()],
        vec![table(), ready()],
        vec![table(), table()],
        vec![table(), row(2)],
        vec![table(), complete("X"), row(1)],
        vec![complete("X"), table()],
        vec![copy_both()],
        vec![BackendMessage::CopyDone],
    ] {
        let mut script = in_state(3);
        let (last, before) = messages.split_last().unwrap();
        for message in before {
            script.say(message.clone());
        }
        let error = script.try_say(last.clone()).unwrap_err();
        assert!(
            matches!(error, ClientError::Unexpected { .. }),
            "{messages:?}"
        );
    }
}

#[test]
fn a_command_is_sent_only_when_the_server_waits_for_one() {
    for state in (0..STATES).filter(|&state| state != 2) {
        let mut script = in_state(state);
        let now = script.now;
        let error = script
            .session
            .execute(now, &Command::IdentifySystem)
            .unwrap_err();
        assert!(matches!(error, ClientError::Misuse { .. }));
        let silent = script.sent();
        assert!(!silent.contains(&b'Q'), "{silent:?}");
    }
    let mut script = Script::ready();
    let error = script
        .session
        .execute(script.now, &Command::UploadManifest)
        .unwrap_err();
    assert!(matches!(error, ClientError::Unsupported { .. }));
    script.execute(&Command::IdentifySystem);
}

#[test]
fn without_a_version_no_command_is_written() {
    let mut script = Script::new(Credentials::default());
    script.say(BackendMessage::Authentication(AuthenticationRequest::Ok));
    script.say(parameter("server_version", "devel"));
    script.say(ready());
    let error = script
        .session
        .execute(script.now, &Command::IdentifySystem)
        .unwrap_err();
    assert!(matches!(error, ClientError::UnknownServerVersion));
}

/// Bytes that have a chance to be messages.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let bodies = vec![
        b"w\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0abc".to_vec(),
        b"k\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\x01".to_vec(),
        b"\0".to_vec(),
        b"\0\0\0\0".to_vec(),
        b"I".to_vec(),
        vec![],
    ];
    noise(b"RKCWdcDIEvNSZTdddA", bodies)
}

proptest! {
    #[test]
    fn no_bytes_in_any_state_panic_or_make_us_hoard(
        state in 0..STATES, bytes in messages(), size in 1usize..50, eof: bool,
    ) {
        let mut script = in_state(state);
        let mut over = false;
        for chunk in bytes.chunks(size) {
            script.now += Duration::from_millis(700);
            over = script.say_bytes(chunk).is_err();
            prop_assert!(script.input.len() <= HEADER_LENGTH + greatest(state) + size);
            script.session.report(script.now, durable(u64::MAX));
            if let Some(due) = script.session.next_timeout() && due <= script.now {
                over |= script.session.handle_timeout(script.now).is_err();
            }
            let mut sent = script.sent();
            while let Some(frame) = Frame::take(&mut sent, |_| usize::MAX).unwrap() {
                prop_assert!(b"pdcX".contains(&frame.tag.0));
            }
            prop_assert!(sent.is_empty());
            if over {
                break;
            }
        }
        if over {
            prop_assert_eq!(script.session.next_timeout(), None);
            prop_assert!(script.session.execute(script.now, &Command::IdentifySystem).is_err());
        } else if eof {
            let closed = script.session.handle_eof(script.now);
            let events = script.events();
            prop_assert_eq!(closed.is_ok(), events.last() == Some(&Event::Closed));
        }
    }
}
