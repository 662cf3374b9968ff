//! A sender's session with a receiver of WAL: from the first packet to the end, without a socket
//! or a clock.
//!
//! Source: the PostgreSQL manual, "Streaming Replication Protocol"; src/backend/postmaster,
//! postmaster.c, and src/backend/replication, walsender.c (PG 15).

mod authentication;
mod commands;
mod error;
mod event;
mod limits;
mod opening;
mod options;
mod requests;
mod state;
mod streaming;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::BytesMut;

pub use error::ServerError;
pub use event::{Event, ReplicationMode, StartupRequest};
pub use limits::{MAX_COMMAND_LENGTH, MAX_SASL_LENGTH, MAX_SMALL_LENGTH, MAX_WAITING_LENGTH};
pub use requests::WAL_HEADER_LENGTH;

use crate::error::{ServerMessage, SqlState};
use crate::frame::{Frame, Tag};
use crate::frontend::FrontendMessage;
use crate::startup::{InitialPacket, ProtocolVersion};
use crate::{Lsn, PgTimestamp, ServerVersion, StandbyProgress, TimelineId};
use limits::MAX_OUTPUT_LENGTH;
use opening::Encryption;
use state::State;

/// How long a session waits for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionTimes {
    /// The time from the beginning to the [welcome](ServerSession::welcome): whoever is not
    /// authenticated by then is disconnected (`authentication_timeout`).
    pub authentication_timeout: Duration,
    /// After half of this time without a message from a client that WAL is streamed to, it is
    /// asked for one, and after the other half it is taken for dead (`wal_sender_timeout`).
    /// `None`: never.
    pub wal_sender_timeout: Option<Duration>,
}

/// A sender's session with a receiver of WAL.
///
/// The session does no input or output. Its driver
///
/// 1. calls [`handle_input`](Self::handle_input) with all bytes read so far, whenever there are
///    more, and with those that it has left after each call of its own that answers an
///    [`Event`] and each transmission,
///    [`handle_eof`](Self::handle_eof) at their end, and
///    [`handle_timeout`](Self::handle_timeout) once the time of
///    [`next_timeout`](Self::next_timeout) has come (input that is there goes first),
/// 2. takes every [`Event`] with [`poll_event`](Self::poll_event) and answers those that say so,
/// 3. and after each of these, and after each call of its own, writes what
///    [`poll_transmit`](Self::poll_transmit) appends to its buffer. It need not ask as long as
///    that buffer is not written: what is due is kept, and hardly grows.
///
/// After an error of a `handle_` call, and once the session [is over](Self::is_over), it writes
/// what there still is for transmission, and closes the connection. An error of another call is
/// the driver's own; the session goes on as if it had not been made.
///
/// WAL is sent past the session, without a copy: the driver gets the first bytes of a message
/// from [`wal_header`](Self::wal_header) and sends them, then the WAL.
///
/// ```text
///            +--accept_tls, refuse_tls--+
///            v                          |
///         opening ----SSLRequest---> tls asked
///            | startup packet
///            v
///         admitting ------authenticate_trust-----> authenticated
///            | authenticate_scram                    ^ | welcome
///            v                                       | |
///      authenticating --------right proof------------+ v
///    skipping <--extended query-- idle <---------------+---------------+
///        +-----------Sync----------^ |                                 |
///                                    +--Query--> executing --answer----+
///                                                 |  |   complete      |
///                             start_streaming-----+  |   fail          |
///                                   |                +--timeline_-----+|
///                                   v                   already_ended  |
///                               streaming --CopyDone, fail-------------+
///                                | |                                   |
///                                | +--end_timeline--> server done --CopyDone, fail
///                                |                        |
///                                +----begin_shutdown------+--> stopping --> over
/// ```
///
/// Any state but the last ones can be ended by [`reject`](Self::reject), by the end of the
/// connection, and by an error. A message that a state does not list is an error that names both,
/// and the session is over.
pub struct ServerSession {
    state: State,
    events: VecDeque<Event>,
    /// What is to be sent before any keepalive that is due.
    output: BytesMut,
    /// The version of PostgreSQL that the session behaves as.
    version: ServerVersion,
    protocol: ProtocolVersion,
    times: SessionTimes,
    /// The point at which both clocks were read.
    clock: (Instant, PgTimestamp),
    /// The time of the last call.
    now: Instant,
    /// When the session began.
    opened_at: Instant,
    /// How many bytes the last input left over.
    left_over: usize,
}

