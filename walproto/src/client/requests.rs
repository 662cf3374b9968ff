//! What a driver asks of a session.

use std::time::Instant;

use postgres_protocol::message::frontend;

use super::ClientSession;
use super::answer::Answer;
use super::error::ClientError;
use super::state::State;
use super::streaming::{FlushPosition, Positions, Stream};
use crate::command::{Command, NewSlot};
use crate::copy_data::{EpochXid, HotStandbyFeedback};

impl ClientSession {
    /// Sends a command. Its answer ends with [`Event::Ready`](super::Event::Ready).
    ///
    /// After START_REPLICATION the first [`report`](Self::report) should follow at once: until
    /// then a sender that asks is told that we are no candidate for synchronous replication.
    ///
    /// # Errors
    /// When the session is not [ready](super::Event::Ready) for a command, or the server does not
    /// know it. Nothing has been sent then, and the session goes on.
    pub fn execute(&mut self, now: Instant, command: &Command) -> Result<(), ClientError> {
        self.now = now;
        if !matches!(self.state, State::Idle) {
            return Err(self.misuse("execute"));
        }
        let state = match command {
            Command::StartReplication {
                start, timeline, ..
            } => State::Starting(Stream::new(*timeline, *start, now)),
            // Nobody knows how long others use the slot, or transactions go on.
            Command::DropReplicationSlot { wait: true, .. } => State::Waiting(Answer::default()),
            Command::CreateReplicationSlot(create)
                if matches!(create.kind, NewSlot::Logical { .. }) =>
            {
                State::Waiting(Answer::default())
            }
            Command::IdentifySystem
            | Command::Show(_)
            | Command::TimelineHistory(_)
            | Command::CreateReplicationSlot(_)
            | Command::ReadReplicationSlot(_)
            | Command::AlterReplicationSlot { .. }
            | Command::DropReplicationSlot { .. } => State::Answering(Answer::default()),
            Command::StartLogicalReplication { .. } => {
                return Err(unsupported("START_REPLICATION ... LOGICAL"));
            }
            Command::BaseBackup(_) => return Err(unsupported("BASE_BACKUP")),
            Command::UploadManifest => return Err(unsupported("UPLOAD_MANIFEST")),
        };
        let version = self
            .server_version
            .ok_or(ClientError::UnknownServerVersion)?;
        let text = command.for_server(version)?;
        if frontend::query(&text, &mut self.output).is_err() {
            return Err(self.misuse("execute with a zero byte in the command"));
        }
        self.state = state;
        self.heard_at = now;
        self.pinged_at = None;
        Ok(())
    }

    /// Notes how far the receiver is. The sender is told at once if that is anything new.
    ///
    /// It may be called as soon as START_REPLICATION was executed. Once the stream has ended on
    /// either side's word there is nobody to tell, and it does nothing.
    pub fn report<F: FlushPosition>(&mut self, now: Instant, positions: Positions<F>) {
        self.now = now;
        let positions = Positions {
            write: positions.write,
            flush: positions.flush.map(F::lsn),
            apply: positions.apply,
            byte_end: positions.byte_end,
        };
        if let State::Starting(stream) = &mut self.state {
            stream.report(positions);
        } else if let Some(stream) = self.state.reporting() {
            stream.report(positions);
        }
    }

    /// Notes that nothing is read at the moment, so that the sender's silence means nothing: its
    /// time begins anew.
    pub const fn not_listening(&mut self, now: Instant) {
        self.now = now;
        self.heard_at = now;
        self.pinged_at = None;
    }

    /// Tells the sender which transactions the receiver still needs, if WAL is streamed; both
    /// 0 when it needs none any more. Nothing is ever sent unless this is called.
    pub fn send_feedback(&mut self, now: Instant, xmin: EpochXid, catalog_xmin: EpochXid) {
        self.now = now;
        if self.state.reporting().is_some() {
            HotStandbyFeedback {
                sent_at: self.time_of_day(),
                xmin,
                catalog_xmin,
            }
            .encode(&mut self.output);
        }
    }

    /// Ends our side of the stream of WAL, after what was reported. Nothing can be reported any
    /// more; WAL may still come until the server ends its side, then
    /// [`Event::StreamEnded`](super::Event::StreamEnded).
    ///
    /// Without a stream, or if it has ended already, it does nothing.
    pub fn finish_copy(&mut self, now: Instant) {
        self.now = now;
        if self.state.reporting().is_none() {
            return;
        }
        self.queue_due_status();
        frontend::copy_done(&mut self.output);
        self.heard_at = now;
        self.pinged_at = None;
        self.state = match std::mem::replace(&mut self.state, State::Broken) {
            State::Streaming(stream) => State::ClientDone(stream),
            State::ServerDone(_) => State::Ending(Answer::default()),
            other => other,
        };
    }

    /// Tells the server that we go, whatever it is doing; the connection may be closed then.
    pub fn terminate(&mut self, now: Instant) {
        self.now = now;
        if self.state.is_over() {
            return;
        }
        if !matches!(self.state, State::Authenticating(_)) {
            self.queue_due_status();
            frontend::terminate(&mut self.output);
        }
        self.state = State::Terminated;
    }
}

const fn unsupported(command: &'static str) -> ClientError {
    ClientError::Unsupported { command }
}
