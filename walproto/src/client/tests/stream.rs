//! Streaming: what is received, what is reported, and how it ends.

use super::*;

#[test]
fn wal_arrives_as_it_was_sent_and_a_report_is_sent_at_once() {
    let mut script = Script::streaming(0x100);
    script.say_bytes(&wal(0x100, b"abc")).unwrap();
    let data = Event::WalData {
        start: Lsn(0x100),
        wal_end: Lsn(0x100 + 1_000_000),
        sent_at: PgTimestamp(7),
        data: Bytes::from_static(b"abc"),
    };
    assert_eq!(script.events(), [data]);
    assert_eq!(script.statuses(), [[0; 3]; 0]);
    script.session.report(script.now, durable(0x102));
    script.session.report(script.now, durable(0x103));
    assert_eq!(script.statuses(), [[0x103; 3]]);
    script.session.report(script.now, durable(0x103));
    assert_eq!(script.statuses(), [[0; 3]; 0]);
}

#[test]
fn a_historic_timeline_ends_with_a_table_that_names_the_next() {
    let mut script = Script::streaming(0x100);
    script.say(BackendMessage::CopyDone);
    assert_eq!(script.events(), [Event::ServerCopyDone]);
    assert_eq!(&script.sent()[..], b"");
    script.session.finish_copy(script.now);
    assert_eq!(&script.sent()[..], b"c\0\0\0\x04");
    let mut table = BytesMut::new();
    crate::backend::encode_result_set(&timeline_end(), &mut table).unwrap();
    script.say_bytes(&table).unwrap();
    script.say(complete("START_STREAMING"));
    script.say(complete("START_REPLICATION"));
    assert_eq!(script.events(), []);
    script.say(ready());
    assert_eq!(
        script.events(),
        [Event::StreamEnded(Some(timeline_end())), Event::Ready]
    );
}

#[test]
fn an_error_inside_the_stream_is_answered_by_nothing() {
    let mut script = Script::streaming(0x100);
    let message = error(Severity::Error, SqlState::UNDEFINED_FILE);
    script.say(BackendMessage::ErrorResponse(message.clone()));
    assert_eq!(script.events(), [Event::Failed(message)]);
    script.session.report(script.now, durable(0x100));
    script.session.finish_copy(script.now);
    assert_eq!(&script.sent()[..], b"");
    script.say(ready());
    assert_eq!(script.events(), [Event::Ready]);
    script.execute(&Command::IdentifySystem);
}

#[test]
fn a_keepalive_that_asks_is_answered_from_what_was_reported_last() {
    let mut script = Script::streaming(0x100);
    script.wal(0x100, 0x40);
    script.session.report(script.now, durable(0x120));
    assert_eq!(script.statuses(), [[0x120; 3]]);
    script.keepalive(0x140, false);
    assert_eq!(script.statuses(), [[0; 3]; 0]);
    script.keepalive(0x140, true);
    assert_eq!(script.statuses(), [[0x120; 3]]);
}

#[test]
fn before_anything_is_reported_we_are_no_candidate_for_synchronous_replication() {
    let mut script = Script::ready();
    script.execute(&start_replication(0x100));
    script.say(copy_both());
    assert_eq!(script.statuses(), [[0; 3]; 0]);
    script.wal(0x100, 0x40);
    script.keepalive(0x140, true);
    assert_eq!(script.statuses(), [[0x100, 0, 0]]);
}

#[test]
fn without_a_flush_only_write_is_told() {
    let mut script = Script::streaming(0x100);
    script.wal(0x100, 0x40);
    let no_candidate = |write| Positions::<Lsn> {
        write: Lsn(write),
        flush: None,
        apply: Some(Lsn(write)),
        byte_end: Lsn(write),
    };
    script.session.report(script.now, no_candidate(0x140));
    assert_eq!(script.statuses(), [[0x140, 0, 0]]);
    script.session.report(script.now, durable(0x120));
    assert_eq!(script.statuses(), [[0x140, 0x120, 0x120]]);
    script.session.report(
        script.now,
        Positions {
            apply: None,
            ..durable(0x140)
        },
    );
    assert_eq!(script.statuses(), [[0x140, 0x140, 0]]);
}

