//! A connection to a server: socket and session together.

mod connect;
mod error;
mod notices;
mod password;
mod spares;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};
use walproto::client::{ClientSession, Event, FlushPosition, Positions};
use walproto::command::{Command, SettingName};
use walproto::error::ServerMessage;
use walproto::result::{ResultSet, Setting};
use walproto::{Horizons, ServerVersion};

pub use connect::Address;
pub(crate) use connect::addresses;
pub use error::is_permanent;
pub use error::{Attempt, ConnectError, ConnectFailure, ConnectionError};

use crate::socket::Stream;
use notices::NoticeLimit;
use spares::Spares;

/// The size of the buffers that are read into. WAL that was received is a part of one, without
/// having been copied, and keeps it alive.
const BUFFER_SIZE: usize = 1 << 20;

/// What is free in a buffer at least when it is read into: as much as a server puts into one
/// message (`MAX_SEND_SIZE`). Of a message in two buffers the first part is copied, so small
/// remainders of buffers would cost more than they are worth.
const MIN_READ_SIZE: usize = 128 << 10;

/// How long a server may take to read our farewell.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// An authenticated connection for physical replication.
///
/// To stream WAL, send START_REPLICATION with [`Connection::send`] and then call
/// [`Connection::event`] repeatedly. [`Connection::execute`] is for commands that are answered by a
/// table.
pub struct Connection {
    stream: Stream,
    session: ClientSession,
    server: String,
    host: String,
    port: u16,
    version: ServerVersion,
    input: BytesMut,
    spares: Spares,
    output: BytesMut,
    /// Whether TLS may hold back something that was written.
    unflushed: bool,
    /// Why nothing can be written any more. What the server said last is still read: it tells
    /// more than the broken pipe.
    write_error: Option<io::Error>,
    eof: bool,
    /// How much was read, as the session got it.
    bytes_read: u64,
    /// Why the connection cannot go on, until the events before it have been taken.
    failed: Option<ConnectionError>,
    notices: NoticeLimit,
}

impl Connection {
    /// The server, as it is named in messages: `"db.example" (192.0.2.1), port 5432`.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The server's name or address as the connection string has it, or the directory of its Unix
    /// socket.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The server's port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The server's version, 13 or later.
    #[must_use]
    pub const fn server_version(&self) -> ServerVersion {
        self.version
    }

    /// Sends a command whose answers are events, as START_REPLICATION is. Like all that is sent, it
    /// goes out at the next [`Connection::event`].
    ///
    /// # Errors
    /// When the server cannot execute it, or executes another one.
    pub fn send(&mut self, command: &Command) -> Result<(), ConnectionError> {
        let sent = self.session.execute(Instant::now(), command);
        sent.map_err(ConnectionError::Session)
    }

    /// Reports the receiver's progress with the WAL that is streamed. A change is sent at once.
    pub fn report<F: FlushPosition>(&mut self, positions: Positions<F>) {
        self.session.report(Instant::now(), positions);
    }

    /// Tells the server which transactions are still needed, if WAL is streamed.
    pub fn send_feedback(&mut self, horizons: Horizons) {
        let xid = Option::unwrap_or_default;
        let (xmin, catalog_xmin) = (xid(horizons.xmin), xid(horizons.catalog_xmin));
        self.session
            .send_feedback(Instant::now(), xmin, catalog_xmin);
    }

    /// Ends our side of the stream of WAL, after what was reported.
    pub fn finish_copy(&mut self) {
        self.session.finish_copy(Instant::now());
    }

    /// The server's process for this connection, as it reported it.
    #[must_use]
    pub const fn process_id(&self) -> Option<i32> {
        self.session.process_id()
    }

