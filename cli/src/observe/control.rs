//! What a running process tells of itself to who asks through a socket in the archive.
//!
//! The socket lies in the archive's own subdirectory and is the user's alone. Who connects sends
//! one line, `status` or `watch`, and gets a JSON document a line: one, or one now and one
//! whenever something has changed. It is answered by a thread of its own, which only looks, so
//! nobody who asks can hold up what is received, acknowledged or served.

pub(crate) mod client;
pub(crate) mod document;
mod listener;
mod socket;

use std::sync::Arc;
use std::time::Instant;

use segstore::SlotStore;
use tokio::sync::watch;
use walproto::Confirmed;
use walreceiver::{Acknowledge, Progress, ReceiverConfig, SlotName};
use walsender::ServerHandle;

use self::document::{Document, Held, ReceiverDocument, ReceiverState, ServerDocument};
pub(crate) use self::listener::Listening;
pub(crate) use self::socket::Socket;
use super::model::{Model, Observed, Phase};
use crate::timestamp::timestamp;

/// What there is to tell. Clones tell the same.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    receiver: Option<Arc<ReceiverSource>>,
    /// A relay's server begins later than its receiver.
    server: Arc<watch::Sender<Option<ServerSource>>>,
    course: Arc<watch::Sender<Course>>,
}

/// The state of receiving.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Course {
    Running,
    /// The receiver was asked to stop, or has stopped and its server waits for clients.
    Stopping,
    /// An error has ended receiving, and its server waits for clients for a short time.
    Ended {
        reason: String,
    },
}

/// A receiver in this process.
#[derive(Debug)]
pub(crate) struct ReceiverSource {
    slot: Option<SlotName>,
    sync: bool,
    acknowledge: Acknowledge,
    observed: watch::Receiver<Observed>,
    progress: watch::Receiver<Option<Progress>>,
}

/// A server in this process.
#[derive(Clone, Debug)]
struct ServerSource {
    handle: ServerHandle,
    slots: SlotStore,
}

impl ReceiverSource {
    /// A receiver with this configuration, whose events `model` takes.
    pub(super) fn new(
        config: &ReceiverConfig,
        model: &Model,
        progress: watch::Receiver<Option<Progress>>,
    ) -> Self {
        Self {
            slot: config.slot.clone(),
            sync: config.sync,
            acknowledge: config.acknowledge,
            observed: model.observed(),
            progress,
        }
    }
}

impl Control {
    /// Tells of a receiver, if there is one, and of no server yet.
    pub(crate) fn new(receiver: Option<ReceiverSource>) -> Self {
        Self {
            receiver: receiver.map(Arc::new),
            server: Arc::new(watch::Sender::new(None)),
            course: Arc::new(watch::Sender::new(Course::Running)),
        }
    }

    /// Shows from now on that the receiver stops.
    pub(crate) fn note_stopping(&self) {
        self.course.send_if_modified(|course| {
            let running = *course == Course::Running;
            if running {
                *course = Course::Stopping;
            }
            running
        });
    }

    /// Shows from now on that an error has ended receiving.
    pub(crate) fn note_ended(&self, reason: String) {
        self.course.send_replace(Course::Ended { reason });
    }

    /// Tells of a server too from now on.
    pub(crate) fn offer_server(&self, handle: ServerHandle, slots: SlotStore) {
        self.server
            .send_replace(Some(ServerSource { handle, slots }));
    }

    /// All there is to tell now. It may read the archive's directory.
    fn document(&self) -> Document {
        let server = self.server.borrow().clone();
        let course = self.course.borrow().clone();
        Document {
            receiver: self
                .receiver
                .as_ref()
                .map(|receiver| receiver.document(server.as_ref(), &course, Instant::now())),
            server: server.map(|server| server.document()),
        }
    }

    /// What changes whenever there is something else to tell.
    fn changes(&self) -> Changes {
        let server = self.server.subscribe();
        let mut this = Changes {
            observed: self.receiver.as_ref().map(|source| source.observed.clone()),
            progress: self.receiver.as_ref().map(|source| source.progress.clone()),
            server,
            course: self.course.subscribe(),
            standbys: None,
            confirmed: None,
        };
        this.follow_server();
        this
    }
}

/// Waits for something else to tell.
struct Changes {
    observed: Option<watch::Receiver<Observed>>,
    progress: Option<watch::Receiver<Option<Progress>>>,
    server: watch::Receiver<Option<ServerSource>>,
    course: watch::Receiver<Course>,
    standbys: Option<watch::Receiver<()>>,
    confirmed: Option<watch::Receiver<Option<Confirmed>>>,
}

impl Changes {
    /// Returns once something has changed since the last call. Cancel safe.
    async fn changed(&mut self) {
        tokio::select! {
            () = change(&mut self.observed) => {}
            () = change(&mut self.progress) => {}
            () = change(&mut self.standbys) => {}
            () = change(&mut self.confirmed) => {}
            // The other ends are a part of what is told, and so live as long.
            _ = self.course.changed() => {}
            _ = self.server.changed() => self.follow_server(),
        }
    }

