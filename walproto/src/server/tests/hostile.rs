//! What a client may send that is no client, or means no good.

use proptest::prelude::*;

use super::*;
use crate::backend::BackendMessage;
use crate::frame::HEADER_LENGTH;
use crate::noise::noise;
use crate::scram::ScramVerifier;

/// A session in each state that takes something from the client, or waits for its driver.
fn in_state(number: usize) -> ServerSession {
    let mut session = match number {
        0 => ServerSession::new(Instant::now(), PgTimestamp(0), V15, TIMES),
        1 => {
            let mut session = in_state(0);
            answer_all(&mut session, &mut BytesMut::from(STARTUP), Answers::Nothing);
            session
        }
        2 => {
            let mut session = in_state(1);
            let verifier = ScramVerifier::from_password(b"x", b"salt", 1);
            session
                .authenticate_scram(verifier.into(), [1; 18], None)
                .unwrap();
            session
        }
        3 => {
            let mut session = in_state(1);
            session.authenticate_trust().unwrap();
            session
        }
        4 => Pair::ready(V15).server,
        5 => {
            let mut session = in_state(4);
            let mut parse = BytesMut::from(&b"P\0\0\0\x04"[..]);
            answer_all(&mut session, &mut parse, Answers::Nothing);
            session
        }
        6 => {
            let mut pair = Pair::ready(V15);
            pair.execute(&Command::IdentifySystem);
            pair.server
        }
        7 => Pair::streaming(V15, 0x100).server,
        8 => {
            let mut session = in_state(7);
            session.end_timeline(end()).unwrap();
            session
        }
        _ => {
            let mut session = in_state(7);
            session.begin_shutdown(session.now, Lsn(0x200));
            session
        }
    };
    session.poll_transmit(&mut BytesMut::new());
    while session.poll_event().is_some() {}
    session
}

const STATES: usize = 10;

const STARTUP: &[u8] = b"\0\0\0\x20\0\x03\0\0user\0rep\0replication\x001\0\0";

/// What the driver does about events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answers {
    Nothing,
    All,
}

/// Takes all of `input` that is taken, and gives the events and what is sent.
fn answer_all(
    session: &mut ServerSession,
    input: &mut BytesMut,
    answers: Answers,
) -> (Vec<Event>, BytesMut, Option<String>) {
    let now = session.now;
    let (mut events, mut out) = (Vec::new(), BytesMut::new());
    loop {
        let before = input.len();
        let error = session.handle_input(now, input).err();
        let happened = events.len();
        while let Some(event) = session.poll_event() {
            if answers == Answers::All {
                answer(session, &event);
            }
            events.push(event);
        }
        session.poll_transmit(&mut out);
        if let Some(error) = error {
            return (events, out, Some(error.to_string()));
        }
        if before == input.len() && happened == events.len() {
            return (events, out, None);
        }
    }
}

fn answer(session: &mut ServerSession, event: &Event) {
    let now = session.now;
    match event {
        Event::TlsRequested => session.refuse_tls(),
        Event::Startup(_) => session.authenticate_trust(),
        Event::Authenticated => session.welcome([], 1, Bytes::from_static(b"1234")),
        Event::Command(Command::StartReplication { start, .. }) => {
            session.start_streaming(now, TimelineId::FIRST, *start, None)
        }
        Event::Command(_) => session.answer(&end().encode()),
        Event::Sql(_) => session.fail(ServerMessage::error(SqlState::SYNTAX_ERROR, "no SQL")),
        _ => Ok(()),
    }
    .unwrap();
}

/// Bytes that have a chance to be messages.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let status = b"r\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\x01";
    let bodies = vec![
        status.to_vec(),
        [&b"h"[..], &[0; 24]].concat(),
        b"IDENTIFY_SYSTEM\0".to_vec(),
        b"START_REPLICATION 0/100\0".to_vec(),
        b"SELECT 1\0".to_vec(),
        b"TIMELINE_HISTORY 0\0".to_vec(),
        b"SCRAM-SHA-256\0\0\0\0\x0cn,,n=,r=abcd".to_vec(),
        b"c=biws,r=abcd,p=AAAA".to_vec(),
        vec![],
    ];
    noise(b"QQQdddcXpSFPBCDEHfx", bodies)
}

