//! What a client is answered.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use walproto::command::Command;
use walproto::error::{ServerMessage, SqlState};
use walproto::server::Event;
use walproto::{Horizons, Lsn, SlotName, StandbyProgress, TimelineId};

use super::{Connection, ConnectionError};
use crate::chain::chain;
use crate::commands::{Commands, Reply, slot_message_of};
use crate::failure::StreamFailure;
use crate::may_block::on_blocking_thread;
use crate::recurring::Request;

impl Connection {
    /// Does what the session tells.
    pub(super) async fn answer(&mut self, event: Event) -> Result<(), ConnectionError> {
        let now = Instant::now();
        match event {
            Event::Startup(request) => self.admit(request).await,
            Event::Authenticated => self.welcome(),
            Event::Command(command) => self.execute(command).await,
            Event::Sql(text) => {
                let message = ServerMessage::error(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "cannot execute SQL commands in WAL sender for physical replication",
                );
                let shown: String = text.chars().take(MAX_SHOWN_SQL).collect();
                let client = self.named();
                let text =
                    format!("{client} asks for SQL, which this server cannot execute: {shown:?}");
                self.note_in_vain(Request::Sql, &text);
                Ok(self.session()?.fail(message)?)
            }
            // The stream that it is about may have ended meanwhile.
            Event::Status(update) => {
                let reported = StandbyProgress::from(&update);
                if let Some(registered) = &self.registered {
                    registered.note_reported(reported, now);
                }
                self.advance_slot(reported.flush)
            }
            Event::Feedback(feedback) => {
                if let Some(registered) = &self.registered {
                    let needs = Horizons::from(&feedback);
                    registered.note_needs(needs, now);
                }
                if let Some((slot, _)) = &self.slot {
                    slot.set_xmin(feedback.xmin, feedback.catalog_xmin);
                    self.shared.note_slot_moved();
                }
                Ok(())
            }
            Event::CopyFinished => {
                self.end_stream();
                Ok(())
            }
            Event::Cancel {
                process_id,
                secret_key,
            } => {
                self.shared.registry.cancel(process_id, &secret_key);
                Ok(())
            }
            // The session is over, and says so.
            Event::Stopped | Event::Terminated => Ok(()),
            // It was asked and answered before.
            Event::TlsRequested => Ok(self.session()?.refuse_tls()?),
            _ => Err(ConnectionError::Fault),
        }
    }

    /// The client, for the log.
    fn named(&self) -> String {
        let name = self.request.as_deref();
        let name = name.map_or("", |request| &request.application_name);
        // Quoted with escapes: the name is the client's to choose, and a line is to stay one.
        format!("client {} (application_name={name:?})", self.opened.shown())
    }

    /// Logs what the client asks for in vain, once and not with each try.
    fn note_in_vain(&self, request: Request, text: &str) {
        let request_of = self.request.as_deref();
        let client = self.opened.client(request_of);
        let shown = self.opened.shown();
        self.shared.recurring.warn(request, client, &shown, text);
    }

    /// Logs what could not be read for the client, and tells who runs the server. It was needed for
    /// a command, `None` for a stream that has begun.
    pub(super) fn note_failure(&self, command: Option<&Command>, failure: StreamFailure) {
        let error = chain(&failure.error);
        if let Some((timeline, start)) = failure.position {
            self.note_no_wal(Some(timeline), start, &error);
        } else {
            let what = command.map_or("streaming".to_owned(), ToString::to_string);
            let text = format!("{what} for {} failed: {error}", self.named());
            self.note_in_vain(Request::Other, &text);
        }
        self.shared.failures.tell(failure);
    }

    /// Logs that the client gets no WAL from a position on.
    fn note_no_wal(&self, timeline: Option<TimelineId>, start: Lsn, why: &str) {
        let on = timeline.map_or(String::new(), |timeline| format!(" on timeline {timeline}"));
        let client = self.named();
        let text = format!("streaming from {start}{on} to {client} failed: {why}");
        self.note_in_vain(Request::Stream(timeline, start), &text);
    }

    /// Lets go of what only a stream needs.
    pub(super) fn end_stream(&mut self) {
        if let Some(pump) = &mut self.pump {
            pump.stop();
        }
        self.slot = None;
        if let Some(registered) = &self.registered {
            registered.note_stream(None, None);
        }
    }

    /// The client's slot keeps WAL from there on.
    fn advance_slot(&mut self, flush: Option<Lsn>) -> Result<(), ConnectionError> {
        if let (Some((slot, timeline)), Some(flush)) = (&self.slot, flush) {
            match slot.advance(*timeline, flush) {
                Ok(()) => self.shared.note_slot_moved(),
                Err(error) => self.session()?.reject(slot_message_of(&error)),
            }
        }
        Ok(())
    }

    /// Answers a command, which may read files, from a thread of its own.
    pub(super) async fn execute(&mut self, command: Command) -> Result<(), ConnectionError> {
        self.released.borrow_and_update();
        let slots = self.slots.clone().ok_or(ConnectionError::Fault)?;
        let shared = Arc::clone(&self.shared);
        let request = self.request.take().ok_or(ConnectionError::Fault)?;
        let timeout = self.wal_sender_timeout;
        let permit = self.shared.commands.acquire().await;
        let executing = on_blocking_thread(move |may_block| {
            let commands = Commands {
                store: &shared.slots,
                session: &slots,
                settings: shared.settings(&request, timeout),
                failure: RefCell::default(),
            };
            let reply = commands.execute(&command, may_block);
            (reply, commands.failure.into_inner(), command, request)
        });
        let executed = executing.await.map_err(|_panic| ConnectionError::Fault)?;
        drop(permit);
        let (reply, failure, command, request) = executed;
        self.request = Some(request);
        let had_failed = failure.is_some();
        if let Some(failure) = failure {
            self.note_failure(Some(&command), failure);
        }
        let now = Instant::now();
        match reply {
            Ok(Reply::Table(table)) => self.session()?.answer(&table)?,
            Ok(Reply::Done) => {
                if let Command::DropReplicationSlot { slot, .. } = &command
                    && let Ok(name) = SlotName::new(slot.as_str())
                {
                    let nothing = Horizons::default();
                    self.shared.registry.note_slot_needs(&name, nothing);
                }
                self.session()?.complete()?;
            }
            Ok(Reply::WhenReleased) => self.waiting = Some(command),
            Ok(Reply::AlreadyEnded(end)) => self.session()?.timeline_already_ended(end)?,
            Ok(Reply::Stream {
                feed,
                slot,
                start,
                end,
            }) => {
                let timeline = feed.timeline();
                if let Some(registered) = &self.registered {
                    let slot = slot.as_ref().map(|slot| slot.name().clone());
                    registered.note_stream(Some((timeline, start)), slot);
                }
                self.slot = slot.map(|slot| (slot, timeline));
                let pump = self.pump()?;
                pump.session.start_streaming(now, timeline, start, end)?;
                pump.start(*feed);
            }
            Err(message) => {
                if let Command::StartReplication {
                    start, timeline, ..
                } = &command
                    && !had_failed
                {
                    self.note_no_wal(*timeline, *start, &message.message);
                }
                self.session()?.fail(message)?;
            }
        }
        Ok(())
    }
}

/// How much of a statement is logged, in characters.
const MAX_SHOWN_SQL: usize = 100;
