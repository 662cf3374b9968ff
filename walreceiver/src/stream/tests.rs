//! A stream from a server that does what a test tells it to, into an archive on a simulated disk.

mod acknowledging;
mod behind;

use std::cell::Cell;
use std::pin::pin;
use std::sync::Mutex;

use pgconn::hosts::connect_any;
use pgconn::scripted::{Sender, Server, config, message, next_status, xlog_data};
use segstore::generator::Generator;
use segstore::sim::SimDisk;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use walproto::client::SessionTimes;

use super::*;
use crate::flusher::QUEUE_BYTES;
use crate::sample::{ROOT, START, archive, first_timeline, generator, segment_size};

/// How long a test waits for what has to happen.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a stream is to be like, and what it says.
struct Stage {
    disk: SimDisk,
    archive: Archive,
    config: ReceiverConfig,
    history: TimelineHistory,
    upstream_is_standby: bool,
    acknowledge_from: Option<Lsn>,
    behind: Option<Behind>,
    /// Of the session; nothing is sent without a reason, and no silence is too long.
    times: SessionTimes,
    /// What was reported, as people read it.
    told: watch::Sender<Vec<String>>,
    progress: watch::Sender<Option<Progress>>,
    stop: Notify,
}

impl Stage {
    fn new() -> Self {
        let disk = SimDisk::new(ROOT);
        Self {
            archive: archive(&disk),
            disk,
            config: ReceiverConfig::new(ROOT),
            history: first_timeline(),
            upstream_is_standby: false,
            acknowledge_from: None,
            behind: None,
            times: SessionTimes {
                receive_timeout: None,
                status_interval: None,
            },
            told: watch::Sender::new(Vec::new()),
            progress: watch::Sender::new(None),
            stop: Notify::new(),
        }
    }

    fn order<'a>(&'a self, reporter: &'a dyn Reporter) -> Order<'a> {
        Order {
            config: &self.config,
            slot: None,
            reporter,
            progress: &self.progress,
            applier: None,
            behind: self.behind.as_ref(),
            history: &self.history,
            start: START,
            acknowledge_from: self.acknowledge_from,
            server_end: START,
            segment_size: segment_size(),
            upstream_is_standby: self.upstream_is_standby,
            sender_timeout: Some(Duration::from_secs(3600)),
            magic_is_new: false,
        }
    }

    async fn connect(&self) -> (Server, Connection, Sender) {
        let (server, mut senders) = Server::welcoming();
        let conninfo = config(&format!("host={}", server.host()));
        let connection = connect_any(&conninfo, self.times).await.unwrap();
        let sender = senders.recv().await.unwrap();
        (server, connection, sender)
    }

    /// Streams while `script` speaks for the server, from the moment at which the stream was asked
    /// for. The connection is closed once the script and the stream have ended.
    async fn play<T>(&self, script: impl AsyncFnOnce(&mut Sender) -> T) -> (Streamed, T) {
        let (_server, mut connection, mut sender) = self.connect().await;
        let reporter = |event: &ReceiverEvent<'_>| {
            let text = match event {
                ReceiverEvent::Warning(warning) => warning.to_string(),
                other => format!("{other:?}"),
            };
            self.told.send_modify(|told| told.push(text));
        };
        let order = self.order(&reporter);
        let recovery = self.archive.recover().unwrap();
        let mut tail = TailMemory::new(true);
        let stop = pin!(self.stop.notified());
        let streamed = stream(
            &mut connection,
            &order,
            &self.archive,
            recovery,
            &mut tail,
            || {},
            stop,
        );
        let scripted = async {
            let command = sender.query().await;
            assert_eq!(command, format!("START_REPLICATION {START} TIMELINE 1"));
            let end = script(&mut sender).await;
            (end, sender)
        };
        let both = async { tokio::join!(streamed, scripted) };
        let (streamed, (end, _sender)) = timeout(DEADLINE, both).await.unwrap();
        (streamed, end)
    }

    /// Waits until the disk is said to be full, and gives the position it is said of.
    async fn disk_full_at(&self) -> Lsn {
        let position = |told: &[String]| {
            let full = |line: &String| {
                line.strip_prefix("disk full, nothing after ")
                    .map(str::to_owned)
            };
            let line = told.iter().find_map(full)?;
            Some(line.split(' ').next().unwrap().parse().unwrap())
        };
        let mut told = self.told.subscribe();
        let told = told
            .wait_for(|told| position(told).is_some())
            .await
            .unwrap();
        position(&told).unwrap()
    }
}

/// Says goodbye as a server does that was told that the stream is over.
async fn end_the_copy(sender: &mut Sender) {
    let done = [
        message(b'c', b""),
        message(b'C', b"START_STREAMING\0"),
        message(b'C', b"START_REPLICATION\0"),
        message(b'Z', b"I"),
    ];
    sender.say(&done.concat()).await;
}

