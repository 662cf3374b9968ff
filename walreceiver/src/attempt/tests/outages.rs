//! What servers, poolers and proxies say to a receiver that has streamed, or serves: it is tried
//! again, whatever it is.

use segstore::generator::Generator;
use walproto::SlotName;

use super::*;
use crate::event::{Progress, Warning};

/// What became of a receiver, as it told.
type Told = Arc<Mutex<Vec<String>>>;

/// The position and the slot of a `START_REPLICATION`.
fn start_and_slot(command: &str) -> (Lsn, Option<String>) {
    let words: Vec<_> = command.split(' ').collect();
    let slot = words.iter().position(|word| *word == "SLOT");
    let start = words[words.len() - 3].parse().unwrap();
    (start, slot.map(|slot| words[slot + 1].to_owned()))
}

/// A receiver into a directory that hardly waits between two tries, and what it tells.
fn retrying(
    server: &Server,
    directory: &TempDir,
    change: impl FnOnce(&mut ReceiverConfig),
) -> (Receiver, Told) {
    let mut settings = ReceiverConfig::new(directory.path());
    settings.start = Some(START);
    let wait = Duration::from_millis(1);
    settings.reconnect = Reconnect::Fixed(wait);
    change(&mut settings);
    let told = Told::default();
    let note = Arc::clone(&told);
    let receiver = Receiver::new(settings, config(&format!("host={}", server.host())));
    let receiver = receiver.with_reporter(move |event: &ReceiverEvent<'_>| {
        let text = match event {
            ReceiverEvent::Disconnected { error, .. } => format!("lost: {error}"),
            ReceiverEvent::StreamingStarted { timeline, .. } => format!("streams {timeline}"),
            ReceiverEvent::Warning(warning) => format!("warning: {warning}"),
            _ => return,
        };
        note.lock().unwrap().push(text);
    });
    (receiver, told)
}

fn wal() -> Generator {
    let mut wal = generator();
    wal.fill(100_000);
    wal
}

/// Answers until the stream is asked for, and gives what was asked.
async fn until_stream(primary: &Primary, sender: &mut Sender) -> String {
    loop {
        let command = sender.query().await;
        if command.starts_with("START_REPLICATION") {
            return command;
        }
        sender.say(&primary.reply(&command)).await;
    }
}

/// Streams all there is, waits until it is acknowledged, and is gone.
async fn stream_once(primary: &mut Primary, mut sender: Sender) {
    let command = until_stream(primary, &mut sender).await;
    let (start, wal, _) = primary.stream(&command);
    sender.copy_both().await;
    sender.wal(start, &wal).await;
    let end = primary.wal.records().last().unwrap().end;
    while sender.status().await.flush != end {}
}

/// PgBouncer's troubles, an account that is being changed, a proxy without a server, and others.
fn answers() -> Vec<Vec<u8>> {
    let refusals = [
        "08P01", "28P01", "28000", "42501", "3D000", "0A000", "42704",
    ];
    let mut answers: Vec<_> = refusals.map(|code| error("FATAL", code)).into();
    answers.push(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec());
    answers.push(b"no protocol at all".to_vec());
    // It asks for a password, and there is none.
    answers.push(pgconn::scripted::authentication(3));
    answers.push(Vec::new());
    answers
}

