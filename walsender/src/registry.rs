//! Who is connected, how far they are, and what follows from it.

mod lag;
mod registered;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, watch};
use walproto::{Confirmed, Horizons, Lsn, SlotName, StandbyProgress, TimelineId};

use lag::LagTracker;
pub use lag::Lags;
pub(crate) use registered::{Cancellation, KEY_LENGTH, Registered};

use crate::feedback::{FeedbackMerge, FeedbackSource};
use crate::policy::{Standby, SyncPolicy, SyncState};

/// What a connection is doing (`state` of `pg_stat_replication`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StandbyState {
    /// It is not streamed to.
    Startup,
    /// It is sent WAL that was there when it came.
    Catchup,
    /// It has got all that was durable, and gets what follows as it becomes so.
    Streaming,
    /// It is sent the last WAL before the server stops.
    Stopping,
}

impl StandbyState {
    /// The word that `pg_stat_replication` has for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Catchup => "catchup",
            Self::Streaming => "streaming",
            Self::Stopping => "stopping",
        }
    }
}

/// A connected standby or other receiver, as `pg_stat_replication` shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectedStandby {
    /// The identifier that the client was given (`pid`); no process of the system has it.
    pub process_id: i32,
    /// The user.
    pub user: String,
    /// The name that it gave itself.
    pub application_name: String,
    /// Where it connects from, `None` for a Unix socket.
    pub address: Option<SocketAddr>,
    /// Whether TLS is in use.
    pub encrypted: bool,
    /// When it connected (`backend_start`).
    pub connected_at: SystemTime,
    /// What it is doing.
    pub state: StandbyState,
    /// The timeline that it is sent.
    pub timeline: Option<TimelineId>,
    /// The slot that it uses.
    pub slot: Option<SlotName>,
    /// Up to where it was sent WAL (`sent_lsn`).
    pub sent: Option<Lsn>,
    /// What it reported (`write_lsn`, `flush_lsn`, `replay_lsn`).
    pub reported: StandbyProgress,
    /// How long that took.
    pub lags: Lags,
    /// Its place in the policy, 0 if it has none (`sync_priority`).
    pub sync_priority: usize,
    /// What it is to the policy (`sync_state`).
    pub sync_state: SyncState,
    /// When it last reported something (`reply_time`).
    pub reported_at: Option<SystemTime>,
}

/// Who is about to be connected.
#[derive(Clone, Debug)]
pub(crate) struct Newcomer {
    pub(crate) user: String,
    pub(crate) application_name: String,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) encrypted: bool,
}

/// Why no more connections are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoRoom {
    /// There are too many.
    Total,
    /// The user has too many.
    User,
}

/// How many connections there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ConnectionLimits {
    pub(crate) total: usize,
    pub(crate) per_user: usize,
}

/// The connections that have shown who they are.
#[derive(Debug)]
pub(crate) struct Registry {
    sessions: Mutex<Sessions>,
    policy: Option<SyncPolicy>,
    confirmed: watch::Sender<Option<Confirmed>>,
    needs: watch::Sender<Horizons>,
    /// Something changed that the policy or the feedback has to be looked at for.
    changed: Notify,
    /// The same, for who watches the connections.
    shown: watch::Sender<()>,
}

#[derive(Debug)]
struct Sessions {
    limits: ConnectionLimits,
    next: u64,
    by_number: BTreeMap<u64, Session>,
    feedback: Option<FeedbackMerge>,
}

#[derive(Debug)]
struct Session {
    shown: ConnectedStandby,
    lag: LagTracker,
    cancel: Arc<Cancellation>,
}

impl Registry {
    /// Without a `feedback_age` the feedback of standbys is taken and forgotten.
    pub(crate) fn new(
        limits: ConnectionLimits,
        policy: Option<SyncPolicy>,
        feedback_age: Option<Duration>,
    ) -> Self {
        let sessions = Sessions {
            limits,
            next: 1,
            by_number: BTreeMap::new(),
            feedback: feedback_age.map(FeedbackMerge::new),
        };
        Self {
            sessions: Mutex::new(sessions),
            policy,
            confirmed: watch::Sender::new(None),
            needs: watch::Sender::new(Horizons::default()),
            changed: Notify::new(),
            shown: watch::Sender::new(()),
        }
    }

    /// Takes in a connection, until what is returned is dropped.
    pub(crate) fn admit(
        self: &Arc<Self>,
        newcomer: Newcomer,
        key: [u8; KEY_LENGTH],
    ) -> Result<Registered, NoRoom> {
        let mut sessions = self.lock();
        if sessions.by_number.len() >= sessions.limits.total {
            return Err(NoRoom::Total);
        }
        let of_user = |session: &&Session| session.shown.user == newcomer.user;
        if sessions.by_number.values().filter(of_user).count() >= sessions.limits.per_user {
            return Err(NoRoom::User);
        }
        let number = sessions.next;
        sessions.next += 1;
        let cancel = Arc::new(Cancellation::new(key));
        // After two thousand million connections it begins anew, and 0 is nobody.
        let process_id = i32::try_from(number % 0x7fff_ffff).unwrap_or_default() + 1;
        let shown = ConnectedStandby {
            process_id,
            user: newcomer.user,
            application_name: newcomer.application_name,
            address: newcomer.address,
            encrypted: newcomer.encrypted,
            connected_at: SystemTime::now(),
            state: StandbyState::Startup,
            timeline: None,
            slot: None,
            sent: None,
            reported: StandbyProgress::default(),
            lags: Lags::default(),
            sync_priority: 0,
            sync_state: SyncState::Async,
            reported_at: None,
        };
        let session = Session {
            shown,
            lag: LagTracker::default(),
            cancel: Arc::clone(&cancel),
        };
        sessions.by_number.insert(number, session);
        self.shown.send_replace(());
        Ok(Registered::new(self, number, process_id, cancel))
    }

