//! Serves an archive of WAL as a PostgreSQL server would: standbys, `pg_receivewal` and other
//! receivers stream from it, from its oldest segment to what becomes durable now.
//!
//! Start with a [`Server`]: a [`ServeConfig`] says where clients connect and who may, an
//! [`ArchiveView`](segstore::ArchiveView) what they get, be it filled by this process or another,
//! and a [`SlotStore`](segstore::SlotStore) what is kept for them while they are away.
//! Nothing leaves that is not durable in the archive.
//!
//! ```no_run
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! use segstore::{ArchiveView, OsDisk, SlotLimits, SlotStore};
//! use walsender::{ServeConfig, Server};
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let view = ArchiveView::open(Arc::new(OsDisk::new()), Path::new("/srv/wal"))?;
//! let _follower = view.follow()?;
//! let config = ServeConfig::new(vec!["/run/wal:5432".parse()?]);
//! let limits = SlotLimits {
//!     max_slots: 10,
//!     max_keep_bytes: None,
//! };
//! let server = Server::bind(config, SlotStore::open(view, limits)?)?;
//! let handle = server.handle();
//! tokio::spawn(async move {
//!     for standby in handle.standbys() {
//!         println!("{} {:?}", standby.application_name, standby.reported.flush);
//!     }
//! });
//! server.run(async { drop(tokio::signal::ctrl_c().await) }).await;
//! # Ok(())
//! # }
//! ```
//!
//! - [`hba`], [`users`] and [`tls`] say who may connect; [`ServerHandle::reload`] reads them anew.
//! - [`policy`] makes of the standbys' reports what an upstream may be told:
//!   [`ServerHandle::confirmed`]. [`feedback`] does so with the transactions that they need:
//!   [`ServerHandle::needs`].
//! - [`ServerHandle::failures`] tells of WAL that cannot be served.
//! - [`ServerHandle::standbys`] shows who is connected, as `pg_stat_replication` does.
//!
//! `examples/serve.rs` is a whole program. A server needs a tokio runtime with its drivers for
//! I/O and time enabled; one thread is enough, for what waits for the disk has threads of its own.
#![forbid(unsafe_code)]

mod access;
mod chain;
mod commands;
mod config;
mod connection;
mod error;
mod failure;
pub mod feedback;
pub mod hba;
mod listener;
mod may_block;
pub mod policy;
mod pump;
mod random;
mod recurring;
mod registry;
mod repeat;
mod server;
mod settings;
mod shared;
mod socket;
mod sockets;
pub mod tls;
pub mod users;

pub use access::AccessError;
pub use config::{AccessFiles, InvalidListenAddress, Limits, ListenAddress, ServeConfig};
pub use error::ServeError;
pub use failure::StreamFailure;
pub use listener::BoundAddress;
pub use registry::{ConnectedStandby, Lags, StandbyState};
pub use repeat::FailedConnections;
pub use server::{Server, ServerHandle, Stop};
pub use settings::parse_duration;
pub use sockets::Sockets;
