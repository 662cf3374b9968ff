//! What is remembered of a receiver's events, for who asks how it is.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use tokio::sync::watch;
use tracing::{debug, warn};
use walproto::{ServerVersion, SystemId};
use walreceiver::{Progress, ReceiverEvent, Reporter, Warning};

use super::{Control, Listening, Socket};
use crate::disk_hold::{DiskHold, is_disk_full};
use crate::last_end::LastEnd;
use crate::logging::chain;

/// What a receiver is at, as its events tell.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    pub(super) phase: Phase,
    /// The server that it is or was last connected to.
    pub(super) upstream: Option<Upstream>,
    /// How far it had come when the connection was lost.
    pub(super) last_progress: Option<Progress>,
    /// Why the last connection was lost, until the next one streams.
    pub(super) last_error: Option<String>,
    /// Since when nothing has been streamed; `None` while it streams.
    pub(super) disconnected_since: Option<SystemTime>,
    /// Whether WAL is held for lack of room.
    pub(super) hold: DiskHold,
    /// What was last said about that.
    pub(super) disk_full: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Connecting,
    Streaming,
    /// It waits before it connects again.
    Waiting {
        until: Instant,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Upstream {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) version: ServerVersion,
    pub(super) system_id: SystemId,
}

/// Remembers what a receiver's events tell.
#[derive(Debug)]
pub(crate) struct Observer {
    observed: watch::Sender<Observed>,
    progress: watch::Receiver<Option<Progress>>,
}

impl Observer {
    /// Of a receiver that has not begun.
    pub(crate) fn new(progress: watch::Receiver<Option<Progress>>) -> Self {
        let observed = Observed {
            phase: Phase::Connecting,
            upstream: None,
            last_progress: None,
            last_error: None,
            disconnected_since: Some(SystemTime::now()),
            hold: DiskHold::default(),
            disk_full: None,
        };
        Self {
            observed: watch::Sender::new(observed),
            progress,
        }
    }

    pub(super) fn observed(&self) -> watch::Receiver<Observed> {
        self.observed.subscribe()
    }

    fn note(&self, event: &ReceiverEvent<'_>) {
        self.observed.send_if_modified(|observed| {
            let changed = observed.hold.note(event).is_some();
            if observed.hold == DiskHold::Free {
                observed.disk_full = None;
            }
            changed
        });
        match event {
            ReceiverEvent::Connecting => self.change(|observed| observed.phase = Phase::Connecting),
            ReceiverEvent::Connected {
                host,
                port,
                version,
                system_id,
            } => {
                let upstream = Upstream {
                    host: (*host).to_owned(),
                    port: *port,
                    version: *version,
                    system_id: *system_id,
                };
                self.change(|observed| observed.upstream = Some(upstream));
            }
            ReceiverEvent::StreamingStarted { .. } => self.change(|observed| {
                observed.phase = Phase::Streaming;
                observed.last_error = None;
                observed.disconnected_since = None;
            }),
            ReceiverEvent::Disconnected { error, retry_in } => {
                let last_progress = *self.progress.borrow();
                let message = chain(*error);
                self.change(|observed| {
                    if let Some(retry_in) = *retry_in {
                        let until = Instant::now() + retry_in;
                        observed.phase = Phase::Waiting { until };
                    }
                    observed.last_progress = last_progress.or(observed.last_progress);
                    if is_disk_full(error) {
                        observed.disk_full = Some(message.clone());
                    }
                    observed.last_error = Some(message);
                    observed
                        .disconnected_since
                        .get_or_insert_with(SystemTime::now);
                });
            }
            ReceiverEvent::Warning(warning @ Warning::DiskFull { .. }) => {
                self.change(|observed| observed.disk_full = Some(warning.to_string()));
            }
            _ => {}
        }
    }

    fn change(&self, change: impl FnOnce(&mut Observed)) {
        self.observed.send_modify(change);
    }
}

/// Remembers a receiver's events, and passes them on. Once the archive is its own, it answers
/// those who ask how it is.
pub(crate) struct ControlReporter<R> {
    pub(crate) next: R,
    pub(crate) observer: Observer,
    pub(crate) control: Control,
    /// The archive.
    pub(crate) directory: PathBuf,
    /// Whether to warn when nobody can ask, which `pg_receivewal` would say nothing about.
    pub(crate) warns: bool,
    /// Where the start and the end of this process are noted.
    pub(crate) last_end: Arc<LastEnd>,
    /// What answers them, for as long as anybody keeps this.
    pub(crate) listening: Arc<Mutex<Option<Listening>>>,
}

impl<R: Reporter> Reporter for ControlReporter<R> {
    fn report(&self, event: &ReceiverEvent<'_>) {
        self.observer.note(event);
        match event {
            ReceiverEvent::ArchiveOpened => {
                self.last_end.note_start();
                self.listen();
            }
            ReceiverEvent::StopRequested => self.control.note_stopping(),
            ReceiverEvent::EndReached { timeline, lsn } => {
                let reason = format!("the end position is reached: {lsn} (timeline {timeline})");
                self.last_end.note_reason(reason);
            }
            _ => {}
        }
        self.next.report(event);
    }
}

impl<R> ControlReporter<R> {
    fn listen(&self) {
        let started = Listening::start(self.control.clone(), &self.directory, Socket::Receiver);
        match (started, self.listening.lock()) {
            (Ok(listening), Ok(mut slot)) => *slot = Some(listening),
            (Ok(_), Err(_poisoned)) => {}
            (Err(error), _) if self.warns => warn!(event = "no_status", "{}", chain(&error)),
            (Err(error), _) => debug!(event = "no_status", "{}", chain(&error)),
        }
    }
}
