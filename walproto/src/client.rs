//! A receiver's session with a sender of WAL: from the startup packet to the end, without a
//! socket or a clock.
//!
//! Source: the PostgreSQL manual, "Streaming Replication Protocol"; src/interfaces/libpq and
//! src/bin/pg_basebackup/receivelog.c (PG 15).

mod answer;
mod auth;
mod error;
mod event;
mod limits;
mod requests;
mod require_auth;
mod state;
mod streaming;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

pub use auth::{AuthError, ChannelBindingPolicy, Credentials, Transport};
pub use error::ClientError;
pub use event::Event;
pub use limits::{MAX_AUTHENTICATION_LENGTH, MAX_RESULT_LENGTH, MAX_SMALL_LENGTH, MAX_WAL_LENGTH};
pub use require_auth::{AuthMethod, InvalidRequireAuth, RequireAuth};
pub use streaming::{FlushPosition, Positions};

use crate::backend::{BackendMessage, DecodeError};
use crate::copy_data::{PrimaryKeepalive, SenderMessage, XLogData};
use crate::frame::{Frame, Tag};
use crate::startup::StartupParameters;
use crate::{PgTimestamp, ServerVersion, http};
use auth::Authentication;
use state::State;
use streaming::Due;

/// How long a session waits for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionTimes {
    /// After half of this time without a byte from the sender it is asked for a sign of life,
    /// and after the other half it is taken for dead. Where it cannot be asked, it has all of
    /// the time for an answer. `None`: never. Half of it is also how long a record may stay
    /// incomplete without a word ([`Event::WalStaysIncomplete`]).
    pub receive_timeout: Option<Duration>,
    /// The time between two status updates, if there is nothing new to tell. `None`: there is
    /// none without a reason.
    pub status_interval: Option<Duration>,
}

/// A receiver's session with a sender of WAL.
///
/// The session does no input or output. Its driver
///
/// 1. calls [`handle_input`](Self::handle_input) with all bytes read so far, whenever there are
///    more, [`handle_eof`](Self::handle_eof) at their end, and
///    [`handle_timeout`](Self::handle_timeout) once the time of
///    [`next_timeout`](Self::next_timeout) has come (input that is there goes first),
/// 2. takes every [`Event`] with [`poll_event`](Self::poll_event),
/// 3. and after each of these, and after each call of its own like [`report`](Self::report),
///    writes what [`poll_transmit`](Self::poll_transmit) appends to its buffer.
///
/// ```text
/// authentication --Ok--> setup --> idle <----------------------------------+
///                                  | |                                     |
///            execute(START_REPLICATION) +-execute(other)--> answer --------+
///                                  v                                       |
///                               starting --table: nothing to stream--+     |
///                                  | CopyBothResponse                |     |
///                                  v                                 v     |
///            +--finish_copy-- streaming --CopyDone--+             ending --+
///            v                  | |                 v                ^     |
///       client done             | |            server done           |     |
///            +--CopyDone--------+-+----------------+--finish_copy----+     |
///                               | +--ErrorResponse--> failed --------------+
///                               +--CommandComplete--> stopping --EOF--> closed
/// ```
///
/// Any state but the first has notices and parameters, and may fail as streaming does. A message
/// that a state does not list is an error that names both, and the session is over.
pub struct ClientSession {
    state: State,
    events: VecDeque<Event>,
    /// What is to be sent before any status update that is due.
    output: BytesMut,
    parameters: BTreeMap<String, String>,
    server_version: Option<ServerVersion>,
    process_id: Option<i32>,
    times: SessionTimes,
    /// The point at which both clocks were read.
    clock: (Instant, PgTimestamp),
    /// The time of the last call.
    now: Instant,
    /// When something was last heard, or an answer was last asked for.
    heard_at: Instant,
    /// When the sender was asked for a sign of life, if nothing was heard since.
    pinged_at: Option<Instant>,
    /// How many bytes the last input left over, as part of a message.
    left_over: usize,
}