#[test]
fn nothing_is_reported_that_was_not_received_on_this_stream() {
    let mut script = Script::streaming(0x2000);
    script.session.report(script.now, durable(0x2100));
    assert_eq!(script.statuses(), [[0; 3]; 0]);
    script.wal(0x2000, 0x40);
    script.session.report(script.now, durable(0x2100));
    assert_eq!(script.statuses(), [[0x2040; 3]]);
    // What lies before the start is taken for granted by asking for WAL from there.
    script.session.report(script.now, durable(0x1000));
    assert_eq!(script.statuses(), [[0; 3]; 0]);
}

#[test]
fn what_is_applied_does_not_begin_at_the_start_of_the_stream() {
    let mut script = Script::ready();
    script.execute(&start_replication(0x2000));
    script.say(copy_both());
    script.wal(0x2000, 0x40);
    let behind = |apply| Positions {
        apply: Some(Lsn(apply)),
        ..durable(0x2040)
    };
    script.session.report(script.now, behind(0x1800));
    assert_eq!(script.statuses(), [[0x2040, 0x2040, 0x1800]]);
    script.session.report(script.now, behind(0x2040));
    assert_eq!(script.statuses(), [[0x2040; 3]]);
    script.session.report(script.now, behind(0x1800));
    assert_eq!(script.statuses(), [[0; 3]; 0]);
}

/// Bytes that are durable to 0x140, the last record of which ends at 0x120.
const TORN: Positions<Lsn> = Positions {
    write: Lsn(0x120),
    flush: Some(Lsn(0x120)),
    apply: Some(Lsn(0x118)),
    byte_end: Lsn(0x140),
};

#[test]
fn a_sender_that_waits_inside_a_record_is_told_the_byte_end() {
    let mut script = Script::streaming(0x100);
    script.wal(0x100, 0x40);
    script.session.report(script.now, TORN);
    assert_eq!(script.statuses(), [[0x120, 0x120, 0x118]]);
    script.keepalive(0x140, false);
    assert_eq!(script.statuses(), [[0; 3]; 0]);
    script.keepalive(0x130, true);
    assert_eq!(script.statuses(), [[0x120, 0x120, 0x118]]);
    script.keepalive(0x140, true);
    assert_eq!(script.statuses(), [[0x140, 0x140, 0x118]]);
    // It is not taken back.
    script.wal(0x140, 0x10);
    script.keepalive(0x150, false);
    script.session.report(script.now, TORN);
    script.pass(10);
    script.session.handle_timeout(script.now).unwrap();
    assert_eq!(script.statuses(), [[0x140, 0x140, 0x118]]);
}

#[test]
fn the_byte_end_is_told_when_it_becomes_durable_after_the_question() {
    let mut script = Script::streaming(0x100);
    script.wal(0x100, 0x40);
    script.keepalive(0x140, true);
    assert_eq!(script.statuses(), [[0x100; 3]]);
    script.session.report(
        script.now,
        Positions {
            byte_end: Lsn(0x130),
            ..TORN
        },
    );
    assert_eq!(script.statuses(), [[0x120, 0x120, 0x118]]);
    script.session.report(script.now, TORN);
    assert_eq!(script.statuses(), [[0x140, 0x140, 0x118]]);
}

#[test]
fn wal_after_the_question_ends_the_wait_for_the_byte_end() {
    let mut script = Script::streaming(0x100);
    script.wal(0x100, 0x40);
    let both = [keepalive(0x140, true), wal(0x140, b"more")].concat();
    script.say_bytes(&both).unwrap();
    script.session.report(script.now, TORN);
    assert_eq!(script.statuses(), [[0x120, 0x120, 0x118]]);
}

