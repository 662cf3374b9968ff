//! Valid WAL out of nothing, for tests, fuzzing and benchmarks.
//!
//! What is generated has all that makes WAL hard to read (records of any length over pages and
//! segments, switches, records overwritten after a crash, promotions) and is the same for the
//! same calls and seed. No server could replay it: the bodies of its records are noise.

mod mix;
mod stream;

use std::fmt;

use fastrand::Rng;
use walproto::{Lsn, Major, TimelineHistory, TimelineId};

use crate::wal::page::{
    self, ALIGNMENT, BKP_REMOVABLE, BLOCK_SIZE, FIRST_IS_CONTRECORD, FIRST_IS_OVERWRITE_CONTRECORD,
    LONG_HEADER, PageHeader, SegmentHeader,
};
use crate::wal::record::{
    self, RECORD_HEADER_LENGTH, RM_XLOG, RecordHeader, XLOG_OVERWRITE_CONTRECORD, XLOG_SWITCH,
};
use crate::wal::validator::{NotPageAligned, WalFormat};
use mix::Kept;

pub use self::mix::RecordMix;
pub use self::stream::GeneratedStream;

/// What a record that ends on its page is padded with.
#[expect(clippy::cast_possible_truncation, reason = "it is 8")]
const PADDING: [u8; ALIGNMENT as usize] = [0; ALIGNMENT as usize];

/// Writes WAL record by record into memory.
#[derive(Clone)]
pub struct Generator {
    format: WalFormat,
    magic: u16,
    history: TimelineHistory,
    start: Lsn,
    bytes: Vec<u8>,
    records: Vec<GeneratedRecord>,
    /// Where the last record starts, also when it was forgotten.
    last_record: Option<Lsn>,
    /// The body of the record that is being made.
    body: Vec<u8>,
    /// What the bodies of many records are cut out of, once there are such records.
    kept: Option<Box<Kept>>,
    rng: Rng,
}

/// A complete record that was generated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GeneratedRecord {
    /// Where it starts.
    pub start: Lsn,
    /// Its end, as in [`Progress::record_end`](crate::Progress::record_end).
    pub end: Lsn,
    /// Its header.
    pub header: RecordHeader,
}

/// What a segment holds after a switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AfterSwitch {
    /// Zeros, as servers write it.
    Zeros,
    /// Page headers with zeros between them.
    PageHeaders,
    /// Zeros to the end of the page, then an older segment's pages: the server crashed.
    Recycled,
}

impl fmt::Debug for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator")
            .field("format", &self.format)
            .field("history", &self.history)
            .field("range", &(self.start..self.end()))
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

impl Generator {
    /// Begins at `start` with the first page of a stream. With no magic number in `format`, it
    /// is that of the version there, else that of PostgreSQL 15.
    ///
    /// # Errors
    /// When `start` is not a multiple of [`BLOCK_SIZE`].
    pub fn new(
        format: WalFormat,
        history: TimelineHistory,
        start: Lsn,
        seed: u64,
    ) -> Result<Self, NotPageAligned> {
        if start.align_down(BLOCK_SIZE) != start {
            return Err(NotPageAligned { lsn: start });
        }
        let version = format.server_version_num;
        let of_version = version.and_then(|version| Major::numbered(version / 10_000));
        let magic = format
            .page_magic
            .or(of_version.map(|major| major.page_magic));
        Ok(Self {
            format,
            magic: magic.unwrap_or(0xD110),
            history,
            start,
            bytes: Vec::new(),
            records: Vec::new(),
            last_record: None,
            body: Vec::new(),
            kept: None,
            rng: Rng::with_seed(seed),
        })
    }

    /// The bytes generated so far, but for those that were forgotten.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The position of the first of these bytes.
    #[must_use]
    pub const fn start(&self) -> Lsn {
        self.start
    }

    /// The position after the last byte.
    #[must_use]
    pub fn end(&self) -> Lsn {
        Lsn(self.start.0 + self.bytes.len() as u64)
    }

    /// The complete records in these bytes, in order.
    #[must_use]
    pub fn records(&self) -> &[GeneratedRecord] {
        &self.records
    }

    /// The history of the timeline.
    #[must_use]
    pub const fn history(&self) -> &TimelineHistory {
        &self.history
    }

    /// The format, with its magic number.
    #[must_use]
    pub const fn format(&self) -> WalFormat {
        WalFormat {
            page_magic: Some(self.magic),
            ..self.format
        }
    }

    /// Forgets the bytes and the records so far, to go on in the same memory.
    pub fn forget(&mut self) {
        self.start = self.end();
        self.bytes.clear();
        self.records.clear();
    }

    /// Begins the stream inside a record of which `remaining` bytes are left. To be called
    /// before anything else.
    pub fn rest_of_record(&mut self, remaining: u32) {
        let rest = self.noise(remaining);
        self.write(&rest, true, 0);
        self.pad();
        self.body = rest;
    }

