//! A sender's session and a receiver's on a link that delays and cuts the bytes anywhere, with a
//! clock that only the test moves.

use proptest::prelude::*;

use super::*;
use crate::error::SqlState;

/// Where the stream begins.
const START: u64 = 0x1000;
/// Records end at multiples of this, so that most of what is sent ends inside one.
const RECORD: u64 = 24;

fn record_end(byte_end: u64) -> u64 {
    (byte_end - byte_end % RECORD).max(START)
}

/// The WAL at a position.
fn wal_at(position: u64) -> u8 {
    u8::try_from(position * 7 % 251).unwrap()
}

/// How the stream ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// The sender shuts down.
    Shutdown,
    /// The timeline ends.
    Timeline,
    /// The sender cannot go on.
    Failure,
    /// The receiver has had enough.
    Receiver,
    /// The link breaks.
    Link,
}

/// The driver of a sender's session.
struct Sender {
    session: ServerSession,
    /// How far there is WAL.
    wal_end: u64,
    /// What was written and has not arrived.
    out: BytesMut,
    events: Vec<Event>,
}

/// The driver of a receiver's session, with a disk that is slow as the test likes.
struct Receiver {
    session: ClientSession,
    received: u64,
    durable: u64,
    applied: u64,
    /// What was written and has not arrived.
    out: BytesMut,
    events: Vec<client::Event>,
}

struct World {
    now: Instant,
    end: End,
    ended: bool,
    sender: Sender,
    receiver: Receiver,
    /// What arrived and was not taken yet.
    at_sender: BytesMut,
    at_receiver: BytesMut,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// There is more WAL.
    Write(u64),
    /// The sender sends up to so much of it.
    Send(usize),
    Keepalive(bool),
    /// So many bytes arrive at the receiver.
    Deliver(usize),
    /// So many bytes arrive at the sender.
    Return(usize),
    Sync,
    Apply,
    Pass(u64),
    End,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u64..300).prop_map(Step::Write),
        4 => (1usize..200).prop_map(Step::Send),
        2 => any::<bool>().prop_map(Step::Keepalive),
        6 => (1usize..300).prop_map(Step::Deliver),
        4 => (1usize..100).prop_map(Step::Return),
        3 => Just(Step::Sync),
        1 => Just(Step::Apply),
        2 => (1u64..9000).prop_map(Step::Pass),
        1 => Just(Step::End),
    ]
}

impl World {
    fn new(end: End) -> Self {
        let mut pair = Pair::ready(V15);
        let now = pair.now;
        pair.client.execute(now, &start_replication(START)).unwrap();
        let mut world = Self {
            now,
            end,
            ended: false,
            sender: Sender {
                session: pair.server,
                wal_end: START,
                out: BytesMut::new(),
                events: Vec::new(),
            },
            receiver: Receiver {
                session: pair.client,
                received: START,
                durable: START,
                applied: START,
                out: BytesMut::new(),
                events: Vec::new(),
            },
            at_sender: BytesMut::new(),
            at_receiver: BytesMut::new(),
        };
        world.report();
        world
    }

    /// The sender gets `length` more bytes of what was sent to it, and does what they ask for.
    fn deliver_to_sender(&mut self, length: usize) {
        let receiver = &mut self.receiver;
        receiver.session.poll_transmit(&mut receiver.out);
        let length = length.min(receiver.out.len());
        self.at_sender.unsplit(receiver.out.split_to(length));
        let session = &mut self.sender.session;
        session.handle_input(self.now, &mut self.at_sender).unwrap();
        while let Some(event) = session.poll_event() {
            match &event {
                Event::Command(Command::StartReplication {
                    start, timeline, ..
                }) => {
                    session
                        .start_streaming(self.now, timeline.unwrap(), *start, None)
                        .unwrap();
                }
                Event::Status(update) => {
                    // It is true, whatever was lost or late on the way.
                    let sent = session.sent().map_or(u64::MAX, |sent| sent.0);
                    let durable = self.receiver.durable;
                    assert!(update.flush.0 <= durable && update.flush.0 <= sent);
                    assert!(update.write.0 <= self.receiver.received);
                    assert!(update.apply.0 <= update.flush.0);
                }
                _ => {}
            }
            self.sender.events.push(event);
        }
        self.write();
    }