    fn follow_server(&mut self) {
        let server = self.server.borrow_and_update();
        let handle = server.as_ref().map(|server| &server.handle);
        self.standbys = handle.map(ServerHandle::changes);
        self.confirmed = handle.map(ServerHandle::confirmed);
    }
}

/// Waits for a change, for ever where there can be none.
async fn change<T>(source: &mut Option<watch::Receiver<T>>) {
    if let Some(receiver) = source
        && receiver.changed().await.is_ok()
    {
        return;
    }
    *source = None;
    std::future::pending().await
}

impl ReceiverSource {
    fn document(
        &self,
        server: Option<&ServerSource>,
        course: &Course,
        now: Instant,
    ) -> ReceiverDocument {
        let observed = self.observed.borrow().clone();
        let progress = *self.progress.borrow();
        let streams = matches!(observed.phase, Phase::Streaming);
        let running = *course == Course::Running;
        let live = progress.filter(|_| streams && running);
        let shown = progress.filter(|_| streams).or(observed.last_progress);
        let acknowledged = shown.and_then(|shown| shown.acknowledged_end);
        let retry_in = match observed.phase {
            Phase::Waiting { until } if running => Some(until.saturating_duration_since(now)),
            Phase::Waiting { .. } | Phase::Connecting | Phase::Streaming => None,
        };
        let lag = live.map(|live| match live.behind_since {
            Some(since) => now.saturating_duration_since(since).as_secs_f64(),
            None => 0.0,
        });
        let upstream = observed.upstream.as_ref();
        ReceiverDocument {
            pid: std::process::id(),
            state: match (course, observed.phase) {
                (Course::Ended { .. }, _) => ReceiverState::Ended,
                (Course::Stopping, _) => ReceiverState::Stopping,
                (Course::Running, Phase::Connecting) => ReceiverState::Connecting,
                (Course::Running, Phase::Streaming) => ReceiverState::Streaming,
                (Course::Running, Phase::Waiting { .. }) => ReceiverState::Waiting,
            },
            host: upstream.map(|upstream| upstream.host.clone()),
            port: upstream.map(|upstream| upstream.port),
            server_version: upstream.map(|upstream| upstream.version.to_string()),
            system_identifier: upstream.map(|upstream| upstream.system_id.to_string()),
            slot_name: self.slot.as_ref().map(ToString::to_string),
            timeline: shown.map(|shown| shown.timeline.number()),
            received_lsn: shown.map(|shown| shown.received_end.to_string()),
            durable_lsn: shown.map(|shown| shown.flush_end.to_string()),
            acknowledged_lsn: acknowledged.map(|lsn| lsn.to_string()),
            server_lsn: shown.map(|shown| shown.server_end.to_string()),
            lag_bytes: live.map(|live| live.lag_bytes()),
            lag_seconds: lag,
            last_error: match course {
                Course::Ended { reason } => Some(reason.clone()),
                Course::Running | Course::Stopping => observed.last_error.clone(),
            },
            disconnected_since: observed.disconnected_since.map(timestamp),
            retry_in_seconds: retry_in.map(|time| time.as_secs_f64()),
            held: self.held(&observed, live, server),
        }
    }

    /// Why WAL is not acknowledged as soon as it is received.
    fn held(
        &self,
        observed: &Observed,
        live: Option<Progress>,
        server: Option<&ServerSource>,
    ) -> Vec<Held> {
        let mut held = Vec::new();
        if !self.sync {
            held.push(Held::new("no_sync", "WAL is not synced (--no-sync)"));
        } else if self.acknowledge == Acknowledge::Never {
            let why = "pg_receivewal acknowledges only with --synchronous or for a slot";
            held.push(Held::new("not_asked", why));
        }
        if let Some(message) = &observed.disk_full {
            held.push(Held::new("disk_full", message));
        }
        if let Some(server) = server
            && let Some(Confirmed {
                present,
                needed,
                progress: None,
                ..
            }) = *server.handle.confirmed().borrow()
        {
            let message = format!("{present} of {needed} synchronous standbys are streaming");
            held.push(Held::new("downstream", &message));
        }
        let nothing_told = live.is_some_and(|live| live.acknowledged_end.is_none());
        if nothing_told && held.is_empty() {
            let why = "nothing was received and synced on this connection yet";
            held.push(Held::new("nothing_durable_yet", why));
        }
        held
    }
}

impl ServerSource {
    fn document(&self) -> ServerDocument {
        let confirmed = *self.handle.confirmed().borrow();
        let listed = self.slots.list();
        let durable = self.slots.view().durable();
        let failed = self.handle.failed_connections();
        ServerDocument::new(&self.handle.standbys(), listed, confirmed, durable, failed)
    }
}
