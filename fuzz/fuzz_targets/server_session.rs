//! A session tells and answers the same however the client's bytes arrive, and keeps little of
//! them.
#![no_main]

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use walproto::command::Command;
use walproto::error::{ServerMessage, SqlState};
use walproto::result::TimelineEnd;
use walproto::scram::ScramVerifier;
use walproto::server::{Event, MAX_WAITING_LENGTH, ServerSession, SessionTimes};
use walproto::{Lsn, PgTimestamp, ServerVersion, TimelineId};

const STARTUP: &[u8] = b"\0\0\0\x20\0\x03\0\0user\0rep\0replication\x001\0\0";

const END: TimelineEnd = TimelineEnd {
    next_timeline: TimelineId::FIRST,
    switch_point: Lsn(0x300_0060),
};

/// What happened: the events, the tags of the messages that are sent, and the error.
type Story = (Vec<Event>, Vec<u8>, Option<String>);

/// Takes what is taken of `input`, and answers what asks for an answer.
fn take(session: &mut ServerSession, now: Instant, scram: bool, input: &mut BytesMut) -> Story {
    let (mut events, mut sent, mut out) = (Vec::new(), Vec::new(), BytesMut::new());
    loop {
        let before = (input.len(), events.len());
        let result = session.handle_input(now, input);
        while let Some(event) = session.poll_event() {
            answer(session, now, scram, &event);
            events.push(event);
        }
        session.poll_transmit(&mut out);
        // A single byte is the answer to a request for encryption. There are more keepalives if
        // there is more time to send them.
        while let Some(frame) = walproto::frame::Frame::take(&mut out, |_| usize::MAX).unwrap() {
            if frame.tag.0 != b'd' {
                sent.push(frame.tag.0);
            }
        }
        out.clear();
        if let Err(error) = result {
            return (events, sent, Some(error.to_string()));
        }
        if before == (input.len(), events.len()) {
            return (events, sent, None);
        }
    }
}

fn answer(session: &mut ServerSession, now: Instant, scram: bool, event: &Event) {
    match event {
        Event::TlsRequested => session.refuse_tls(),
        Event::Startup(_) if scram => {
            let verifier = ScramVerifier::from_password(b"secret", b"salt", 1);
            session.authenticate_scram(verifier.into(), [7; 18], None)
        }
        Event::Startup(_) => session.authenticate_trust(),
        Event::Authenticated => session.welcome([("a", "b")], 1, Bytes::from_static(b"1234")),
        Event::Command(Command::StartReplication { start, .. }) => match start.0 % 3 {
            0 => session.timeline_already_ended(END),
            1 => session.start_streaming(now, TimelineId::FIRST, *start, Some(END)),
            _ => session.start_streaming(now, TimelineId::FIRST, *start, None),
        },
        Event::Command(_) => session.complete(),
        Event::Sql(_) => session.fail(ServerMessage::error(SqlState::SYNTAX_ERROR, "no SQL")),
        _ => Ok(()),
    }
    .unwrap();
}

/// A session at its beginning, or one that got so far.
fn session(now: Instant, kind: u8) -> ServerSession {
    let times = SessionTimes {
        authentication_timeout: Duration::from_secs(60),
        wal_sender_timeout: Some(Duration::from_secs(60)),
    };
    let version = ServerVersion(if kind & 8 == 0 { 130_023 } else { 180_004 });
    let mut session = ServerSession::new(now, PgTimestamp(0), version, times);
    let mut input = BytesMut::new();
    if kind & 3 > 0 {
        input.extend_from_slice(STARTUP);
    }
    if kind & 3 > 1 {
        input.extend_from_slice(b"Q\0\0\0\x25START_REPLICATION 0/3000001 TIMELINE 1;\0");
    }
    take(&mut session, now, kind & 4 != 0, &mut input);
    if kind & 3 == 3 {
        session.begin_shutdown(now, Lsn(0x300_0001));
        session.poll_transmit(&mut BytesMut::new());
    }
    while session.poll_event().is_some() {}
    session
}

/// What happens when `chunks` arrive.
fn story<'a>(kind: u8, now: Instant, chunks: impl Iterator<Item = &'a [u8]>) -> Story {
    let mut session = session(now, kind);
    let (mut input, mut story) = (BytesMut::new(), Story::default());
    for chunk in chunks {
        input.extend_from_slice(chunk);
        let (events, sent, error) = take(&mut session, now, kind & 4 != 0, &mut input);
        story.0.extend(events);
        story.1.extend(sent);
        story.2 = error;
        assert!(input.len() <= MAX_WAITING_LENGTH + chunk.len());
        if story.2.is_some() {
            assert!(session.is_over());
            break;
        }
    }
    if let (Some(sent), Some(reported)) = (session.sent(), session.reported()) {
        let positions = [reported.write, reported.flush, reported.apply];
        assert!(
            positions
                .into_iter()
                .flatten()
                .all(|position| position <= sent)
        );
    }
    story
}

fuzz_target!(|data: &[u8]| {
    let Some((&[kind, step], data)) = data.split_first_chunk() else {
        return;
    };
    let now = Instant::now();
    let whole = story(kind, now, [data].into_iter());
    let parts = story(kind, now, data.chunks(usize::from(step) + 1));
    // A request for encryption has to come alone, so there the bytes may not arrive anyhow.
    let asks = data.starts_with(b"\0\0\0\x08\x04\xd2\x16");
    if kind & 3 > 0 || !asks {
        assert_eq!(parts, whole);
    }
});
