//! The thread that answers who asks.

use std::io;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{self, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::document::Failure;
use super::socket::BoundSocket;
use super::{Control, Socket};

/// How many may ask at a time. One more is closed at once.
const MAX_CLIENTS: usize = 64;

/// The longest request, with its line's end.
const MAX_REQUEST: u64 = 64;

/// How long a client may take to ask, and to take a document.
const PATIENCE: Duration = Duration::from_secs(5);

/// The shortest time between two documents for one who watches.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// How long is waited before the next connection is accepted after the system had no room for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that is not listened at.
#[derive(Debug, thiserror::Error)]
#[error("could not listen at \"{}\", so that \"status\" cannot ask this process", path.display())]
pub(crate) struct ListenError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Answers those who ask as long as it lives.
#[derive(Debug)]
pub(crate) struct Listening {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    socket: Socket,
    archive: PathBuf,
    bound: BoundSocket,
}

impl Listening {
    /// Answers those who ask at a socket of `archive`, whose lock the caller holds.
    pub(crate) fn start(
        control: Control,
        archive: &Path,
        socket: Socket,
    ) -> Result<Self, ListenError> {
        Self::try_start(control, archive, socket).map_err(|source| ListenError {
            path: socket.path(archive),
            source,
        })
    }

    fn try_start(control: Control, archive: &Path, socket: Socket) -> io::Result<Self> {
        let listener = socket.bind(archive)?;
        let bound = socket.bound(archive)?;
        listener.set_nonblocking(true)?;
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = {
            let _within = runtime.enter();
            UnixListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || run(&runtime, &listener, &control, stopped))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
            socket,
            archive: archive.to_owned(),
            bound,
        })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // It ends as soon as the other end is gone.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            let _ = thread.join();
        }
        // One that stays is replaced by the next process.
        let _ = self.socket.remove(&self.archive, self.bound);
    }
}

fn run(
    runtime: &Runtime,
    listener: &UnixListener,
    control: &Control,
    stopped: oneshot::Receiver<()>,
) {
    runtime.block_on(async {
        tokio::select! {
            _ = stopped => {}
            () = accept(listener, control) => {}
        }
    });
}

async fn accept(listener: &UnixListener, control: &Control) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) if clients.len() < MAX_CLIENTS => {
                    clients.spawn(answer(client, control.clone()));
                }
                Ok(_) => {}
                Err(_no_room) => sleep(ACCEPT_PAUSE).await,
            },
            // How it ended is the client's affair.
            Some(_) = clients.join_next() => {}
        }
    }
}

/// Answers a client. What it does not take in time ends it, as does whatever goes wrong.
async fn answer(client: UnixStream, control: Control) -> io::Result<()> {
    let (input, mut output) = client.into_split();
    let mut input = BufReader::new(input.take(MAX_REQUEST));
    let mut request = Vec::new();
    timeout(PATIENCE, input.read_until(b'\n', &mut request)).await??;
    match request.trim_ascii_end() {
        b"status" => send(&mut output, &control.document()).await,
        b"watch" => {
            let mut gone = input.into_inner().into_inner();
            let mut byte = [0];
            tokio::select! {
                ended = watch(&mut output, &control) => ended,
                // Nothing more is to be asked.
                _ = gone.read(&mut byte) => Ok(()),
            }
        }
        _ => {
            let failure = Failure {
                error: "unknown request, expected status or watch",
            };
            send(&mut output, &failure).await
        }
    }
}

async fn watch(output: &mut (impl AsyncWriteExt + Unpin), control: &Control) -> io::Result<()> {
    let mut changes = control.changes();
    loop {
        send(output, &control.document()).await?;
        sleep(WATCH_INTERVAL).await;
        changes.changed().await;
    }
}

async fn send(
    output: &mut (impl AsyncWriteExt + Unpin),
    document: &impl serde::Serialize,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(document)?;
    line.push(b'\n');
    timeout(PATIENCE, output.write_all(&line)).await?
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader as StdReader, Read, Write};
    use std::os::unix::net::UnixStream as StdStream;

    use segstore::OWN_DIRECTORY;

    use super::*;

    fn ask(archive: &Path, request: &[u8]) -> StdStream {
        let client = Socket::Serve.connect(archive, Duration::from_secs(60));
        let mut client = client.unwrap().unwrap();
        // One who is not listened to any more may not be able to say all.
        let _ = client.write_all(request);
        client
    }

    fn line(client: &StdStream) -> String {
        let mut line = String::new();
        StdReader::new(client).read_line(&mut line).unwrap();
        line
    }

    #[test]
    fn whatever_is_asked_others_are_answered() {
        let directory = tempfile::tempdir().unwrap();
        let archive = directory.path();
        std::fs::create_dir(archive.join(OWN_DIRECTORY)).unwrap();
        let control = Control::new(None);
        let listening = Listening::start(control, archive, Socket::Serve).unwrap();
        let nothing = "{\"receiver\":null,\"server\":null}\n";
        let silent = ask(archive, b"");
        for garbage in [&b"\0\xff\n"[..], b"STATUS\n", &[b'x'; 5000], b"status x\n"] {
            let answered = line(&ask(archive, garbage));
            assert!(answered.contains("unknown request"), "{answered}");
        }
        assert_eq!(line(&ask(archive, b"status\n")), nothing);
        let watching = ask(archive, b"watch\n");
        assert_eq!(line(&watching), nothing);
        drop(listening);
        // All are closed with it.
        let mut rest = Vec::new();
        for mut client in [silent, watching] {
            let _ = client.read_to_end(&mut rest);
        }
        assert!(rest.is_empty());
        let after = Socket::Serve.connect(archive, Duration::from_secs(60));
        assert!(after.unwrap().is_none());
    }

    #[test]
    fn one_too_many_is_closed_and_room_is_made_by_who_leaves() {
        let directory = tempfile::tempdir().unwrap();
        let archive = directory.path();
        std::fs::create_dir(archive.join(OWN_DIRECTORY)).unwrap();
        let control = Control::new(None);
        let _listening = Listening::start(control, archive, Socket::Serve).unwrap();
        let watching: Vec<_> = (0..MAX_CLIENTS).map(|_| ask(archive, b"watch\n")).collect();
        for client in &watching {
            assert_ne!(line(client), "");
        }
        let mut refused = Vec::new();
        let _closed = ask(archive, b"status\n").read_to_end(&mut refused);
        assert!(refused.is_empty());
        drop(watching);
        loop {
            let mut answered = Vec::new();
            let _closed = ask(archive, b"status\n").read_to_end(&mut answered);
            if !answered.is_empty() {
                break;
            }
        }
    }
}
