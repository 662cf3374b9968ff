//! Receives WAL from a PostgreSQL primary, keeps it in a durable archive and acknowledges it.
#![forbid(unsafe_code)]

mod apply;
mod attempt;
mod config;
pub mod connection;
pub mod conninfo;
mod error;
mod event;
mod flusher;
mod follow;
pub mod hosts;
mod negotiate;
pub mod passfile;
mod receiver;
mod retry;
pub mod service;
mod slot;
mod socket;
mod stream;
pub mod tls;

pub use apply::{Apply, ApplyConfig, ApplyError};
pub use config::{Acknowledge, OnFork, OnLostSlot, ReceiverConfig, Reconnect, ReportedApply};
pub use error::ReceiveError;
pub use event::{Progress, ReceiverEvent, Reporter, Warning};
pub use follow::{Fork, Refusal};
pub use receiver::Receiver;
pub use segstore::{Compression, InvalidLevel};
pub use slot::{NewPhysicalSlot, SlotError, create_slot, drop_slot};
