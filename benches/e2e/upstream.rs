//! A walsender that makes its WAL up: for loads beyond what a server can make on the same machine,
//! and at any rate.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use segstore::WalFormat;
use segstore::generator::{GeneratedStream, Generator, RecordMix};
use walproto::command::Command;
use walproto::error::{ServerMessage, SqlState};
use walproto::result::{IdentifySystem, Setting};
use walproto::server::{Event, ServerSession, SessionTimes};
use walproto::{Lsn, SegmentSize, ServerVersion, SystemId, TimelineHistory, TimelineId};

use crate::client::now;

const VERSION: ServerVersion = ServerVersion(150_018);
const SYSTEM_ID: SystemId = SystemId(7_000_000_000_000_000_001);

/// What a walsender puts into one message at most (`MAX_SEND_SIZE`).
const LARGEST_PIECE: usize = 128 << 10;

/// How often a paced stream goes on.
const PACE: Duration = Duration::from_millis(1);

/// A sender of made-up WAL of timeline 1, in segments of 16 MiB.
#[derive(Debug)]
pub(crate) struct Upstream {
    listener: TcpListener,
}

/// A piece that was sent.
struct Sent {
    end: Lsn,
    at: Instant,
}

/// A stream on its way.
struct Stream {
    socket: TcpStream,
    session: ServerSession,
    input: BytesMut,
    output: BytesMut,
    /// What more there is.
    wal: GeneratedStream,
    /// The header of the piece that is being sent, and the piece's rest.
    header: Bytes,
    piece: BytesMut,
    sent: Vec<Sent>,
    /// How many of the pieces are known to be durable, and how long each of them took, in us.
    delays: Vec<f64>,
    over: bool,
}

impl Upstream {
    /// The first position, which is also where the server says that it is: receivers begin there.
    pub(crate) const START: Lsn = Lsn(16 << 20);

    /// One that waits for receivers.
    pub(crate) fn new() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
        }
    }

    /// What each receiver gets.
    pub(crate) fn wal() -> GeneratedStream {
        let format = WalFormat {
            system_id: SYSTEM_ID,
            segment_size: SegmentSize::DEFAULT,
            page_magic: None,
            server_version_num: Some(VERSION.0),
        };
        let history = TimelineHistory::without_ancestors(TimelineId::FIRST);
        let generator = Generator::new(format, history, Self::START, 1).unwrap();
        GeneratedStream::new(generator, RecordMix::Varied)
    }

    /// Where receivers connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Serves one client until it goes, at so many bytes a second, or as many as it takes. Gives how
    /// long after each piece was sent the client reported it as flushed, in us; what it had not
    /// reported by its end counts up to that.
    pub(crate) fn serve(&self, bytes_per_s: Option<f64>) -> Vec<f64> {
        loop {
            let (socket, _) = self.listener.accept().unwrap();
            socket.set_nodelay(true).unwrap();
            socket.set_nonblocking(true).unwrap();
            let times = SessionTimes {
                authentication_timeout: Duration::from_secs(60),
                wal_sender_timeout: None,
            };
            let mut stream = Stream {
                socket,
                session: ServerSession::new(Instant::now(), now(), VERSION, times),
                input: BytesMut::new(),
                output: BytesMut::new(),
                wal: Self::wal(),
                header: Bytes::new(),
                piece: BytesMut::with_capacity(LARGEST_PIECE),
                sent: Vec::new(),
                delays: Vec::new(),
                over: false,
            };
            stream.run(bytes_per_s);
            // A receiver may ask for this and that on a connection of its own first.
            if !stream.sent.is_empty() {
                stream.acknowledged(Lsn(u64::MAX));
                return stream.delays;
            }
        }
    }
}

/// Up to where there is WAL so long after the beginning.
fn due(elapsed: Duration, bytes_per_s: Option<f64>) -> Lsn {
    let Some(bytes_per_s) = bytes_per_s else {
        return Lsn(u64::MAX);
    };
    let steps = elapsed.as_millis() / PACE.as_millis();
    let a_step = (bytes_per_s * PACE.as_secs_f64()).round();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of bytes"
    )]
    let due = (a_step * steps as f64) as u64;
    Lsn(Upstream::START.0 + due)
}

