//! What is reported if not each flush position is.

use super::*;
use crate::config::Acknowledge;
use crate::sample::MIB;

/// Sends the WAL from `start` up to `end`, and waits until it is reported as written. All reports until
/// then say that `flush` is flushed.
async fn send_unacknowledged(sender: &mut Sender, wal: &Generator, range: [Lsn; 2], flush: Lsn) {
    let [start, end] = range;
    let bytes = &wal.bytes()[offset_of(start)..offset_of(end)];
    sender.wal(start, bytes).await;
    loop {
        let status = sender.status().await;
        assert_eq!(status.flush, flush);
        if status.write == end {
            return;
        }
    }
}

#[tokio::test]
async fn acknowledges_at_once_when_asked_and_at_the_end_of_a_segment_like_pg_receivewal() {
    let mut wal = generator();
    let [first, second, third] = [100; 3].map(|length| wal.record(length).end);
    wal.fill(MIB + 100);
    let filled = wal.records().last().unwrap().end;
    let [fourth, fifth] = [100; 2].map(|length| wal.record(length).end);
    let mut stage = Stage::new();
    stage.config.acknowledge = Acknowledge::SegmentEnd;
    let (streamed, ()) = stage
        .play(async |sender| {
            sender.copy_both().await;
            sender.wal(START, &wal.bytes()[..offset_of(first)]).await;
            while sender.status().await.flush != first {}
            // When the third record is written, the sync of the second one has ended.
            send_unacknowledged(sender, &wal, [first, second], first).await;
            send_unacknowledged(sender, &wal, [second, third], first).await;
            loop {
                sender.keepalive(third, true).await;
                if sender.status().await.flush == third {
                    break;
                }
            }
            let bytes = &wal.bytes()[offset_of(third)..offset_of(filled)];
            sender.wal(third, bytes).await;
            let segment_end = Lsn(START.0 + MIB);
            let flush = loop {
                let status = sender.status().await;
                if status.flush >= segment_end {
                    break status.flush;
                }
                assert_eq!(status.flush, third);
            };
            send_unacknowledged(sender, &wal, [filled, fourth], flush).await;
            send_unacknowledged(sender, &wal, [fourth, fifth], flush).await;
            end_the_copy(sender).await;
        })
        .await;
    assert_eq!(streamed.end.unwrap(), StreamEnd::ServerEnded);
}

#[tokio::test]
async fn acknowledges_nothing_if_nothing_is_synced_or_if_it_must_not() {
    let never = (Acknowledge::Never, true);
    for (acknowledge, sync) in [(Acknowledge::Always, false), never] {
        let mut wal = generator();
        let [first, second] = [100; 2].map(|length| wal.record(length).end);
        let mut stage = Stage::new();
        stage.config.acknowledge = acknowledge;
        stage.config.sync = sync;
        let (streamed, ()) = stage
            .play(async |sender| {
                sender.copy_both().await;
                send_unacknowledged(sender, &wal, [START, first], Lsn::INVALID).await;
                send_unacknowledged(sender, &wal, [first, second], Lsn::INVALID).await;
                end_the_copy(sender).await;
            })
            .await;
        assert_eq!(streamed.end.unwrap(), StreamEnd::ServerEnded);
    }
}

/// The server's shutdown waits for the written position of a receiver that reports no flush position
/// (src/backend/replication/walsender.c, `WalSndDone`, PG 15).
#[tokio::test]
async fn reports_bytes_inside_a_record_as_written_to_a_standby_only_if_it_never_acknowledges() {
    for upstream_is_standby in [true, false] {
        let mut wal = generator();
        let (first, last) = (wal.record(100).end, wal.record(1000).end);
        let torn = Lsn(last.0 - 500);
        let mut stage = Stage::new();
        stage.config.acknowledge = Acknowledge::Never;
        stage.upstream_is_standby = upstream_is_standby;
        let (_, writes) = stage
            .play(async |sender| {
                sender.copy_both().await;
                let (bytes, later) = wal.bytes().split_at(offset_of(torn));
                sender.wal(START, bytes).await;
                while sender.status().await.write != first {}
                let mut writes = Vec::new();
                while writes.last() != Some(&torn) && writes.len() < 100 {
                    sender.keepalive(torn, true).await;
                    writes.push(sender.status().await.write);
                }
                sender.wal(torn, later).await;
                while sender.status().await.write != last {}
                end_the_copy(sender).await;
                writes
            })
            .await;
        assert_eq!(writes.contains(&torn), upstream_is_standby, "{writes:?}");
    }
}
