//! A connection to a PostgreSQL server for physical replication.
//!
//! - [`conninfo`] reads libpq's connection strings, with the environment, the [`passfile`] and the
//!   connection [`service`] file.
//! - [`hosts`] connects to the host that suits `target_session_attrs`.
//! - [`connection`] is a socket, with or without [`tls`], and the session on it.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use pgconn::conninfo::{ConnectionConfig, Overrides};
//! use pgconn::hosts::connect_any;
//! use walproto::client::SessionTimes;
//!
//! # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
//! let config = ConnectionConfig::from_sources(
//!     Some("host=db1,db2 user=archivist target_session_attrs=primary"),
//!     &Overrides::default(),
//!     &|name| std::env::var_os(name),
//! )?;
//! let times = SessionTimes {
//!     receive_timeout: Some(Duration::from_secs(60)),
//!     status_interval: Some(Duration::from_secs(10)),
//! };
//! let connection = connect_any(&config, times).await?;
//! println!("connected to server {}", connection.server());
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod connection;
pub mod conninfo;
pub mod hosts;
pub mod passfile;
#[cfg(any(test, feature = "scripted"))]
pub mod scripted;
pub mod service;
mod socket;
pub mod tls;
