//! Receives WAL from a PostgreSQL primary, keeps it in a durable archive and acknowledges it.
#![forbid(unsafe_code)]

mod config;
mod event;

pub use config::{Acknowledge, Compression, OnFork, ReceiverConfig, Reconnect, ReportedApply};
pub use event::{Progress, ReceiverEvent, Reporter, Warning};
