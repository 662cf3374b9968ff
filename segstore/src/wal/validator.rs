//! The check of every byte of WAL as it arrives.

use std::sync::Arc;

use walproto::{Lsn, SegmentSize, SystemId, TimelineHistory, TimelineId};

use crate::wal::corruption::{Corruption, CorruptionReason};
use crate::wal::page::{self, BLOCK_SIZE, LONG_HEADER_LENGTH};
use crate::wal::record::{RECORD_HEADER_LENGTH, RecordHeader};

mod after_switch;
mod content;
mod header;
mod overwritten;
#[cfg(test)]
mod tests;

use content::{Content, take};
use overwritten::Overwritten;

/// What a cluster's WAL looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalFormat {
    /// The cluster's system identifier, which the first page of every segment repeats.
    pub system_id: SystemId,
    /// The size of its segments.
    pub segment_size: SegmentSize,
    /// The magic number of its pages; `None` to take that of the first page.
    pub page_magic: Option<u16>,
    /// The server's version in the form of `server_version_num`, such as 150018. It decides
    /// which magic number the first page may have; `None` allows any of the known ones.
    pub server_version_num: Option<u32>,
}

/// How far WAL has been found good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// The end of all bytes that were taken.
    pub byte_end: Lsn,
    /// The end of the last whole page. Its header is valid, and its records are as far as they
    /// are complete.
    pub page_end: Lsn,
    /// The end of the last complete and valid record: a multiple of eight, the page boundary
    /// when the record fills its page, the segment's end after a switch. The start of the
    /// stream as long as there is none, or the end of the record that began before it.
    pub record_end: Lsn,
    /// The start of the record that ends at `record_end`, `None` as long as there is none.
    pub last_record: Option<Lsn>,
}

impl Progress {
    /// Where to begin again so that the last complete record and its pages are read once more:
    /// the page on which that record starts, or `None` as long as there is none.
    #[must_use]
    pub fn resume_at(&self) -> Option<Lsn> {
        self.last_record.map(|lsn| lsn.align_down(BLOCK_SIZE))
    }
}

/// A record of which the last bytes are missing, where a stream has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct IncompleteRecord {
    /// Where it starts; the start of the stream if that lies inside it.
    pub start: Lsn,
    /// The length in bytes that its header claims, as far as that has arrived. Its CRC is not
    /// checked yet, so the length may be wrong.
    pub total_length: Option<u32>,
}

/// A position at which no page starts, where one is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{lsn} is not the start of a WAL page, which are multiples of {BLOCK_SIZE}")]
pub struct NotPageAligned {
    /// The position.
    pub lsn: Lsn,
}

/// Who is told about the records that a [`Validator`] meets, `()` for nobody.
///
/// For each record, [`begin`](Self::begin) is called once, [`body`](Self::body) for each piece
/// of what follows its header, and at last either [`end`](Self::end) or
/// [`abandon`](Self::abandon). After an error nothing more is called.
pub trait RecordVisitor {
    /// A record starts. Its header is plausible, its CRC is not checked yet.
    fn begin(&mut self, start: Lsn, header: &RecordHeader) {
        let _ = (start, header);
    }

    /// Some bytes of a record after its header and without the page headers in between.
    fn body(&mut self, bytes: &[u8]) {
        let _ = bytes;
    }

    /// The record is complete and its CRC is right; `end` is its end as in
    /// [`Progress::record_end`].
    fn end(&mut self, end: Lsn) {
        let _ = end;
    }

    /// The rest of the record was lost in a crash of the primary: it never happened.
    fn abandon(&mut self) {}
}

impl RecordVisitor for () {}

/// Checks a stream of WAL: page headers, the chain of records, and the CRC of each record,
/// across pages and segments.
///
/// Bytes are [pushed](Self::push) as they come, and where one push ends makes no difference to
/// what is found. Nothing is allocated. A clone is cheap and goes on by itself.
///
/// A stream may start at any page. The rest of a record that began before is skipped: its CRC
/// cannot be checked.
///
/// ```text
///                  Start
///        rest of /   | page header
///     a record  v    v
///         Skipped -> Boundary -> Header -> Body -> Padding -> Boundary ...
///                    ^                             of a switch |
///                    +---- end of the segment ---- Switched <--+
/// ```
///
/// Where a page is flagged `XLP_FIRST_IS_OVERWRITE_CONTRECORD`, the record that should go on
/// there is abandoned.
///
/// Beyond PostgreSQL's own checks a page must carry exactly the timeline that the history has
/// for its position, and padding must be zero, as the server always writes it
/// (src/backend/access/transam/xlog.c, `AdvanceXLInsertBuffer` clears each page before its use).
///
/// Source: src/backend/access/transam/xlogreader.c, `XLogDecodeNextRecord` (PG 15).
#[derive(Clone, Debug)]
pub struct Validator {
    format: WalFormat,
    history: Arc<TimelineHistory>,
    start: Lsn,
    position: Lsn,
    record_end: Lsn,
    last_record: Option<Lsn>,
    content: Content,
    /// The header of the current page as far as it has arrived.
    page_header: [u8; LONG_HEADER_LENGTH],
    /// `xlp_info` of the current page.
    page_flags: u16,
    /// The header of the current record as far as it has arrived.
    record_header: [u8; RECORD_HEADER_LENGTH],
    /// The record that the page's first one is about to overwrite.
    overwritten: Option<Overwritten>,
    /// The timeline of pages before `timeline_end`, kept so that the history is asked seldom.
    timeline: TimelineId,
    timeline_end: Lsn,
    failure: Option<Corruption>,
}

