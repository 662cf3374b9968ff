//! What a session does while WAL is streamed, and how the stream ends.

use super::*;
use crate::StandbyProgress;
use crate::backend::BackendMessage;
use crate::copy_data::{PrimaryKeepalive, SenderMessage, StandbyStatusUpdate};

/// A session that streams timeline 1 from 0/1000, alone; its client is written by the test.
pub(super) struct Script {
    pub(super) session: ServerSession,
    pub(super) now: Instant,
}

impl Script {
    pub(super) fn new() -> Self {
        let Pair { server, now, .. } = Pair::streaming(V15, 0x1000);
        Self {
            session: server,
            now,
        }
    }

    pub(super) fn say(&mut self, bytes: &[u8]) -> Result<(), ServerError> {
        let mut input = BytesMut::from(bytes);
        self.session.handle_input(self.now, &mut input)
    }

    /// The client's status update, and what the driver is told of it.
    pub(super) fn report(
        &mut self,
        [write, flush, apply]: [u64; 3],
        reply_requested: bool,
    ) -> Vec<Event> {
        let mut message = BytesMut::new();
        StandbyStatusUpdate {
            write: Lsn(write),
            flush: Lsn(flush),
            apply: Lsn(apply),
            sent_at: PgTimestamp(7),
            reply_requested,
        }
        .encode(&mut message);
        self.say(&message).unwrap();
        self.events()
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    /// Sends `length` bytes of WAL after what is to be sent before it.
    pub(super) fn send(&mut self, length: usize) {
        self.sent();
        let start = self.session.sent().unwrap();
        let end = Lsn(start.0 + 0x1000);
        self.session
            .wal_header(self.now, start, length, end)
            .unwrap();
    }

    pub(super) fn sent(&mut self) -> BytesMut {
        let mut out = BytesMut::new();
        self.session.poll_transmit(&mut out);
        out
    }

    /// The end of WAL and the request for a reply of each keepalive that is sent, and nothing else.
    pub(super) fn keepalives(&mut self) -> Vec<(u64, bool)> {
        let mut out = self.sent();
        let mut keepalives = Vec::new();
        while let Some(frame) = Frame::take(&mut out, |_| 100).unwrap() {
            match SenderMessage::decode(frame.body) {
                Ok(SenderMessage::Keepalive(k)) => {
                    keepalives.push((k.wal_end.0, k.reply_requested));
                }
                other => panic!("{other:?}"),
            }
        }
        keepalives
    }

    pub(super) fn wait(&mut self, seconds: u64) -> Result<(), ServerError> {
        self.now += Duration::from_secs(seconds);
        self.session.handle_timeout(self.now)
    }
}

pub(super) const COPY_DONE: &[u8] = b"c\0\0\0\x04";

/// What every version from 13.23 to 18.4 sends when a stream ends that its client has ended.
const STREAM_END: &[u8] = b"c\x00\x00\x00\x04C\x00\x00\x00\x14START_STREAMING\x00\
    C\x00\x00\x00\x16START_REPLICATION\x00Z\x00\x00\x00\x05I";

/// What 15.18 sent at the end of timeline 1, with and without a stream before it.
const TIMELINE_END: &[u8] = b"T\x00\x00\x00E\x00\x02next_tli\x00\x00\x00\x00\x00\x00\x00\x00\x00\
    \x00\x14\x00\x08\xff\xff\xff\xff\x00\x00next_tli_startpos\x00\x00\x00\x00\x00\x00\x00\x00\x00\
    \x00\x19\xff\xff\xff\xff\xff\xff\x00\x00D\x00\x00\x00\x17\x00\x02\x00\x00\x00\x012\x00\x00\x00\
    \x080/640B38C\x00\x00\x00\x14START_STREAMING\x00C\x00\x00\x00\x16START_REPLICATION\x00Z\x00\
    \x00\x00\x05I";

fn promoted() -> TimelineEnd {
    TimelineEnd {
        next_timeline: TimelineId::new(2).unwrap(),
        switch_point: Lsn(0x64_0B38),
    }
}

#[test]
fn a_stream_ends_byte_by_byte_as_by_postgresql() {
    let mut pair = Pair::ready(V15);
    pair.execute(&start_replication(0x1000));
    let server = &mut pair.server;
    server
        .start_streaming(pair.now, TimelineId::FIRST, Lsn(0x1000), None)
        .unwrap();
    let mut script = Script {
        session: pair.server,
        now: pair.now,
    };
    assert_eq!(&script.sent()[..], b"W\x00\x00\x00\x07\x00\x00\x00");
    script.say(COPY_DONE).unwrap();
    assert_eq!(&script.sent()[..], STREAM_END);
    assert_eq!(script.events(), [Event::CopyFinished]);

    let mut script = Script::new();
    script.session.end_timeline(promoted()).unwrap();
    assert_eq!(&script.sent()[..], COPY_DONE);
    script.say(COPY_DONE).unwrap();
    assert_eq!(&script.sent()[..], TIMELINE_END);
    assert_eq!(script.events(), [Event::CopyFinished]);
    script
        .say(b"Q\0\0\0\x2bSTART_REPLICATION 0/640B38 TIMELINE 1;\0")
        .unwrap();
    script.session.timeline_already_ended(promoted()).unwrap();
    assert_eq!(&script.sent()[..], TIMELINE_END);
}

#[test]
fn a_message_with_wal_is_what_a_client_reads() {
    let mut script = Script::new();
    script.now += Duration::from_secs(2);
    let header = script
        .session
        .wal_header(script.now, Lsn(0x1000), 3, Lsn(0x2000))
        .unwrap();
    let mut message = BytesMut::from(&header[..]);
    message.extend_from_slice(b"wal");
    let frame = Frame::take(&mut message, |_| 100).unwrap().unwrap();
    assert!(message.is_empty());
    let Ok(SenderMessage::XLogData(wal)) = SenderMessage::decode(frame.body) else {
        panic!();
    };
    assert_eq!((wal.start, wal.wal_end), (Lsn(0x1000), Lsn(0x2000)));
    assert_eq!(
        (wal.sent_at, &wal.data[..]),
        (PgTimestamp(2_000_000), &b"wal"[..])
    );
    assert_eq!(script.session.sent(), Some(Lsn(0x1003)));
    assert_eq!(script.session.timeline(), Some(TimelineId::FIRST));
}

#[test]
fn wal_that_does_not_follow_is_not_sent() {
    let mut script = Script::new();
    for start in [0xFFF, 0x1001] {
        let error = script
            .session
            .wal_header(script.now, Lsn(start), 8, Lsn(0x2000))
            .unwrap_err();
        assert!(
            matches!(error, ServerError::Discontinuous { .. }),
            "{error}"
        );
    }
    let too_long = usize::try_from(i32::MAX).unwrap();
    let error = script
        .session
        .wal_header(script.now, Lsn(0x1000), too_long, Lsn(0x2000))
        .unwrap_err();
    assert!(matches!(error, ServerError::TooLong(_)), "{error}");
    assert_eq!(script.session.sent(), Some(Lsn(0x1000)));
    script.send(8);
    assert_eq!(script.session.sent(), Some(Lsn(0x1008)));
    let mut at_the_end = Pair::streaming(V15, u64::MAX - 7).server;
    let now = at_the_end.now;
    assert!(
        at_the_end
            .wal_header(now, Lsn(u64::MAX - 7), 8, Lsn::INVALID)
            .is_err()
    );
}

#[test]
fn wal_waits_for_what_has_to_be_sent_before_it() {
    let mut pair = Pair::ready(V15);
    pair.execute(&start_replication(0x1000));
    let server = &mut pair.server;
    server
        .start_streaming(pair.now, TimelineId::FIRST, Lsn(0x1000), None)
        .unwrap();
    let error = server.wal_header(pair.now, Lsn(0x1000), 8, Lsn(0x2000));
    assert_eq!(
        error.unwrap_err().to_string(),
        "wal_header before poll_transmit is not possible during streaming"
    );
    server.poll_transmit(&mut BytesMut::new());
    assert!(
        server
            .wal_header(pair.now, Lsn(0x1000), 8, Lsn(0x2000))
            .is_ok()
    );
}

#[test]
fn nobody_is_believed_to_have_more_than_was_sent_to_it() {
    let mut script = Script::new();
    script.send(0x100);
    let events = script.report([0x9000, 0x1080, u64::MAX], false);
    let [Event::Status(update)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(
        (update.write, update.flush, update.apply),
        (Lsn(0x1100), Lsn(0x1080), Lsn(0x1100))
    );
    let reported = StandbyProgress {
        write: Some(Lsn(0x1100)),
        flush: Some(Lsn(0x1080)),
        apply: Some(Lsn(0x1100)),
    };
    assert_eq!(script.session.reported(), Some(reported));
    // What is sent later is not covered by what was said before.
    script.send(0x100);
    assert_eq!(script.session.reported(), Some(reported));
    script.report([0x1200, 0, 0], false);
    assert_eq!(
        script.session.reported(),
        Some(StandbyProgress {
            write: Some(Lsn(0x1200)),
            flush: None,
            apply: None,
        })
    );
    // The next stream begins without reports.
    script.say(COPY_DONE).unwrap();
    assert_eq!(script.session.reported(), None);
}

#[test]
fn however_often_a_client_asks_there_is_one_keepalive() {
    let mut script = Script::new();
    script.send(0x100);
    for _ in 0..3 {
        script.report([0x1000, 0x1000, 0], true);
    }
    assert_eq!(script.keepalives(), [(0x1100, false)]);
    assert_eq!(script.keepalives(), []);
    script.report([0x1000, 0x1000, 0], false);
    assert_eq!(script.keepalives(), []);
    script.session.keepalive(script.now, false).unwrap();
    script.report([0x1000, 0x1000, 0], true);
    script.session.keepalive(script.now, true).unwrap();
    assert_eq!(script.keepalives(), [(0x1100, true)]);
    // It is also answered when our side has ended.
    script.session.end_timeline(end()).unwrap();
    assert_eq!(&script.sent()[..], COPY_DONE);
    script.report([0x1100, 0x1100, 0], true);
    assert_eq!(script.keepalives(), [(0x1100, false)]);
}

/// A keepalive of ours, as PostgreSQL would send it.
#[test]
fn a_keepalive_carries_what_was_sent_and_the_time() {
    let mut script = Script::new();
    script.now += Duration::from_millis(1500);
    script.session.keepalive(script.now, true).unwrap();
    let mut expected = BytesMut::new();
    PrimaryKeepalive {
        wal_end: Lsn(0x1000),
        sent_at: PgTimestamp(1_500_000),
        reply_requested: true,
    }
    .encode(&mut expected);
    assert_eq!(script.sent(), expected);
}

#[test]
fn a_stream_fails_and_what_the_client_still_says_is_ignored() {
    let mut pair = Pair::streaming(V15, 0x1000);
    pair.send(100);
    let removed = "requested WAL segment 000000010000000000000001 has already been removed";
    let error = ServerMessage::error(SqlState::UNDEFINED_FILE, removed);
    pair.server.fail(error).unwrap();
    pair.client.report(pair.now, durable(0x1000));
    let events = pair.client_events();
    let [
        client::Event::WalData { .. },
        client::Event::Failed(error),
        client::Event::Ready,
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!(error.sqlstate, SqlState::UNDEFINED_FILE);
    assert_eq!(pair.server_events(), []);
    pair.execute(&Command::IdentifySystem);
}

#[test]
fn what_has_no_place_in_a_stream_ends_it_as_by_postgresql() {
    for (bytes, told) in [
        (
            &b"f\0\0\0\x05\0"[..],
            "FATAL: invalid standby message type \"f\" [SQLSTATE 08P01]",
        ),
        (
            b"Q",
            "FATAL: invalid standby message type \"Q\" [SQLSTATE 08P01]",
        ),
        (
            b"d\0\0\0\x05x",
            "FATAL: malformed CopyData message, field kind: unknown value 120 [SQLSTATE 08P01]",
        ),
        (
            b"d\0\0\0\x04",
            "FATAL: malformed CopyData message, field kind: the message ends inside it \
             [SQLSTATE 08P01]",
        ),
        (
            b"d\0\0\x27\x11",
            "FATAL: message \"d\" has 9997 bytes, at most 9996 are accepted here [SQLSTATE 08P01]",
        ),
    ] {
        let mut script = Script::new();
        assert!(script.say(bytes).is_err());
        let frame = Frame::take(&mut script.sent(), |_| 1000).unwrap().unwrap();
        match BackendMessage::decode(frame).unwrap() {
            BackendMessage::ErrorResponse(message) => assert_eq!(message.to_string(), told),
            other => panic!("{other:?}"),
        }
        assert!(script.session.is_over());
    }
}

#[test]
fn a_client_may_go_at_any_time_if_it_says_so() {
    let mut script = Script::new();
    script.say(b"X\0\0\0\x04").unwrap();
    assert_eq!(script.events(), [Event::Terminated]);
    assert!(script.session.is_over() && script.sent().is_empty());
    let mut script = Script::new();
    let error = script.session.handle_eof(script.now).unwrap_err();
    assert!(
        matches!(error, ServerError::UnexpectedEof { .. }),
        "{error}"
    );
}

#[test]
fn what_a_driver_may_not_do_now_changes_nothing() {
    let message = || ServerMessage::error(SqlState::INTERNAL_ERROR, "x");
    let streaming_only = |session: &mut ServerSession| {
        let now = session.now;
        assert!(
            session
                .wal_header(now, Lsn(0x1000), 1, Lsn(0x2000))
                .is_err()
        );
        assert!(session.keepalive(now, true).is_err());
        assert!(session.end_timeline(end()).is_err());
    };
    let executing_only = |session: &mut ServerSession| {
        let now = session.now;
        assert!(session.answer(&end().encode()).is_err());
        assert!(session.complete().is_err());
        assert!(session.timeline_already_ended(end()).is_err());
        assert!(
            session
                .start_streaming(now, TimelineId::FIRST, Lsn(0), None)
                .is_err()
        );
    };
    let before_only = |session: &mut ServerSession| {
        assert!(session.accept_tls().is_err() && session.refuse_tls().is_err());
        assert!(session.authenticate_trust().is_err());
        assert!(session.welcome([], 1, Bytes::from_static(b"1234")).is_err());
    };
    let mut idle = Pair::ready(V15).server;
    streaming_only(&mut idle);
    executing_only(&mut idle);
    before_only(&mut idle);
    assert!(idle.fail(message()).is_err());
    let mut pair = Pair::ready(V15);
    pair.execute(&Command::IdentifySystem);
    streaming_only(&mut pair.server);
    before_only(&mut pair.server);
    let now = pair.now;
    let start = pair
        .server
        .start_streaming(now, TimelineId::FIRST, Lsn(0), None);
    assert_eq!(
        start.unwrap_err().to_string(),
        "start_streaming is not possible during IDENTIFY_SYSTEM"
    );
    assert!(pair.server.timeline_already_ended(end()).is_err());
    let mut streaming = Pair::streaming(V15, 0x1000).server;
    executing_only(&mut streaming);
    before_only(&mut streaming);
    for session in [&mut idle, &mut pair.server, &mut streaming] {
        let mut out = BytesMut::new();
        session.poll_transmit(&mut out);
        assert!(out.is_empty() && !session.is_over());
    }
    streaming.fail(message()).unwrap();
    assert!(streaming.fail(message()).is_err());
}