#[tokio::test]
async fn a_receiver_that_has_streamed_tries_again_whatever_it_is_answered() {
    let answers = answers();
    let script: Vec<_> = [None]
        .into_iter()
        .chain(answers.iter().cloned().map(Some))
        .collect();
    let (server, mut senders) = Server::welcoming_some(script);
    let directory = tempfile::tempdir().unwrap();
    let (receiver, told) = retrying(&server, &directory, |_| {});
    let serving = async {
        let mut primary = Primary::new(&wal(), &[]);
        stream_once(&mut primary, senders.recv().await.unwrap()).await;
        // Then commands are refused, and answered by what is no answer.
        for answer in [
            [error("ERROR", "42601"), message(b'Z', b"I")].concat(),
            completed("IDENTIFY_SYSTEM"),
            message(b'!', b""),
        ] {
            let mut sender = senders.recv().await.unwrap();
            assert_eq!(sender.query().await, "IDENTIFY_SYSTEM");
            sender.say(&answer).await;
        }
        for code in ["08P01", "XX000", "55006", "42601"] {
            let mut sender = senders.recv().await.unwrap();
            until_stream(&primary, &mut sender).await;
            sender
                .say(&[error("ERROR", code), message(b'Z', b"I")].concat())
                .await;
        }
        stream_once(&mut primary, senders.recv().await.unwrap()).await;
    };
    let received = async {
        tokio::select! {
            received = receiver.run(pending()) => panic!("{received:?}"),
            () = serving => {}
        }
    };
    timeout(DEADLINE, received).await.unwrap();
    let told = told.lock().unwrap();
    let lost = told.iter().filter(|line| line.starts_with("lost: "));
    assert_eq!(lost.count(), 1 + answers.len() + 3 + 4, "{told:#?}");
    let http = "server answered in HTTP (\"HTTP/1.1 503 Service Unavailable\"), not in the \
                PostgreSQL protocol";
    assert!(told.iter().any(|line| line.ends_with(http)), "{told:#?}");
    // A stream that the server refused is none that has started.
    let streams = told.iter().filter(|line| line.starts_with("streams "));
    assert_eq!(streams.count(), 2, "{told:#?}");
}