/// Whether what was reported as written stays before what was received, as a keepalive shows.
fn stays_incomplete(script: &mut Script, wal_end: u64) -> Option<(Lsn, Lsn)> {
    script.events();
    script.keepalive(wal_end, false);
    let events = script.events();
    assert!(matches!(events[0], Event::Keepalive { .. }), "{events:?}");
    match events[..] {
        [_] => None,
        [_, Event::WalStaysIncomplete { written, received }] => Some((written, received)),
        _ => panic!("{events:?}"),
    }
}

#[test]
fn a_record_that_stays_incomplete_for_half_of_the_timeout_is_told() {
    let mut script = Script::streaming(0x100);
    let told = Some((Lsn(0x120), Lsn(0x140)));
    script.wal(0x100, 0x40);
    script.session.report(script.now, TORN);
    script.pass(29);
    assert_eq!(stays_incomplete(&mut script, 0x140), None);
    script.pass(1);
    // The sender has more, or says that it has less than it sent.
    assert_eq!(stays_incomplete(&mut script, 0x148), None);
    assert_eq!(stays_incomplete(&mut script, 0x138), None);
    assert_eq!(stays_incomplete(&mut script, 0x140), told);
    // Whoever has not heard it out yet, as while a disk is slow, hears it again.
    assert_eq!(stays_incomplete(&mut script, 0x140), told);
    // More of the record: it may be on its way.
    script.wal(0x140, 0x08);
    assert_eq!(stays_incomplete(&mut script, 0x148), None);
    script.pass(30);
    assert_eq!(
        stays_incomplete(&mut script, 0x148),
        Some((Lsn(0x120), Lsn(0x148)))
    );
    script.session.report(script.now, durable(0x148));
    assert_eq!(stays_incomplete(&mut script, 0x148), None);
}

#[test]
fn the_ping_after_half_of_the_timeout_finds_a_record_that_stays_incomplete() {
    let mut script = Script::streaming(0x100);
    script.session.times.status_interval = None;
    script.wal(0x100, 0x40);
    script.session.report(script.now, TORN);
    script.statuses();
    script.now = script.session.next_timeout().unwrap();
    script.session.handle_timeout(script.now).unwrap();
    assert!(script.updates()[0].reply_requested);
    assert!(stays_incomplete(&mut script, 0x140).is_some());
}

#[test]
fn nobody_is_told_of_an_incomplete_record_who_did_not_report_or_does_not_wait() {
    let mut script = Script::streaming(0x100);
    script.wal(0x100, 0x40);
    script.session.report(script.now, TORN);
    script.session.times.receive_timeout = None;
    script.pass(3600);
    assert_eq!(stays_incomplete(&mut script, 0x140), None);
    script.session.times.receive_timeout = TIMES.receive_timeout;
    assert!(stays_incomplete(&mut script, 0x140).is_some());
    script.session.finish_copy(script.now);
    assert_eq!(stays_incomplete(&mut script, 0x140), None);

    let mut script = Script::ready();
    script.execute(&start_replication(0x100));
    script.say(copy_both());
    script.wal(0x100, 0x40);
    script.pass(30);
    assert_eq!(stays_incomplete(&mut script, 0x140), None);
    script.session.report(script.now, TORN);
    assert!(stays_incomplete(&mut script, 0x140).is_some());
    script.say(BackendMessage::CopyDone);
    script.events();
    assert_eq!(stays_incomplete(&mut script, 0x140), None);
}

#[test]
fn no_candidate_tells_the_byte_end_as_written() {
    let mut script = Script::streaming(0x100);
    script.wal(0x100, 0x40);
    script.session.report(
        script.now,
        Positions {
            flush: None,
            ..TORN
        },
    );
    script.keepalive(0x140, true);
    assert_eq!(script.statuses(), [[0x140, 0, 0]]);
}

