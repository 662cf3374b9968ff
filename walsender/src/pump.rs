//! What is sent to a client without waiting for it: messages first, then as much WAL as it takes.

mod unsent;

use std::io;
use std::time::Instant;

use bytes::{Buf, BytesMut};
use segstore::{ArchiveError, ArchiveView, Chunk, ChunkData, Feed, FeedError, FeedStep};
use walproto::error::{ServerMessage, SqlState};
use walproto::result::TimelineEnd;
use walproto::server::{ServerError, ServerSession, WAL_HEADER_LENGTH};

use self::unsent::{Unsent, read_ahead, take_into_memory};
use crate::failure::StreamFailure;
use crate::may_block::MayBlock;
use crate::registry::{Registered, StandbyState};
use crate::socket::Plain;

/// How much WAL is sent before others have their turn.
const BURST: usize = 8 * Chunk::MAX_LENGTH;

/// How much is encrypted ahead of the client.
const TLS_BUFFER: usize = Chunk::MAX_LENGTH;

/// A session, and the way to its client.
pub(crate) struct Pump {
    pub(crate) session: ServerSession,
    sink: Sink,
    /// What is to be sent, after `unsent`.
    pub(crate) out: BytesMut,
    /// WAL whose message has begun.
    unsent: Option<Unsent>,
    feed: Option<Feed>,
    /// What a stream failed by.
    failure: Option<StreamFailure>,
}

/// Where bytes go.
#[derive(Debug)]
enum Sink {
    /// To the client.
    Plain(Plain),
    /// To `out`, which is encrypted from there.
    Tls,
}

/// Why a pump stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pushed {
    /// There is nothing more to send.
    Idle,
    /// The client takes no more now.
    Blocked,
    /// What comes next has to be read from the disk.
    OnDisk,
    /// There is more, but others wait too.
    More,
}