#[tokio::test]
async fn a_wrong_password_ends_only_who_has_neither_streamed_nor_serves() {
    let refusal = Some(error("FATAL", "28P01"));
    let (server, _senders) = Server::welcoming_some(vec![refusal.clone()]);
    let directory = tempfile::tempdir().unwrap();
    let (receiver, told) = retrying(&server, &directory, |_| {});
    let received = timeout(DEADLINE, receiver.run(pending())).await.unwrap();
    assert!(
        matches!(received, Err(ReceiveError::Connect(_))),
        "{received:?}"
    );
    assert_eq!(*told.lock().unwrap(), [""; 0]);

    let (server, mut senders) = Server::welcoming_some(vec![refusal.clone(), refusal]);
    let (receiver, told) = retrying(&server, &directory, |_| {});
    let _served = receiver.archive();
    let received = async {
        tokio::select! {
            received = receiver.run(pending()) => panic!("{received:?}"),
            sender = senders.recv() => drop(sender),
        }
    };
    timeout(DEADLINE, received).await.unwrap();
    assert_eq!(told.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_watcher_that_leaves_while_the_archive_opens_still_keeps_the_receiver_retrying() {
    let refusal = Some(error("FATAL", "28P01"));
    let (server, mut senders) = Server::welcoming_some(vec![refusal.clone(), refusal]);
    let directory = tempfile::tempdir().unwrap();
    let (receiver, told) = retrying(&server, &directory, |_| {});
    let served = receiver.archive();
    let received = async {
        tokio::select! {
            biased;
            received = receiver.run(pending()) => panic!("{received:?}"),
            // It is polled once the receiver waits for its archive.
            sender = async {
                drop(served);
                senders.recv().await
            } => drop(sender),
        }
    };
    timeout(DEADLINE, received).await.unwrap();
    assert_eq!(told.lock().unwrap().len(), 2);
}

/// A standby that is promoted while the stream of the new timeline is asked for finds no timeline
/// that follows it.
#[tokio::test]
async fn a_successor_that_is_not_named_yet_is_asked_for_again() {
    let promotions = Promotions::new();
    let (server, mut senders) = Server::welcoming();
    let directory = tempfile::tempdir().unwrap();
    let (receiver, told) = retrying(&server, &directory, |settings| {
        settings.end = just_before_the_end(&promotions.fourth);
    });
    let serving = async {
        let mut primary = Primary::new(&promotions.first, &[]);
        let mut sender = senders.recv().await.unwrap();
        let command = until_stream(&primary, &mut sender).await;
        let (start, wal, _) = primary.stream(&command);
        sender.copy_both().await;
        sender.wal(start, &wal).await;
        sender.say(&message(b'c', b"")).await;
        while sender.goes_on().await {}
        let end = TimelineEnd {
            next_timeline: timeline(9),
            switch_point: Lsn::INVALID,
        };
        let mut reply = rows(&end.encode());
        let digit = reply.windows(5).position(|bytes| bytes == b"\0\0\0\x019");
        reply[digit.unwrap() + 4] = b'0';
        let farewell = [
            reply,
            message(b'C', b"START_STREAMING\0"),
            completed("START_REPLICATION"),
        ];
        sender.say(&farewell.concat()).await;
        let promoted = Mutex::new(promotions.promoted());
        let mut sender = senders.recv().await.unwrap();
        serve(&promoted, &mut sender).await;
    };
    let received = async {
        tokio::select! {
            received = receiver.run(pending()) => received,
            () = serving => panic!("the receiver has to end first"),
        }
    };
    let received = timeout(DEADLINE, received).await;
    let told = told.lock().unwrap();
    assert!(matches!(received, Ok(Ok(()))), "{received:?} {told:#?}");
    let lost: Vec<_> = told
        .iter()
        .filter(|line| line.starts_with("lost: "))
        .collect();
    let end = promotions.first.end();
    let expected = format!(
        "lost: server ended timeline 1 at {end} without naming the timeline that follows, as \
         during a promotion"
    );
    assert_eq!(lost, [&expected]);
}

#[tokio::test]
async fn a_history_that_no_server_has_is_warned_of_once() {
    let promotions = Promotions::new();
    let directory = tempfile::tempdir().unwrap();
    let (received, _) = receive(promotions.promoted(), &directory, |settings| {
        settings.start = Some(promotions.switch_point);
        settings.end = just_before_the_end(&promotions.fourth);
    })
    .await;
    received.unwrap();
    std::fs::remove_file(directory.path().join("00000003.history")).unwrap();
    let (server, mut senders) = Server::welcoming();
    let (receiver, told) = retrying(&server, &directory, |_| {});
    let serving = async {
        let mut lacking = Primary::new(&promotions.fourth, &[]);
        for _ in 0..3 {
            stream_once(&mut lacking, senders.recv().await.unwrap()).await;
        }
        senders.recv().await.unwrap()
    };
    let received = async {
        tokio::select! {
            received = receiver.run(pending()) => panic!("{received:?}"),
            _ = serving => {}
        }
    };
    timeout(DEADLINE, received).await.unwrap();
    let timelines = &[timeline(3)];
    let warning = format!("warning: {}", Warning::HistoriesLost { timelines });
    let told = told.lock().unwrap();
    let times = told.iter().filter(|line| **line == warning).count();
    assert_eq!(times, 1, "{told:#?}");
}

/// A server older than 15 cannot be asked whether it has a slot.
#[tokio::test]
async fn a_new_primary_that_cannot_be_asked_for_the_slot_gets_it_unless_it_has_it() {
    let promotions = Promotions::new();
    for (answer, creates) in [
        (completed("CREATE_REPLICATION_SLOT"), true),
        (
            [error("ERROR", "42710"), message(b'Z', b"I")].concat(),
            false,
        ),
    ] {
        let directory = archive_of(&promotions.first).await;
        let v14 = ("server_version", "14.20");
        let (server, mut senders) = Server::welcoming_as(v14);
        let (receiver, told) = retrying(&server, &directory, |settings| {
            settings.slot = Some("failed_over".parse().unwrap());
        });
        let serving = async {
            let primary = promotions.promoted();
            let mut sender = senders.recv().await.unwrap();
            let mut asked = Vec::new();
            loop {
                let command = sender.query().await;
                if command.starts_with("CREATE_REPLICATION_SLOT") {
                    sender.say(&answer).await;
                } else if command.starts_with("START_REPLICATION") {
                    return asked;
                } else {
                    sender.say(&primary.reply(&command)).await;
                }
                asked.push(command);
            }
        };
        let asked = async {
            tokio::select! {
                received = receiver.run(pending()) => panic!("{received:?}"),
                asked = serving => asked,
            }
        };
        let asked = timeout(DEADLINE, asked).await.unwrap();
        let created = asked
            .iter()
            .filter(|command| command.starts_with("CREATE_REPLICATION_SLOT"));
        assert_eq!(created.count(), 1, "{asked:?}");
        let slot = &"failed_over".parse().unwrap();
        let warning = format!("warning: {}", Warning::SlotCreated { slot });
        let told = told.lock().unwrap();
        assert_eq!(told.contains(&warning), creates, "{told:#?}");
    }
}

#[tokio::test]
async fn a_first_start_that_loses_its_server_acknowledges_nothing_before_it_has_caught_up() {
    lose_a_first_start(Some("new".parse().unwrap())).await;
}

#[tokio::test]
async fn a_first_start_without_a_slot_streams_with_a_temporary_one_on_each_connection() {
    lose_a_first_start(None).await;
}

/// Answers a stream that is only to move a slot, and gives the flush position that it was moved to.
async fn move_slot(sender: &mut Sender, start: Lsn, wal: &[u8]) -> Lsn {
    sender.copy_both().await;
    sender.wal(start, wal).await;
    let moved = sender.status().await.flush;
    sender.copy_done().await;
    let farewell = [
        message(b'c', b""),
        message(b'C', b"START_STREAMING\0"),
        completed("START_REPLICATION"),
    ];
    sender.say(&farewell.concat()).await;
    moved
}

/// Loses a first start twice before it has caught up, after a checkpoint has removed the WAL of its
/// first try. WAL is reserved from the start of the archive on before it is streamed, and no later
/// position is reported for that.
async fn lose_a_first_start(slot: Option<SlotName>) {
    let wal = wal();
    let records = wal.records();
    let (middle, end) = (records[records.len() / 2].end, records.last().unwrap().end);
    let directory = tempfile::tempdir().unwrap();
    let (server, mut senders) = Server::welcoming();
    let (receiver, _told) = retrying(&server, &directory, |settings| {
        settings.start = None;
        settings.first_start = FirstStart::OldestWal;
        settings.slot = slot.clone();
    });
    let offset = |lsn: Lsn| usize::try_from(lsn.bytes_since(START)).unwrap();
    let serving = async {
        let primary = Primary::new(&wal, &[]);
        let mut begin = None;
        let removed = [error("ERROR", "58P01"), message(b'Z', b"I")].concat();
        let mut names = Vec::new();
        for round in 0..3 {
            let mut sender = senders.recv().await.unwrap();
            let mut command = until_stream(&primary, &mut sender).await;
            if round == 0 {
                // The search, a new search, and the stream; each removes what the next one is asked.
                while !command.contains("SLOT") {
                    sender.say(&removed).await;
                    command = until_stream(&primary, &mut sender).await;
                }
            }
            let (start, name) = start_and_slot(&command);
            assert!(name.is_some(), "{command}");
            let begin = *begin.get_or_insert(start);
            // All is in one segment, which a new slot reserves without being moved.
            if slot.is_some() && round == 0 {
                assert_eq!(start, begin);
                let rest = &wal.bytes()[offset(start)..];
                assert_eq!(move_slot(&mut sender, start, rest).await, begin);
                command = until_stream(&primary, &mut sender).await;
                assert_eq!(start_and_slot(&command), (start, name.clone()));
            }
            assert_eq!(start > begin, round > 0, "{command}");
            names.extend(name);
            let until = if round < 2 { middle } else { wal.end() };
            sender.copy_both().await;
            let sent = &wal.bytes()[offset(start)..offset(until)];
            sender.wal(start, sent).await;
            loop {
                let status = sender.status().await;
                if round < 2 {
                    assert_eq!(status.flush, Lsn::INVALID);
                }
                if status.flush == end || (round < 2 && status.write == middle) {
                    break;
                }
            }
        }
        let created = names
            .iter()
            .filter(|name| name.starts_with("\"wal_receiver_"));
        assert_eq!(
            created.count(),
            if slot.is_none() { 3 } else { 0 },
            "{names:?}"
        );
        names.dedup();
        assert_eq!(names.len(), if slot.is_none() { 3 } else { 1 }, "{names:?}");
    };
    let received = async {
        tokio::select! {
            received = receiver.run(pending()) => panic!("{received:?}"),
            () = serving => {}
        }
    };
    timeout(DEADLINE, received).await.unwrap();
}

#[tokio::test]
async fn damage_that_is_met_after_the_word_to_stop_is_told_and_fails_no_run() {
    let (server, mut senders) = Server::welcoming();
    let directory = tempfile::tempdir().unwrap();
    let (receiver, told) = retrying(&server, &directory, |_| {});
    let mut progress = receiver.progress();
    let primary = Primary::new(&wal(), &[]);
    let mut damaged = primary.wal.bytes().to_vec();
    let last = primary.wal.records().last().unwrap();
    let offset = usize::try_from(last.end.bytes_since(START)).unwrap() - 1;
    damaged[offset] ^= 1;
    let end = primary.wal.end();
    let serving = async {
        let mut sender = senders.recv().await.unwrap();
        until_stream(&primary, &mut sender).await;
        sender.copy_both().await;
        sender.wal(START, &damaged).await;
        while sender.goes_on().await {}
        let farewell = [
            message(b'c', b""),
            message(b'C', b"START_STREAMING\0"),
            completed("START_REPLICATION"),
        ];
        sender.say(&farewell.concat()).await;
        pending().await
    };
    // It has arrived, and what is found in it is not known yet.
    let stop = async {
        let all = |progress: &Option<Progress>| progress.is_some_and(|p| p.received_end == end);
        progress.wait_for(all).await.unwrap();
    };
    let received = async {
        tokio::select! {
            received = receiver.run(stop) => received,
            () = serving => unreachable!(),
        }
    };
    timeout(DEADLINE, received).await.unwrap().unwrap();
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[1].starts_with("lost: invalid WAL at "), "{told:#?}");
}

#[tokio::test]
async fn wal_that_one_host_has_removed_is_waited_for_while_another_cannot_be_asked() {
    for other_host in [true, false] {
        let (server, mut senders) = Server::welcoming();
        let directory = tempfile::tempdir().unwrap();
        let told = Told::default();
        let note = Arc::clone(&told);
        let mut settings = ReceiverConfig::new(directory.path());
        settings.start = Some(START);
        settings.reconnect = Reconnect::Fixed(Duration::from_millis(1));
        let hosts = match other_host {
            true => format!("host={},{}", server.host(), directory.path().display()),
            false => format!("host={}", server.host()),
        };
        let receiver = Receiver::new(settings, config(&hosts)).with_reporter(
            move |event: &ReceiverEvent<'_>| {
                if let ReceiverEvent::Disconnected { error, .. } = event {
                    note.lock().unwrap().push(error.to_string());
                }
            },
        );
        let serving = async {
            let mut primary = Primary::new(&wal(), &[]);
            stream_once(&mut primary, senders.recv().await.unwrap()).await;
            let mut sender = senders.recv().await.unwrap();
            until_stream(&primary, &mut sender).await;
            let removed = [error("ERROR", "58P01"), message(b'Z', b"I")].concat();
            sender.say(&removed).await;
            // It tries again, or ends and this is never reached.
            senders.recv().await
        };
        let received = async {
            tokio::select! {
                received = receiver.run(pending()) => Some(received),
                _ = serving => None,
            }
        };
        let received = timeout(DEADLINE, received).await.unwrap();
        let told = told.lock().unwrap();
        if other_host {
            assert!(received.is_none(), "{received:?}");
            assert!(
                told.iter()
                    .any(|line| line.starts_with("waiting for another host, ")),
                "{told:#?}"
            );
        } else {
            let removed = matches!(received, Some(Err(ReceiveError::WalRemoved { .. })));
            assert!(removed, "{received:?}");
        }
    }
}
