//! Receives WAL from a PostgreSQL primary, keeps it in a durable archive and acknowledges it.
//!
//! What the primary is told to be flushed is contiguous, every record of it was checked, and the
//! files and directory entries that hold it are synced: it survives a crash of either machine. It
//! is also all that an [`Apply`] gets, record by record, in order and without a gap.
//!
//! Start with a [`Receiver`]: a [`ReceiverConfig`] says what to do, a
//! [`ConnectionConfig`](pgconn::conninfo::ConnectionConfig) where to connect.
//!
//! ```no_run
//! use pgconn::conninfo::{ConnectionConfig, Overrides};
//! use walreceiver::{Receiver, ReceiverConfig};
//!
//! # async fn receive() -> Result<(), Box<dyn std::error::Error>> {
//! let connection = ConnectionConfig::from_sources(
//!     Some("host=db1,db2 user=archivist target_session_attrs=primary"),
//!     &Overrides::default(),
//!     &|name| std::env::var_os(name),
//! )?;
//! let mut config = ReceiverConfig::new("/srv/wal");
//! config.slot = Some("archive".parse()?);
//! // Runs until it is told to stop: what was received by then is durable.
//! Receiver::new(config, connection)
//!     .run(async { drop(tokio::signal::ctrl_c().await) })
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! - [`Receiver::with_apply`] gives the durable records to a closure or an [`Apply`].
//! - [`Receiver::with_reporter`] tells what happens: connections lost, segments finished,
//!   promotions followed.
//! - [`Receiver::archive`] is for who serves the archive while it is filled, and
//!   [`Receiver::with_downstream`] has the primary wait for those who are served.
//! - [`create_slot`] makes the replication slot that keeps WAL while no receiver is connected.
//! - [`pgconn`] connects; it is also for programs that speak the replication protocol themselves.
//!
//! `examples/archive.rs` and `examples/apply.rs` are whole programs. A receiver needs a tokio
//! runtime with its drivers for I/O and time enabled; one thread is enough, for it never waits for
//! the disk there. On a runtime with several its future can be spawned.
#![forbid(unsafe_code)]

mod apply;
mod attempt;
mod config;
mod downstream;
mod error;
mod event;
mod flusher;
mod follow;
mod incomplete_tail;
mod negotiate;
mod outage;
mod receiver;
mod retry;
#[cfg(test)]
mod sample;
mod served;
mod slot;
mod standing;
mod stream;

pub use apply::{Apply, ApplyConfig, ApplyError};
pub use config::{
    Acknowledge, FirstStart, OnFork, OnLostSlot, ReceiverConfig, Reconnect, ReportedApply,
    ShortSyncs,
};
pub use downstream::Downstream;
pub use error::ReceiveError;
pub use event::{Progress, ReceiverEvent, Reporter, Warning};
pub use follow::{Fork, Refusal};
pub use incomplete_tail::IncompleteTail;
pub use pgconn;
pub use receiver::Receiver;
pub use segstore::{
    ArchiveView, Compression, InvalidLevel, MissingSegments, PieceEnd, ReadRecordError,
    RecordHeader, RecordPiece, record,
};
pub use served::ReceivedArchive;
pub use slot::{NewPhysicalSlot, SlotError, create_slot, drop_slot};
pub use walproto::copy_data::EpochXid;
pub use walproto::{Lsn, SlotName, TimelineId, WalPosition};
