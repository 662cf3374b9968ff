//! What happens in a process, made known in four ways: the log, the command of `--on-event`, the
//! socket that `status` asks, and the record of how the process ended.
//!
//! [`model`] takes a receiver's events and decides what is news and what repeats; the rest renders
//! what it says.

pub(crate) mod control;
mod event;
pub(crate) mod last_end;
mod log;
mod model;
mod on_event;
mod server;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pgconn::conninfo::ConnectionConfig;
use segstore::{ArchiveError, SlotStore};

use tracing::{debug, warn};
use walreceiver::{ReceiveError, Receiver, ReceiverConfig, ReceiverEvent};
use walsender::ServerHandle;

use self::control::{Control, Listening, ReceiverSource, Socket};
use self::event::Event;
use self::last_end::LastEnd;
use self::log::Log;
use self::model::Model;
use self::on_event::OnEvent;
use crate::error::MainError;
use crate::exit;
use crate::face::Face;
use crate::logging::chain;

/// Makes known what happens in this process.
#[derive(Debug)]
pub(crate) struct Observer {
    /// The archive.
    directory: PathBuf,
    socket: Socket,
    /// Whether to warn when `status` cannot ask this process, which `pg_receivewal` would not do.
    warns: bool,
    control: Control,
    /// Answers `status` as long as it is kept.
    listening: Mutex<Option<Listening>>,
    last_end: LastEnd,
    on_event: Option<OnEvent>,
}

impl Observer {
    /// For a process that only serves an archive.
    ///
    /// # Errors
    /// When there can be no thread for the command.
    pub(crate) fn of_server(
        directory: &Path,
        on_event: Option<OsString>,
    ) -> Result<Self, MainError> {
        Self::new(directory, Socket::Serve, true, None, on_event)
    }

    /// Makes a receiver whose events it takes.
    ///
    /// # Errors
    /// When there can be no thread for the command.
    pub(crate) fn of_receiver(
        face: Face,
        verbose: bool,
        config: ReceiverConfig,
        connection: ConnectionConfig,
        on_event: Option<OsString>,
    ) -> Result<(Receiver, Arc<Self>), MainError> {
        let receiver = Receiver::new(config.clone(), connection);
        let model = Model::new(receiver.progress());
        let source = ReceiverSource::new(&config, &model, receiver.progress());
        let observer = Arc::new(Self::new(
            &config.directory,
            Socket::Receiver,
            face.advises(),
            Some(source),
            on_event,
        )?);
        let log = Log::new(verbose, face.advises());
        let (observing, model) = (Arc::clone(&observer), Mutex::new(model));
        let receiver = receiver.with_reporter(move |event: &ReceiverEvent<'_>| {
            let mut model = model.lock().unwrap_or_else(PoisonError::into_inner);
            observing.take(event, &mut model, &log);
        });
        Ok((receiver, observer))
    }

    fn new(
        directory: &Path,
        socket: Socket,
        warns: bool,
        source: Option<ReceiverSource>,
        on_event: Option<OsString>,
    ) -> Result<Self, MainError> {
        let on_event = on_event.map(|command| OnEvent::start(command, directory.to_owned()));
        Ok(Self {
            directory: directory.to_owned(),
            socket,
            warns,
            control: Control::new(source),
            listening: Mutex::default(),
            last_end: LastEnd::new(directory, socket),
            on_event: on_event.transpose().map_err(MainError::Runtime)?,
        })
    }

    /// Takes a receiver's event.
    fn take(&self, event: &ReceiverEvent<'_>, model: &mut Model, log: &Log) {
        let news = model.take(event, Instant::now());
        match event {
            ReceiverEvent::ArchiveOpened => self.started(),
            ReceiverEvent::StopRequested => self.control.note_stopping(),
            ReceiverEvent::EndReached { timeline, lsn } => {
                let reason = format!("the end position is reached: {lsn} (timeline {timeline})");
                self.last_end.note_reason(reason);
            }
            _ => {}
        }
        log.write(event, &news);
        if let Some(event) = news.event {
            self.tell(event);
        }
    }

    /// Has the command of `--on-event` run, if there is one.
    fn tell(&self, event: Event) {
        if let Some(on_event) = &self.on_event {
            on_event.tell(event);
        }
    }

    /// The archive is this process's: notes its start, and answers `status` from now on.
    pub(crate) fn started(&self) {
        self.last_end.note_start();
        match Listening::start(self.control.clone(), &self.directory, self.socket) {
            Ok(listening) => *self.listening() = Some(listening),
            Err(error) if self.warns => warn!(event = "no_status", "{}", chain(&error)),
            Err(error) => debug!(event = "no_status", "{}", chain(&error)),
        }
    }

    fn listening(&self) -> MutexGuard<'_, Option<Listening>> {
        let listening = self.listening.lock();
        listening.unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a server too from now on.
    pub(crate) fn offer_server(&self, handle: ServerHandle, slots: SlotStore) {
        self.control.offer_server(handle, slots);
    }

    /// Makes known what goes wrong while a server serves an archive, for ever.
    pub(crate) async fn watch_server(&self, handle: &ServerHandle, slots: &SlotStore) {
        tokio::join!(
            server::watch_failures(handle, |event| self.tell(event)),
            server::watch_slots(slots, |event| self.tell(event)),
        );
    }

    /// The end of the durable WAL could not be found out.
    pub(crate) fn following_failed(&self, error: &ArchiveError) {
        let message = chain(error);
        warn!(
            event = "following_failed",
            "could not find out how far the archive is durable, trying again when it changes: \
             {message}"
        );
        if let Some(kind) = event::of_archive(error) {
            self.tell(Event {
                kind,
                position: None,
                message,
            });
        }
    }

    /// Receiving is over, and those who are served get the last of it.
    pub(crate) fn stopping(&self) {
        self.control.note_stopping();
    }

    /// Makes known which error has ended receiving. Without `loops` every lost connection does.
    pub(crate) fn receiving_ended(&self, error: ReceiveError, loops: bool) -> MainError {
        self.control.note_ended(chain(&error));
        let event = event::of_end(&error);
        // What never was connected is not disconnected.
        let error = if loops || matches!(error, ReceiveError::Connect(_)) {
            MainError::from(error)
        } else {
            // The reason, and then what `pg_receivewal` says last.
            log::tell_loss(&error);
            let cause = Box::new(error);
            MainError::Disconnected { cause }
        };
        exit::tell(&error);
        self.tell(event);
        MainError::Told(Box::new(error))
    }

    /// Notes how the process ends. Until here it answers `status`, also without a receiver.
    pub(crate) fn finish(&self, ended: &Result<(), MainError>) {
        drop(self.listening().take());
        self.last_end.note_end(ended);
        if let Some(on_event) = &self.on_event {
            on_event.finish();
        }
    }
}
