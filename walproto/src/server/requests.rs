//! What a driver asks of a session.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::ServerSession;
use super::commands::Running;
use super::error::ServerError;
use super::event::Event;
use super::opening::{Asked, Encryption};
use super::state::{Side, State};
use super::streaming::{Due, Stream};
use crate::backend::{AuthenticationRequest, BackendMessage, encode_result_set};
use crate::copy_data::{XLogData, XLogDataTooLong};
use crate::error::{ServerMessage, Severity, SqlState};
use crate::result::{ResultSet, TimelineEnd};
use crate::startup::{MAX_CANCEL_KEY_LENGTH, ProtocolVersion};
use crate::{Lsn, TimelineId};

/// The bytes of a message with WAL that come before the WAL.
pub const WAL_HEADER_LENGTH: usize = XLogData::FRAMED_HEADER_LENGTH;

impl ServerSession {
    /// Answers [`Event::TlsRequested`]: the driver sends the one byte that there is for
    /// transmission, and begins the TLS handshake. What is read afterwards is what TLS carried.
    ///
    /// # Errors
    /// When nobody asks for TLS.
    pub fn accept_tls(&mut self) -> Result<(), ServerError> {
        let State::TlsAsked(_) = self.state else {
            return Err(self.misuse("accept_tls"));
        };
        self.output.extend_from_slice(b"S");
        self.state = State::Opening(Encryption {
            tls: Asked::Answered,
            gss: Asked::Answered,
        });
        Ok(())
    }

    /// Answers [`Event::TlsRequested`]: there is no TLS here. The client goes on without it, or
    /// goes away.
    ///
    /// # Errors
    /// When nobody asks for TLS.
    pub fn refuse_tls(&mut self) -> Result<(), ServerError> {
        let State::TlsAsked(encryption) = self.state else {
            return Err(self.misuse("refuse_tls"));
        };
        self.output.extend_from_slice(b"N");
        let tls = Asked::Answered;
        self.state = State::Opening(Encryption { tls, ..encryption });
        Ok(())
    }

    /// Answers [`Event::Startup`]: the client is who it says it is, without more of it.
    /// [`Event::Authenticated`] follows.
    ///
    /// # Errors
    /// When the client does not wait for it.
    pub fn authenticate_trust(&mut self) -> Result<(), ServerError> {
        if !matches!(self.state, State::Admitting { .. }) {
            return Err(self.misuse("authenticate_trust"));
        }
        self.authenticated();
        Ok(())
    }

    pub(super) fn authenticated(&mut self) {
        self.put(&BackendMessage::Authentication(AuthenticationRequest::Ok));
        self.state = State::Authenticated;
        self.events.push_back(Event::Authenticated);
    }

    /// Ends the session by an error, whatever it is doing; the error's severity is made FATAL.
    /// Nothing happens if it is over already.
    pub fn reject(&mut self, mut message: ServerMessage) {
        if self.is_over() {
            return;
        }
        message.severity = message.severity.max(Severity::Fatal);
        self.put_error(message);
        self.state = State::Closed;
    }

