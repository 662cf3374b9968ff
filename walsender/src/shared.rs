//! What the server and all its connections share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use segstore::{ArchiveView, SlotStore};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;
use walproto::ServerVersion;
use walproto::server::StartupRequest;

use crate::access::{Access, MockNonce};
use crate::config::{MAX_COMMANDS, MAX_DISK_READERS, ServeConfig};
use crate::failure::Failures;
use crate::recurring::Recurring;
use crate::registry::Registry;
use crate::repeat::Repeats;
use crate::settings::Settings;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) view: ArchiveView,
    pub(crate) slots: SlotStore,
    pub(crate) config: ServeConfig,
    pub(crate) registry: Arc<Registry>,
    pub(crate) access: Mutex<Arc<Access>>,
    pub(crate) mock_nonce: MockNonce,
    /// More WAL is durable, as whoever fills the archive says it, from any thread.
    pub(crate) advanced: Notify,
    /// Changes then, for the connections.
    pub(crate) advance: watch::Sender<()>,
    /// Changes whenever a slot is released.
    pub(crate) released: watch::Sender<()>,
    /// A slot has moved since slots were last saved.
    pub(crate) slot_moved: Notify,
    /// Whether the server stops.
    pub(crate) stopping: watch::Sender<bool>,
    /// Who still has to show who it is, in the order in which they came.
    pub(crate) unknown: Mutex<BTreeMap<u64, AbortHandle>>,
    pub(crate) disk_readers: Semaphore,
    pub(crate) commands: Semaphore,
    pub(crate) failures: Failures,
    pub(crate) recurring: Recurring,
    pub(crate) repeats: Repeats,
}

impl Shared {
    pub(crate) fn new(
        config: ServeConfig,
        slots: SlotStore,
        registry: Registry,
        access: Access,
        mock_nonce: MockNonce,
    ) -> Self {
        Self {
            view: slots.view().clone(),
            slots,
            config,
            registry: Arc::new(registry),
            access: Mutex::new(Arc::new(access)),
            mock_nonce,
            advanced: Notify::new(),
            advance: watch::Sender::new(()),
            released: watch::Sender::new(()),
            slot_moved: Notify::new(),
            stopping: watch::Sender::new(false),
            unknown: Mutex::default(),
            disk_readers: Semaphore::new(MAX_DISK_READERS),
            commands: Semaphore::new(MAX_COMMANDS),
            failures: Failures::new(),
            recurring: Recurring::default(),
            repeats: Repeats::default(),
        }
    }

    pub(crate) fn access(&self) -> Arc<Access> {
        let access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&access)
    }

    /// The parameters of a connection.
    pub(crate) fn settings<'a>(
        &'a self,
        request: &'a StartupRequest,
        wal_sender_timeout: Option<Duration>,
    ) -> Settings<'a> {
        let identity = self.view.identity();
        Settings {
            version: ServerVersion(identity.server_version_num()),
            segment_size: identity.segment_size(),
            data_directory_mode: identity.data_directory_mode(),
            config: &self.config,
            user: &request.user,
            application_name: &request.application_name,
            wal_sender_timeout,
            slots: self.slots.limits(),
        }
    }

    /// Changes whenever more WAL is durable.
    pub(crate) fn advance(&self) -> watch::Receiver<()> {
        self.advance.subscribe()
    }

    /// Changes whenever a slot is released.
    pub(crate) fn released(&self) -> watch::Receiver<()> {
        self.released.subscribe()
    }

    /// Has slots saved before long.
    pub(crate) fn note_slot_moved(&self) {
        self.slot_moved.notify_one();
    }

    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// Notes that a client has shown who it is, or is gone.
    pub(crate) fn note_known(&self, number: u64) {
        self.unknown().remove(&number);
    }

    pub(crate) fn unknown(&self) -> MutexGuard<'_, BTreeMap<u64, AbortHandle>> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