#[tokio::test]
async fn a_stop_while_the_server_does_not_answer_start_replication_ends_the_stream() {
    let stage = Stage::new();
    let (streamed, ()) = stage.play(async |_| stage.stop.notify_one()).await;
    assert_eq!(streamed.end.unwrap(), StreamEnd::Stopped);
    assert_eq!(streamed.byte_end, START);
    assert_eq!(stage.told.borrow()[..], ["StopRequested"]);
}

#[tokio::test]
async fn an_archive_that_begins_acknowledges_once_it_has_what_was_current() {
    let mut wal = generator();
    let first = wal.record(100).end;
    let second = wal.record(100).end;
    let mut stage = Stage::new();
    stage.acknowledge_from = Some(Lsn(second.0 - 8));
    let (streamed, ()) = stage
        .play(async |sender| {
            let (before, after) = wal.bytes().split_at(offset_of(first));
            sender.copy_both().await;
            sender.wal(START, before).await;
            let held = loop {
                let status = sender.status().await;
                if status.write == first {
                    break status;
                }
            };
            assert_eq!((held.flush, held.apply), (Lsn::INVALID, Lsn::INVALID));
            sender.wal(first, after).await;
            while sender.status().await.flush != second {}
            stage.stop.notify_one();
            while sender.goes_on().await {}
            end_the_copy(sender).await;
        })
        .await;
    assert_eq!(streamed.end.unwrap(), StreamEnd::Stopped);
}

#[tokio::test]
async fn what_the_server_sends_goes_before_news_of_the_applier() {
    let stage = Stage::new();
    let (_server, mut connection, mut sender) = stage.connect().await;
    // What the applier was said to have done when a notice was taken.
    let seen = Mutex::new(Vec::new());
    let reporter = |event: &ReceiverEvent<'_>| {
        if matches!(event, ReceiverEvent::Warning(_)) {
            let progress = stage.progress.borrow();
            let applied = progress.map(|progress| progress.apply_end);
            seen.lock().unwrap().push(applied);
        }
    };
    let order = stage.order(&reporter);
    let begin = async {
        sender.query().await;
        sender.copy_both().await;
        // They come together, so that the second is there once the first was taken.
        let notice = message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mso it is\0\0");
        sender.say(&[&notice[..], &notice].concat()).await;
    };
    let (started, ()) = tokio::join!(start(&mut connection, &order), begin);
    assert_eq!(started.unwrap(), None);
    let event = connection.event().await.unwrap();
    assert!(matches!(event, Event::Notice(_)), "{event:?}");

    let recovery = stage.archive.recover().unwrap();
    let flusher = flusher(&order, &stage.archive, recovery).unwrap();
    let mut tail = TailMemory::new(true);
    let mut receiving =
        Receiving::new(&mut connection, &order, &stage.archive, &flusher, &mut tail);
    let applied = watch::Sender::new(Lsn::INVALID);
    receiving.applied = Some(applied.subscribe());
    applied.send_replace(START);
    let mut progress = stage.progress.subscribe();
    let stop = pin!(async {
        let applied = |now: &Option<Progress>| now.is_some_and(|now| now.apply_end == START);
        progress.wait_for(applied).await.unwrap();
    });
    let farewell = async {
        sender.copy_done().await;
        end_the_copy(&mut sender).await;
    };
    let both = async { tokio::join!(receiving.run(stop), farewell) };
    let (ended, ()) = timeout(DEADLINE, both).await.unwrap();
    assert_eq!(ended.unwrap(), StreamEnd::Stopped);
    assert_eq!(*seen.lock().unwrap(), [None]);
}

/// Some WAL, and where its first record ends.
fn more_than_the_queue_takes() -> (Generator, Lsn) {
    let mut wal = generator();
    let first = wal.record(100).end;
    wal.fill(2 * QUEUE_BYTES as u64);
    (wal, first)
}

/// How much is sent so that the disk is full; the queue takes it, and more.
const A_LITTLE: usize = 2 << 20;

/// Sends WAL of which the first record is flushed and the rest finds the disk full after a while.
/// Gives what was flushed by then, and the end of what was sent.
async fn fill_the_disk(
    stage: &Stage,
    sender: &mut Sender,
    wal: &Generator,
    first: Lsn,
) -> (Lsn, Lsn) {
    let (bytes, later) = wal.bytes().split_at(offset_of(first));
    sender.copy_both().await;
    sender.wal(START, bytes).await;
    while sender.status().await.flush != first {}
    stage.disk.set_full(true);
    sender.wal(first, &later[..A_LITTLE]).await;
    let held = stage.disk_full_at().await;
    // Those on their way, if any of it fitted.
    if held != first {
        while sender.status().await.flush != held {}
    }
    (held, Lsn(first.0 + A_LITTLE as u64))
}

fn offset_of(lsn: Lsn) -> usize {
    usize::try_from(lsn.bytes_since(START)).unwrap()
}