    /// Asks the connection with that identifier and key to give up what it is doing. Whether
    /// there is one is nobody's business.
    pub(crate) fn cancel(&self, process_id: i32, key: &[u8]) {
        let sessions = self.lock();
        let found = sessions
            .by_number
            .values()
            .find(|session| session.shown.process_id == process_id && session.cancel.has_key(key));
        if let Some(session) = found {
            session.cancel.ask();
        }
    }

    /// The connections in the order in which they came; `timeline` is the newest here.
    pub(crate) fn standbys(&self, timeline: Option<TimelineId>) -> Vec<ConnectedStandby> {
        let mut shown: Vec<ConnectedStandby> = {
            let sessions = self.lock();
            let with_lags = |session: &Session| ConnectedStandby {
                lags: session.lag.lags(),
                ..session.shown.clone()
            };
            sessions.by_number.values().map(with_lags).collect()
        };
        if let (Some(policy), Some(timeline)) = (&self.policy, timeline) {
            let candidates: Vec<Standby<'_>> = (0..).zip(&shown).map(candidate).collect();
            let states = policy.states(timeline, &candidates);
            for (standby, state) in shown.iter_mut().zip(states) {
                standby.sync_priority = policy.priority(&standby.application_name);
                standby.sync_state = state;
            }
        }
        shown
    }

    /// What the policy makes of the standbys; `None` without a policy or any WAL.
    pub(crate) fn confirmed(&self) -> watch::Receiver<Option<Confirmed>> {
        self.confirmed.subscribe()
    }

    /// What the standbys need to be kept.
    pub(crate) fn needs(&self) -> watch::Receiver<Horizons> {
        self.needs.subscribe()
    }

    /// Has policy and feedback looked at anew.
    pub(crate) fn note_change(&self) {
        self.changed.notify_one();
        self.shown.send_replace(());
    }

    /// Changes whenever a connection comes, goes, does something else or reports.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.shown.subscribe()
    }

    /// Takes what a slot keeps from before, or with nothing forgets it.
    pub(crate) fn note_slot_needs(&self, slot: &SlotName, needs: Horizons) {
        let mut sessions = self.lock();
        if let Some(feedback) = &mut sessions.feedback {
            let source = FeedbackSource::Slot(slot.clone());
            match needs == Horizons::default() {
                true => feedback.withdraw(&source, Instant::now()),
                false => feedback.report(source, Instant::now(), needs),
            }
            drop(sessions);
            self.note_change();
        }
    }

    /// Looks at policy and feedback whenever something changed, for ever; `timeline` tells which
    /// is the newest here. Many changes that come at once are looked at once.
    pub(crate) async fn evaluate(&self, timeline: impl Fn() -> Option<TimelineId>) {
        loop {
            let now = Instant::now();
            self.evaluate_once(timeline());
            let next_change = {
                let sessions = self.lock();
                let feedback = sessions.feedback.as_ref();
                let needs = feedback.map(|feedback| feedback.merged(now));
                self.needs.send_if_modified(|current| {
                    let needs = needs.unwrap_or_default();
                    std::mem::replace(current, needs) != needs
                });
                feedback.and_then(|feedback| feedback.next_change(now))
            };
            match next_change {
                Some(at) => {
                    let changed = tokio::time::timeout_at(at.into(), self.changed.notified());
                    // Either way it is looked at anew.
                    let _ = changed.await;
                }
                None => self.changed.notified().await,
            }
        }
    }

    fn evaluate_once(&self, timeline: Option<TimelineId>) {
        let Some(policy) = &self.policy else { return };
        let confirmed = timeline.map(|timeline| {
            let sessions = self.lock();
            let shown = sessions.by_number.iter();
            let candidates: Vec<Standby<'_>> = shown
                .map(|(number, session)| candidate((*number, &session.shown)))
                .collect();
            policy.evaluate(timeline, &candidates)
        });
        self.confirmed
            .send_if_modified(|current| std::mem::replace(current, confirmed) != confirmed);
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        // No change of it is left half done by a panic.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the policy wants to know of a connection.
fn candidate((connected, shown): (u64, &ConnectedStandby)) -> Standby<'_> {
    let streams = matches!(
        shown.state,
        StandbyState::Streaming | StandbyState::Stopping
    );
    Standby {
        application_name: &shown.application_name,
        connected,
        streaming: shown.timeline.filter(|_| streams),
        progress: shown.reported,
    }
}