#[test]
fn wal_that_jumps_ends_the_session_and_keeps_what_came_before() {
    for start in [0x13F, 0x141, 0x100, 1 << 60] {
        let mut script = Script::streaming(0x100);
        let both = [wal(0x100, &[1; 0x40]), wal(start, b"x")].concat();
        let error = script.say_bytes(&both).unwrap_err();
        assert!(matches!(
            error,
            ClientError::Discontinuous { expected: Lsn(0x140), found, .. }
                if found == Lsn(start)
        ));
        assert_eq!(script.events().len(), 1);
        let error = script.say_bytes(&keepalive(0, true)).unwrap_err();
        assert!(matches!(error, ClientError::Misuse { .. }));
        assert_eq!(script.session.next_timeout(), None);
    }
}

#[test]
fn wal_past_the_last_position_there_is_ends_the_session() {
    let mut script = Script::ready();
    script.execute(&start_replication(u64::MAX - 2));
    script.say(copy_both());
    let mut message = BytesMut::from(&b"d\0\0\0\x20w"[..]);
    message.extend_from_slice(&(u64::MAX - 2).to_be_bytes());
    message.extend_from_slice(&[0; 16]);
    message.extend_from_slice(b"abc");
    let error = script.say_bytes(&message).unwrap_err();
    assert!(matches!(error, ClientError::Discontinuous { .. }));
}

#[test]
fn a_status_goes_out_at_every_interval() {
    let mut script = Script::streaming(0x100);
    for _ in 0..3 {
        let due = script.session.next_timeout().unwrap();
        assert_eq!(due, script.now + Duration::from_secs(10));
        script.pass(9);
        script.session.handle_timeout(script.now).unwrap();
        assert_eq!(script.statuses(), [[0; 3]; 0]);
        script.pass(1);
        script.keepalive(0x100, false);
        script.session.handle_timeout(script.now).unwrap();
        assert_eq!(script.statuses(), [[0x100; 3]]);
    }
    let updates = script.statuses();
    assert_eq!(updates, [[0; 3]; 0]);
}

#[test]
fn the_time_in_a_status_is_the_time_of_day() {
    let mut script = Script::streaming(0x100);
    script.pass(3);
    script.keepalive(0x100, true);
    assert_eq!(script.updates()[0].sent_at, PgTimestamp(4_000_000));
}

#[test]
fn the_silence_of_a_sender_that_nobody_listens_to_means_nothing() {
    let mut script = Script::streaming(0x100);
    let timeout = TIMES.receive_timeout.unwrap();
    for _ in 0..10 {
        script.now += timeout / 2;
        script.session.not_listening(script.now);
        script.session.handle_timeout(script.now).unwrap();
    }
    assert!(
        script
            .updates()
            .iter()
            .all(|update| !update.reply_requested)
    );
    script.now += timeout / 2;
    script.session.handle_timeout(script.now).unwrap();
    assert!(script.updates().iter().any(|update| update.reply_requested));
}

#[test]
fn a_silent_sender_is_asked_once_and_then_given_up() {
    let mut script = Script::streaming(0x100);
    script.session.times.status_interval = None;
    assert_eq!(
        script.session.next_timeout(),
        Some(script.now + Duration::from_secs(30))
    );
    script.pass(30);
    script.session.handle_timeout(script.now).unwrap();
    let ping = script.updates();
    assert!(ping[0].reply_requested && ping.len() == 1);
    assert_eq!(
        script.session.next_timeout(),
        Some(script.now + Duration::from_secs(30))
    );
    script.pass(29);
    script.session.handle_timeout(script.now).unwrap();
    assert_eq!(script.updates(), []);
    script.pass(1);
    let error = script.session.handle_timeout(script.now).unwrap_err();
    assert_eq!(
        error.to_string(),
        "nothing was heard from the server for 60s during streaming"
    );
}