impl ClientSession {
    /// A session at its beginning; the startup packet is ready for transmission.
    ///
    /// `wall_clock` is the time of day at `now`. The time of day of later messages is computed
    /// from it, so that a step of the system's clock is not seen; only people look at it.
    ///
    /// # Errors
    /// When a startup parameter contains a zero byte.
    pub fn new(
        now: Instant,
        wall_clock: PgTimestamp,
        startup: &StartupParameters,
        credentials: Credentials,
        times: SessionTimes,
    ) -> Result<Self, ClientError> {
        let mut output = BytesMut::new();
        startup.encode(&mut output)?;
        let authentication = Authentication::new(startup.user.clone(), credentials);
        Ok(Self {
            state: State::Authenticating(Box::new(authentication)),
            events: VecDeque::new(),
            output,
            parameters: BTreeMap::new(),
            server_version: None,
            process_id: None,
            times,
            clock: (now, wall_clock),
            now,
            heard_at: now,
            pinged_at: None,
            left_over: 0,
        })
    }

    /// Takes all whole messages off the front of `input`; the driver keeps the rest and appends
    /// to it.
    ///
    /// The payload of an [`Event::WalData`] shares the memory of `input`. What is left in `input`
    /// never grows beyond the longest message that the session accepts ([`MAX_WAL_LENGTH`]) and
    /// one read of the driver.
    ///
    /// # Errors
    /// When the server refuses the connection, or breaks the protocol. Events of the messages
    /// before that one can still be taken; the session is over.
    pub fn handle_input(&mut self, now: Instant, input: &mut BytesMut) -> Result<(), ClientError> {
        self.now = now;
        match self.state {
            // What the server still said when we had gone is of no interest.
            State::Terminated => input.clear(),
            State::Closed | State::Broken if !input.is_empty() => {
                return Err(self.misuse("handle_input"));
            }
            _ => {}
        }
        if input.len() != self.left_over {
            self.heard_at = now;
            self.pinged_at = None;
        }
        while !self.state.is_over() {
            let phase = self.state.phase();
            match Frame::take(input, |tag| phase.max_length(tag)) {
                Ok(Some(frame)) => self.handle_frame(frame)?,
                Ok(None) => break,
                Err(source) => {
                    let state = self.state.name();
                    let status_line = match self.state {
                        State::Authenticating(_) => http::status_line(input),
                        _ => None,
                    };
                    self.state = State::Broken;
                    return Err(match status_line {
                        Some(status_line) => ClientError::Http { status_line },
                        None => ClientError::Frame { state, source },
                    });
                }
            }
        }
        self.left_over = input.len();
        Ok(())
    }

    /// Notes that the server has closed the connection.
    ///
    /// # Errors
    /// When it did not say so before, or nothing explains it.
    pub fn handle_eof(&mut self, now: Instant) -> Result<(), ClientError> {
        self.now = now;
        let state = self.state.name();
        if !self.state.expects_eof() {
            self.state = State::Broken;
            return Err(ClientError::UnexpectedEof { state });
        }
        if !matches!(self.state, State::Closed) {
            self.state = State::Closed;
            self.events.push_back(Event::Closed);
        }
        Ok(())
    }

