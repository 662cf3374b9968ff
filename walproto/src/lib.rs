//! PostgreSQL's physical streaming replication as a protocol: functions from bytes to values and
//! back, without sockets, files, clocks or an async runtime.
//!
//! The vocabulary that the other crates share is here too: positions ([`Lsn`]), timelines
//! ([`TimelineId`], [`TimelineHistory`]), segments ([`SegmentSize`], [`SegmentNumber`]) and
//! names ([`SystemId`], [`SlotName`]).
//!
//! Source: the PostgreSQL manual, "Frontend/Backend Protocol", sections "Streaming Replication
//! Protocol" and "Message Formats".
#![forbid(unsafe_code)]

pub mod backend;
pub mod client;
pub mod command;
pub mod copy_data;
pub mod error;
pub mod frame;
mod ident;
mod lsn;
mod reader;
pub mod result;
pub mod startup;
mod time;
mod timeline;
mod version;

pub use ident::{InvalidSlotName, ParseSystemIdError, SlotName, SystemId};
pub use lsn::{InvalidSegmentSize, Lsn, ParseLsnError, SegmentNumber, SegmentSize};
pub use reader::{MalformedMessage, MessageFault};
pub use time::PgTimestamp;
pub use timeline::{
    HistoryFault, ParseHistoryError, ParseTimelineIdError, TimelineHistory, TimelineId,
    TimelineSwitch,
};
pub use version::{ParseServerVersionError, ServerVersion};
