//! A segment file that is sent from, and which positions are read from it.

use std::sync::Arc;

use walproto::{Lsn, TimelineId};

use super::ledger::FileCheck;
use crate::archive::segment_files::SegmentFiles;
use crate::archive::segment_reader::SegmentReader;

/// A segment file that is sent from.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) span: Span,
    pub(crate) reader: SegmentReader,
    /// How far it is checked.
    pub(crate) check: Arc<FileCheck>,
}

/// Which positions are read from a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    /// The newest timeline when the file was looked for.
    pub(crate) newest: TimelineId,
    /// The start of its segment.
    pub(crate) start: Lsn,
    /// The end of its segment, or where its timeline was left.
    pub(crate) end: Lsn,
    /// What was durable when it was opened.
    pub(crate) durable_end: Lsn,
}

impl Span {
    /// Whether the bytes from `position` up to `end`, or to where the next file takes over, are
    /// what they were and will be.
    pub(crate) fn holds(&self, position: Lsn, end: Lsn) -> bool {
        (self.start..self.end).contains(&position) && end.min(self.end) <= self.durable_end
    }

    /// Up to where the file is read.
    pub(crate) fn input_end(&self) -> Lsn {
        self.end.min(self.durable_end)
    }

    /// The end of its segment.
    pub(crate) fn segment_end(&self, files: &SegmentFiles) -> Lsn {
        files.end_of(self.start)
    }
}

impl OpenFile {
    /// The same file for another feed.
    pub(crate) fn again(&self) -> Self {
        Self {
            span: self.span,
            reader: self.reader.again(),
            check: Arc::clone(&self.check),
        }
    }
}
