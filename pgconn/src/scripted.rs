//! A server that follows a script, behind a Unix socket: for the tests of this crate and of those
//! that use it.
//!
//! What does not go as the test expects is a panic.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "it is a part of tests"
)]

use std::future::Future;
use std::sync::Mutex;

use bytes::{Bytes, BytesMut};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{ReadHalf, WriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use walproto::client::FlushPosition;
use walproto::copy_data::{PrimaryKeepalive, ReceiverMessage, StandbyStatusUpdate, XLogData};
use walproto::{Lsn, PgTimestamp};

use crate::conninfo::{ConnectionConfig, Overrides};

/// One tagged message of a server.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

/// An authentication message with a code, as `AuthenticationOk` is with 0.
pub fn authentication(code: u32) -> Vec<u8> {
    message(b'R', &code.to_be_bytes())
}

/// An ErrorResponse.
pub fn error(severity: &str, sqlstate: &str) -> Vec<u8> {
    message(
        b'E',
        format!("S{severity}\0V{severity}\0C{sqlstate}\0Mno\0\0").as_bytes(),
    )
}

/// What a server says once it lets us in.
pub fn welcome(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = authentication(0);
    for (name, value) in parameters {
        bytes.extend(message(b'S', format!("{name}\0{value}\0").as_bytes()));
    }
    bytes.extend(message(b'Z', b"I"));
    bytes
}

/// What a test claims to be flushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claimed(pub Lsn);

impl FlushPosition for Claimed {
    fn lsn(self) -> Lsn {
        self.0
    }

    fn at_most(self, limit: Lsn) -> Self {
        Self(self.0.min(limit))
    }
}

/// The parameter by which a server of version 15 tells its version.
pub const V15: (&str, &str) = ("server_version", "15.18");

/// Reads a message without a tag, as the startup packet is, and returns its body.
pub async fn read_startup(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let length = stream.read_u32().await.unwrap();
    let mut body = vec![0; usize::try_from(length).unwrap() - 4];
    stream.read_exact(&mut body).await.unwrap();
    body
}

/// Reads a message and returns its tag and its body.
pub async fn read_message(stream: &mut (impl AsyncReadExt + Unpin)) -> (u8, Vec<u8>) {
    let tag = stream.read_u8().await.unwrap();
    (tag, read_startup(stream).await)
}

/// A server behind a Unix socket that treats each connection by the same script.
pub struct Server {
    directory: TempDir,
    task: JoinHandle<()>,
}

impl Server {
    /// A server that treats each connection by `script`.
    pub fn start<F>(script: impl Fn(UnixStream) -> F + 'static + Send) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join(".s.PGSQL.5432")).unwrap();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(script(stream));
            }
        });
        Self { directory, task }
    }

    /// A server that answers the startup packet by `answer` and then waits.
    pub fn answering(answer: Vec<u8>) -> Self {
        Self::start(move |mut stream| {
            let answer = answer.clone();
            async move {
                read_startup(&mut stream).await;
                stream.write_all(&answer).await.unwrap();
                let _closed_by_client = stream.read(&mut [0; 64]).await;
            }
        })
    }

    /// A server that lets in whoever comes; what it says then is up to the test.
    pub fn welcoming() -> (Self, mpsc::UnboundedReceiver<Sender>) {
        Self::welcoming_some(Vec::new())
    }

    /// A server that answers the first connections by `answers`, if there is one, and
    /// closes them; it lets in all others.
    pub fn welcoming_some(
        answers: Vec<Option<Vec<u8>>>,
    ) -> (Self, mpsc::UnboundedReceiver<Sender>) {
        Self::welcoming_by(answers, V15)
    }

    /// A server that lets in all connections and reports `version`.
    pub fn welcoming_as(
        version: (&'static str, &'static str),
    ) -> (Self, mpsc::UnboundedReceiver<Sender>) {
        Self::welcoming_by(Vec::new(), version)
    }

    fn welcoming_by(
        answers: Vec<Option<Vec<u8>>>,
        version: (&'static str, &'static str),
    ) -> (Self, mpsc::UnboundedReceiver<Sender>) {
        let (senders, welcomed) = mpsc::unbounded_channel();
        let answers = Mutex::new(answers.into_iter());
        let server = Self::start(move |mut stream| {
            let senders = senders.clone();
            let answer = answers.lock().unwrap().next().flatten();
            async move {
                read_startup(&mut stream).await;
                if let Some(answer) = answer {
                    return stream.write_all(&answer).await.unwrap();
                }
                stream.write_all(&welcome(&[version])).await.unwrap();
                // A test that has ended has no use for it.
                let _ended = senders.send(Sender { stream });
            }
        });
        (server, welcomed)
    }

    /// The directory of its socket.
    pub fn host(&self) -> &str {
        self.directory.path().to_str().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The server's end of a connection that streams WAL.
pub struct Sender {
    stream: UnixStream,
}

impl Sender {
    /// What the receiver asks for.
    pub async fn query(&mut self) -> String {
        let (tag, mut text) = read_message(&mut self.stream).await;
        assert_eq!((tag, text.pop()), (b'Q', Some(0)));
        String::from_utf8(text).unwrap()
    }

    /// The same, or `None` when the receiver is gone.
    pub async fn next_query(&mut self) -> Option<String> {
        if self.stream.read_u8().await.ok()? != b'Q' {
            return None;
        }
        let mut text = read_startup(&mut self.stream).await;
        assert_eq!(text.pop(), Some(0));
        Some(String::from_utf8(text).unwrap())
    }

    /// Sends bytes.
    pub async fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Begins a stream.
    pub async fn copy_both(&mut self) {
        self.say(&message(b'W', b"\0\0\0")).await;
    }

    /// Sends a keepalive.
    pub async fn keepalive(&mut self, wal_end: Lsn, reply_requested: bool) {
        let mut bytes = BytesMut::new();
        PrimaryKeepalive {
            wal_end,
            sent_at: PgTimestamp(0),
            reply_requested,
        }
        .encode(&mut bytes);
        self.say(&bytes).await;
    }

    /// Sends WAL.
    pub async fn wal(&mut self, start: Lsn, wal: &[u8]) {
        self.say(&xlog_data(start, wal)).await;
    }

    /// The receiver's next status update.
    pub async fn status(&mut self) -> StandbyStatusUpdate {
        next_status(&mut self.stream).await
    }

    /// The receiver's next message of those that are exchanged while WAL is streamed.
    pub async fn said(&mut self) -> ReceiverMessage {
        let (tag, body) = read_message(&mut self.stream).await;
        assert_eq!(tag, b'd');
        ReceiverMessage::decode(Bytes::from(body)).unwrap()
    }

    /// Takes the receiver's next message; `false` when it ends its side of the stream.
    pub async fn goes_on(&mut self) -> bool {
        let (tag, _) = read_message(&mut self.stream).await;
        assert!(matches!(tag, b'd' | b'c'), "{tag}");
        tag == b'd'
    }

    /// Waits for the end of the receiver's side of the stream.
    pub async fn copy_done(&mut self) {
        let (tag, _) = read_message(&mut self.stream).await;
        assert_eq!(tag, b'c');
    }

    /// The two directions, to be used at the same time.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        self.stream.split()
    }
}

