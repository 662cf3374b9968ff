//! The server: who connects, and how it stops.

mod accept;
mod handle;
mod panics;
mod saving;
mod stop;

use std::sync::{Arc, Mutex, PoisonError};

use segstore::{SlotStore, Subscription};
use tokio::task::JoinSet;
use walproto::Horizons;

use self::accept::accept;
pub use self::handle::ServerHandle;
use self::panics::note_panic;
use self::saving::{hear_of_slots, save, save_slots};
pub use self::stop::Stop;
use self::stop::{SAVE_PATIENCE, until};
use crate::access::Access;
use crate::config::{MAX_UNAUTHENTICATED, ServeConfig};
use crate::connection;
use crate::error::ServeError;
use crate::listener::{BoundAddress, Listener};
use crate::random::random;
use crate::registry::{ConnectionLimits, Registry};
use crate::shared::Shared;
use crate::socket::Accepted;
use crate::sockets::Sockets;

/// A server of an archive of WAL.
///
/// It is made ready by [`Server::bind`], and serves while [`Server::run`] runs.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    listeners: Vec<Listener>,
    addresses: Vec<BoundAddress>,
    _subscriptions: [Subscription; 2],
}

impl Server {
    /// Reads the files that say who may connect, and listens. `slots` are those of the archive
    /// that is served; who fills it, this process or another, makes no difference.
    ///
    /// It reads files, and needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// When a file is not as it should be, or an address cannot be listened at.
    pub fn bind(config: ServeConfig, slots: SlotStore) -> Result<Self, ServeError> {
        let sockets = Sockets::bind(&config.listen)?;
        Self::at(sockets, config, slots)
    }

    /// The same at addresses that are taken already, in place of those of the configuration.
    ///
    /// # Errors
    /// As [`Server::bind`].
    pub fn at(sockets: Sockets, config: ServeConfig, slots: SlotStore) -> Result<Self, ServeError> {
        let fresh = random().ok_or(ServeError::NoRandomness)?;
        let mock_nonce = slots.mock_authentication_nonce(fresh)?;
        let access = Access::load(&config.access, mock_nonce)?;
        if config.access.trust_loopback {
            tracing::warn!(
                "any user of this machine can connect through 127.0.0.1 and ::1 without a password"
            );
        }
        let listeners = sockets.listen()?;
        let addresses = listeners.iter().filter_map(|l| l.address().ok()).collect();
        let limits = ConnectionLimits {
            total: config.limits.connections,
            per_user: config.limits.connections_per_user,
        };
        let registry = Registry::new(limits, config.policy.clone(), config.feedback_age);
        for slot in slots.list()? {
            let needs = Horizons {
                xmin: slot.xmin,
                catalog_xmin: slot.catalog_xmin,
            };
            registry.note_slot_needs(&slot.name, needs);
        }
        let shared = Arc::new(Shared::new(config, slots, registry, access, mock_nonce));
        let subscriptions = [hear_of_wal(&shared), hear_of_slots(&shared)];
        Ok(Self {
            shared,
            listeners,
            addresses,
            _subscriptions: subscriptions,
        })
    }