    /// Appends a record with a body of `length` bytes, of any resource manager but `RM_XLOG_ID`.
    pub fn record(&mut self, length: u32) -> GeneratedRecord {
        let body = self.noise(length);
        let record = self.any_kind(&body, crc32c::crc32c(&body));
        self.body = body;
        record
    }

    /// Appends a record of any resource manager but `RM_XLOG_ID`, with a body whose CRC-32C is
    /// known.
    fn any_kind(&mut self, body: &[u8], body_crc: u32) -> GeneratedRecord {
        let resource_manager = self.rng.u8(1..=record::RM_LAST_BUILTIN);
        let info = self.rng.u8(..);
        self.append_known(resource_manager, info, body, body_crc)
    }

    /// Appends a record whose length is as varied as in real WAL: most are short, some hold
    /// page images, few are longer than several pages.
    pub fn any_record(&mut self) -> GeneratedRecord {
        let length = self.any_length();
        self.record(length)
    }

    fn any_length(&mut self) -> u32 {
        let longest = match self.rng.u8(0..100) {
            0..60 => 120,
            60..85 => 1_500,
            85..97 => 9_000,
            _ => 40_000,
        };
        self.rng.u32(1..=longest)
    }

    /// Appends varied records until `bytes` more are there.
    pub fn fill(&mut self, bytes: u64) {
        let end = self.bytes.len() as u64 + bytes;
        while (self.bytes.len() as u64) < end {
            self.any_record();
        }
    }

    /// Ends the segment, as `pg_switch_wal()` does: at the start of one there is nothing to end.
    pub fn switch(&mut self, after: AfterSwitch) {
        let size = self.format.segment_size;
        if size.offset_of(self.end()) == 0 {
            return;
        }
        self.append(RM_XLOG, XLOG_SWITCH, &[]);
        let padding = self.to_boundary(BLOCK_SIZE);
        self.zeros(padding);
        while size.offset_of(self.end()) != 0 {
            match after {
                AfterSwitch::Zeros => {}
                AfterSwitch::PageHeaders => self.page_header(0, 0),
                AfterSwitch::Recycled => self.recycled_page(),
            }
            let rest = self.to_boundary(BLOCK_SIZE);
            self.zeros(if rest == 0 { BLOCK_SIZE } else { rest });
        }
        let end = self.end();
        if let Some(switch) = self.records.last_mut() {
            switch.end = end;
        }
    }

    /// Begins a record that covers `pages` page boundaries, at least one, and loses what comes
    /// after the last of them; then does what a server does that crashed there.
    pub fn overwritten_record(&mut self, pages: u32) -> GeneratedRecord {
        let pages = pages.max(1);
        self.begin_page();
        let aborted = self.end();
        let page = aborted.align_down(BLOCK_SIZE);
        let lost_from = page.0 + u64::from(pages) * BLOCK_SIZE;
        let before = self.last_record;
        // Longer than the pages that are kept of it.
        self.record(pages.saturating_add(1).saturating_mul(8192));
        self.records.pop();
        self.last_record = before;
        let kept = usize::try_from(lost_from - self.start.0).unwrap_or(usize::MAX);
        self.bytes.truncate(kept);
        self.page_header(FIRST_IS_OVERWRITE_CONTRECORD, 0);
        // A short main data header, then the aborted record's position and a time.
        let mut body = vec![0xFF, 16];
        body.extend_from_slice(&aborted.0.to_le_bytes());
        body.extend_from_slice(&[0; 8]);
        self.append(RM_XLOG, XLOG_OVERWRITE_CONTRECORD, &body)
    }

    /// What follows on `timeline`, promoted at `switch_point`: the same WAL up to there, which
    /// must be the end of a record, and a history one line longer. `None` if it is no such end
    /// or `timeline` is not greater.
    #[must_use]
    pub fn promoted(&self, timeline: TimelineId, switch_point: Lsn) -> Option<Self> {
        let last = self.records.iter().position(|r| r.end == switch_point)?;
        let reason = "no recovery target specified";
        let parent = self.history.timeline();
        let mut content = self.history.content().to_vec();
        content.extend_from_slice(format!("{parent}\t{switch_point}\t{reason}\n").as_bytes());
        let mut promoted = self.clone();
        promoted.history = TimelineHistory::parse(timeline, content.into()).ok()?;
        let kept = usize::try_from(switch_point.checked_sub(self.start)?).ok()?;
        promoted.bytes.truncate(kept);
        promoted.records.truncate(last + 1);
        promoted.last_record = promoted.records.last().map(|record| record.start);
        Some(promoted)
    }

    /// Appends a record.
    pub fn append(&mut self, resource_manager: u8, info: u8, body: &[u8]) -> GeneratedRecord {
        self.append_known(resource_manager, info, body, crc32c::crc32c(body))
    }

