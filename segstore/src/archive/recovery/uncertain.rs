//! Bytes that are valid whatever they are.
//!
//! A few stretches of WAL have no checksum: what is left of a record that a crash of the primary
//! aborted, the rest of one that began before the archive, and what follows a segment switch,
//! which may be zeros or page headers. In a growing segment they may be zeros because a crash
//! of the machine lost them, with valid records behind them. So the first of them that is not
//! known to be durable is where to begin again, and what is found there may give way to what the
//! server sends.

use walproto::Lsn;

use crate::wal::page::LONG_HEADER_LENGTH;
use crate::wal::record::RecordHeader;
use crate::wal::validator::RecordVisitor;

/// Bytes without a checksum before the end of valid WAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stretch {
    pub(super) start: Lsn,
    /// The start of a record that ends before, or of what was read.
    pub(super) record: Lsn,
}

/// Looks for the first stretch without a checksum.
#[derive(Debug)]
pub(super) struct Search {
    /// Up to where all bytes are durable.
    settled: Lsn,
    /// The start and the end of the last complete record; before the first, of what was read.
    record: Lsn,
    record_end: Lsn,
    begun: Option<Begun>,
    found: Option<Stretch>,
}

#[derive(Clone, Copy, Debug)]
struct Begun {
    start: Lsn,
    is_switch: bool,
}

impl Search {
    /// Reads from `start` on, which is the start of a segment. What ends at `settled` or before
    /// is of no interest.
    pub(super) const fn new(start: Lsn, settled: Lsn) -> Self {
        Self {
            settled,
            record: start,
            record_end: start,
            begun: None,
            found: None,
        }
    }

    fn stretch(&mut self, start: Lsn, end: Lsn) {
        if self.found.is_none() && end > self.settled {
            self.found = Some(Stretch {
                start: start.max(self.settled),
                record: self.record,
            });
        }
    }

    /// The first stretch in WAL that is valid up to `record_end`, the end of its last record.
    pub(super) fn finish(mut self, record_end: Lsn) -> Option<Stretch> {
        if self.begun.is_none() && self.record_end < record_end {
            self.stretch(self.record_end, record_end);
        }
        self.found
    }
}

impl RecordVisitor for Search {
    fn begin(&mut self, start: Lsn, header: &RecordHeader) {
        let skipped = start.bytes_since(self.record_end) > LONG_HEADER_LENGTH as u64;
        if self.begun.is_none() && skipped || header.is_overwrite_contrecord() {
            self.stretch(self.record_end, start);
        }
        self.begun = Some(Begun {
            start,
            is_switch: header.is_switch(),
        });
    }

    fn end(&mut self, end: Lsn) {
        if let Some(begun) = self.begun {
            self.record = begun.start;
            if begun.is_switch {
                self.stretch(begun.start, end);
            }
        }
        self.record_end = end;
    }
}
