//! PostgreSQL's physical streaming replication as a protocol: functions from bytes to values and
//! back, without sockets, files, clocks or an async runtime.
//!
//! No length that a peer names is believed before it is checked, and no bytes of a peer's make
//! anything here panic. Memory is bounded by constants of this crate, not by the peer.
//!
//! - To receive WAL: [`client::ClientSession`], all of a receiver's side from the startup packet
//!   on, driven with bytes and times. The crate `walreceiver` is its driver for real sockets.
//! - To serve WAL: [`server::ServerSession`], all of a sender's side, driven in the same way;
//!   [`scram`] has what a server stores of a password.
//! - To speak the protocol in another way: [`command`] has what is asked, [`result`] how it is
//!   answered, [`copy_data`] what is streamed, [`backend`], [`frontend`], [`frame`] and [`startup`]
//!   the messages around it.
//!
//! ```
//! use bytes::BytesMut;
//! use walproto::command::Command;
//! use walproto::copy_data::StandbyStatusUpdate;
//! use walproto::{Lsn, PgTimestamp};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let command = Command::parse("START_REPLICATION SLOT \"a\" PHYSICAL 0/3000000 TIMELINE 2")?;
//! assert!(matches!(
//!     command,
//!     Command::StartReplication { start: Lsn(0x300_0000), timeline: Some(tli), .. }
//!         if tli.number() == 2
//! ));
//!
//! // What a receiver says of itself, as a `CopyData` message.
//! let mut message = BytesMut::new();
//! StandbyStatusUpdate {
//!     write: "0/3000148".parse()?,
//!     flush: "0/3000148".parse()?,
//!     apply: Lsn::INVALID,
//!     sent_at: PgTimestamp(0),
//!     reply_requested: false,
//! }
//! .encode(&mut message);
//! assert_eq!(message.len(), 1 + 4 + 34);
//! # Ok(())
//! # }
//! ```
//!
//! The vocabulary that the other crates share is here too: positions ([`Lsn`], [`WalPosition`],
//! [`StandbyProgress`]), major versions ([`Major`]), timelines
//! ([`TimelineId`], [`TimelineHistory`]), segments ([`SegmentSize`], [`SegmentNumber`]) and
//! names ([`SystemId`], [`SlotName`]).
//!
//! Source: the PostgreSQL manual, "Frontend/Backend Protocol", sections "Streaming Replication
//! Protocol" and "Message Formats".
#![forbid(unsafe_code)]

pub mod backend;
pub mod certificate;
pub mod channel_binding;
pub mod client;
pub mod command;
pub mod copy_data;
pub mod error;
mod foreign;
pub mod frame;
pub mod frontend;
pub mod http;
mod ident;
mod lsn;
#[cfg(test)]
mod noise;
mod position;
mod reader;
pub mod result;
pub mod scram;
pub mod server;
pub mod startup;
mod time;
mod timeline;
mod version;

pub use foreign::{BytesAsText, ForeignText, is_unsafe};
pub use ident::{InvalidSlotName, ParseSystemIdError, SlotName, SystemId};
pub use lsn::{InvalidSegmentSize, Lsn, ParseLsnError, SegmentNumber, SegmentSize};
pub use position::{Confirmed, Horizons, StandbyProgress, WalPosition};
pub use reader::{MalformedMessage, MessageFault};
pub use time::PgTimestamp;
pub use timeline::{
    HistoryFault, ParseHistoryError, ParseTimelineIdError, TimelineHistory, TimelineId,
    TimelineSwitch,
};
pub use version::{MAJORS, Major, ParseServerVersionError, ServerVersion};
