//! Promotions of a server that does what a test tells it to, into an archive on a disk.

mod outages;

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use pgconn::scripted::{Sender, Server, config, error, message};
use segstore::BLOCK_SIZE;
use segstore::generator::Generator;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use walproto::backend::encode_result_set;
use walproto::result::{
    IdentifySystem, ResultSet, Setting, SlotInfo, SlotType, TimelineEnd, TimelineHistoryFile,
};
use walproto::{Lsn, ServerVersion, SystemId, TimelineHistory, TimelineId};

use crate::config::{FirstStart, OnFork, ReceiverConfig, Reconnect};
use crate::error::ReceiveError;
use crate::event::{ReceiverEvent, Reporter};
use crate::receiver::Receiver;
use crate::sample::{START, generator, generator_of, segment_size};

/// How long a test waits for what has to happen.
const DEADLINE: Duration = Duration::from_secs(60);

fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

/// A server with all WAL of its timeline, and those of its ancestors.
struct Primary {
    /// Of its timeline.
    wal: Generator,
    histories: Vec<TimelineHistory>,
    /// The timelines of which it sends nothing but their end.
    silent: Vec<TimelineId>,
    /// What it becomes once the end of a timeline was to be told.
    promoted: Option<Box<Self>>,
    /// What it was asked to stream.
    asked: Vec<String>,
}

impl Primary {
    fn new(wal: &Generator, ancestors: &[&Generator]) -> Self {
        let with_ancestors = ancestors.iter().copied().chain([wal]);
        let histories = with_ancestors.map(|wal| wal.history().clone());
        Self {
            wal: wal.clone(),
            histories: histories
                .filter(|history| history.begin().is_some())
                .collect(),
            silent: Vec::new(),
            promoted: None,
            asked: Vec::new(),
        }
    }

    /// The reply to a command other than `START_REPLICATION`.
    fn reply(&self, command: &str) -> Vec<u8> {
        let setting = |value: &str| Setting {
            name: "x".to_owned(),
            value: value.to_owned(),
        };
        let (name, argument) = command.split_once(' ').unwrap_or((command, ""));
        let table = match (name, argument) {
            ("IDENTIFY_SYSTEM", _) => IdentifySystem {
                system_id: SystemId(1),
                timeline: self.wal.history().timeline(),
                xlogpos: self.wal.end(),
                dbname: None,
            }
            .encode(ServerVersion::V15),
            ("SHOW", "wal_segment_size") => Setting::of_segment_size(segment_size()).encode(),
            ("SHOW", "data_directory_mode") => setting("0700").encode(),
            ("SHOW", "wal_block_size") => setting(&BLOCK_SIZE.to_string()).encode(),
            ("SHOW", "wal_sender_timeout") => setting("1h").encode(),
            ("SHOW", "transaction_read_only") => setting("off").encode(),
            ("READ_REPLICATION_SLOT", _) => SlotInfo::encode(Some(&SlotInfo {
                slot_type: SlotType::Physical,
                restart_lsn: None,
                restart_tli: None,
            })),
            ("SHOW", "max_slot_wal_keep_size") => setting("1GB").encode(),
            ("CREATE_REPLICATION_SLOT", _) => return completed(name),
            ("TIMELINE_HISTORY", number) => {
                let of_number =
                    |history: &&TimelineHistory| history.timeline() == number.parse().unwrap();
                let Some(history) = self.histories.iter().find(of_number) else {
                    return [error("ERROR", "58P01"), message(b'Z', b"I")].concat();
                };
                TimelineHistoryFile {
                    file_name: history.timeline().history_file_name(),
                    content: history.content().clone(),
                }
                .encode(ServerVersion::V15)
            }
            _ => panic!("{command}"),
        };
        [rows(&table), completed(name)].concat()
    }