impl Stream {
    fn run(&mut self, bytes_per_s: Option<f64>) {
        let mut started = None;
        while !self.over {
            self.read();
            while let Some(event) = self.session.poll_event() {
                self.handle(event);
            }
            let at = self.wal.position();
            let mut due_end = at;
            if self.session.is_sending() {
                let elapsed = started.get_or_insert_with(Instant::now).elapsed();
                due_end = due(elapsed, bytes_per_s);
            }
            if self.is_idle() && at < due_end {
                let length = usize::try_from(due_end.bytes_since(at)).unwrap();
                self.begin_piece(length.min(LARGEST_PIECE));
            }
            let all_sent = self.write();
            if !all_sent || (self.is_idle() && self.wal.position() >= due_end) {
                self.wait(!all_sent);
            }
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        match self.socket.read(&mut buffer) {
            Ok(0) => self.over = true,
            Ok(length) => self.input.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // A client that goes with WAL on its way is cut off.
            Err(_) => self.over = true,
        }
        let handled = self.session.handle_input(Instant::now(), &mut self.input);
        handled.unwrap();
    }

    fn handle(&mut self, event: Event) {
        let session = &mut self.session;
        match event {
            Event::TlsRequested => session.refuse_tls().unwrap(),
            Event::Startup(_) => session.authenticate_trust().unwrap(),
            Event::Authenticated => {
                let parameters = [
                    ("server_version", "15.18"),
                    ("server_encoding", "UTF8"),
                    ("client_encoding", "UTF8"),
                    ("integer_datetimes", "on"),
                    ("in_hot_standby", "off"),
                ];
                let key = Bytes::from_static(b"none");
                session.welcome(parameters, 1, key).unwrap();
            }
            Event::Command(command) => self.answer(&command),
            Event::Status(status) => self.acknowledged(status.flush),
            Event::Terminated => self.over = true,
            _ => {}
        }
    }

    fn answer(&mut self, command: &Command) {
        let session = &mut self.session;
        match command {
            Command::IdentifySystem => {
                let reply = IdentifySystem {
                    system_id: SYSTEM_ID,
                    timeline: TimelineId::FIRST,
                    xlogpos: Upstream::START,
                    dbname: None,
                };
                session.answer(&reply.encode(VERSION)).unwrap();
            }
            Command::Show(name) => {
                let name = name.as_str().to_owned();
                let value = match name.as_str() {
                    "wal_segment_size" => "16MB",
                    "data_directory_mode" => "0700",
                    "wal_block_size" => "8192",
                    "wal_sender_timeout" => "1min",
                    _ => "off",
                };
                let value = value.to_owned();
                session.answer(&Setting { name, value }.encode()).unwrap();
            }
            Command::StartReplication { start, .. } => {
                assert_eq!(*start, Upstream::START, "there is no other WAL");
                let now = Instant::now();
                let begun = session.start_streaming(now, TimelineId::FIRST, *start, None);
                begun.unwrap();
            }
            _ => {
                let refusal = format!("not here: {command}");
                let refusal = ServerMessage::error(SqlState::FEATURE_NOT_SUPPORTED, refusal);
                session.fail(refusal).unwrap();
            }
        }
    }

    fn acknowledged(&mut self, flush: Lsn) {
        let known = self.delays.len();
        let durable = self.sent[known..]
            .iter()
            .take_while(|sent| sent.end <= flush);
        let delays: Vec<f64> = durable
            .map(|sent| sent.at.elapsed().as_secs_f64() * 1e6)
            .collect();
        self.delays.extend(delays);
    }

    /// Whether nothing is on its way.
    fn is_idle(&self) -> bool {
        self.output.is_empty() && self.header.is_empty() && self.piece.is_empty()
    }

    fn begin_piece(&mut self, length: usize) {
        // What the session has to say goes first.
        self.session.poll_transmit(&mut self.output);
        if !self.output.is_empty() {
            return;
        }
        let start = self.wal.position();
        self.piece.clear();
        self.piece.resize(length, 0);
        self.wal.fill(&mut self.piece);
        let header = self
            .session
            .wal_header(Instant::now(), start, length, self.wal.position());
        self.header = Bytes::copy_from_slice(&header.unwrap());
    }

    /// Writes as much as the client takes; whether that was all there was.
    fn write(&mut self) -> bool {
        if self.header.is_empty() && self.piece.is_empty() {
            self.session.poll_transmit(&mut self.output);
        }
        while !self.is_idle() {
            let next = match (&self.output[..], &self.header[..]) {
                ([], []) => &self.piece[..],
                ([], header) => header,
                (output, _) => output,
            };
            match self.socket.write(next) {
                Ok(length) => self.written(length),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => {
                    self.over = true;
                    return true;
                }
            }
        }
        true
    }

    fn written(&mut self, length: usize) {
        if !self.output.is_empty() {
            self.output.advance(length);
        } else if !self.header.is_empty() {
            self.header.advance(length);
        } else {
            self.piece.advance(length);
            if self.piece.is_empty() {
                self.sent.push(Sent {
                    end: self.wal.position(),
                    at: Instant::now(),
                });
            }
        }
    }

    /// Waits for the client to say something, or take something, or for the next step.
    fn wait(&self, to_write: bool) {
        let mut wanted = PollFlags::IN;
        if to_write {
            wanted |= PollFlags::OUT;
        }
        let pause = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(PACE.subsec_nanos()),
        };
        let mut sockets = [PollFd::new(&self.socket, wanted)];
        poll(&mut sockets, Some(&pause)).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{BUFFER_SIZE, Client};

    #[test]
    fn a_client_gets_what_is_made_and_its_reports_are_counted() {
        let upstream = Upstream::new();
        let mut received = Vec::new();
        let delays = std::thread::scope(|scope| {
            let serving = scope.spawn(|| upstream.serve(None));
            let mut client = Client::connect(upstream.address(), "test");
            client.start(TimelineId::FIRST, Upstream::START);
            let mut buffer = vec![0; BUFFER_SIZE];
            while received.len() < 3 << 20 {
                client.read(&mut buffer, |_, wal| received.extend_from_slice(wal));
            }
            client.report();
            drop(client);
            serving.join().unwrap()
        });
        let mut made = vec![0; received.len()];
        Upstream::wal().fill(&mut made);
        assert!(received == made);
        // Others were on their way when the client went.
        assert!(delays.len() >= received.len() / LARGEST_PIECE);
        assert!(delays.iter().all(|&delay| delay > 0.0));
    }

    #[test]
    fn a_steady_rate_brings_a_step_every_millisecond() {
        let due = |micros| {
            let due = due(Duration::from_micros(micros), Some(1e6));
            due.bytes_since(Upstream::START)
        };
        assert_eq!([0, 999, 1_000, 10_500].map(due), [0, 0, 1_000, 10_000]);
    }
}