#[test]
fn any_byte_is_a_sign_of_life() {
    let mut script = Script::streaming(0x100);
    script.session.times.status_interval = None;
    script.pass(30);
    script.session.handle_timeout(script.now).unwrap();
    assert_eq!(script.updates().len(), 1);
    script.pass(29);
    script.say_bytes(b"d").unwrap();
    assert_eq!(
        script.session.next_timeout(),
        Some(script.now + Duration::from_secs(30))
    );
    // The same byte again is none.
    script.pass(29);
    script.say_bytes(b"").unwrap();
    script.pass(1);
    script.session.handle_timeout(script.now).unwrap();
    assert!(script.updates()[0].reply_requested);
}

#[test]
fn a_receiver_that_slept_asks_before_it_gives_up() {
    let mut script = Script::streaming(0x100);
    script.pass(3600);
    script.session.handle_timeout(script.now).unwrap();
    assert!(script.updates()[0].reply_requested);
    script.pass(29);
    script.session.handle_timeout(script.now).unwrap();
    script.pass(1);
    assert!(script.session.handle_timeout(script.now).is_err());
}

#[test]
fn a_command_without_an_answer_times_out_but_one_that_waits_does_not() {
    let mut script = Script::ready();
    script.pass(1000);
    assert_eq!(script.session.next_timeout(), None);
    script.execute(&Command::IdentifySystem);
    assert_eq!(
        script.session.next_timeout(),
        Some(script.now + Duration::from_secs(60))
    );
    script.pass(60);
    assert!(script.session.handle_timeout(script.now).is_err());

    let mut script = Script::ready();
    let slot = crate::command::Identifier::new("s").unwrap();
    script.execute(&Command::DropReplicationSlot { slot, wait: true });
    assert_eq!(script.session.next_timeout(), None);
}

#[test]
fn the_receiver_ends_the_stream_first() {
    let mut script = Script::streaming(0x100);
    script.wal(0x100, 0x40);
    script.session.report(script.now, durable(0x140));
    script.session.finish_copy(script.now);
    let mut sent = script.sent();
    let status = Frame::take(&mut sent, |_| 100).unwrap().unwrap();
    assert_eq!((status.tag, status.body.first()), (Tag(b'd'), Some(&b'r')));
    assert_eq!(&sent[..], b"c\0\0\0\x04");
    // What was under way still arrives, and nothing can be answered.
    script.wal(0x140, 0x10);
    script.keepalive(0x150, true);
    assert_eq!(script.events().len(), 3);
    script.session.report(script.now, durable(0x150));
    script.session.finish_copy(script.now);
    assert_eq!(&script.sent()[..], b"");
    script.say(BackendMessage::CopyDone);
    script.say(complete("START_STREAMING"));
    script.say(complete("START_REPLICATION"));
    script.say(ready());
    assert_eq!(script.events(), [Event::StreamEnded(None), Event::Ready]);
}

#[test]
fn statuses_still_count_between_the_two_ends() {
    let mut script = Script::streaming(0x100);
    script.wal(0x100, 0x40);
    script.say(BackendMessage::CopyDone);
    script.session.report(script.now, durable(0x140));
    assert_eq!(script.statuses(), [[0x140; 3]]);
    let error = script.say_bytes(&wal(0x140, b"x")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "protocol violation: unexpected XLogData message from the server during streaming, \
         ended by the server"
    );
}

#[test]
fn keepalives_may_follow_the_end_of_the_server() {
    let mut script = Script::streaming(0x100);
    script.say(BackendMessage::CopyDone);
    script.keepalive(0x100, true);
    assert_eq!(script.statuses(), [[0x100; 3]]);
    script.session.finish_copy(script.now);
    script.sent();
    script.keepalive(0x100, true);
    assert_eq!(&script.sent()[..], b"");
    assert_eq!(script.events().len(), 3);
    script.say(complete("START_STREAMING"));
    script.say(ready());
    assert_eq!(script.events(), [Event::StreamEnded(None), Event::Ready]);
}