    /// Where a stream of a timeline starts, the WAL of it, and what follows it.
    fn stream(&mut self, command: &str) -> (Lsn, Vec<u8>, Option<TimelineEnd>) {
        self.asked.push(command.to_owned());
        let words: Vec<_> = command.split(' ').collect();
        let (start, streamed) = (words[1].parse().unwrap(), words[3].parse().unwrap());
        let now = self.promoted.as_deref().unwrap_or(self);
        let history = now.wal.history();
        let end = history
            .successor_of(streamed)
            .zip(history.switch_point_of(streamed));
        let until = end.map_or(now.wal.end(), |(_, switch_point)| switch_point);
        let offset = |lsn: Lsn| usize::try_from(lsn.bytes_since(START)).unwrap();
        let wal = if now.silent.contains(&streamed) {
            Vec::new()
        } else {
            now.wal.bytes()[offset(start)..offset(until)].to_vec()
        };
        let end = end.map(|(next_timeline, switch_point)| TimelineEnd {
            next_timeline,
            switch_point,
        });
        (start, wal, end)
    }

    /// Those that ask who it is from now on meet the promoted one.
    fn promote(&mut self) {
        if let Some(promoted) = self.promoted.take() {
            let asked = std::mem::take(&mut self.asked);
            *self = Self { asked, ..*promoted };
        }
    }
}

fn rows(table: &ResultSet) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    encode_result_set(table, &mut bytes).unwrap();
    bytes.to_vec()
}

fn completed(command: &str) -> Vec<u8> {
    let tag = message(b'C', format!("{command}\0").as_bytes());
    [tag, message(b'Z', b"I")].concat()
}

/// Serves one connection, as long as it lasts.
async fn serve(primary: &Mutex<Primary>, sender: &mut Sender) {
    loop {
        let Some(command) = sender.next_query().await else {
            return pending().await;
        };
        if !command.starts_with("START_REPLICATION") {
            let reply = primary.lock().unwrap().reply(&command);
            sender.say(&reply).await;
            continue;
        }
        let (start, wal, end) = primary.lock().unwrap().stream(&command);
        sender.copy_both().await;
        sender.wal(start, &wal).await;
        let mut farewell = Vec::new();
        if let Some(end) = end {
            sender.say(&message(b'c', b"")).await;
            farewell.push(rows(&end.encode()));
        } else {
            // The receiver ends it.
            farewell.push(message(b'c', b""));
        }
        while sender.goes_on().await {}
        primary.lock().unwrap().promote();
        farewell.push(message(b'C', b"START_STREAMING\0"));
        farewell.push(completed("START_REPLICATION"));
        sender.say(&farewell.concat()).await;
    }
}

/// Receives from a server into a directory, with each loss an error. What was asked for comes with
/// the outcome.
async fn receive(
    primary: Primary,
    directory: &TempDir,
    change: impl FnOnce(&mut ReceiverConfig),
) -> (Result<(), ReceiveError>, Vec<String>) {
    receive_telling(primary, directory, |_: &ReceiverEvent<'_>| {}, change).await
}

/// The same, with events told to `reporter`.
async fn receive_telling(
    primary: Primary,
    directory: &TempDir,
    reporter: impl Reporter + 'static,
    change: impl FnOnce(&mut ReceiverConfig),
) -> (Result<(), ReceiveError>, Vec<String>) {
    let primary = Arc::new(Mutex::new(primary));
    let (server, mut senders) = Server::welcoming();
    let mut settings = ReceiverConfig::new(directory.path());
    settings.reconnect = Reconnect::Never;
    change(&mut settings);
    let conninfo = config(&format!("host={}", server.host()));
    let serving = async {
        let mut sender = senders.recv().await.unwrap();
        serve(&primary, &mut sender).await;
    };
    let receiving = Receiver::new(settings, conninfo)
        .with_reporter(reporter)
        .run(pending());
    let received = async {
        tokio::select! {
            received = receiving => received,
            () = serving => panic!("the receiver has to end first"),
        }
    };
    let received = timeout(DEADLINE, received).await.unwrap();
    let asked = primary.lock().unwrap().asked.clone();
    (received, asked)
}

/// The WAL of timeline 1 and of timeline 4, which left it at `switch_point` by way of timeline 3,
/// which has none.
struct Promotions {
    first: Generator,
    switch_point: Lsn,
    third: Generator,
    fourth: Generator,
}

impl Promotions {
    fn new() -> Self {
        let mut first = generator();
        first.fill(100_000);
        let switch_point = first.records().last().unwrap().end;
        let third = first.promoted(timeline(3), switch_point).unwrap();
        let mut fourth = third.promoted(timeline(4), switch_point).unwrap();
        fourth.fill(100_000);
        Self {
            first,
            switch_point,
            third,
            fourth,
        }
    }

    fn promoted(&self) -> Primary {
        Primary::new(&self.fourth, &[&self.third])
    }
}

/// The timelines that were asked for.
fn timelines(asked: &[String]) -> Vec<String> {
    let last = |command: &String| command.rsplit(' ').next().map(str::to_owned);
    asked.iter().filter_map(last).collect()
}

/// A directory with all of the WAL, as its primary sent it.
async fn archive_of(wal: &Generator) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let (received, _) = receive(Primary::new(wal, &[]), &directory, |settings| {
        settings.start = Some(START);
        settings.end = just_before_the_end(wal);
    })
    .await;
    received.unwrap();
    directory
}

