//! A connection's place among the others.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::Notify;
use walproto::{Horizons, Lsn, SlotName, StandbyProgress, TimelineId};

use super::{Registry, Session, StandbyState};
use crate::feedback::{ClientName, FeedbackSource};

/// A connection's place in the registry, which it leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Registered {
    registry: Arc<Registry>,
    number: u64,
    process_id: i32,
    cancel: Arc<Cancellation>,
}

impl Registered {
    pub(super) fn new(
        registry: &Arc<Registry>,
        number: u64,
        process_id: i32,
        cancel: Arc<Cancellation>,
    ) -> Self {
        Self {
            registry: Arc::clone(registry),
            number,
            process_id,
            cancel,
        }
    }

    /// The identifier that the client is given.
    pub(crate) const fn process_id(&self) -> i32 {
        self.process_id
    }

    pub(crate) const fn cancellation(&self) -> &Arc<Cancellation> {
        &self.cancel
    }

    /// Notes that a stream begins, or with `None` that there is none any more.
    pub(crate) fn note_stream(&self, stream: Option<(TimelineId, Lsn)>, slot: Option<SlotName>) {
        self.with(|session| {
            session.lag.clear();
            let shown = &mut session.shown;
            shown.state = match stream {
                Some(_) => StandbyState::Catchup,
                None => StandbyState::Startup,
            };
            shown.timeline = stream.map(|(timeline, _)| timeline);
            shown.sent = stream.map(|(_, start)| start);
            shown.reported = StandbyProgress::default();
            shown.slot = slot;
        });
        self.registry.note_change();
    }

    /// Notes that the connection does something else now; whether it did what it was to do
    /// before.
    pub(crate) fn change_state(&self, from: StandbyState, to: StandbyState) -> bool {
        let changed = self.with(|session| {
            let fits = session.shown.state == from;
            if fits {
                session.shown.state = to;
            }
            fits
        });
        if changed == Some(true) {
            self.registry.note_change();
        }
        changed == Some(true)
    }

    pub(crate) fn note_sent(&self, end: Lsn, now: Instant) {
        self.with(|session| {
            session.shown.sent = Some(end);
            session.lag.note_sent(end, now);
        });
    }

    pub(crate) fn note_reported(&self, reported: StandbyProgress, now: Instant) {
        self.with(|session| {
            session.shown.reported = reported;
            session.shown.reported_at = Some(SystemTime::now());
            if let Some(sent) = session.shown.sent {
                session.lag.note_reported(reported, sent, now);
            }
        });
        self.registry.note_change();
    }

    /// Notes what the client needs to be kept; a slot goes on needing it when the client is gone.
    pub(crate) fn note_needs(&self, needs: Horizons, now: Instant) {
        let mut sessions = self.registry.lock();
        let Some(session) = sessions.by_number.get(&self.number) else {
            return;
        };
        let source = match &session.shown.slot {
            Some(slot) => FeedbackSource::Slot(slot.clone()),
            None => self.feedback_source(session),
        };
        if let Some(feedback) = &mut sessions.feedback {
            feedback.report(source, now, needs);
            drop(sessions);
            self.registry.note_change();
        }
    }

    fn feedback_source(&self, session: &Session) -> FeedbackSource {
        FeedbackSource::Connection {
            number: self.number,
            client: ClientName {
                user: session.shown.user.clone(),
                application_name: session.shown.application_name.clone(),
            },
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let mut sessions = self.registry.lock();
        sessions.by_number.get_mut(&self.number).map(change)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut sessions = self.registry.lock();
        let session = sessions.by_number.remove(&self.number);
        if let (Some(feedback), Some(session)) = (&mut sessions.feedback, session) {
            feedback.withdraw(&self.feedback_source(&session), Instant::now());
        }
        drop(sessions);
        self.registry.note_change();
    }
}

/// Lets one connection be told by another to give up what it is doing.
#[derive(Debug)]
pub(crate) struct Cancellation {
    key: [u8; KEY_LENGTH],
    asked: Notify,
}

/// The bytes of a key: what protocol 3.0 has room for.
pub(crate) const KEY_LENGTH: usize = 4;

impl Cancellation {
    pub(super) fn new(key: [u8; KEY_LENGTH]) -> Self {
        Self {
            key,
            asked: Notify::new(),
        }
    }

    pub(super) fn has_key(&self, key: &[u8]) -> bool {
        is_same_key(&self.key, key)
    }

    pub(super) fn ask(&self) {
        self.asked.notify_one();
    }

    /// Waits until somebody asks. Cancel safe.
    pub(crate) async fn asked(&self) {
        self.asked.notified().await;
    }
}

/// In the same time whether they differ early or late.
fn is_same_key(own: &[u8; KEY_LENGTH], other: &[u8]) -> bool {
    own.len() == other.len() && own.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}