    /// Where clients can connect, with the ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> &[BoundAddress] {
        &self.addresses
    }

    /// A way to look at the server while it runs.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        ServerHandle::new(Arc::clone(&self.shared))
    }

    /// Serves until `stop` is ready. Then it waits until every streaming client has received and
    /// confirmed all WAL that is durable by then, or has disconnected. Other clients get an error.
    /// A client that accepts no data is disconnected after [`Limits::wal_sender_timeout`], even if
    /// it asked for a longer time. To stop without waiting, drop the future.
    ///
    /// [`Limits::wal_sender_timeout`]: crate::Limits::wal_sender_timeout
    ///
    /// In a relay, stop the receiver first, so that clients get the last WAL.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let stop = async {
            stop.await;
            Stop::OnceReplicated
        };
        self.run_until(stop).await;
    }

    /// As [`Server::run`], and `stop` says how long clients are waited for.
    pub async fn run_until(self, stop: impl Future<Output = Stop>) {
        let shared = Arc::clone(&self.shared);
        // A task of its own: clients are, too, and get WAL also while whoever polls this does
        // something else. It ends with this.
        let mut spreading = JoinSet::new();
        spreading.spawn(spread_advances(Arc::clone(&shared)));
        let evaluate = shared.registry.evaluate(|| {
            let durable = shared.view.durable();
            durable.map(|durable| durable.timeline)
        });
        let stop = tokio::select! {
            () = evaluate => Stop::OnceReplicated,
            () = save_slots(&shared) => Stop::OnceReplicated,
            () = shared.repeats.report_suppressed() => Stop::OnceReplicated,
            stop = self.serve(stop) => stop,
        };
        match stop {
            Stop::OnceReplicated => save(&shared).await,
            Stop::Within(_) => {
                let saved = tokio::time::timeout(SAVE_PATIENCE, save(&shared)).await;
                if saved.is_err() {
                    tracing::warn!(
                        "replication slots were not saved within {} seconds",
                        SAVE_PATIENCE.as_secs()
                    );
                }
            }
        }
    }

    async fn serve(self, stop: impl Future<Output = Stop>) -> Stop {
        let mut clients = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        let mut next = 0;
        let mut failures = accept::Failures::default();
        // One more than there may be is accepted, for the oldest unauthenticated one makes room.
        let most = self.shared.config.limits.connections;
        let most = most.saturating_add(MAX_UNAUTHENTICATED + 1);
        let stop = loop {
            tokio::select! {
                stop = &mut stop => break stop,
                accepted = accept(&self.listeners), if clients.len() < most => match accepted {
                    Ok(accepted) => {
                        self.welcome(&mut clients, next, accepted);
                        next += 1;
                    }
                    Err(error) => failures.note(&error).await,
                },
                Some(ended) = clients.join_next() => note_panic(ended),
            }
        };
        let deadline = stop.deadline();
        drop(self.listeners);
        // Who has not shown who it is by now has nothing to wait for.
        for task in std::mem::take(&mut *self.shared.unknown()).into_values() {
            task.abort();
        }
        self.shared.stopping.send_replace(true);
        loop {
            tokio::select! {
                ended = clients.join_next() => match ended {
                    Some(ended) => note_panic(ended),
                    None => return stop,
                },
                () = until(deadline) => break,
            }
        }
        tracing::warn!(
            clients = clients.len(),
            "disconnecting clients that have not confirmed all WAL in time: {}",
            clients.len()
        );
        clients.shutdown().await;
        stop
    }

    fn welcome(&self, clients: &mut JoinSet<()>, number: u64, accepted: Accepted) {
        let shared = Arc::clone(&self.shared);
        let mut unknown = self.shared.unknown();
        let task = clients.spawn(connection::serve(shared, accepted, number));
        unknown.insert(number, task);
        if unknown.len() > MAX_UNAUTHENTICATED
            && let Some((_, oldest)) = unknown.pop_first()
        {
            oldest.abort();
        }
    }
}

/// Has connections and policy look again when more WAL is durable.
fn hear_of_wal(shared: &Arc<Shared>) -> Subscription {
    let weak = Arc::downgrade(shared);
    let newest = Mutex::new(None);
    shared.view.on_advance(move || {
        let Some(shared) = weak.upgrade() else { return };
        let timeline = shared.view.durable().map(|durable| durable.timeline);
        let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *newest, timeline) != timeline {
            shared.registry.note_change();
        }
        shared.advanced.notify_one();
    })
}

/// Has the connections look again whenever more WAL is durable, for ever.
///
/// To wake a task of another thread's runtime takes a system call, and whoever fills the archive
/// would make one for each client. So it wakes this alone, which runs where the clients do.
async fn spread_advances(shared: Arc<Shared>) {
    loop {
        shared.advanced.notified().await;
        shared.advance.send_replace(());
    }
}