    /// Answers [`Event::Authenticated`]: the parameters of the server, the identifier of the
    /// process that serves the connection, and the key to cancel with, which has four bytes in
    /// protocol 3.0 and up to 256 from 3.2 on. Then the client may send commands.
    ///
    /// The identifier has to differ from those of other connections: a standby makes the name of
    /// its temporary slot of it.
    ///
    /// # Errors
    /// When the client does not wait for it, or the key does not fit the client's protocol.
    pub fn welcome<'a>(
        &mut self,
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
        process_id: i32,
        secret_key: Bytes,
    ) -> Result<(), ServerError> {
        if !matches!(self.state, State::Authenticated) {
            return Err(self.misuse("welcome"));
        }
        let (lengths, expected) = if self.protocol >= ProtocolVersion::V3_2 {
            (4..=MAX_CANCEL_KEY_LENGTH, "4 to 256 bytes")
        } else {
            (4..=4, "4 bytes")
        };
        if !lengths.contains(&secret_key.len()) {
            let found = secret_key.len();
            return Err(ServerError::SecretKeyLength { expected, found });
        }
        let mut messages = BytesMut::new();
        for (name, value) in parameters {
            let (name, value) = (name.to_owned(), value.to_owned());
            BackendMessage::ParameterStatus { name, value }.encode(&mut messages)?;
        }
        BackendMessage::BackendKeyData {
            process_id,
            secret_key,
        }
        .encode(&mut messages)?;
        self.output.extend_from_slice(&messages);
        self.ready();
        Ok(())
    }

    /// Changes the time after which a silent client is taken for dead, as a client may do for its
    /// own connection, and an administrator for all.
    pub const fn set_wal_sender_timeout(&mut self, timeout: Option<Duration>) {
        self.times.wal_sender_timeout = timeout;
    }

    /// Answers [`Event::Command`] by a table.
    ///
    /// # Errors
    /// When no command waits for an answer, or the table does not fit into messages.
    pub fn answer(&mut self, table: &ResultSet) -> Result<(), ServerError> {
        let State::Executing(running) = self.state else {
            return Err(self.misuse("answer"));
        };
        let mut messages = BytesMut::new();
        encode_result_set(table, &mut messages)?;
        self.output.extend_from_slice(&messages);
        self.complete_running(running);
        Ok(())
    }

    /// Answers [`Event::Command`]: it is done.
    ///
    /// # Errors
    /// When no command waits for an answer.
    pub fn complete(&mut self) -> Result<(), ServerError> {
        let State::Executing(running) = self.state else {
            return Err(self.misuse("complete"));
        };
        self.complete_running(running);
        Ok(())
    }

    /// Answers [`Event::Command`] or [`Event::Sql`] by an error, or ends a stream by one; the
    /// error's severity is made ERROR, and the client may send the next command. In a shutdown,
    /// the session is over ([`Event::Stopped`]).
    ///
    /// # Errors
    /// When no command waits for an answer, and no WAL is streamed.
    pub fn fail(&mut self, mut message: ServerMessage) -> Result<(), ServerError> {
        message.severity = Severity::Error;
        match self.state {
            State::Executing(_) | State::Streaming(_) | State::ServerDone(_) => {
                self.put_error(message);
                self.ready();
            }
            State::Stopping { .. } => {
                self.put_error(message);
                self.stopped();
            }
            _ => return Err(self.misuse("fail")),
        }
        Ok(())
    }

    /// Answers START_REPLICATION by a stream of WAL of `timeline` that begins at `start`. `end` is
    /// what follows the timeline, if that is known by now: the client is told when it ends the
    /// stream itself, too.
    ///
    /// # Errors
    /// When START_REPLICATION does not wait for an answer.
    pub fn start_streaming(
        &mut self,
        now: Instant,
        timeline: TimelineId,
        start: Lsn,
        end: Option<TimelineEnd>,
    ) -> Result<(), ServerError> {
        self.now = now;
        if !matches!(self.state, State::Executing(Running::StartReplication)) {
            return Err(self.misuse("start_streaming"));
        }
        self.put(&BackendMessage::CopyBothResponse {
            format: 0,
            columns: Vec::new(),
        });
        self.state = State::Streaming(Stream::new(timeline, start, end, now));
        Ok(())
    }

    /// Answers START_REPLICATION of a timeline that ends where the client wants to start: there is
    /// nothing to stream, and the client may send the next command.
    ///
    /// # Errors
    /// When START_REPLICATION does not wait for an answer.
    pub fn timeline_already_ended(&mut self, end: TimelineEnd) -> Result<(), ServerError> {
        if !matches!(self.state, State::Executing(Running::StartReplication)) {
            return Err(self.misuse("timeline_already_ended"));
        }
        self.put_stream_end(Some(end));
        Ok(())
    }

    /// The beginning of a message with `length` bytes of WAL from `start` on; `wal_end` is how far
    /// the WAL reaches here. The driver sends these bytes and then the WAL, and nothing between
    /// them. They count as sent from now on.
    ///
    /// # Errors
    /// When no WAL can be sent, or something else has to be sent first
    /// ([`poll_transmit`](Self::poll_transmit)), `start` is not the end of what was sent before,
    /// or the WAL is too long for one message.
    pub fn wal_header(
        &mut self,
        now: Instant,
        start: Lsn,
        length: usize,
        wal_end: Lsn,
    ) -> Result<[u8; WAL_HEADER_LENGTH], ServerError> {
        self.now = now;
        let sent_at = self.time_of_day();
        if !self.is_sending() {
            return Err(self.misuse("wal_header"));
        }
        if !self.output.is_empty() {
            return Err(self.misuse("wal_header before poll_transmit"));
        }
        let misuse = self.misuse("wal_header");
        let Some(stream) = self.state.stream_mut() else {
            return Err(misuse);
        };
        if start != stream.sent() {
            return Err(ServerError::Discontinuous {
                timeline: stream.timeline(),
                sent: stream.sent(),
                found: start,
            });
        }
        let header = XLogData::header(start, wal_end, sent_at, length)?;
        let end = u64::try_from(length)
            .ok()
            .and_then(|length| start.checked_add(length));
        stream.advance(end.ok_or(XLogDataTooLong { length })?);
        // In a shutdown this may be the last piece, after which the client is asked.
        self.stop_if_replicated();
        Ok(header)
    }

    /// Sends a keepalive, of which a client that is caught up learns that it is; with
    /// `reply_requested` the client answers by a status update at once.
    ///
    /// # Errors
    /// When no WAL is streamed.
    pub fn keepalive(&mut self, now: Instant, reply_requested: bool) -> Result<(), ServerError> {
        self.now = now;
        let misuse = self.misuse("keepalive");
        let stream = self.state.stream_mut().ok_or(misuse)?;
        if reply_requested {
            stream.ping(now);
        } else {
            stream.make_due(Due::Keepalive);
        }
        Ok(())
    }

    /// Ends our side of the stream, because the timeline ends where was sent up to; `end` is what
    /// follows it. Once the client has ended its side too, it is told, and may send the next
    /// command ([`Event::CopyFinished`]). In a shutdown, the session goes on to its end.
    ///
    /// # Errors
    /// When no WAL can be sent.
    pub fn end_timeline(&mut self, end: TimelineEnd) -> Result<(), ServerError> {
        if !self.is_sending() {
            return Err(self.misuse("end_timeline"));
        }
        self.put_copy_done();
        match std::mem::replace(&mut self.state, State::Broken) {
            State::Streaming(mut stream) => {
                stream.end = Some(end);
                self.state = State::ServerDone(stream);
            }
            State::Stopping { stream, .. } => {
                self.state = State::Stopping {
                    until: stream.sent(),
                    stream,
                    our_side: Side::Done,
                };
                self.stop_if_replicated();
            }
            other => self.state = other,
        }
        Ok(())
    }

    /// Shuts the session down. A stream goes on up to `final_lsn`, which the driver still has to
    /// send, and ends once the client has reported all of it ([`Event::Stopped`]); until then the
    /// client is asked for reports, one at a time. Any other session ends at once: by an error, if
    /// the client has said who it is.
    pub fn begin_shutdown(&mut self, now: Instant, final_lsn: Lsn) {
        self.now = now;
        match std::mem::replace(&mut self.state, State::Broken) {
            State::Streaming(stream) => {
                self.state = State::Stopping {
                    stream,
                    until: final_lsn,
                    our_side: Side::Open,
                };
                self.stop_if_replicated();
            }
            State::ServerDone(stream) => {
                self.state = State::Stopping {
                    until: stream.sent(),
                    stream,
                    our_side: Side::Done,
                };
                self.stop_if_replicated();
            }
            other => {
                self.state = other;
                match self.state {
                    State::Stopping { .. } => {}
                    State::Opening(_) | State::TlsAsked(_) => self.state = State::Closed,
                    _ => self.reject(ServerMessage::fatal(
                        SqlState::ADMIN_SHUTDOWN,
                        "terminating connection due to administrator command",
                    )),
                }
            }
        }
    }

    /// In a shutdown, ends the session if the client has all WAL, and asks it if it has not said
    /// so. `COPY 0` is what tells a receiver that the server stops.
    ///
    /// Source: src/backend/replication/walsender.c, `WalSndDone` (PG 15).
    pub(super) fn stop_if_replicated(&mut self) {
        let now = self.now;
        let State::Stopping { stream, until, .. } = &mut self.state else {
            return;
        };
        if stream.is_replicated(*until) {
            self.put_complete("COPY 0");
            self.stopped();
        } else if stream.sent() >= *until {
            stream.ping(now);
        }
    }
}