/// WAL in messages of 128 KiB, as servers send it.
pub fn xlog_data(start: Lsn, wal: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    let mut start = start;
    for piece in wal.chunks(128 << 10) {
        let end = Lsn(start.0 + piece.len() as u64);
        XLogData {
            start,
            wal_end: end,
            sent_at: PgTimestamp(0),
            data: Bytes::copy_from_slice(piece),
        }
        .encode(&mut bytes)
        .unwrap();
        start = end;
    }
    bytes.to_vec()
}

/// The next message from a receiver, which has to be a status update.
pub async fn next_status(stream: &mut (impl AsyncReadExt + Unpin)) -> StandbyStatusUpdate {
    let (tag, body) = read_message(stream).await;
    match (tag, ReceiverMessage::decode(Bytes::from(body))) {
        (b'd', Ok(ReceiverMessage::StatusUpdate(update))) => update,
        other => panic!("{other:?}"),
    }
}

/// Reads a connection string with a user, and without the environment.
pub fn config(conninfo: &str) -> ConnectionConfig {
    let overrides = Overrides {
        fallback_application_name: "wal_receiver".to_owned(),
        ..Overrides::default()
    };
    let text = format!("user=me {conninfo}");
    ConnectionConfig::from_sources(Some(&text), &overrides, &|_| None).unwrap()
}
