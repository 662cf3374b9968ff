//! A session tells the same however the server's bytes arrive, and keeps little of them.
#![no_main]

use std::time::Instant;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use walproto::PgTimestamp;
use walproto::client::{ClientSession, Event, MAX_WAL_LENGTH, SessionTimes};
use walproto::command::Command;
use walproto::startup::StartupParameters;

/// A session before authentication, or one that has sent a command.
fn session(now: Instant, command: Option<&str>) -> ClientSession {
    let times = SessionTimes {
        receive_timeout: None,
        status_interval: None,
    };
    let startup = StartupParameters {
        user: "u".to_owned(),
        ..StartupParameters::default()
    };
    let password = Some(b"secret".to_vec());
    let credentials = walproto::client::Credentials {
        password,
        ..Default::default()
    };
    let mut session =
        ClientSession::new(now, PgTimestamp(0), &startup, credentials, times).unwrap();
    if let Some(command) = command {
        let ready = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x19server_version\x0015.18\0Z\0\0\0\x05I";
        session
            .handle_input(now, &mut BytesMut::from(&ready[..]))
            .unwrap();
        assert_eq!(session.poll_event(), Some(Event::Ready));
        session
            .execute(now, &Command::parse(command).unwrap())
            .unwrap();
    }
    session
}

/// The events that come of `chunks`, and at last the error if there is one.
fn events<'a>(
    mut session: ClientSession,
    now: Instant,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Event>, Option<String>) {
    let (mut input, mut events, mut sent) = (BytesMut::new(), Vec::new(), BytesMut::new());
    for chunk in chunks {
        input.extend_from_slice(chunk);
        let result = session.handle_input(now, &mut input);
        events.extend(std::iter::from_fn(|| session.poll_event()));
        session.poll_transmit(&mut sent);
        if let Err(error) = result {
            return (events, Some(error.to_string()));
        }
        assert!(input.len() <= MAX_WAL_LENGTH + chunk.len());
    }
    (events, None)
}

fuzz_target!(|data: &[u8]| {
    let Some((&[kind, step], data)) = data.split_first_chunk() else {
        return;
    };
    let commands = [
        None,
        Some("IDENTIFY_SYSTEM"),
        Some("START_REPLICATION 0/3000000 TIMELINE 1"),
    ];
    let command = commands[usize::from(kind) % commands.len()];
    let now = Instant::now();
    let whole = events(session(now, command), now, [data].into_iter());
    let parts = events(
        session(now, command),
        now,
        data.chunks(usize::from(step) + 1),
    );
    assert_eq!(parts, whole);
});
