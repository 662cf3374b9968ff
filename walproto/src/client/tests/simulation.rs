//! A receiver and a sender on a link that cuts the bytes anywhere, with a clock that only the
//! test moves.

use proptest::prelude::*;

use super::*;

/// Where the stream begins.
const START: u64 = 0x1000;
/// Records end at multiples of this, so that most of what is sent ends inside one.
const RECORD: u64 = 24;

fn record_end(byte_end: u64) -> u64 {
    (byte_end - byte_end % RECORD).max(START)
}

/// How the sender ends the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// It shuts down: it asks until everything sent is reported.
    Shutdown,
    /// The timeline ends.
    Timeline,
    /// The receiver has had enough.
    Receiver,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SenderState {
    Command,
    Sending,
    Asking,
    AwaitingDone,
    Stopped,
}

/// A sender written as walsender.c is, as far as a receiver sees it. It checks every status.
struct Sender {
    state: SenderState,
    end: End,
    out: BytesMut,
    input: BytesMut,
    sent: u64,
    last: [u64; 3],
    statuses: usize,
    /// Where it has asked for a reply.
    asked: Vec<u64>,
    ping_outstanding: bool,
}

impl Sender {
    fn new(end: End) -> Self {
        Self {
            state: SenderState::Command,
            end,
            out: BytesMut::new(),
            input: BytesMut::new(),
            sent: START,
            last: [0; 3],
            statuses: 0,
            asked: Vec::new(),
            ping_outstanding: false,
        }
    }

    fn say(&mut self, message: BackendMessage) {
        message.encode(&mut self.out).unwrap();
    }

    fn send(&mut self, length: usize) {
        if self.state == SenderState::Sending {
            self.out
                .extend_from_slice(&wal(self.sent, &vec![0xCD; length]));
            self.sent += u64::try_from(length).unwrap();
        }
    }

    fn ask(&mut self, reply_requested: bool) {
        if !matches!(self.state, SenderState::Command | SenderState::Stopped) {
            self.out
                .extend_from_slice(&keepalive(self.sent, reply_requested));
            if reply_requested {
                self.asked.push(self.sent);
            }
        }
    }

    fn finish(&mut self) {
        if self.state != SenderState::Sending {
            return;
        }
        match self.end {
            End::Shutdown => self.state = SenderState::Asking,
            End::Timeline => {
                self.say(BackendMessage::CopyDone);
                self.state = SenderState::AwaitingDone;
            }
            End::Receiver => {}
        }
    }

    /// Goes on, as WalSndDone does in a shutdown.
    fn turn(&mut self) {
        if self.state != SenderState::Asking {
            return;
        }
        if self.last[1] == self.sent {
            self.say(complete("COPY 0"));
            self.state = SenderState::Stopped;
        } else if !self.ping_outstanding {
            self.ask(true);
            self.ping_outstanding = true;
        }
    }