#[tokio::test]
async fn who_asks_is_answered_while_a_full_disk_is_waited_for() {
    let stage = Stage::new();
    let (wal, first) = more_than_the_queue_takes();
    let (streamed, ()) = stage
        .play(async |sender| {
            let (held, sent) = fill_the_disk(&stage, sender, &wal, first).await;
            for _ in 0..3 {
                sender.keepalive(sent, true).await;
                assert_eq!(sender.status().await.flush, held);
            }
            stage.disk.set_full(false);
            let mut records = wal.records().iter().map(|record| record.end);
            let last = records.rfind(|end| *end <= sent).unwrap();
            while sender.status().await.flush != last {}
            assert!(stage.told.borrow().contains(&"DiskWritable".to_owned()));
            end_the_copy(sender).await;
        })
        .await;
    assert_eq!(streamed.end.unwrap(), StreamEnd::ServerEnded);
}

#[tokio::test]
async fn statuses_go_on_while_nothing_is_read_because_the_disk_is_full() {
    let mut stage = Stage::new();
    stage.times.status_interval = Some(Duration::from_millis(5));
    let (wal, first) = more_than_the_queue_takes();
    let last = wal.records().last().unwrap().end;
    let (streamed, ()) = stage
        .play(async |sender| {
            let (held, sent) = fill_the_disk(&stage, sender, &wal, first).await;
            let rest = xlog_data(sent, &wal.bytes()[offset_of(sent)..]);
            let (mut reader, mut writer) = sender.split();
            let taken = Cell::new(0);
            let sending = async {
                for piece in rest.chunks(64 << 10) {
                    writer.write_all(piece).await.unwrap();
                    taken.set(taken.get() + piece.len());
                }
            };
            let statuses = async {
                let (mut stuck_at, mut while_stuck) = (0, 0);
                while while_stuck < 30 {
                    assert_eq!(next_status(&mut reader).await.flush, held);
                    if taken.get() == stuck_at && A_LITTLE + stuck_at > QUEUE_BYTES {
                        while_stuck += 1;
                    } else {
                        (stuck_at, while_stuck) = (taken.get(), 0);
                    }
                }
                assert!(taken.get() < rest.len(), "{}", taken.get());
                stage.disk.set_full(false);
                while next_status(&mut reader).await.flush != last {}
            };
            tokio::join!(sending, statuses);
            end_the_copy(sender).await;
        })
        .await;
    assert_eq!(streamed.end.unwrap(), StreamEnd::ServerEnded);
    assert_eq!(streamed.byte_end, wal.end());
}

/// Sends all but the last bytes of a record, asks again and again, and then sends them. All that is
/// told as flushed meanwhile.
async fn ask_inside_a_record(stage: &Stage, until: impl Fn(Lsn, Lsn) -> bool) -> Vec<Lsn> {
    let mut wal = generator();
    let (first, last) = (wal.record(100).end, wal.record(1000).end);
    let torn = Lsn(last.0 - 500);
    let (_, flushes) = stage
        .play(async |sender| {
            sender.copy_both().await;
            let (bytes, later) = wal.bytes().split_at(offset_of(torn));
            sender.wal(START, bytes).await;
            while sender.status().await.flush != first {}
            let mut flushes = Vec::new();
            while !flushes.last().is_some_and(|flush| until(*flush, torn)) && flushes.len() < 100 {
                sender.keepalive(torn, true).await;
                flushes.push(sender.status().await.flush);
            }
            sender.wal(torn, later).await;
            while sender.status().await.flush != last {}
            end_the_copy(sender).await;
            flushes
        })
        .await;
    flushes
        .into_iter()
        .filter(|flush| *flush != first)
        .collect()
}

#[tokio::test]
async fn a_standby_that_asks_inside_a_record_is_told_that_its_bytes_are_flushed() {
    let mut stage = Stage::new();
    stage.upstream_is_standby = true;
    let told = ask_inside_a_record(&stage, |flush, torn| flush == torn).await;
    assert_eq!(told.len(), 1);
}

#[tokio::test]
async fn a_primary_that_asks_inside_a_record_is_told_its_start() {
    let stage = Stage::new();
    let told = ask_inside_a_record(&stage, |_, _| false).await;
    assert_eq!(told, []);
}

#[tokio::test]
async fn what_is_durable_is_told_although_the_server_never_pauses() {
    let stage = Stage::new();
    let mut wal = generator();
    // More than the queue and the socket's buffers take: the server cannot be done before some of
    // it was written.
    wal.fill(3 * QUEUE_BYTES as u64);
    let last = wal.records().last().unwrap().end;
    let (streamed, flushed_before_the_end) = stage
        .play(async |sender| {
            sender.copy_both().await;
            let message = xlog_data(START, wal.bytes());
            let (mut reader, mut writer) = sender.split();
            let flushed = Cell::new(START);
            let sending = async {
                writer.write_all(&message).await.unwrap();
                flushed.get()
            };
            let statuses = async {
                while flushed.get() != last {
                    flushed.set(flushed.get().max(next_status(&mut reader).await.flush));
                }
            };
            let (before_the_end, ()) = tokio::join!(sending, statuses);
            end_the_copy(sender).await;
            before_the_end
        })
        .await;
    assert_eq!(streamed.end.unwrap(), StreamEnd::ServerEnded);
    assert!(flushed_before_the_end > START);
}
