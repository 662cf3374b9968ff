//! How a server is looked at while it runs.

use std::sync::Arc;

use tokio::sync::{broadcast, watch};
use walproto::{Confirmed, Horizons};

use crate::access::{Access, AccessError};
use crate::failure::StreamFailure;
use crate::registry::ConnectedStandby;
use crate::repeat::FailedConnections;
use crate::shared::Shared;

/// Looks at a server from outside, also from other threads.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    shared: Arc<Shared>,
}

impl ServerHandle {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Who is connected, as `pg_stat_replication` shows it, in the order in which they came.
    #[must_use]
    pub fn standbys(&self) -> Vec<ConnectedStandby> {
        let durable = self.shared.view.durable();
        let timeline = durable.map(|durable| durable.timeline);
        self.shared.registry.standbys(timeline)
    }

    /// How many connections ended badly so far. Only a limited number of them is logged.
    #[must_use]
    pub fn failed_connections(&self) -> FailedConnections {
        self.shared.repeats.failed_connections()
    }

    /// Changes whenever [`standbys`](Self::standbys) may show something else than before, but for
    /// what is sent and for lags: a connection comes, goes, begins to stream, or reports.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.shared.registry.changes()
    }

    /// What the policy makes of the standbys, whenever it changes; `None` without a policy, and
    /// as long as there is no WAL.
    #[must_use]
    pub fn confirmed(&self) -> watch::Receiver<Option<Confirmed>> {
        self.shared.registry.confirmed()
    }

    /// Which transactions the standbys still need, whenever it changes. Nothing without
    /// [`ServeConfig::feedback_age`](crate::ServeConfig::feedback_age).
    #[must_use]
    pub fn needs(&self) -> watch::Receiver<Horizons> {
        self.shared.registry.needs()
    }

    /// Tells of WAL, histories and slots that clients asked for and that could not be given to
    /// them, from now on. Who does not look in time misses the oldest ones.
    #[must_use]
    pub fn failures(&self) -> broadcast::Receiver<Arc<StreamFailure>> {
        self.shared.failures.subscribe()
    }

    /// Reads the files anew that say who may connect; for who connects from now on. It reads
    /// files.
    ///
    /// # Errors
    /// When a file is not as it should be: what was read before still holds.
    pub fn reload(&self) -> Result<(), AccessError> {
        let files = &self.shared.config.access;
        let access = Arc::new(Access::load(files, self.shared.mock_nonce)?);
        let mut current = self.shared.access.lock();
        let current = current.as_mut().map_err(|poisoned| poisoned.get_mut());
        match current {
            Ok(current) => **current = access,
            Err(current) => **current = access,
        }
        Ok(())
    }
}
