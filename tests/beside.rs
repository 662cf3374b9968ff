//! The sender's session of `walproto` beside a real server: the same bytes go to both, and what
//! they answer is compared.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use bytes::BytesMut;
use walproto::backend::BackendMessage;
use walproto::command::Command;
use walproto::error::{ServerMessage, SqlState};
use walproto::frame::{Frame, Tag};
use walproto::result::{CreatedSlot, IdentifySystem, ResultSet, Setting, SlotInfo};
use walproto::scram::{RAW_NONCE_LENGTH, ScramSecret, ScramVerifier};
use walproto::server::{Event, ServerSession, SessionTimes};
use walproto::{Lsn, PgTimestamp, ServerVersion, TimelineId};

use crate::{Cluster, DEADLINE};

/// A connection to a real server.
struct Server {
    stream: UnixStream,
    input: Vec<u8>,
}

impl Server {
    fn connect(cluster: &Cluster) -> Self {
        let socket = format!(".s.PGSQL.{}", cluster.port());
        let stream = UnixStream::connect(cluster.socket_directory().join(socket)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let input = Vec::new();
        Self { stream, input }
    }

    /// Reads until there are so many bytes; there are fewer at the end of the connection.
    fn fill(&mut self, length: usize) {
        let mut buffer = [0; 4096];
        while self.input.len() < length {
            match self.stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => self.input.extend_from_slice(&buffer[..read]),
                // The server did not read all that it was sent.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn byte(&mut self) -> Option<u8> {
        self.fill(1);
        (!self.input.is_empty()).then(|| self.input.remove(0))
    }

    /// The next message, `None` at the end of the connection.
    fn frame(&mut self) -> Option<Frame> {
        self.fill(5);
        let length = u32::from_be_bytes(self.input.get(1..5)?.try_into().unwrap());
        let length = usize::try_from(length).unwrap() + 1;
        self.fill(length);
        let mut bytes = self
            .input
            .drain(..length)
            .collect::<Vec<_>>()
            .as_slice()
            .into();
        Frame::take(&mut bytes, |_| length).unwrap()
    }

    /// Puts messages back to be read again.
    fn unread(&mut self, frames: &[Frame]) {
        let bytes = frames.iter().map(|frame| message(frame.tag.0, &frame.body));
        self.input.splice(..0, bytes.collect::<Vec<_>>().concat());
    }

    fn message(&mut self) -> Option<BackendMessage> {
        Some(BackendMessage::decode(self.frame()?).unwrap())
    }
}

/// A sender's session and a server, on a connection each. They are told the same, and have to
/// answer the same: the driver of the session answers with what the server answers.
pub struct SessionBesideServer {
    session: ServerSession,
    version: ServerVersion,
    server: Server,
    /// What the session has said and the server not yet.
    expected: BytesMut,
    /// What the client of both has said.
    input: BytesMut,
    name: String,
}

impl SessionBesideServer {
    /// A session of the server's version, and a connection to it. `name` is for failures.
    #[must_use]
    pub fn new(cluster: &Cluster, name: &str) -> Self {
        let times = SessionTimes {
            authentication_timeout: DEADLINE,
            wal_sender_timeout: None,
        };
        let number = cluster.text("SELECT current_setting('server_version_num')");
        let version = ServerVersion(number.unwrap().parse().unwrap());
        Self {
            session: ServerSession::new(Instant::now(), PgTimestamp(0), version, times),
            version,
            server: Server::connect(cluster),
            expected: BytesMut::new(),
            input: BytesMut::new(),
            name: name.to_owned(),
        }
    }

    /// Says what the next bytes are about, for failures.
    pub fn rename(&mut self, name: &str) {
        name.clone_into(&mut self.name);
    }

    /// Sends `bytes` to both, and compares their answers.
    #[track_caller]
    pub fn say(&mut self, bytes: &[u8]) {
        self.server.stream.write_all(bytes).unwrap();
        self.input.extend_from_slice(bytes);
        loop {
            // What is wrong is compared with what the server says.
            let _ = self.session.handle_input(Instant::now(), &mut self.input);
            let event = self.session.poll_event();
            self.session.poll_transmit(&mut self.expected);
            self.compare();
            match event {
                Some(event) => self.answer(&event),
                None => break,
            }
        }
        if self.session.is_over() {
            assert_eq!(self.server.frame(), None, "{}", self.name);
        }
    }

    /// Asks for a session of the role `rep`, of which the session checks the password as the server
    /// does.
    pub fn ask_for_password(&mut self, verifier: &ScramVerifier) {
        let request = packet(0x3_0000, &[("user", "rep"), ("replication", "true")]);
        self.tell(&request);
        let event = self.session.poll_event();
        assert!(matches!(event, Some(Event::Startup(_))), "{event:?}");
        let secret = ScramSecret::from(verifier.clone());
        self.session
            .authenticate_scram(secret, [7; RAW_NONCE_LENGTH], None)
            .unwrap();
        self.session.poll_transmit(&mut self.expected);
        self.compare();
    }

    /// Sends the first message of an exchange to both. They have a nonce of their own each, so
    /// what comes after it is no proof for either.
    pub fn say_with_own_nonces(&mut self, bytes: &[u8]) {
        self.tell(bytes);
        self.session.poll_transmit(&mut self.expected);
        let ours = Frame::take(&mut self.expected, |_| 1000).unwrap().unwrap();
        let theirs = self.server.frame().unwrap();
        let parts = |frame: &Frame| {
            let text = String::from_utf8_lossy(&frame.body).into_owned();
            let (nonce, rest) = text.split_once(",s=").unwrap();
            (frame.tag, nonce.len(), rest.to_owned())
        };
        assert_eq!(parts(&ours), parts(&theirs));
    }

    fn tell(&mut self, bytes: &[u8]) {
        self.server.stream.write_all(bytes).unwrap();
        self.input.extend_from_slice(bytes);
        let told = self.session.handle_input(Instant::now(), &mut self.input);
        told.unwrap();
    }

    /// Answers as the server did: so only what the session adds is compared.
    fn answer(&mut self, event: &Event) {
        match event {
            Event::TlsRequested => self.session.refuse_tls().unwrap(),
            Event::Startup(request) => {
                self.session.authenticate_trust().unwrap();
                self.session.poll_transmit(&mut self.expected);
                assert_eq!(self.session.poll_event(), Some(Event::Authenticated));
                self.compare();
                let mut name = None;
                let key = loop {
                    let message = self.server.message();
                    match message.unwrap_or_else(|| panic!("{}: no answer", self.name)) {
                        BackendMessage::ParameterStatus {
                            name: parameter,
                            value,
                        } => {
                            if parameter == "application_name" {
                                name = Some(value);
                            }
                        }
                        BackendMessage::BackendKeyData { secret_key, .. } => break secret_key,
                        // That a name is too long, which changes nothing.
                        BackendMessage::NoticeResponse(_) => {}
                        other => panic!("{}: {other:?}", self.name),
                    }
                };
                assert_eq!(
                    name.as_ref(),
                    Some(&request.application_name),
                    "{}",
                    self.name
                );
                self.session.welcome([], 1, key).unwrap();
                self.session.poll_transmit(&mut self.expected);
                // The server's key was compared by being taken; ours follows the same rules.
                Frame::take(&mut self.expected, |_| 300).unwrap().unwrap();
                self.compare();
            }
            Event::Command(Command::StartReplication { start, .. }) => self.start(*start),
            Event::Command(command) => self.repeat(command),
            Event::Sql(_) => {
                let text = "cannot execute SQL commands in WAL sender for physical replication";
                let message = ServerMessage::error(SqlState::FEATURE_NOT_SUPPORTED, text);
                self.session.fail(message).unwrap();
            }
            _ => {}
        }
        self.session.poll_transmit(&mut self.expected);
        self.compare();
    }

    /// Gives the session the table that the server answers by, in our own words, or its error.
    fn repeat(&mut self, command: &Command) {
        let mut frames = Vec::new();
        let mut table = None;
        loop {
            let frame = self.server.frame().unwrap();
            frames.push(frame.clone());
            match BackendMessage::decode(frame).unwrap() {
                BackendMessage::RowDescription(columns) => table = Some(ResultSet::new(columns)),
                BackendMessage::DataRow(row) => table.as_mut().unwrap().push_row(row).unwrap(),
                BackendMessage::ErrorResponse(error) => {
                    self.session.fail(*error).unwrap();
                    break;
                }
                BackendMessage::CommandComplete { .. } => {
                    match table {
                        Some(table) => self.session.answer(&self.in_our_words(command, &table)),
                        None => self.session.complete(),
                    }
                    .unwrap();
                    break;
                }
                other => panic!("{}: {other:?}", self.name),
            }
        }
        self.server.unread(&frames);
    }

    fn in_our_words(&self, command: &Command, table: &ResultSet) -> ResultSet {
        match command {
            Command::IdentifySystem => IdentifySystem::decode(table).unwrap().encode(self.version),
            Command::Show(_) => Setting::decode(table).unwrap().encode(),
            Command::ReadReplicationSlot(_) => {
                SlotInfo::encode(SlotInfo::decode(table).unwrap().as_ref())
            }
            Command::CreateReplicationSlot(_) => CreatedSlot::decode(table).unwrap().encode(),
            other => panic!("{}: {other:?}", self.name),
        }
    }

    fn start(&mut self, start: Lsn) {
        let frame = self.server.frame().unwrap();
        self.server.unread(std::slice::from_ref(&frame));
        if frame.tag == Tag(b'W') {
            let now = Instant::now();
            self.session
                .start_streaming(now, TimelineId::FIRST, start, None)
                .unwrap();
            return;
        }
        match BackendMessage::decode(frame).unwrap() {
            BackendMessage::ErrorResponse(error) => self.session.fail(*error).unwrap(),
            other => panic!("{}: {other:?}", self.name),
        }
    }

    /// Compares what the session has said with what the server says next.
    fn compare(&mut self) {
        if self.expected[..] == *b"N" {
            assert_eq!(self.server.byte(), Some(b'N'), "{}", self.name);
            self.expected.clear();
        }
        while let Some(ours) = Frame::take(&mut self.expected, |_| 1 << 20).unwrap() {
            let theirs = self.server.frame();
            let theirs = theirs.unwrap_or_else(|| panic!("{}: no answer, {ours:?}", self.name));
            assert_eq!(theirs.tag, ours.tag, "{}", self.name);
            if ours.tag != Tag(b'E') {
                assert_eq!(theirs.body, ours.body, "{}: {}", self.name, ours.tag);
                continue;
            }
            let error = |frame| match BackendMessage::decode(frame).unwrap() {
                BackendMessage::ErrorResponse(error) => error,
                other => panic!("{other:?}"),
            };
            let (ours, theirs) = (error(ours), error(theirs));
            assert_eq!(
                ours.sqlstate, theirs.sqlstate,
                "{}: {ours} {theirs}",
                self.name
            );
            assert_eq!(
                ours.severity, theirs.severity,
                "{}: {ours} {theirs}",
                self.name
            );
            // Of a command that is none, we say where it stops being one.
            if ours.sqlstate != SqlState::SYNTAX_ERROR && !self.name.starts_with("malformed") {
                // 13 still had what was before.
                let theirs_now = theirs.message.replace("supports 2.0", "supports 3.0");
                assert_eq!(ours.message, theirs_now, "{}", self.name);
                assert_eq!(ours.hint, theirs.hint, "{}", self.name);
            }
        }
    }

    /// Ends both, and makes sure that the server has nothing more to say.
    pub fn end(mut self) {
        if !self.session.is_over() {
            self.say(b"X\0\0\0\x04");
        }
    }
}

/// A startup packet with a version and parameters.
#[must_use]
pub fn packet(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for text in parameters.iter().flat_map(|(name, value)| [name, value]) {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap();
    [&length.to_be_bytes()[..], &body].concat()
}

/// A message.
#[must_use]
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// A message with a command.
#[must_use]
pub fn query(text: &str) -> Vec<u8> {
    message(b'Q', &[text.as_bytes(), b"\0"].concat())
}