/// The position before the end of what a generator made, for WAL beyond it to be received.
fn just_before_the_end(wal: &Generator) -> Option<Lsn> {
    Some(Lsn(wal.end().0 - 1))
}

#[tokio::test]
async fn a_timeline_without_wal_is_passed_over_on_the_same_connection() {
    let promotions = Promotions::new();
    let mut primary = Primary::new(&promotions.first, &[]);
    primary.promoted = Some(Box::new(promotions.promoted()));
    let directory = tempfile::tempdir().unwrap();
    let (received, asked) = receive(primary, &directory, |settings| {
        settings.start = Some(START);
        settings.end = just_before_the_end(&promotions.fourth);
    })
    .await;
    received.unwrap();
    assert_eq!(timelines(&asked), ["1", "4"]);
}

#[tokio::test]
async fn an_empty_archive_follows_a_promotion_exactly_where_the_stream_began() {
    let first = generator();
    assert_eq!(first.end(), START);
    let history = format!("1\t{START}\tno reason specified\n");
    let history = TimelineHistory::parse(timeline(2), history.into()).unwrap();
    let mut second = generator_of(history);
    second.fill(100_000);
    let mut primary = Primary::new(&first, &[]);
    primary.promoted = Some(Box::new(Primary::new(&second, &[])));
    let directory = tempfile::tempdir().unwrap();
    let (received, asked) = receive(primary, &directory, |settings| {
        settings.first_start = FirstStart::ServerFlush;
        settings.end = just_before_the_end(&second);
    })
    .await;
    received.unwrap();
    assert_eq!(timelines(&asked), ["1", "2"]);
}

#[tokio::test]
async fn a_timeline_without_wal_is_passed_over_after_a_reconnect() {
    let promotions = Promotions::new();
    let directory = tempfile::tempdir().unwrap();
    let primary = Primary::new(&promotions.first, &[]);
    let (received, asked) = receive(primary, &directory, |settings| {
        settings.start = Some(START);
        settings.end = just_before_the_end(&promotions.first);
    })
    .await;
    received.unwrap();
    assert_eq!(timelines(&asked), ["1"]);
    let (received, asked) = receive(promotions.promoted(), &directory, |settings| {
        settings.end = just_before_the_end(&promotions.fourth);
    })
    .await;
    received.unwrap();
    assert_eq!(timelines(&asked), ["4"]);
}