#[test]
fn a_length_beyond_the_limit_is_refused_when_the_header_is_there() {
    for (state, tag, limit) in [
        (2, b'p', MAX_SASL_LENGTH),
        (4, b'Q', MAX_COMMAND_LENGTH),
        (4, b'd', MAX_SMALL_LENGTH),
        (5, b'S', MAX_SMALL_LENGTH),
        (7, b'd', MAX_SMALL_LENGTH),
        (8, b'c', MAX_SMALL_LENGTH),
        (9, b'X', MAX_SMALL_LENGTH),
    ] {
        let say = |length: usize| {
            let field = u32::try_from(length + 4).unwrap();
            let mut header = BytesMut::from(&[tag][..]);
            header.extend_from_slice(&field.to_be_bytes());
            let mut session = in_state(state);
            let now = session.now;
            session.handle_input(now, &mut header)
        };
        say(limit).unwrap();
        let error = say(limit + 1).unwrap_err();
        assert!(
            matches!(error, ServerError::Frame { .. }),
            "{state} {error}"
        );
    }
}

proptest! {
    #[test]
    fn no_bytes_in_any_state_panic_or_make_us_hoard(
        state in 0..STATES, bytes in messages(), startup: bool, size in 1usize..50, eof: bool,
        answers in prop::sample::select(vec![Answers::Nothing, Answers::All]),
    ) {
        let mut session = in_state(state);
        let bytes = if startup { [STARTUP, &bytes].concat() } else { bytes };
        let mut input = BytesMut::new();
        let mut over = false;
        for chunk in bytes.chunks(size) {
            session.now += Duration::from_millis(700);
            input.extend_from_slice(chunk);
            let (_, mut sent, error) = answer_all(&mut session, &mut input, answers);
            over = error.is_some();
            prop_assert!(input.len() <= MAX_WAITING_LENGTH + HEADER_LENGTH + size);
            if let Some(due) = session.next_timeout() && due <= session.now {
                let now = session.now;
                over |= session.handle_timeout(now).is_err();
            }
            while let Some(frame) = Frame::take(&mut sent, |_| usize::MAX).unwrap() {
                prop_assert!(BackendMessage::decode(frame).is_ok());
            }
            prop_assert!(sent.is_empty());
            if over {
                break;
            }
        }
        if over {
            prop_assert!(session.is_over());
            prop_assert_eq!(session.next_timeout(), None);
            let now = session.now;
            session.handle_input(now, &mut input).unwrap();
            prop_assert!(input.is_empty());
        } else if eof && !session.is_over() {
            let closed = session.handle_eof(session.now);
            let event = session.poll_event();
            prop_assert_eq!(closed.is_ok(), event == Some(Event::Terminated));
            prop_assert!(session.is_over());
        }
    }

    #[test]
    fn any_chunking_gives_the_same_events_and_answers(
        state in prop::sample::select(vec![0, 2, 4, 5, 7, 8, 9]),
        bytes in messages(), size in 1usize..50,
    ) {
        // Encryption is asked for by packets that have to come alone, so there are none of them.
        let bytes = if state == 0 { [STARTUP, &bytes].concat() } else { bytes };
        let run = |size: usize| {
            let mut session = in_state(state);
            let mut input = BytesMut::new();
            let (mut events, mut sent, mut error) = (Vec::new(), BytesMut::new(), None);
            for chunk in bytes.chunks(size) {
                input.extend_from_slice(chunk);
                let (more, out, failed) = answer_all(&mut session, &mut input, Answers::All);
                events.extend(more);
                // There are more keepalives if there is more time to send them.
                let mut out = out;
                while let Some(frame) = Frame::take(&mut out, |_| usize::MAX).unwrap() {
                    if frame.tag != Tag(b'd') {
                        sent.extend_from_slice(&[frame.tag.0]);
                        sent.extend_from_slice(&frame.body);
                    }
                }
                error = failed;
                if error.is_some() {
                    break;
                }
            }
            (events, sent, error)
        };
        prop_assert_eq!(run(size), run(usize::MAX));
    }
}
