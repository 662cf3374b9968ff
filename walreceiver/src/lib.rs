//! Receives WAL from a PostgreSQL primary, keeps it in a durable archive and acknowledges it.
#![forbid(unsafe_code)]

mod config;
pub mod connection;
pub mod conninfo;
mod event;
pub mod hosts;
pub mod passfile;
pub mod service;
mod socket;
pub mod tls;

pub use config::{Acknowledge, OnFork, ReceiverConfig, Reconnect, ReportedApply};
pub use event::{Progress, ReceiverEvent, Reporter, Warning};
pub use segstore::{Compression, InvalidLevel};