impl Validator {
    /// Checks WAL of `format` from `start` on, on the timeline of `history`.
    ///
    /// # Errors
    /// When `start` is not a multiple of [`BLOCK_SIZE`].
    pub fn new(
        format: WalFormat,
        history: impl Into<Arc<TimelineHistory>>,
        start: Lsn,
    ) -> Result<Self, NotPageAligned> {
        if start.align_down(BLOCK_SIZE) != start {
            return Err(NotPageAligned { lsn: start });
        }
        let history = history.into();
        Ok(Self {
            format,
            timeline: history.timeline(),
            timeline_end: Lsn::INVALID,
            history,
            start,
            position: start,
            record_end: start,
            last_record: None,
            content: Content::Start,
            page_header: [0; LONG_HEADER_LENGTH],
            page_flags: 0,
            record_header: [0; RECORD_HEADER_LENGTH],
            overwritten: None,
            failure: None,
        })
    }

    /// The history of the timeline that is checked.
    pub(crate) const fn history(&self) -> &Arc<TimelineHistory> {
        &self.history
    }

    /// Goes on along another history, which must be the same up to here.
    pub(crate) fn onto(self, history: Arc<TimelineHistory>) -> Self {
        Self {
            history,
            // It is asked anew.
            timeline_end: Lsn::INVALID,
            ..self
        }
    }

    /// The position of the next byte to push.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        self.position
    }

    /// How far the stream is good. After an error, how far it was before the byte that showed
    /// what is wrong.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let whole = match self.content {
            // Bytes in doubt must not count as a good page.
            Content::Switched { leftover, .. } => leftover.doubt_or(self.position),
            _ => self.position,
        };
        Progress {
            byte_end: self.position,
            page_end: whole.align_down(BLOCK_SIZE),
            record_end: self.record_end,
            last_record: self.last_record,
        }
    }

    /// The magic number of the stream's pages, `None` before the first page if the format left
    /// it open.
    ///
    /// One that [`Major`](walproto::Major) has no row for belongs to a newer server, whose pages
    /// and records are taken to be as they were; its user should be warned.
    #[must_use]
    pub const fn page_magic(&self) -> Option<u16> {
        self.format.page_magic
    }

    /// The record that is to go on at [`position`](Self::position), `None` at the end of one.
    #[must_use]
    pub fn incomplete_record(&self) -> Option<IncompleteRecord> {
        let total_length = RecordHeader::parse(&self.record_header).total_length;
        let (start, total_length) = match self.content {
            Content::Start | Content::Boundary | Content::Switched { .. } => return None,
            Content::Header { start, have } => (start, (have >= 4).then_some(total_length)),
            Content::Body { start, .. } | Content::Padding { start: Some(start) } => {
                (start, Some(total_length))
            }
            Content::Skipped { .. } | Content::Padding { start: None } => (self.start, None),
        };
        Some(IncompleteRecord {
            start,
            total_length,
        })
    }

    /// Takes the bytes that follow [`position`](Self::position).
    ///
    /// # Errors
    /// When they are not valid WAL, at once and on every later call.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Progress, Corruption> {
        self.push_with(bytes, &mut ())
    }

    /// As [`push`](Self::push), and tells `visitor` about the records.
    ///
    /// # Errors
    /// When they are not valid WAL, at once and on every later call.
    pub fn push_with<V: RecordVisitor>(
        &mut self,
        mut bytes: &[u8],
        visitor: &mut V,
    ) -> Result<Progress, Corruption> {
        if let Some(corruption) = self.failure {
            return Err(corruption);
        }
        while !bytes.is_empty() {
            let page = self.page();
            // Every later sum inside a page stays below the last position there is.
            if page.checked_add(BLOCK_SIZE).is_none() {
                return Err(self.fail(self.position, page, CorruptionReason::PastTheEnd));
            }
            let header_length = page::header_length(page, self.format.segment_size);
            let offset = usize::try_from(self.position.bytes_since(page)).unwrap_or_default();
            if offset < header_length {
                bytes = self.push_page_header(bytes, offset, header_length, visitor)?;
            } else {
                let (now, later) = take(bytes, BLOCK_SIZE - self.position.bytes_since(page));
                self.push_content(now, visitor)?;
                bytes = later;
            }
        }
        Ok(self.progress())
    }

    /// The start of the page that the next byte belongs to.
    const fn page(&self) -> Lsn {
        self.position.align_down(BLOCK_SIZE)
    }

    fn advance(&mut self, bytes: &[u8]) {
        self.position = Lsn(self.position.0 + bytes.len() as u64);
    }

    /// Stops for good: the byte at `at` showed that the page or record at `lsn` is wrong.
    fn fail(&mut self, at: Lsn, lsn: Lsn, reason: CorruptionReason) -> Corruption {
        self.position = at;
        let corruption = Corruption {
            timeline: self.history.timeline(),
            lsn,
            reason,
        };
        *self.failure.insert(corruption)
    }
}