    /// Takes what the receiver sent; `durable` is how far its bytes are.
    fn take_all(&mut self, durable: u64) {
        while let Some(frame) = Frame::take(&mut self.input, |_| 1000).unwrap() {
            match (self.state, frame.tag.0) {
                (SenderState::Command, b'Q') => {
                    self.say(copy_both());
                    self.state = SenderState::Sending;
                }
                (SenderState::Stopped, _) => {}
                (_, b'd') => self.check(ReceiverMessage::decode(frame.body).unwrap(), durable),
                (_, b'c') => {
                    if self.state == SenderState::Sending {
                        self.say(BackendMessage::CopyDone);
                    }
                    if self.end == End::Timeline {
                        crate::backend::encode_result_set(&timeline_end(), &mut self.out).unwrap();
                    }
                    self.say(complete("START_STREAMING"));
                    self.say(complete("START_REPLICATION"));
                    self.say(ready());
                    self.state = SenderState::Command;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn check(&mut self, message: ReceiverMessage, durable: u64) {
        let ReceiverMessage::StatusUpdate(update) = message else {
            panic!("{message:?}");
        };
        let now = [update.write.0, update.flush.0, update.apply.0];
        let [write, flush, apply] = now;
        assert!(
            apply <= flush && flush <= write && write <= self.sent,
            "{now:?} {}",
            self.sent
        );
        assert!(
            now.iter().zip(self.last).all(|(now, last)| *now >= last),
            "moved back: {now:?}"
        );
        assert!(flush <= durable, "{flush} is not durable, only {durable}");
        let whole_records = flush == record_end(flush);
        assert!(
            whole_records || self.asked.contains(&flush),
            "{flush} is inside a record"
        );
        self.last = now;
        self.statuses += 1;
        self.ping_outstanding = false;
        if update.reply_requested {
            self.ask(false);
        }
    }
}

/// The driver of a session with a disk that is slow as the test likes.
struct Receiver {
    script: Script,
    received: u64,
    durable: u64,
    applied: u64,
    events: Vec<Event>,
    out: BytesMut,
}

impl Receiver {
    fn take_events(&mut self) {
        for event in self.script.events() {
            match &event {
                Event::WalData { start, data, .. } => {
                    assert_eq!(start.0, self.received);
                    self.received += u64::try_from(data.len()).unwrap();
                }
                Event::ServerCopyDone => {
                    self.sync();
                    self.script.session.finish_copy(self.script.now);
                }
                _ => {}
            }
            self.events.push(event);
        }
    }

    fn sync(&mut self) {
        self.durable = self.received;
        self.report();
    }

    fn report(&mut self) {
        let positions = Positions {
            write: Lsn(record_end(self.received)),
            flush: Some(Lsn(record_end(self.durable))),
            apply: Some(Lsn(self.applied)),
            byte_end: Lsn(self.durable),
        };
        self.script.session.report(self.script.now, positions);
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Send(usize),
    Keepalive(bool),
    Deliver(usize),
    Return(usize),
    Sync,
    Apply,
    Pass(u64),
    Finish,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..200).prop_map(Step::Send),
        2 => any::<bool>().prop_map(Step::Keepalive),
        6 => (1usize..300).prop_map(Step::Deliver),
        4 => (1usize..100).prop_map(Step::Return),
        3 => Just(Step::Sync),
        1 => Just(Step::Apply),
        2 => (1u64..9000).prop_map(Step::Pass),
        1 => Just(Step::Finish),
    ]
}

struct World {
    sender: Sender,
    receiver: Receiver,
}

impl World {
    fn new(end: End) -> Self {
        let mut script = Script::ready();
        let start = start_replication(START);
        script.session.execute(script.now, &start).unwrap();
        let mut receiver = Receiver {
            script,
            received: START,
            durable: START,
            applied: START,
            events: Vec::new(),
            out: BytesMut::new(),
        };
        receiver.report();
        let sender = Sender::new(end);
        Self { sender, receiver }
    }

    fn deliver(&mut self, length: usize) {
        let length = length.min(self.sender.out.len());
        let bytes = self.sender.out.split_to(length);
        self.receiver.script.say_bytes(&bytes).unwrap();
        self.receiver.take_events();
    }

    fn send_back(&mut self, length: usize) {
        let receiver = &mut self.receiver;
        receiver.script.session.poll_transmit(&mut receiver.out);
        let length = length.min(receiver.out.len());
        let bytes = receiver.out.split_to(length);
        self.sender.input.extend_from_slice(&bytes);
        self.sender.take_all(receiver.durable);
        self.sender.turn();
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Send(length) => self.sender.send(length),
            Step::Keepalive(reply_requested) => self.sender.ask(reply_requested),
            Step::Deliver(length) => self.deliver(length),
            Step::Return(length) => self.send_back(length),
            Step::Sync => self.receiver.sync(),
            Step::Apply => {
                self.receiver.applied = record_end(self.receiver.durable);
                self.receiver.report();
            }
            Step::Pass(millis) => self.pass(millis),
            Step::Finish => {
                self.sender.finish();
                if self.sender.end == End::Receiver {
                    self.receiver
                        .script
                        .session
                        .finish_copy(self.receiver.script.now);
                }
            }
        }
    }

    /// Lets time pass on a link that always brings something within a minute.
    fn pass(&mut self, millis: u64) {
        if self.sender.state == SenderState::Stopped {
            return;
        }
        let script = &mut self.receiver.script;
        script.now += Duration::from_millis(millis);
        if script
            .session
            .next_timeout()
            .is_some_and(|due| due <= script.now)
        {
            script.session.handle_timeout(script.now).unwrap();
            assert!(
                script
                    .session
                    .next_timeout()
                    .is_none_or(|due| due > script.now)
            );
        }
        self.sender.ask(false);
        self.deliver(usize::MAX);
    }

    /// Lets everything arrive until nothing happens any more.
    fn settle(&mut self) {
        self.send_back(usize::MAX);
        self.deliver(usize::MAX);
        self.step(Step::Finish);
        for _ in 0..12 {
            self.sender.turn();
            self.deliver(usize::MAX);
            self.receiver.sync();
            self.send_back(usize::MAX);
        }
    }
}

proptest! {
    #[test]
    fn every_acknowledgement_is_true_and_every_stream_comes_to_its_end(
        end in prop::sample::select(vec![End::Shutdown, End::Timeline, End::Receiver]),
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let mut world = World::new(end);
        for step in steps {
            world.step(step);
        }
        world.settle();
        let World { sender, mut receiver } = world;
        if sender.state == SenderState::Stopped {
            receiver.script.session.handle_eof(receiver.script.now).unwrap();
            receiver.take_events();
        }
        let last: Vec<_> = receiver.events.iter().rev().take(2).rev().cloned().collect();
        let expected = match end {
            End::Shutdown => vec![Event::ServerStopping, Event::Closed],
            End::Timeline => vec![Event::StreamEnded(Some(timeline_end())), Event::Ready],
            End::Receiver => vec![Event::StreamEnded(None), Event::Ready],
        };
        prop_assert_eq!(last, expected);
        prop_assert_eq!(receiver.received, sender.sent);
        if end == End::Shutdown {
            // It waited for the byte end, inside a record or not.
            prop_assert_eq!(sender.last[1], sender.sent);
        }
        prop_assert!(sender.statuses > 0);
    }

    #[test]
    fn any_chunking_gives_the_same_events_and_the_same_last_status(
        lengths in prop::collection::vec(0usize..700, 1..20),
        asks: u32,
        sizes in prop::collection::vec(1usize..900, 1..40),
    ) {
        let mut bytes = BytesMut::new();
        copy_both().encode(&mut bytes).unwrap();
        let mut position = START;
        for (index, &length) in lengths.iter().enumerate() {
            bytes.extend_from_slice(&wal(position, &vec![0xEF; length]));
            position += u64::try_from(length).unwrap();
            if asks >> index & 1 == 1 {
                bytes.extend_from_slice(&keepalive(position, index % 2 == 0));
            }
        }
        let run = |chunks: &[&[u8]]| {
            let mut script = Script::ready();
            script.execute(&start_replication(START));
            script.session.report(script.now, durable(START));
            chunks.iter().for_each(|chunk| script.say_bytes(chunk).unwrap());
            assert!(script.input.is_empty());
            script.session.report(script.now, durable(position));
            (script.events(), script.statuses())
        };
        let mut chunks: Vec<&[u8]> = Vec::new();
        let mut rest = &bytes[..];
        for &size in sizes.iter().cycle() {
            let (chunk, tail) = rest.split_at(size.min(rest.len()));
            chunks.push(chunk);
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        let whole = run(&[&bytes[..]]);
        prop_assert_eq!(&whole.1, &vec![[position; 3]]);
        prop_assert_eq!(run(&chunks), whole);
    }
}

#[test]
fn a_sender_that_stops_inside_a_record_gets_its_last_byte_acknowledged() {
    let mut world = World::new(End::Shutdown);
    world.send_back(usize::MAX);
    world.sender.send(100);
    world.settle();
    assert_eq!(world.sender.state, SenderState::Stopped);
    assert_ne!(world.sender.sent, record_end(world.sender.sent));
    assert_eq!(world.sender.last[1], world.sender.sent);
}