impl ServerSession {
    /// A session at its beginning, that behaves as a PostgreSQL server of the version.
    ///
    /// `wall_clock` is the time of day at `now`. The time of day of later messages is computed
    /// from it, so that a step of the system's clock is not seen; only people look at it.
    #[must_use]
    pub fn new(
        now: Instant,
        wall_clock: PgTimestamp,
        version: ServerVersion,
        times: SessionTimes,
    ) -> Self {
        Self {
            state: State::Opening(Encryption::default()),
            events: VecDeque::new(),
            output: BytesMut::new(),
            version,
            protocol: ProtocolVersion::V3_0,
            times,
            clock: (now, wall_clock),
            now,
            opened_at: now,
            left_over: 0,
        }
    }

    /// Takes whole messages off the front of `input`, up to one that the driver has to answer
    /// first; the driver keeps the rest and appends to it.
    ///
    /// What is left in `input` never grows beyond [`MAX_WAITING_LENGTH`] and one read of the
    /// driver. Once the session is over, `input` is thrown away.
    ///
    /// # Errors
    /// When the client breaks the protocol, or is refused. Events of the messages before that one
    /// can still be taken; the session is over.
    pub fn handle_input(&mut self, now: Instant, input: &mut BytesMut) -> Result<(), ServerError> {
        self.now = now;
        let result = self.take_input(input);
        self.left_over = input.len();
        result.map_err(|error| self.give_up(error))
    }

    fn take_input(&mut self, input: &mut BytesMut) -> Result<(), ServerError> {
        loop {
            if self.state.is_over() {
                input.clear();
                return Ok(());
            }
            if self.output.len() > MAX_OUTPUT_LENGTH {
                return Ok(());
            }
            match self.state {
                State::Opening(_) => match InitialPacket::take(input) {
                    Ok(Some(packet)) => self.handle_initial_packet(packet, input.is_empty())?,
                    Ok(None) => return Ok(()),
                    Err(source) => return Err(self.invalid_startup(source)),
                },
                State::TlsAsked(_) if input.is_empty() => return Ok(()),
                State::TlsAsked(_) => {
                    let request = "SSL request";
                    return Err(ServerError::Unencrypted { request });
                }
                _ => match self.next_frame(input)? {
                    Some(frame) => self.handle_frame(frame)?,
                    None => return Ok(()),
                },
            }
        }
    }

    /// The next message, if there is one and one is taken now.
    fn next_frame(&self, input: &mut BytesMut) -> Result<Option<Frame>, ServerError> {
        let state = self.state.name();
        let Some(phase) = self.state.phase() else {
            if input.len() > MAX_WAITING_LENGTH {
                let limit = MAX_WAITING_LENGTH;
                return Err(ServerError::NotWaiting { state, limit });
            }
            return Ok(None);
        };
        let Some(&tag) = input.first() else {
            return Ok(None);
        };
        // Before the length is believed: the two sides may no longer agree where messages begin.
        let tag = Tag(tag);
        let Some(limit) = phase.max_length(tag) else {
            return Err(ServerError::Unexpected { state, tag });
        };
        Frame::take(input, |_| limit).map_err(|source| ServerError::Frame { state, source })
    }

    fn handle_frame(&mut self, frame: Frame) -> Result<(), ServerError> {
        let state = self.state.name();
        let tag = frame.tag;
        match FrontendMessage::decode(frame) {
            Ok(message) => self.handle_message(tag, message),
            // Where the next message begins is not in doubt.
            Err(source) if matches!(self.state, State::Idle) => {
                let sqlstate = SqlState::PROTOCOL_VIOLATION;
                self.put_error(ServerMessage::error(sqlstate, source.to_string()));
                self.ready();
                Ok(())
            }
            Err(source) => Err(ServerError::Decode { state, source }),
        }
    }

