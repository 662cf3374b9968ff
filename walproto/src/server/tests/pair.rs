//! A server's session and a client's talk to each other.

use super::*;
use crate::StandbyProgress;
use crate::copy_data::{EpochXid, HotStandbyFeedback};
use crate::error::{ServerMessage, Severity, SqlState};
use crate::server::ReplicationMode;

#[test]
fn a_client_is_told_apart_and_welcomed() {
    for version in VERSIONS {
        let mut pair = Pair::new(version, Credentials::default());
        let events = pair.server_events();
        let [Event::Startup(request)] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(request.user, "rep");
        assert_eq!(request.application_name, "wal_receiver");
        assert_eq!(request.replication, ReplicationMode::Physical);
        assert_eq!(request.protocol, ProtocolVersion::V3_0);
        pair.server.authenticate_trust().unwrap();
        assert_eq!(pair.server_events(), [Event::Authenticated]);
        pair.welcome();
        assert_eq!(pair.client_events(), [client::Event::Ready]);
        assert_eq!(pair.client.server_version(), Some(version));
        assert_eq!(pair.client.process_id(), Some(4711));
        assert_eq!(pair.server.next_timeout(), None);
    }
}

#[test]
fn a_command_is_answered_by_a_table() {
    for version in VERSIONS {
        let mut pair = Pair::ready(version);
        pair.execute(&Command::IdentifySystem);
        pair.server.answer(&identity().encode(version)).unwrap();
        let events = pair.client_events();
        let [client::Event::Result(table), client::Event::Ready] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(IdentifySystem::decode(table), Ok(identity()));
    }
}

#[test]
fn a_command_fails_and_the_next_one_is_taken() {
    let mut pair = Pair::ready(V15);
    pair.execute(&Command::IdentifySystem);
    let error = ServerMessage::fatal(SqlState::UNDEFINED_FILE, "no such file");
    pair.server.fail(error).unwrap();
    let events = pair.client_events();
    let [client::Event::Failed(error), client::Event::Ready] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(error.severity, Severity::Error);
    pair.execute(&Command::IdentifySystem);
}

#[test]
fn wal_is_streamed_and_acknowledged() {
    let mut pair = Pair::streaming(V15, 0x1000);
    pair.send(100);
    pair.send(28);
    let events = pair.client_events();
    let [
        client::Event::WalData {
            start: Lsn(0x1000),
            wal_end: Lsn(0x2000),
            data,
            ..
        },
        client::Event::WalData {
            start: Lsn(0x1064), ..
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!(data.len(), 100);
    assert_eq!(pair.server.sent(), Some(Lsn(0x1080)));
    assert_eq!(pair.server.reported(), Some(StandbyProgress::default()));
    pair.client.report(pair.now, durable(0x1064));
    let events = pair.server_events();
    let [Event::Status(update)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!((update.write, update.flush), (Lsn(0x1064), Lsn(0x1064)));
    let reported = Some(Lsn(0x1064));
    assert_eq!(
        pair.server.reported(),
        Some(StandbyProgress {
            write: reported,
            flush: reported,
            apply: reported
        })
    );
    let feedback = EpochXid { epoch: 1, xid: 700 };
    pair.client
        .send_feedback(pair.now, feedback, EpochXid::default());
    assert_eq!(
        pair.server_events(),
        [Event::Feedback(HotStandbyFeedback {
            sent_at: PgTimestamp(0),
            xmin: feedback,
            catalog_xmin: EpochXid::default(),
        })]
    );
}

/// What the client is told when a stream comes to the end of its timeline.
fn stream_ended(end: Option<TimelineEnd>) -> client::Event {
    client::Event::StreamEnded(end.map(|end| end.encode()))
}

#[test]
fn a_timeline_ends_and_the_client_asks_for_the_next() {
    for version in VERSIONS {
        let mut pair = Pair::streaming(version, 0x1000);
        pair.send(0x60);
        pair.server.end_timeline(end()).unwrap();
        assert!(!pair.server.is_sending());
        let events = pair.client_events();
        assert!(
            matches!(
                &events[..],
                [client::Event::WalData { .. }, client::Event::ServerCopyDone]
            ),
            "{events:?}"
        );
        pair.client.report(pair.now, durable(0x1060));
        assert!(matches!(pair.server_events()[..], [Event::Status(_)]));
        pair.client.finish_copy(pair.now);
        assert_eq!(
            pair.client_events(),
            [stream_ended(Some(end())), client::Event::Ready]
        );
        assert_eq!(pair.server_events(), [Event::CopyFinished]);
        pair.execute(&start_replication(0x1060));
        pair.server.timeline_already_ended(end()).unwrap();
        assert_eq!(
            pair.client_events(),
            [stream_ended(Some(end())), client::Event::Ready]
        );
        pair.execute(&Command::IdentifySystem);
    }
}

#[test]
fn a_client_ends_the_stream_of_a_current_and_of_a_historic_timeline() {
    for end in [None, Some(end())] {
        let mut pair = Pair::ready(V15);
        pair.execute(&start_replication(0x1000));
        pair.server
            .start_streaming(pair.now, TimelineId::FIRST, Lsn(0x1000), end)
            .unwrap();
        assert_eq!(pair.client_events(), [client::Event::CopyStarted]);
        pair.client.finish_copy(pair.now);
        assert_eq!(
            pair.client_events(),
            [stream_ended(end), client::Event::Ready]
        );
        assert_eq!(pair.server_events(), [Event::CopyFinished]);
        assert_eq!(pair.server.sent(), None);
        pair.execute(&Command::IdentifySystem);
    }
}