    /// How many bytes the server has sent since authentication began. What it sent since some
    /// moment bounds the memory that the events since then keep alive, but for one buffer.
    pub const fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// What the server reported about itself, as `in_hot_standby`.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.session.parameter(name)
    }

    /// The next event. Meanwhile all that is to be sent is written, and all that is due is done.
    ///
    /// # Cancel safety
    /// It may be dropped and called again at any time; nothing is lost or sent twice.
    ///
    /// # Errors
    /// When the connection cannot go on. All events before have been returned then.
    pub async fn event(&mut self) -> Result<Event, ConnectionError> {
        loop {
            // An answer must not wait until all events that are there have been taken.
            poll_fn(|cx| match self.poll_write_out(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
            })
            .await?;
            if let Some(event) = self.session.poll_event() {
                return Ok(event);
            }
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            if self.eof {
                return Err(ConnectionError::Closed);
            }
            let deadline = self.session.next_timeout();
            let input_or_output = poll_fn(|cx| self.poll_input(cx));
            tokio::select! {
                biased;
                // What came before the failure is taken first.
                result = input_or_output => self.failed = result.err(),
                () = until(deadline) => {
                    let handled = self.session.handle_timeout(Instant::now());
                    self.failed = handled.err().map(ConnectionError::Session);
                }
            }
        }
    }

    /// Writes all that is to be sent and does what is due, for ever, and reads nothing: for
    /// whoever cannot take any more events at the moment. The server is not taken for gone for
    /// what nobody reads.
    ///
    /// # Cancel safety
    /// It is made to be dropped; nothing is lost or sent twice.
    ///
    /// # Errors
    /// It returns only when the session cannot go on.
    pub async fn tend(&mut self) -> ConnectionError {
        loop {
            // A socket that is broken is met again by whoever reads next.
            let _broken = self.flush().await;
            until(self.session.next_timeout()).await;
            let now = Instant::now();
            self.session.not_listening(now);
            if let Err(error) = self.session.handle_timeout(now) {
                return ConnectionError::Session(error);
            }
        }
    }

    /// An event that is there already. It does not read, write or wait, so it must not take the
    /// place of [`Connection::event`] for long.
    pub fn try_event(&mut self) -> Option<Event> {
        self.session.poll_event()
    }

    /// Executes a command and returns its table, which is empty for one that answers none.
    ///
    /// # Cancel safety
    /// None: a connection whose command was given up half way must be closed.
    ///
    /// # Errors
    /// When the server refuses the command ([`ConnectionError::Failed`]; the connection can go
    /// on), or the connection cannot go on.
    pub async fn execute(&mut self, command: &Command) -> Result<ResultSet, ConnectionError> {
        let failed = |message| ConnectionError::Failed {
            command: command.to_string(),
            message,
        };
        // The server may have said goodbye before it was asked.
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Notice(message) => self.log(&message),
                Event::Failed(message) => return Err(failed(message)),
                _ => {}
            }
        }
        self.session
            .execute(Instant::now(), command)
            .map_err(ConnectionError::Session)?;
        let mut answer = Ok(ResultSet::default());
        loop {
            match self.event().await? {
                Event::Ready => return answer,
                Event::Result(table) => answer = Ok(table),
                Event::Failed(message) => {
                    let ends = message.severity.ends_connection();
                    answer = Err(failed(message));
                    if ends {
                        return answer;
                    }
                }
                Event::Notice(message) => self.log(&message),
                event => {
                    return Err(ConnectionError::UnexpectedEvent {
                        command: command.to_string(),
                        event: Box::new(event),
                    });
                }
            }
        }
    }

    /// Asks for a setting of the server, as `wal_segment_size`.
    ///
    /// # Cancel safety
    /// None, as with [`Connection::execute`].
    ///
    /// # Errors
    /// When the server does not tell, or the connection cannot go on.
    pub async fn show(&mut self, name: &str) -> Result<Setting, ConnectionError> {
        let command = Command::Show(SettingName::new(name)?);
        let table = self.execute(&command).await?;
        Ok(Setting::decode(&table)?)
    }

    /// Writes all that is to be sent.
    ///
    /// # Cancel safety
    /// It may be dropped and called again at any time.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn flush(&mut self) -> Result<(), ConnectionError> {
        poll_fn(|cx| self.poll_write_out(cx)).await?;
        match self.write_error.take() {
            Some(source) => Err(self.broken("writing to", source)),
            None => Ok(()),
        }
    }

    /// Says goodbye, as far as the server listens, and closes the connection.
    pub async fn close(mut self) {
        self.session.terminate(Instant::now());
        let farewell = async {
            if self.flush().await.is_ok() {
                // The other side has gone if this fails, which is what we want.
                let _gone = poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await;
            }
        };
        let _gone = tokio::time::timeout(CLOSE_TIMEOUT, farewell).await;
    }

    /// Whether a notice that has come now is to be reported: a server may send any number.
    pub fn admit_notice(&mut self) -> bool {
        self.notices.admit(Instant::now())
    }

    fn log(&mut self, message: &ServerMessage) {
        if self.admit_notice() {
            tracing::info!(server = %self.server, "{message}");
        }
    }

    /// Reads once, and hands to the session what came.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        // Whether or not it is done, its waker is registered now.
        if let Poll::Ready(Err(error)) = self.poll_write_out(cx) {
            return Poll::Ready(Err(error));
        }
        self.make_room();
        let count = match ready!(pin!(self.stream.read_buf(&mut self.input)).poll(cx)) {
            Ok(count) => count,
            Err(source) => return Poll::Ready(Err(self.broken("reading from", source))),
        };
        self.bytes_read = self.bytes_read.saturating_add(count as u64);
        let now = Instant::now();
        let handled = if count == 0 {
            self.eof = true;
            self.session.handle_eof(now)
        } else {
            self.session.handle_input(now, &mut self.input)
        };
        // A server that never pauses must not keep what is due from being done.
        let due = self.session.next_timeout().is_some_and(|due| due <= now);
        let handled = match handled {
            Ok(()) if due => self.session.handle_timeout(now),
            handled => handled,
        };
        Poll::Ready(match (handled, self.write_error.take()) {
            (Err(_), Some(source)) if count == 0 => Err(self.broken("writing to", source)),
            (Err(error), _) => Err(ConnectionError::Session(error)),
            (Ok(()), write_error) => {
                self.write_error = write_error;
                Ok(())
            }
        })
    }

    /// Writes what there is to write, until it is done or the socket takes no more.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        if self.write_error.is_some() {
            self.session.poll_transmit(&mut self.output);
            self.output.clear();
            return Poll::Ready(Ok(()));
        }
        let written = loop {
            if self.output.is_empty() {
                // Only now, so that statuses for a server that does not read do not pile up.
                self.session.poll_transmit(&mut self.output);
            }
            if self.output.is_empty() {
                break if self.unflushed {
                    let flushed = Pin::new(&mut self.stream).poll_flush(cx);
                    self.unflushed = flushed.is_pending();
                    ready!(flushed)
                } else {
                    Ok(())
                };
            }
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.output)) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.output.advance(count),
                Err(error) => break Err(error),
            }
            self.unflushed = true;
        };
        if let Err(error) = written {
            self.write_error = Some(error);
        }
        Poll::Ready(Ok(()))
    }

    /// Makes room to read into. A buffer that still belongs to events is left to them, and what
    /// has come of an unfinished message moves to the next one.
    fn make_room(&mut self) {
        if self.input.capacity() - self.input.len() >= MIN_READ_SIZE
            || self.input.try_reclaim(BUFFER_SIZE)
        {
            return;
        }
        let mut next = self
            .spares
            .take(BUFFER_SIZE.max(self.input.len() + MIN_READ_SIZE));
        next.extend_from_slice(&self.input);
        self.input.clear();
        self.spares.put(std::mem::replace(&mut self.input, next));
    }

    fn broken(&self, operation: &'static str, source: io::Error) -> ConnectionError {
        ConnectionError::Io {
            operation,
            server: self.server.clone(),
            source,
        }
    }
}

/// Sleeps until a time, or for ever.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod calls;
#[cfg(test)]
mod tests;