    /// Ends the session for an error, of which the client is told where that helps.
    fn give_up(&mut self, error: ServerError) -> ServerError {
        if let Some(message) = error.for_client(self.state.phase()) {
            self.put_error(message);
        }
        self.state = State::Broken;
        error
    }

    /// Notes that the client has closed the connection.
    ///
    /// # Errors
    /// When it did so in the middle of something.
    pub fn handle_eof(&mut self, now: Instant) -> Result<(), ServerError> {
        self.now = now;
        if self.state.is_over() {
            return Ok(());
        }
        if self.left_over > 0 || !self.state.expects_eof() {
            let state = self.state.name();
            return Err(self.give_up(ServerError::UnexpectedEof { state }));
        }
        self.state = State::Closed;
        self.events.push_back(Event::Terminated);
        Ok(())
    }

    /// Does what is due at `now`.
    ///
    /// # Errors
    /// When the client took too long; the session is over.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ServerError> {
        self.now = now;
        if self.next_timeout().is_none_or(|due| due > now) {
            return Ok(());
        }
        let state = self.state.name();
        match self.state.stream_mut() {
            None => {
                let limit = self.times.authentication_timeout;
                Err(self.give_up(ServerError::StartupTimeout { limit, state }))
            }
            Some(stream) if stream.is_pinged() => {
                let silence = stream.silence(now);
                Err(self.give_up(ServerError::Timeout { silence, state }))
            }
            Some(stream) => {
                stream.ping(now);
                Ok(())
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called, if nothing happens before.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.state.is_before_welcome() {
            return self
                .opened_at
                .checked_add(self.times.authentication_timeout);
        }
        let timeout = self.times.wal_sender_timeout?;
        self.state.stream()?.silence_ends(timeout)
    }

    /// The next event, `None` when there is none left.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Appends to `out` what has to be sent. However often the client asked since the last call,
    /// there is at most one keepalive in it.
    ///
    /// Between a [`wal_header`](Self::wal_header) and the last byte of its WAL, nothing of this
    /// may be sent.
    pub fn poll_transmit(&mut self, out: &mut BytesMut) {
        if !self.output.is_empty() {
            out.extend_from_slice(&self.output);
            self.output.clear();
            // A long answer does not take its memory for the life of the connection.
            if self.output.capacity() > MAX_OUTPUT_LENGTH {
                self.output = BytesMut::new();
            }
        }
        let sent_at = self.time_of_day();
        if let Some(keepalive) = self
            .state
            .stream_mut()
            .and_then(|stream| stream.take_due(sent_at))
        {
            keepalive.encode(out);
        }
    }

    fn time_of_day(&self) -> PgTimestamp {
        let (instant, timestamp) = self.clock;
        let passed = self.now.saturating_duration_since(instant).as_micros();
        let passed = i64::try_from(passed).unwrap_or(i64::MAX);
        PgTimestamp(timestamp.0.saturating_add(passed))
    }

    /// Whether the session has come to its end: the driver writes what there still is for
    /// transmission, and closes the connection.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.state.is_over()
    }

    /// Whether WAL can be sent: a stream has begun, and our side of it has not ended. In a shutdown
    /// no more is sent than up to its last position, though there be more by then.
    #[must_use]
    pub const fn is_sending(&self) -> bool {
        self.state.is_sending()
    }

    /// The timeline that is streamed, `None` without a stream.
    #[must_use]
    pub fn timeline(&self) -> Option<TimelineId> {
        self.state.stream().map(|stream| stream.timeline())
    }

    /// The end of the WAL that was sent, `None` without a stream.
    #[must_use]
    pub fn sent(&self) -> Option<Lsn> {
        self.state.stream().map(|stream| stream.sent())
    }

    /// How far the client says it is, `None` without a stream.
    #[must_use]
    pub fn reported(&self) -> Option<StandbyProgress> {
        self.state.stream().map(|stream| stream.reported())
    }

    fn misuse(&self, call: &'static str) -> ServerError {
        let state = self.state.name();
        ServerError::Misuse { state, call }
    }
}
