//! A record that stays incomplete at the end of the server's WAL, as errors and events name it.

use std::fmt;

use walproto::{Lsn, TimelineId};

/// A record that is not complete where the server's WAL has ended for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct IncompleteTail {
    /// The timeline that is received.
    pub timeline: TimelineId,
    /// Where the record starts.
    pub lsn: Lsn,
    /// The length in bytes that its header claims, as far as that has come.
    pub total_length: Option<u32>,
    /// The end of the server's WAL.
    pub wal_end: Lsn,
}

impl fmt::Display for IncompleteTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            timeline,
            lsn,
            total_length,
            wal_end,
        } = self;
        write!(f, "WAL record at {lsn} (timeline {timeline}) ")?;
        if let Some(length) = total_length {
            write!(f, "claims to have {length} bytes and ")?;
        }
        write!(
            f,
            "is incomplete at {wal_end}, where the server's WAL has ended for a while"
        )
    }
}