    fn append_known(
        &mut self,
        resource_manager: u8,
        info: u8,
        body: &[u8],
        body_crc: u32,
    ) -> GeneratedRecord {
        self.begin_page();
        let start = self.end();
        let length = RECORD_HEADER_LENGTH + body.len();
        let mut header = RecordHeader {
            total_length: u32::try_from(length).unwrap_or(u32::MAX),
            xid: self.rng.u32(..),
            previous: self.previous(),
            info,
            resource_manager,
            crc: 0,
        };
        let mut header_bytes = header.encode();
        header.crc = record::finish_crc(body_crc, &header_bytes);
        if let Some(crc) = header_bytes.last_chunk_mut() {
            *crc = header.crc.to_le_bytes();
        }
        let padding = length.next_multiple_of(PADDING.len()) - length;
        if (length + padding) as u64 <= self.to_boundary(BLOCK_SIZE) {
            self.bytes.reserve(length + padding);
            self.bytes.extend_from_slice(&header_bytes);
            self.bytes.extend_from_slice(body);
            self.bytes
                .extend_from_slice(PADDING.get(..padding).unwrap_or_default());
        } else {
            self.write(&header_bytes, false, body.len());
            self.write(body, true, 0);
            self.pad();
        }
        let record = GeneratedRecord {
            start,
            end: self.end(),
            header,
        };
        self.records.push(record);
        self.last_record = Some(start);
        record
    }

    /// Where the last record starts. Before the first one, a place that may well be one's.
    fn previous(&self) -> Lsn {
        match self.last_record {
            Some(last) => last,
            None if self.start.is_invalid() => Lsn::INVALID,
            None => Lsn(self.start.0 - 64),
        }
    }

    fn begin_page(&mut self) {
        if self.to_boundary(BLOCK_SIZE) == 0 {
            self.page_header(0, 0);
        }
    }

    /// Writes bytes of a record, of which `later` more follow; pages go on with it once it has
    /// `begun`.
    fn write(&mut self, bytes: &[u8], begun: bool, later: usize) {
        let (mut rest, mut begun) = (bytes, begun);
        while !rest.is_empty() {
            if self.to_boundary(BLOCK_SIZE) == 0 {
                let remaining = u32::try_from(rest.len() + later).unwrap_or(u32::MAX);
                match begun {
                    true => self.page_header(FIRST_IS_CONTRECORD, remaining),
                    false => self.page_header(0, 0),
                }
            }
            let room = usize::try_from(self.to_boundary(BLOCK_SIZE)).unwrap_or(usize::MAX);
            let (now, after) = rest.split_at(room.min(rest.len()));
            self.bytes.extend_from_slice(now);
            (rest, begun) = (after, true);
        }
    }

    fn page_header(&mut self, flags: u16, remaining: u32) {
        let address = self.end();
        let mut header = PageHeader {
            magic: self.magic,
            flags: flags | BKP_REMOVABLE,
            timeline: self.history.timeline_of(address).number(),
            address,
            remaining,
        };
        if page::header_length(address, self.format.segment_size) == page::SHORT_HEADER_LENGTH {
            self.bytes.extend_from_slice(&header.encode());
            return;
        }
        header.flags |= LONG_HEADER;
        let segment = SegmentHeader {
            system_id: self.format.system_id,
            segment_size: u32::try_from(self.format.segment_size.bytes()).unwrap_or(u32::MAX),
            block_size: u32::try_from(BLOCK_SIZE).unwrap_or(u32::MAX),
        };
        self.bytes.extend_from_slice(&header.encode());
        self.bytes.extend_from_slice(&segment.encode());
    }

    /// A page that the segment's file held when it was another one. The first had no other.
    fn recycled_page(&mut self) {
        let Some(address) = self.end().0.checked_sub(self.format.segment_size.bytes()) else {
            return;
        };
        let header = PageHeader {
            magic: self.magic,
            flags: BKP_REMOVABLE,
            timeline: self.history.timeline().number(),
            address: Lsn(address),
            remaining: 0,
        };
        self.bytes.extend_from_slice(&header.encode());
        let noise = self.noise(4096);
        self.bytes.extend_from_slice(&noise);
        self.body = noise;
    }

    fn pad(&mut self) {
        let padding = self.to_boundary(ALIGNMENT);
        self.zeros(padding);
    }

    fn zeros(&mut self, count: u64) {
        let length = self.bytes.len() + usize::try_from(count).unwrap_or_default();
        self.bytes.resize(length, 0);
    }

    /// New noise, in the memory of `body`, which whoever takes it puts back.
    fn noise(&mut self, length: u32) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.body);
        bytes.resize(usize::try_from(length).unwrap_or_default(), 0);
        self.rng.fill(&mut bytes);
        bytes
    }

    /// The bytes up to the next multiple of `alignment`, 0 at one.
    fn to_boundary(&self, alignment: u64) -> u64 {
        self.end().0.next_multiple_of(alignment) - self.end().0
    }
}
