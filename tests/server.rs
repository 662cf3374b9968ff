//! Our server of an archive inside the test.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use segstore::{ArchiveView, OsDisk, SlotLimits, SlotStore};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use walproto::Lsn;
use walsender::{BoundAddress, ConnectedStandby, ListenAddress, ServeConfig, Server, ServerHandle};

use crate::wait::wait_until;

/// A running server on a thread of its own; told to stop when it goes out of scope.
#[derive(Debug)]
pub struct EmbeddedServer {
    handle: ServerHandle,
    addresses: Vec<BoundAddress>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedServer {
    /// A configuration to listen at a free port of 127.0.0.1, where everybody is believed.
    #[must_use]
    pub fn config() -> ServeConfig {
        let address: ListenAddress = "127.0.0.1:0".parse().unwrap();
        let mut config = ServeConfig::new(vec![address]);
        config.access.trust_loopback = true;
        config
    }

    /// Serves the archive, which another process may be filling.
    #[must_use]
    #[track_caller]
    pub fn start(config: ServeConfig, archive: &Path) -> Self {
        Self::of_view(
            config,
            ArchiveView::open(Arc::new(OsDisk::new()), archive).unwrap(),
        )
    }

    /// Serves the archive of a view, which this process may be filling.
    #[must_use]
    #[track_caller]
    pub fn of_view(config: ServeConfig, view: ArchiveView) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (started, starting) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let _follower = view.follow().unwrap();
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let limits = SlotLimits {
                    max_slots: 4,
                    max_keep_bytes: None,
                };
                let slots = SlotStore::open(view, limits).unwrap();
                let server = Server::bind(config, slots).unwrap();
                let found = (server.handle(), server.addresses().to_vec());
                started.send(found).unwrap();
                // A test that has failed drops the sender, which is a stop as well.
                server.run(async { drop(stopped.await) }).await;
            });
        });
        let (handle, addresses) = starting.recv().unwrap();
        Self {
            handle,
            addresses,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// What is seen of it from outside.
    #[must_use]
    pub const fn handle(&self) -> &ServerHandle {
        &self.handle
    }

    /// How to connect to its first address, as the user `any`.
    #[must_use]
    pub fn conninfo(&self) -> String {
        match &self.addresses[0] {
            BoundAddress::Tcp(address) => {
                format!("host={} port={} user=any", address.ip(), address.port())
            }
            BoundAddress::Unix(path) => {
                let (_, port) = path.to_str().unwrap().rsplit_once('.').unwrap();
                let directory = path.parent().unwrap().display();
                format!("host={directory} port={port} user=any")
            }
        }
    }

    /// Its first address, which is one of TCP.
    #[must_use]
    pub fn tcp_address(&self) -> SocketAddr {
        match &self.addresses[0] {
            BoundAddress::Tcp(address) => *address,
            BoundAddress::Unix(path) => panic!("{} is no address of TCP", path.display()),
        }
    }

    /// The client of that name that came last, if one is connected.
    #[must_use]
    pub fn standby(&self, application_name: &str) -> Option<ConnectedStandby> {
        let mut standbys = self.handle.standbys();
        standbys.retain(|standby| standby.application_name == application_name);
        standbys.pop()
    }

    /// Waits until a client has reported all up to `end` as durable.
    #[track_caller]
    pub fn wait_flushed(&self, application_name: &str, end: Lsn) {
        wait_until(&format!("{application_name} to have flushed {end}"), || {
            let standby = self.standby(application_name);
            standby.is_some_and(|standby| standby.reported.flush >= Some(end))
        });
    }

    /// Tells it to stop.
    pub fn stop_without_waiting(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).unwrap();
        }
    }

    /// Whether it has stopped.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Tells it to stop, and waits for its end.
    #[track_caller]
    pub fn stop(mut self) {
        self.stop_without_waiting();
        wait_until("the embedded server to end", || self.has_stopped());
        self.thread.take().unwrap().join().unwrap();
    }
}
