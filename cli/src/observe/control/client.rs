//! Asking a process of an archive how it is.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Socket;
use super::document::Document;
use crate::ask_error::AskError;

/// How long a process may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest document that is read, in bytes: many more standbys and slots than there can be.
const MAX_DOCUMENT: u64 = 64 << 20;

/// A connection to a process.
pub(crate) struct Asked {
    path: PathBuf,
    input: BufReader<UnixStream>,
}

impl Asked {
    /// Sends a request; `None` when there is no process.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn send(archive: &Path, socket: Socket, request: &[u8]) -> Result<Option<Self>, AskError> {
        let path = socket.path(archive);
        let connected = socket.connect(archive, PATIENCE).and_then(|stream| {
            let Some(mut stream) = stream else {
                return Ok(None);
            };
            stream.write_all(request)?;
            Ok(Some(stream))
        });
        match connected {
            Ok(stream) => Ok(stream.map(|stream| Self {
                path,
                input: BufReader::new(stream),
            })),
            Err(source) => Err(failed(path, source)),
        }
    }

    /// The next document; `None` when the process has gone or has no room for one more who asks.
    ///
    /// # Errors
    /// When it does not answer, or with something else.
    pub(crate) fn next(&mut self) -> Result<Option<Document>, AskError> {
        let mut line = Vec::new();
        let mut limited = (&mut self.input).take(MAX_DOCUMENT);
        match limited.read_until(b'\n', &mut line) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(source) => return Err(failed(self.path.clone(), source)),
        }
        let document = serde_json::from_slice(&line);
        document.map(Some).map_err(|source| AskError::Answer {
            path: self.path.clone(),
            source,
        })
    }
}

fn failed(path: PathBuf, source: io::Error) -> AskError {
    match source.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => AskError::Silent { path },
        _ => AskError::Io { path, source },
    }
}

/// Has the process at a socket tell how it is, again and again; `None` when there is none.
///
/// # Errors
/// When it cannot be asked.
pub(crate) fn watch(archive: &Path, socket: Socket) -> Result<Option<Asked>, AskError> {
    let Some(asked) = Asked::send(archive, socket, b"watch\n")? else {
        return Ok(None);
    };
    // Nothing need happen for long.
    match asked.input.get_ref().set_read_timeout(None) {
        Ok(()) => Ok(Some(asked)),
        Err(source) => Err(failed(asked.path, source)),
    }
}

/// How the process at a socket is; `None` when there is none.
///
/// # Errors
/// When it cannot be asked, or does not answer.
pub(crate) fn status(archive: &Path, socket: Socket) -> Result<Option<Document>, AskError> {
    match Asked::send(archive, socket, b"status\n")? {
        Some(mut asked) => asked.next(),
        None => Ok(None),
    }
}