    fn write(&mut self) {
        self.sender.session.poll_transmit(&mut self.sender.out);
    }

    /// The receiver gets `length` more bytes of what was sent to it.
    fn deliver_to_receiver(&mut self, length: usize) {
        self.write();
        let length = length.min(self.sender.out.len());
        self.at_receiver.unsplit(self.sender.out.split_to(length));
        let receiver = &mut self.receiver;
        receiver
            .session
            .handle_input(self.now, &mut self.at_receiver)
            .unwrap();
        while let Some(event) = receiver.session.poll_event() {
            match &event {
                client::Event::WalData { start, data, .. } => {
                    assert_eq!(start.0, receiver.received);
                    for &byte in data {
                        assert_eq!(byte, wal_at(receiver.received));
                        receiver.received += 1;
                    }
                }
                client::Event::ServerCopyDone => {
                    receiver.durable = receiver.received;
                    receiver.session.report(self.now, positions(receiver));
                    receiver.session.finish_copy(self.now);
                }
                _ => {}
            }
            receiver.events.push(event);
        }
    }

    fn send(&mut self, length: usize) {
        self.write();
        let sender = &mut self.sender;
        let Some(start) = sender
            .session
            .sent()
            .filter(|_| sender.session.is_sending())
        else {
            return;
        };
        let left = usize::try_from(sender.wal_end - start.0).unwrap();
        let length = length.min(left);
        if length == 0 {
            return;
        }
        let wal_end = Lsn(sender.wal_end);
        let header = sender.session.wal_header(self.now, start, length, wal_end);
        sender.out.extend_from_slice(&header.unwrap());
        let end = start.0 + u64::try_from(length).unwrap();
        sender.out.extend((start.0..end).map(wal_at));
    }

    fn report(&mut self) {
        let receiver = &mut self.receiver;
        receiver.session.report(self.now, positions(receiver));
    }

    fn sync(&mut self) {
        self.receiver.durable = self.receiver.received;
        self.report();
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(length) => {
                if !self.ended {
                    self.sender.wal_end += length;
                }
            }
            Step::Send(length) => self.send(length),
            Step::Keepalive(reply) => {
                // There is none to be sent without a stream.
                let _ = self.sender.session.keepalive(self.now, reply);
            }
            Step::Deliver(length) => self.deliver_to_receiver(length),
            Step::Return(length) => self.deliver_to_sender(length),
            Step::Sync => self.sync(),
            Step::Apply => {
                self.receiver.applied = record_end(self.receiver.durable);
                self.report();
            }
            Step::Pass(millis) => self.pass(millis),
            Step::End => self.end(),
        }
        if let (Some(sent), Some(reported)) =
            (self.sender.session.sent(), self.sender.session.reported())
        {
            let positions = [reported.write, reported.flush, reported.apply];
            assert!(
                positions
                    .into_iter()
                    .flatten()
                    .all(|position| position <= sent)
            );
        }
    }

    /// Lets time pass on a link that always brings something within a minute.
    fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        let now = self.now;
        if self
            .sender
            .session
            .next_timeout()
            .is_some_and(|due| due <= now)
        {
            self.sender.session.handle_timeout(now).unwrap();
        }
        let client = &mut self.receiver.session;
        if client.next_timeout().is_some_and(|due| due <= now) {
            client.handle_timeout(now).unwrap();
        }
        self.deliver_to_receiver(usize::MAX);
        self.deliver_to_sender(usize::MAX);
    }

    fn end(&mut self) {
        let started = self.receiver.events.contains(&client::Event::CopyStarted);
        if self.ended || !started {
            return;
        }
        self.ended = true;
        let session = &mut self.sender.session;
        match self.end {
            End::Shutdown => session.begin_shutdown(self.now, Lsn(self.sender.wal_end)),
            End::Timeline => {
                session.end_timeline(end()).unwrap();
                self.sender.wal_end = session.sent().unwrap().0;
            }
            End::Failure => {
                let error = ServerMessage::error(SqlState::UNDEFINED_FILE, "gone");
                session.fail(error).unwrap();
            }
            End::Receiver => self.receiver.session.finish_copy(self.now),
            End::Link => {}
        }
    }

    /// Lets everything arrive until nothing happens any more.
    fn settle(&mut self) {
        self.deliver_to_sender(usize::MAX);
        self.deliver_to_receiver(usize::MAX);
        self.end();
        for _ in 0..20 {
            self.send(usize::MAX);
            self.deliver_to_receiver(usize::MAX);
            self.sync();
            self.deliver_to_sender(usize::MAX);
        }
    }
}

