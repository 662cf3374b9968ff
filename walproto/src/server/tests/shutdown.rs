//! How a session comes to its end in a shutdown.

use super::streaming::{COPY_DONE, Script};
use super::*;
use crate::copy_data::PrimaryKeepalive;
use crate::error::Severity;

/// A client that reports flush positions, and one like `pg_receivewal` that only writes.
#[test]
fn a_shutdown_waits_until_all_is_flushed_or_else_written() {
    for flushes in [true, false] {
        let mut script = Script::new();
        script.send(0x80);
        let positions = |end| if flushes { [end, end, 0] } else { [end, 0, 0] };
        script.report(positions(0x1080), false);
        script.session.begin_shutdown(script.now, Lsn(0x1100));
        // There is more to send first.
        assert_eq!(script.keepalives(), []);
        assert!(script.session.is_sending());
        script.report(positions(0x1080), false);
        assert_eq!(script.keepalives(), []);
        script.send(0x80);
        assert_eq!(script.keepalives(), [(0x1100, true)]);
        // One is outstanding, there are no more.
        script.session.keepalive(script.now, true).unwrap();
        assert_eq!(script.keepalives(), []);
        script.report(positions(0x10FF), false);
        assert_eq!(script.keepalives(), [(0x1100, true)]);
        let events = script.report(positions(0x1100), false);
        assert!(matches!(events[..], [Event::Status(_), Event::Stopped]));
        assert_eq!(&script.sent()[..], b"C\0\0\0\x0bCOPY 0\0");
        assert!(script.session.is_over());
        script.session.handle_eof(script.now).unwrap();
    }
}

#[test]
fn a_shutdown_sends_no_more_than_up_to_its_last_position() {
    let mut script = Script::new();
    script.session.begin_shutdown(script.now, Lsn(0x1100));
    assert!(script.session.is_sending());
    script.send(0x100);
    assert!(!script.session.is_sending());
    let (now, sent) = (script.now, Lsn(0x1100));
    let more = script.session.wal_header(now, sent, 8, Lsn(0x1200));
    assert!(matches!(more, Err(ServerError::Misuse { .. })), "{more:?}");
    // It is still the client's turn to say that it has all.
    assert_eq!(script.keepalives(), [(0x1100, true)]);
    script.report([0x1100, 0x1100, 0], false);
    assert!(script.session.is_over());
}

#[test]
fn a_written_position_does_not_do_for_a_client_that_flushes() {
    let mut script = Script::new();
    script.send(0x100);
    script.report([0x1100, 0x1080, 0], false);
    script.session.begin_shutdown(script.now, Lsn(0x1100));
    assert_eq!(script.keepalives(), [(0x1100, true)]);
    script.report([0x1100, 0x1080, 0], false);
    assert_eq!(script.keepalives(), [(0x1100, true)]);
    assert!(!script.session.is_over());
    script.session.begin_shutdown(script.now, Lsn(0x1100));
    script.report([0x1100, 0x1100, 0], false);
    assert!(script.session.is_over());
}

#[test]
fn a_client_that_is_already_there_is_stopped_at_once() {
    let mut script = Script::new();
    script.send(0x100);
    // What it claims beyond what it was sent is of no account.
    script.report([0x9999, 0x9999, 0], false);
    script.session.begin_shutdown(script.now, Lsn(0x1100));
    assert_eq!(&script.sent()[..], b"C\0\0\0\x0bCOPY 0\0");
    assert_eq!(script.events(), [Event::Stopped]);
}

#[test]
fn the_end_of_a_timeline_in_a_shutdown_is_the_end() {
    let mut script = Script::new();
    script.send(0x100);
    script.session.begin_shutdown(script.now, Lsn(0x5000));
    script.session.end_timeline(end()).unwrap();
    assert!(!script.session.is_sending());
    let mut expected = BytesMut::from(COPY_DONE);
    PrimaryKeepalive {
        wal_end: Lsn(0x1100),
        sent_at: PgTimestamp(0),
        reply_requested: true,
    }
    .encode(&mut expected);
    assert_eq!(script.sent(), expected);
    script.report([0x1100, 0x1100, 0], false);
    assert_eq!(&script.sent()[..], b"C\0\0\0\x0bCOPY 0\0");

    // The other way around, and the client ends its side instead of a report: nothing more is
    // said.
    let mut script = Script::new();
    script.send(0x100);
    script.session.end_timeline(end()).unwrap();
    script.session.begin_shutdown(script.now, Lsn(0x5000));
    assert_eq!(&script.sent()[..5], COPY_DONE);
    script.say(COPY_DONE).unwrap();
    assert!(script.sent().is_empty());
    assert_eq!(script.events(), [Event::Stopped]);

    let mut script = Script::new();
    script.session.begin_shutdown(script.now, Lsn(0x5000));
    script.say(COPY_DONE).unwrap();
    assert_eq!(&script.sent()[..], COPY_DONE);
    assert_eq!(script.events(), [Event::Stopped]);
}

#[test]
fn an_error_in_a_shutdown_is_the_end() {
    let mut script = Script::new();
    script.session.begin_shutdown(script.now, Lsn(0x5000));
    let error = ServerMessage::error(SqlState::INTERNAL_ERROR, "no");
    script.session.fail(error).unwrap();
    assert_eq!(script.events(), [Event::Stopped]);
    assert!(script.session.is_over());
    assert!(!script.sent().ends_with(b"I"));
}

#[test]
fn a_session_without_a_stream_is_shut_down_at_once() {
    for execute in [false, true] {
        let mut pair = Pair::ready(V15);
        if execute {
            pair.execute(&Command::IdentifySystem);
        }
        pair.server.begin_shutdown(pair.now, Lsn(0x5000));
        assert!(pair.server.is_over());
        pair.server.poll_transmit(&mut pair.to_client);
        let client = &mut pair.client;
        client.handle_input(pair.now, &mut pair.to_client).unwrap();
        let Some(client::Event::Failed(error)) = client.poll_event() else {
            panic!();
        };
        assert_eq!(error.sqlstate, SqlState::ADMIN_SHUTDOWN);
        assert_eq!(error.severity, Severity::Fatal);
        client.handle_eof(pair.now).unwrap();
    }
    let now = Instant::now();
    let mut session = ServerSession::new(now, PgTimestamp(0), V15, TIMES);
    session.begin_shutdown(now, Lsn(0x5000));
    let mut out = BytesMut::new();
    session.poll_transmit(&mut out);
    assert!(session.is_over() && out.is_empty());
}

#[test]
fn a_dead_client_does_not_hold_up_a_shutdown_for_ever() {
    let mut script = Script::new();
    script.send(0x100);
    script.wait(10).unwrap();
    script.session.begin_shutdown(script.now, Lsn(0x1100));
    assert_eq!(script.keepalives(), [(0x1100, true)]);
    script.wait(49).unwrap();
    assert!(script.wait(1).is_err());
}