#[test]
fn a_start_at_the_switch_point_is_answered_without_a_stream() {
    let mut script = Script::ready();
    script.execute(&start_replication(0x300_0060));
    let mut answer = BytesMut::new();
    crate::backend::encode_result_set(&timeline_end(), &mut answer).unwrap();
    complete("START_STREAMING").encode(&mut answer).unwrap();
    complete("START_REPLICATION").encode(&mut answer).unwrap();
    ready().encode(&mut answer).unwrap();
    script.say_bytes(&answer).unwrap();
    assert_eq!(
        script.events(),
        [Event::StreamEnded(Some(timeline_end())), Event::Ready]
    );
    script.execute(&start_replication(0x300_0060));
}

#[test]
fn a_new_stream_on_the_same_connection_begins_at_its_own_start() {
    let mut script = Script::streaming(0x300);
    script.session.finish_copy(script.now);
    for message in [
        BackendMessage::CopyDone,
        complete("START_REPLICATION"),
        ready(),
    ] {
        script.say(message);
    }
    script.events();
    script.execute(&start_replication(0x200));
    script.session.report(script.now, durable(0x300));
    script.say(copy_both());
    assert_eq!(script.statuses(), [[0x200; 3]]);
}

#[test]
fn a_clean_shutdown_of_the_server_ends_without_an_error() {
    let mut script = Script::streaming(0x100);
    script.say(complete("COPY 0"));
    assert_eq!(script.events(), [Event::ServerStopping]);
    script.session.finish_copy(script.now);
    assert_eq!(&script.sent()[..], b"");
    script.session.handle_eof(script.now).unwrap();
    assert_eq!(script.events(), [Event::Closed]);
}

#[test]
fn an_end_of_the_connection_that_nothing_announced_is_an_error() {
    let mut script = Script::streaming(0x100);
    let error = script.session.handle_eof(script.now).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the server closed the connection unexpectedly during streaming"
    );
    let mut script = Script::streaming(0x100);
    let message = error_shutdown();
    script.say(BackendMessage::ErrorResponse(message.clone()));
    script.session.handle_eof(script.now).unwrap();
    assert_eq!(script.events(), [Event::Failed(message), Event::Closed]);
}

fn error_shutdown() -> Box<ServerMessage> {
    error(Severity::Fatal, SqlState::ADMIN_SHUTDOWN)
}

#[test]
fn feedback_is_sent_only_while_wal_is_streamed() {
    let oldest = EpochXid { epoch: 1, xid: 700 };
    let mut script = Script::ready();
    script
        .session
        .send_feedback(script.now, oldest, EpochXid::default());
    assert_eq!(&script.sent()[..], b"");
    let mut script = Script::streaming(0x100);
    script
        .session
        .send_feedback(script.now, oldest, EpochXid::default());
    let frame = Frame::take(&mut script.sent(), |_| 100).unwrap().unwrap();
    let feedback = HotStandbyFeedback {
        sent_at: PgTimestamp(1_000_000),
        xmin: oldest,
        catalog_xmin: EpochXid::default(),
    };
    assert_eq!(
        ReceiverMessage::decode(frame.body),
        Ok(ReceiverMessage::HotStandbyFeedback(feedback))
    );
}

#[test]
fn leaving_says_what_is_due_first_and_is_deaf_afterwards() {
    let mut script = Script::streaming(0x100);
    script.wal(0x100, 0x40);
    script.session.report(script.now, durable(0x140));
    script.session.terminate(script.now);
    let mut sent = script.sent();
    assert!(Frame::take(&mut sent, |_| 100).unwrap().is_some());
    assert_eq!(&sent[..], b"X\0\0\0\x04");
    script.events();
    script.wal(0x140, 0x40);
    assert_eq!(script.events(), []);
    script.session.handle_eof(script.now).unwrap();
    assert_eq!(script.events(), [Event::Closed]);
}
