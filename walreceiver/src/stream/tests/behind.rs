//! What the server is told of those who get the WAL from here.

use walproto::copy_data::{EpochXid, ReceiverMessage, StandbyStatusUpdate};
use walproto::{Confirmed, StandbyProgress};

use super::*;
use crate::downstream::Downstream;

const TOO_FEW: Confirmed = Confirmed {
    timeline: None,
    present: 0,
    needed: 1,
    progress: None,
};

fn confirmed(timeline: u32, lsn: Lsn) -> Confirmed {
    Confirmed {
        present: 1,
        needed: 1,
        timeline: TimelineId::new(timeline),
        progress: Some(StandbyProgress {
            write: Some(lsn),
            flush: Some(lsn),
            apply: Some(lsn),
        }),
    }
}

fn positions(status: &StandbyStatusUpdate) -> [Lsn; 3] {
    [status.write, status.flush, status.apply]
}

#[tokio::test]
async fn the_server_is_told_what_those_behind_us_have_and_nothing_while_they_are_too_few() {
    let mut stage = Stage::new();
    let behind = watch::Sender::new(TOO_FEW);
    stage.behind = Some(Behind::new(Downstream {
        confirmed: Some(behind.subscribe()),
        needs: None,
    }));
    let mut wal = generator();
    let (first, last) = (wal.record(100).end, wal.record(100).end);
    let held = [last, Lsn::INVALID, Lsn::INVALID];
    let progress = stage.progress.subscribe();
    let (streamed, ()) = stage
        .play(async |sender| {
            sender.copy_both().await;
            sender.wal(START, wal.bytes()).await;
            while sender.status().await.write != last {}
            // In one go with what was told before.
            for (confirmed, told) in [
                (confirmed(1, first), [last, first, first]),
                (TOO_FEW, held),
                (confirmed(1, last), [last; 3]),
                (confirmed(2, last), held),
                (confirmed(1, Lsn(last.0 + 1000)), [last; 3]),
            ] {
                behind.send_replace(confirmed);
                let status = sender.status().await;
                assert_eq!(positions(&status), told, "{confirmed:?}");
                let shown = progress.borrow().and_then(|shown| shown.acknowledged_end);
                assert_eq!(shown.unwrap_or(Lsn::INVALID), told[1], "{confirmed:?}");
            }
            end_the_copy(sender).await;
        })
        .await;
    assert_eq!(streamed.end.unwrap(), StreamEnd::ServerEnded);
    let told = stage.told.borrow();
    let held = "0 of 1 standbys present on timeline 1, nothing is acknowledged until there are \
                enough";
    let goes_on = "AcknowledgementsGoOn { needed: 1 }";
    assert_eq!(told[..], [held, goes_on, held, goes_on, held, goes_on]);
}

#[tokio::test]
async fn who_is_behind_the_start_of_the_stream_confirms_nothing() {
    let mut stage = Stage::new();
    // The session says no less than where it began, and a commit may wait up to there.
    let behind = watch::Sender::new(confirmed(1, Lsn(START.0 - 8)));
    stage.behind = Some(Behind::new(Downstream {
        confirmed: Some(behind.subscribe()),
        needs: None,
    }));
    let mut wal = generator();
    let end = wal.record(100).end;
    let (streamed, ()) = stage
        .play(async |sender| {
            sender.copy_both().await;
            sender.wal(START, wal.bytes()).await;
            let status = loop {
                let status = sender.status().await;
                assert_eq!(positions(&status)[1..], [Lsn::INVALID; 2]);
                if status.write == end {
                    break status;
                }
            };
            behind.send_replace(confirmed(1, START));
            let next = sender.status().await;
            assert_eq!(positions(&next), [status.write, START, START]);
            end_the_copy(sender).await;
        })
        .await;
    assert_eq!(streamed.end.unwrap(), StreamEnd::ServerEnded);
}

/// What the receiver says next of what others need.
async fn needs(sender: &mut Sender) -> Horizons {
    loop {
        if let ReceiverMessage::HotStandbyFeedback(feedback) = sender.said().await {
            return Horizons::from(&feedback);
        }
    }
}

#[tokio::test]
async fn what_is_needed_is_told_at_first_when_it_changes_regularly_and_taken_back_at_the_end() {
    let mut stage = Stage::new();
    stage.config.status_interval = Some(Duration::from_millis(5));
    let needed = watch::Sender::new(Horizons::default());
    stage.behind = Some(Behind::new(Downstream {
        confirmed: None,
        needs: Some(needed.subscribe()),
    }));
    let (streamed, ()) = stage
        .play(async |sender| {
            sender.copy_both().await;
            // The server may remember something.
            assert_eq!(needs(sender).await, Horizons::default());
            let xmin = EpochXid { epoch: 1, xid: 7 };
            let now = Horizons {
                xmin: Some(xmin),
                catalog_xmin: None,
            };
            needed.send_replace(now);
            for _ in 0..3 {
                assert_eq!(needs(sender).await, now);
            }
            stage.stop.notify_one();
            while needs(sender).await != Horizons::default() {}
            sender.copy_done().await;
            end_the_copy(sender).await;
        })
        .await;
    assert_eq!(streamed.end.unwrap(), StreamEnd::Stopped);
}