    /// Does what is due at `now`.
    ///
    /// # Errors
    /// When the server has said nothing for too long; the session is over.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ClientError> {
        self.now = now;
        if self.silence_ends().is_some_and(|end| end <= now) {
            match self.state.reporting() {
                Some(stream) if self.pinged_at.is_none() => {
                    stream.make_due(Due::Ping);
                    self.pinged_at = Some(now);
                }
                _ => {
                    let silence = now.saturating_duration_since(self.heard_at);
                    let state = self.state.name();
                    self.state = State::Broken;
                    return Err(ClientError::Timeout { silence, state });
                }
            }
        }
        if let Some(interval) = self.times.status_interval
            && let Some(stream) = self.state.reporting()
            && stream
                .status_at
                .checked_add(interval)
                .is_some_and(|due| due <= now)
        {
            stream.make_due(Due::Status);
            stream.status_at = now;
        }
        Ok(())
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called, if nothing happens before.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let status = self
            .state
            .stream_if_reporting()
            .and_then(|stream| stream.status_at.checked_add(self.times.status_interval?));
        [status, self.silence_ends()].into_iter().flatten().min()
    }

    /// When the server has been silent for long enough to do something about it.
    fn silence_ends(&self) -> Option<Instant> {
        let timeout = self.times.receive_timeout?;
        if !self.state.awaits_server() {
            return None;
        }
        match (self.pinged_at, self.state.stream_if_reporting()) {
            (Some(pinged_at), _) => pinged_at.checked_add(timeout - timeout / 2),
            (None, Some(_)) => self.heard_at.checked_add(timeout / 2),
            (None, None) => self.heard_at.checked_add(timeout),
        }
    }

    /// The next event, `None` when there is none left.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Appends to `out` what has to be sent. However often it was reported since the last call,
    /// there is at most one status update in it, with the latest positions.
    pub fn poll_transmit(&mut self, out: &mut BytesMut) {
        if !self.output.is_empty() {
            out.extend_from_slice(&self.output);
            self.output.clear();
        }
        self.encode_due_status(out);
    }

    fn encode_due_status(&mut self, out: &mut BytesMut) {
        let sent_at = self.time_of_day();
        if let Some(stream) = self.state.reporting()
            && let Some(update) = stream.take_due(self.now, sent_at)
        {
            update.encode(out);
        }
    }

    /// Puts a status update that is due before what is sent next.
    fn queue_due_status(&mut self) {
        let mut output = std::mem::take(&mut self.output);
        self.encode_due_status(&mut output);
        self.output = output;
    }

    fn time_of_day(&self) -> PgTimestamp {
        let (instant, timestamp) = self.clock;
        let passed = self.now.saturating_duration_since(instant).as_micros();
        let passed = i64::try_from(passed).unwrap_or(i64::MAX);
        PgTimestamp(timestamp.0.saturating_add(passed))
    }

    /// A parameter that the server reported, as in `server_version` or `in_hot_standby`.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The server's version, known once the session is [ready](Event::Ready).
    #[must_use]
    pub const fn server_version(&self) -> Option<ServerVersion> {
        self.server_version
    }

    /// The identifier of the server's process for this session, as its log names it.
    #[must_use]
    pub const fn process_id(&self) -> Option<i32> {
        self.process_id
    }

    fn misuse(&self, call: &'static str) -> ClientError {
        let state = self.state.name();
        ClientError::Misuse { state, call }
    }

    fn handle_frame(&mut self, frame: Frame) -> Result<(), ClientError> {
        if frame.tag == Tag(b'd') && self.state.takes_copy_data() {
            return self.handle_copy_data(frame.body);
        }
        let state = self.state.name();
        let result = BackendMessage::decode(frame)
            .map_err(|source| ClientError::Decode { state, source })
            .and_then(|message| self.handle_message(message));
        if result.is_err() {
            self.state = State::Broken;
        }
        result
    }

    fn handle_copy_data(&mut self, body: Bytes) -> Result<(), ClientError> {
        match SenderMessage::decode(body) {
            Ok(SenderMessage::XLogData(wal)) => self.handle_wal(wal),
            Ok(SenderMessage::Keepalive(keepalive)) => {
                self.handle_keepalive(keepalive);
                Ok(())
            }
            Err(source) => {
                let state = self.state.name();
                self.state = State::Broken;
                let source = DecodeError::Malformed(source);
                Err(ClientError::Decode { state, source })
            }
        }
    }

    fn handle_wal(&mut self, wal: XLogData) -> Result<(), ClientError> {
        if !self.state.receives_wal() {
            let state = self.state.name();
            self.state = State::Broken;
            return Err(ClientError::Unexpected {
                state,
                message: "XLogData",
            });
        }
        if let Some(stream) = self.state.stream()
            && stream
                .receive(self.now, wal.start, wal.data.len())
                .is_none()
        {
            let jump = ClientError::Discontinuous {
                timeline: stream.timeline(),
                expected: stream.received(),
                found: wal.start,
            };
            self.state = State::Broken;
            return Err(jump);
        }
        self.events.push_back(Event::WalData {
            start: wal.start,
            wal_end: wal.wal_end,
            sent_at: wal.sent_at,
            data: wal.data,
        });
        Ok(())
    }

    fn handle_keepalive(&mut self, keepalive: PrimaryKeepalive) {
        let PrimaryKeepalive {
            wal_end,
            sent_at,
            reply_requested,
        } = keepalive;
        self.events.push_back(Event::Keepalive {
            wal_end,
            sent_at,
            reply_requested,
        });
        let receives_wal = self.state.receives_wal();
        let Some(stream) = self.state.reporting() else {
            return;
        };
        if reply_requested {
            stream.asked(wal_end);
        }
        if receives_wal
            && let Some(timeout) = self.times.receive_timeout
            && let Some(written) = stream.stays_incomplete(self.now, wal_end, timeout / 2)
        {
            let received = stream.received();
            self.events
                .push_back(Event::WalStaysIncomplete { written, received });
        }
    }
}