/// Why nothing more can be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PushError {
    /// The connection broke.
    #[error("sending")]
    Io(#[source] io::Error),
    /// A segment file could not be read in the middle of a message.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The same, once it is told.
    #[error("WAL could not be read in the middle of a message")]
    CutOff,
    /// The session was not asked in order.
    #[error(transparent)]
    Session(#[from] ServerError),
}

impl Pump {
    pub(crate) fn new(session: ServerSession, plain: Option<Plain>) -> Self {
        Self {
            session,
            sink: plain.map_or(Sink::Tls, Sink::Plain),
            out: BytesMut::new(),
            unsent: None,
            feed: None,
            failure: None,
        }
    }

    /// Sends the WAL of `feed` from now on.
    pub(crate) fn start(&mut self, feed: Feed) {
        self.feed = Some(feed);
    }

    /// Sends no more WAL than what has begun.
    pub(crate) fn stop(&mut self) {
        self.feed = None;
    }

    /// Whether all is sent that there was.
    pub(crate) fn is_empty(&self) -> bool {
        self.out.is_empty() && self.unsent.is_none()
    }

    /// Whether the bytes are given to the client by who owns this.
    pub(crate) const fn is_buffered(&self) -> bool {
        matches!(self.sink, Sink::Tls)
    }

    /// What a stream failed by since this was last asked.
    pub(crate) fn take_failure(&mut self) -> Option<StreamFailure> {
        self.failure.take()
    }

    /// Sends what the client takes, and notes in the registry what was sent. Without the permit to
    /// wait for the disk it stops where something has to be read.
    pub(crate) fn push(
        &mut self,
        view: &ArchiveView,
        registered: Option<&Registered>,
        may_block: Option<&MayBlock>,
    ) -> Result<Pushed, PushError> {
        let pushed = self.push_some(view, registered, may_block);
        if let Err(PushError::Archive(error)) = pushed {
            self.fail(error.into());
            return Err(PushError::CutOff);
        }
        pushed
    }

    fn push_some(
        &mut self,
        view: &ArchiveView,
        registered: Option<&Registered>,
        may_block: Option<&MayBlock>,
    ) -> Result<Pushed, PushError> {
        let mut budget = BURST;
        loop {
            if may_block.is_none() && self.is_unsent_in_file() {
                return Ok(Pushed::OnDisk);
            }
            // What waits goes first: as long as the session keeps what is due, it takes no more
            // commands than it has room for the answers to.
            if !self.send_unsent()? || !self.send_out()? {
                return Ok(Pushed::Blocked);
            }
            self.session.poll_transmit(&mut self.out);
            if !self.send_out()? {
                return Ok(Pushed::Blocked);
            }
            if !self.session.is_sending() {
                self.feed = None;
            }
            if self.feed.is_none() {
                self.release_memory();
                return Ok(Pushed::Idle);
            }
            if budget == 0 {
                return Ok(Pushed::More);
            }
            match self.step(may_block) {
                Ok(None) => return Ok(Pushed::OnDisk),
                Ok(Some(FeedStep::Chunk(chunk))) => {
                    budget = budget.saturating_sub(chunk.length());
                    if may_block.is_some() {
                        read_ahead(&chunk);
                    }
                    let unsent = self.begin_message(chunk, view, registered)?;
                    take_into_memory(&mut unsent.chunk, may_block)?;
                }
                Ok(Some(FeedStep::CaughtUp)) => {
                    if let Some(registered) = registered {
                        registered.change_state(StandbyState::Catchup, StandbyState::Streaming);
                    }
                    self.release_memory();
                    return Ok(Pushed::Idle);
                }
                Ok(Some(FeedStep::EndOfTimeline {
                    switch_point,
                    next_timeline,
                })) => {
                    self.feed = None;
                    self.session.end_timeline(TimelineEnd {
                        next_timeline,
                        switch_point,
                    })?;
                }
                Err(error) => {
                    self.session.fail(message_of(&error))?;
                    self.fail(error);
                }
            }
        }
    }

    /// Ends the stream by an error of the archive's.
    fn fail(&mut self, error: FeedError) {
        let begun = self.unsent.as_ref().map(|unsent| unsent.chunk.start);
        let position = self.feed.take().map(|feed| {
            // The feed has given the whole of a message that was only begun.
            (feed.timeline(), begun.unwrap_or_else(|| feed.position()))
        });
        self.failure = Some(StreamFailure { position, error });
    }

    fn step(&mut self, may_block: Option<&MayBlock>) -> Result<Option<FeedStep>, FeedError> {
        let Some(feed) = &mut self.feed else {
            return Ok(None);
        };
        match may_block {
            None => feed.ready_step(),
            Some(_) => feed.next_step().map(Some),
        }
    }

    fn begin_message(
        &mut self,
        chunk: Chunk,
        view: &ArchiveView,
        registered: Option<&Registered>,
    ) -> Result<&mut Unsent, PushError> {
        let now = Instant::now();
        let wal_end = view
            .durable()
            .map_or(chunk.end, |durable| durable.record_end);
        let (start, end, length) = (chunk.start, chunk.end, chunk.length());
        let header = self
            .session
            .wal_header(now, start, length, wal_end.max(end))?;
        if let Some(registered) = registered {
            registered.note_sent(end, now);
        }
        Ok(self.unsent.insert(Unsent {
            header,
            chunk,
            sent: 0,
        }))
    }

    /// Whether what is sent next is in a file, so that the disk may have to be waited for.
    fn is_unsent_in_file(&self) -> bool {
        let unsent = self.unsent.as_ref();
        unsent.is_some_and(|unsent| matches!(unsent.chunk.data, ChunkData::File { .. }))
    }

    /// Sends the rest of the message that has begun; whether none is left.
    fn send_unsent(&mut self) -> Result<bool, PushError> {
        let Some(unsent) = &mut self.unsent else {
            return Ok(true);
        };
        match &self.sink {
            Sink::Plain(plain) => {
                let length = unsent.chunk.length();
                while unsent.sent < WAL_HEADER_LENGTH + length {
                    match unsent.send(plain)? {
                        Some(count) => unsent.sent += count,
                        None => return Ok(false),
                    }
                }
            }
            Sink::Tls => {
                self.out.extend_from_slice(&unsent.header);
                unsent.chunk.append_to(&mut self.out)?;
            }
        }
        self.unsent = None;
        Ok(true)
    }

    /// Sends the messages; whether there is room for more.
    fn send_out(&mut self) -> Result<bool, PushError> {
        let Sink::Plain(plain) = &self.sink else {
            return Ok(self.out.len() < TLS_BUFFER);
        };
        while !self.out.is_empty() {
            match plain.send(&self.out, false).map_err(PushError::Io)? {
                Some(count) => self.out.advance(count),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// A client that waits for WAL holds no more memory than it needs for that.
    fn release_memory(&mut self) {
        if self.out.is_empty() {
            self.out = BytesMut::new();
        }
    }
}

/// What a client is told when there is no more WAL for it.
pub(crate) fn message_of(error: &FeedError) -> ServerMessage {
    let sqlstate = match error {
        FeedError::NothingDurable => SqlState::CANNOT_CONNECT_NOW,
        FeedError::Removed { .. } | FeedError::Hole { .. } => SqlState::UNDEFINED_FILE,
        error if error.is_damage() => SqlState::DATA_CORRUPTED,
        _ => SqlState::INTERNAL_ERROR,
    };
    ServerMessage::error(sqlstate, error.to_string())
}

#[cfg(test)]
mod tests;