fn positions(receiver: &Receiver) -> Positions<Lsn> {
    Positions {
        write: Lsn(record_end(receiver.received)),
        flush: Some(Lsn(record_end(receiver.durable))),
        apply: Some(Lsn(receiver.applied)),
        byte_end: Lsn(receiver.durable),
    }
}

proptest! {
    #[test]
    fn what_is_sent_arrives_and_every_stream_comes_to_its_end_on_both_sides(
        how in prop::sample::select(
            vec![End::Shutdown, End::Timeline, End::Failure, End::Receiver],
        ),
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let mut world = World::new(how);
        steps.into_iter().for_each(|step| world.step(step));
        world.settle();
        let World { now, mut sender, mut receiver, .. } = world;
        if how == End::Shutdown {
            prop_assert!(sender.session.is_over());
            receiver.session.handle_eof(now).unwrap();
            receiver.events.extend(std::iter::from_fn(|| receiver.session.poll_event()));
            prop_assert_eq!(receiver.received, sender.wal_end);
            prop_assert_eq!(receiver.durable, sender.wal_end);
        } else {
            // Both are ready for the next command.
            receiver.session.execute(now, &Command::IdentifySystem).unwrap();
            let mut bytes = BytesMut::new();
            receiver.session.poll_transmit(&mut bytes);
            sender.session.handle_input(now, &mut bytes).unwrap();
            let command = sender.session.poll_event();
            prop_assert_eq!(command, Some(Event::Command(Command::IdentifySystem)));
        }
        let last: Vec<_> = receiver.events.iter().rev().take(2).rev().collect();
        let (at_receiver, at_sender) = match how {
            End::Shutdown => (
                matches!(last[..], [client::Event::ServerStopping, client::Event::Closed]),
                Some(&Event::Stopped),
            ),
            End::Timeline => (
                matches!(last[..], [client::Event::StreamEnded(Some(table)), client::Event::Ready]
                    if *table == end().encode()),
                Some(&Event::CopyFinished),
            ),
            End::Failure => (
                matches!(last[..], [client::Event::Failed(_), client::Event::Ready]),
                None,
            ),
            End::Receiver | End::Link => (
                matches!(last[..], [client::Event::StreamEnded(None), client::Event::Ready]),
                Some(&Event::CopyFinished),
            ),
        };
        prop_assert!(at_receiver, "{:?}", last);
        if at_sender.is_some() {
            prop_assert_eq!(sender.events.last(), at_sender);
        }
    }

    #[test]
    fn a_link_that_breaks_anywhere_is_noticed_by_both_sides(
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut world = World::new(End::Link);
        steps.into_iter().for_each(|step| world.step(step));
        let World { now, mut sender, mut receiver, .. } = world;
        let closed = sender.session.handle_eof(now);
        let began = sender.events.iter().any(|event| matches!(event, Event::Command(_)));
        // Before the command has arrived, the client may have gone for good.
        let complete = sender.session.poll_event() == Some(Event::Terminated);
        prop_assert_eq!(closed.is_ok(), complete);
        prop_assert!(!(began && complete));
        prop_assert!(sender.session.is_over());
        prop_assert!(receiver.session.handle_eof(now).is_err());
    }
}

#[test]
fn a_stream_that_stops_inside_a_record_is_acknowledged_to_its_last_byte() {
    let mut world = World::new(End::Shutdown);
    world.sender.wal_end = START + 100;
    world.settle();
    assert_eq!(world.receiver.received, START + 100);
    assert_ne!(world.receiver.received, record_end(world.receiver.received));
    assert_eq!(world.sender.events.last(), Some(&Event::Stopped));
}