#[tokio::test]
async fn a_fork_that_ends_before_its_wal_was_sent_is_not_streamed_again_at_once() {
    let Promotions {
        mut first,
        switch_point,
        mut third,
        ..
    } = Promotions::new();
    first.fill(100_000);
    let directory = archive_of(&first).await;
    // The fork ends before what the archive has of the first timeline, which is not its own.
    let fork_end = third.record(10_000).end;
    let mut fourth = third.promoted(timeline(4), fork_end).unwrap();
    fourth.fill(100_000);
    let mut primary = Primary::new(&fourth, &[&third]);
    primary.silent = vec![timeline(3)];
    let (received, asked) = receive(primary, &directory, |settings| {
        settings.fork = OnFork::Follow;
    })
    .await;
    let expected = (timeline(3), timeline(4), fork_end, switch_point);
    match received {
        Err(ReceiveError::SwitchPastEnd {
            timeline,
            next,
            switch_point,
            received_end,
        }) => assert_eq!((timeline, next, switch_point, received_end), expected),
        other => panic!("{other:?}"),
    }
    assert_eq!(timelines(&asked), ["3"]);
}

#[tokio::test]
async fn a_timeline_that_is_left_before_its_first_byte_leaves_no_segment() {
    let Promotions {
        first,
        switch_point,
        mut third,
        ..
    } = Promotions::new();
    let directory = archive_of(&first).await;
    let end = third.record(10_000).end;
    let fourth = third.promoted(timeline(4), end).unwrap();
    let mut primary = Primary::new(&fourth, &[&third]);
    primary.silent = vec![timeline(3)];
    let left = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&left);
    let reporter = move |event: &ReceiverEvent<'_>| {
        if let ReceiverEvent::SegmentLeftPartial { file_name } = event {
            told.lock().unwrap().push((*file_name).to_owned());
        }
    };
    let (received, asked) = receive_telling(primary, &directory, reporter, |_| {}).await;
    assert!(
        matches!(received, Err(ReceiveError::SwitchPastEnd { received_end, .. })
            if received_end == switch_point),
        "{received:?}"
    );
    assert_eq!(timelines(&asked), ["3"]);
    assert_eq!(*left.lock().unwrap(), Vec::<String>::new());
}

/// A server that is lost each time after it sent all that it has.
#[tokio::test]
async fn only_wal_that_is_new_shortens_the_wait_for_the_next_try() {
    let mut wal = generator();
    wal.fill(100_000);
    let end = wal.records().last().unwrap().end;
    let mut primary = Primary::new(&wal, &[]);
    let directory = tempfile::tempdir().unwrap();
    let (server, mut senders) = Server::welcoming();
    let mut settings = ReceiverConfig::new(directory.path());
    settings.start = Some(START);
    let first_wait = Duration::from_millis(16);
    settings.reconnect = Reconnect::Backoff {
        min: first_wait,
        max: first_wait * 1000,
    };
    let (tell, mut told) = mpsc::unbounded_channel();
    let receiving = Receiver::new(settings, config(&format!("host={}", server.host())))
        .with_reporter(move |event: &ReceiverEvent<'_>| {
            if let ReceiverEvent::Disconnected { retry_in, .. } = event {
                tell.send(*retry_in).unwrap();
            }
        })
        .run(pending());
    let serving = async {
        loop {
            let mut sender = senders.recv().await.unwrap();
            let command = loop {
                let command = sender.next_query().await.unwrap();
                if command.starts_with("START_REPLICATION") {
                    break command;
                }
                sender.say(&primary.reply(&command)).await;
            };
            let (start, bytes, _) = primary.stream(&command);
            sender.copy_both().await;
            sender.wal(start, &bytes).await;
            while sender.status().await.flush != end {}
        }
    };
    let waits = async {
        let mut waits = Vec::new();
        while waits.len() < 3 {
            waits.push(told.recv().await.unwrap());
        }
        waits
    };
    let waits = async {
        tokio::select! {
            received = receiving => panic!("{received:?}"),
            () = serving => unreachable!(),
            waits = waits => waits,
        }
    };
    let waits = timeout(DEADLINE, waits).await.unwrap();
    // Each is shortened by up to a half at random.
    assert!(waits[0] <= Some(first_wait), "{waits:?}");
    assert!(waits[1] >= Some(first_wait), "{waits:?}");
    assert!(waits[2] >= Some(first_wait * 2), "{waits:?}");
}
