//! How often a socket is read from and written to: once for a batch, however many messages it has.

use walproto::client::{Positions, SessionTimes};
use walproto::{Lsn, TimelineId};

use super::*;
use crate::hosts::connect_any;
use crate::scripted::{Claimed, Sender, Server, config, xlog_data};
use crate::socket::Calls;

/// What a small transaction's message holds.
const LENGTH: u64 = 200;

/// A connection that streams from the start of the WAL, and the server's end of it.
async fn streaming() -> (Server, Connection, Sender) {
    let (server, mut senders) = Server::welcoming();
    let times = SessionTimes {
        receive_timeout: None,
        status_interval: None,
    };
    let conninfo = config(&format!("host={}", server.host()));
    let connection = connect_any(&conninfo, times).await.unwrap();
    let Connection { stream, .. } = connection;
    let Stream::Unix(socket) = stream else {
        panic!("the server listens on a Unix socket only");
    };
    let mut connection = Connection {
        stream: Stream::Counted(socket, Calls::default()),
        ..connection
    };
    let mut sender = senders.recv().await.unwrap();
    let command = Command::StartReplication {
        slot: None,
        start: Lsn(0),
        timeline: Some(TimelineId::FIRST),
    };
    connection.send(&command).unwrap();
    connection.flush().await.unwrap();
    sender.query().await;
    sender.copy_both().await;
    let event = connection.event().await.unwrap();
    assert!(matches!(event, Event::CopyStarted), "{event:?}");
    (server, connection, sender)
}

fn calls(connection: &Connection) -> Calls {
    match &connection.stream {
        Stream::Counted(_, calls) => *calls,
        _ => panic!("it was not counted"),
    }
}

#[tokio::test]
async fn a_batch_costs_one_read_and_one_write_however_many_messages_it_has() {
    let (_server, mut connection, mut sender) = streaming().await;
    let mut end = Lsn(0);
    for messages in [1, 2, 10, 300] {
        let before = calls(&connection);
        let wal = vec![7; usize::try_from(LENGTH).unwrap()];
        let mut batch = Vec::new();
        for number in 0..messages {
            batch.extend(xlog_data(Lsn(end.0 + number * LENGTH), &wal));
        }
        end = Lsn(end.0 + messages * LENGTH);
        // It is less than the socket holds, so all of it is there at once.
        sender.say(&batch).await;
        let mut received = Lsn(0);
        let mut next = Some(connection.event().await.unwrap());
        while let Some(event) = next {
            let Event::WalData { start, data, .. } = event else {
                panic!("{event:?}");
            };
            received = Lsn(start.0 + data.len() as u64);
            next = connection.try_event();
        }
        assert_eq!(received, end);
        let positions = Positions {
            write: end,
            flush: Some(Claimed(end)),
            apply: None,
            byte_end: end,
        };
        connection.report(positions);
        connection.flush().await.unwrap();
        assert_eq!(sender.status().await.flush, end);
        let after = calls(&connection);
        assert_eq!(
            (after.reads - before.reads, after.writes - before.writes),
            (1, 1),
            "{messages} messages"
        );
    }
}

#[tokio::test]
async fn a_full_message_is_read_by_as_few_calls_as_the_socket_brings_it_in() {
    let (_server, mut connection, mut sender) = streaming().await;
    let before = calls(&connection);
    // Two messages of the greatest length, sent as the socket takes them: each read takes all
    // that is there, so there are no more reads than there were writes on the other side.
    let wal = vec![7; 256 << 10];
    let batch = xlog_data(Lsn(0), &wal);
    let (_, writer) = sender.split();
    let mut writes = 0;
    let mut rest = &batch[..];
    let mut received = 0;
    while received < wal.len() {
        if !rest.is_empty()
            && let Ok(count) = writer.try_write(rest)
        {
            (rest, writes) = (&rest[count..], writes + 1);
        }
        if let Some(event) = event_now(&mut connection).await {
            let Event::WalData { data, .. } = event else {
                panic!("{event:?}");
            };
            received += data.len();
        }
    }
    let reads = calls(&connection).reads - before.reads;
    assert!(reads <= writes, "{reads} reads of {writes} writes");
}

/// The next event, if it can be had without waiting for the server.
async fn event_now(connection: &mut Connection) -> Option<Event> {
    tokio::select! {
        biased;
        event = connection.event() => Some(event.unwrap()),
        () = tokio::task::yield_now() => None,
    }
}
