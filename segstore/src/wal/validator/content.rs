//! What lies between page headers: records, one after the other.

use walproto::Lsn;

use super::after_switch::Leftover;
use super::{RecordVisitor, Validator};
use crate::wal::corruption::{Corruption, CorruptionReason};
use crate::wal::crc;
use crate::wal::page;
use crate::wal::record::{self, RECORD_HEADER_LENGTH, RecordHeader};

/// What the bytes at the current position, page headers aside, are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    /// Not known before the first page header.
    Start,
    /// The rest of a record that began before the stream.
    Skipped { remaining: u32 },
    /// The start of a record.
    Boundary,
    /// The header of a record.
    Header { start: Lsn, have: usize },
    /// What follows the header, with the CRC of what has been there of it.
    Body {
        start: Lsn,
        remaining: u32,
        crc: u32,
    },
    /// The bytes up to the next multiple of eight; of the record at `start`, if it is known.
    Padding { start: Option<Lsn> },
    /// What follows the `XLOG_SWITCH` at `start` in its segment.
    Switched { start: Lsn, leftover: Leftover },
}

impl Validator {
    /// Takes bytes of one page that are not of its header.
    pub(super) fn push_content<V: RecordVisitor>(
        &mut self,
        mut bytes: &[u8],
        visitor: &mut V,
    ) -> Result<(), Corruption> {
        loop {
            if matches!(self.content, Content::Boundary) {
                bytes = self.push_whole_records(bytes, visitor);
            }
            bytes = match self.content {
                _ if bytes.is_empty() => return Ok(()),
                // The first page header decides what follows it.
                Content::Start => return Ok(()),
                Content::Skipped { remaining } => self.skip(bytes, remaining, visitor)?,
                Content::Boundary => self.push_record_header(bytes, self.position, 0, visitor)?,
                Content::Header { start, have } => {
                    self.push_record_header(bytes, start, have, visitor)?
                }
                Content::Body {
                    start,
                    remaining,
                    crc,
                } => self.push_body(bytes, start, remaining, crc, visitor)?,
                Content::Padding { start } => self.push_padding(bytes, start, visitor)?,
                Content::Switched { start, leftover } => {
                    self.push_after_switch(bytes, start, leftover, visitor)?
                }
            };
        }
    }

    /// Takes records that are there whole, as nearly all of a page are, and returns what is left.
    /// Whatever is out of the ordinary or wrong is left to the functions that go byte by byte,
    /// which say what it is.
    fn push_whole_records<'a, V: RecordVisitor>(
        &mut self,
        mut bytes: &'a [u8],
        visitor: &mut V,
    ) -> &'a [u8] {
        while self.overwritten.is_none()
            && let Some(record) = WholeRecord::first_of(bytes)
            && self
                .check_record_header(self.position, &record.header)
                .is_ok()
        {
            let start = self.position;
            visitor.begin(start, &record.header);
            if !record.body.is_empty() {
                visitor.body(record.body);
            }
            self.position = Lsn(start.0 + record.length);
            self.finish_record(start, visitor);
            bytes = record.later;
        }
        bytes
    }

    fn skip<'a, V: RecordVisitor>(
        &mut self,
        bytes: &'a [u8],
        remaining: u32,
        visitor: &mut V,
    ) -> Result<&'a [u8], Corruption> {
        let (now, later, remaining) = take_remaining(bytes, remaining);
        self.advance(now);
        self.content = Content::Skipped { remaining };
        if remaining == 0 {
            return self.push_padding(later, None, visitor);
        }
        Ok(later)
    }

    fn push_record_header<'a, V: RecordVisitor>(
        &mut self,
        bytes: &'a [u8],
        start: Lsn,
        have: usize,
        visitor: &mut V,
    ) -> Result<&'a [u8], Corruption> {
        let (now, later) = bytes.split_at(bytes.len().min(RECORD_HEADER_LENGTH - have));
        if let Some((place, _)) = self
            .record_header
            .get_mut(have..)
            .and_then(|place| place.split_at_mut_checked(now.len()))
        {
            place.copy_from_slice(now);
        }
        let got = have + now.len();
        let header = RecordHeader::parse(&self.record_header);
        // The length is checked before the rest, since the next page header is compared with it.
        let body_length = header.total_length.checked_sub(record::LEAST_LENGTH);
        if body_length.is_none() && have < 4 && got >= 4 {
            let reason = match header.total_length {
                0 => CorruptionReason::NoRecord,
                found => CorruptionReason::RecordLength { found },
            };
            return Err(self.fail(Lsn(start.0 + 3), start, reason));
        }
        if got < RECORD_HEADER_LENGTH {
            self.advance(now);
            self.content = Content::Header { start, have: got };
            return Ok(later);
        }
        if let Err(reason) = self.check_record_header(start, &header) {
            let last = now.len().saturating_sub(1) as u64;
            return Err(self.fail(Lsn(self.position.0 + last), start, reason));
        }
        self.advance(now);
        visitor.begin(start, &header);
        let remaining = body_length.unwrap_or_default();
        self.content = Content::Body {
            start,
            remaining,
            crc: 0,
        };
        if remaining == 0 {
            return self.finish_body(later, start, 0, visitor);
        }
        Ok(later)
    }

    fn push_body<'a, V: RecordVisitor>(
        &mut self,
        bytes: &'a [u8],
        start: Lsn,
        remaining: u32,
        crc: u32,
        visitor: &mut V,
    ) -> Result<&'a [u8], Corruption> {
        let (now, later, remaining) = take_remaining(bytes, remaining);
        let crc = crc::append(crc, now);
        if let Some(overwritten) = &mut self.overwritten {
            overwritten.collect(now);
        }
        visitor.body(now);
        self.advance(now);
        if remaining == 0 {
            return self.finish_body(later, start, crc, visitor);
        }
        self.content = Content::Body {
            start,
            remaining,
            crc,
        };
        Ok(later)
    }

    /// All bytes of the record at `start` are there.
    fn finish_body<'a, V: RecordVisitor>(
        &mut self,
        later: &'a [u8],
        start: Lsn,
        body_crc: u32,
        visitor: &mut V,
    ) -> Result<&'a [u8], Corruption> {
        let expected = RecordHeader::parse(&self.record_header).crc;
        let found = record::finish_crc(body_crc, &self.record_header);
        if found != expected {
            let last = Lsn(self.position.0.saturating_sub(1));
            let reason = CorruptionReason::Checksum { expected, found };
            return Err(self.fail(last, start, reason));
        }
        if let Some(reason) = self.overwritten.take().and_then(|o| o.mismatch()) {
            let last = Lsn(self.position.0.saturating_sub(1));
            return Err(self.fail(last, start, reason));
        }
        self.push_padding(later, Some(start), visitor)
    }

    fn push_padding<'a, V: RecordVisitor>(
        &mut self,
        bytes: &'a [u8],
        start: Option<Lsn>,
        visitor: &mut V,
    ) -> Result<&'a [u8], Corruption> {
        let length = self.position.0.wrapping_neg() % page::ALIGNMENT;
        let (now, later) = take(bytes, length);
        if let Some((index, &found)) = now.iter().enumerate().find(|(_, byte)| **byte != 0) {
            let at = Lsn(self.position.0 + index as u64);
            let reason = CorruptionReason::RecordPadding { found };
            return Err(self.fail(at, start.unwrap_or(self.start), reason));
        }
        self.advance(now);
        if (now.len() as u64) < length {
            self.content = Content::Padding { start };
            return Ok(later);
        }
        self.content = Content::Boundary;
        if let Some(start) = start {
            let at_segment_end = self.format.segment_size.offset_of(self.position) == 0;
            if RecordHeader::parse(&self.record_header).is_switch() && !at_segment_end {
                let leftover = Leftover::after_record(self.position);
                self.content = Content::Switched { start, leftover };
            } else {
                self.finish_record(start, visitor);
            }
        } else {
            // Its rest is all that the stream has of the record that began before, and a server
            // may wait for just that to be acknowledged.
            self.record_end = self.position;
        }
        Ok(later)
    }

    /// The record at `start` ends at the current position.
    pub(super) fn finish_record<V: RecordVisitor>(&mut self, start: Lsn, visitor: &mut V) {
        self.content = Content::Boundary;
        self.last_record = Some(start);
        self.record_end = self.position;
        visitor.end(self.position);
    }
}

/// A record with its padding, all of which is good but for what its header says about where it is.
struct WholeRecord<'a> {
    header: RecordHeader,
    body: &'a [u8],
    /// With the padding.
    length: u64,
    later: &'a [u8],
}

impl<'a> WholeRecord<'a> {
    /// The one that `bytes` begin with, `None` as well for a switch, which is longer than it says.
    #[inline]
    fn first_of(bytes: &'a [u8]) -> Option<Self> {
        let raw = bytes.first_chunk()?;
        let header = RecordHeader::parse(raw);
        let end = u64::from(header.total_length);
        let length = end.next_multiple_of(page::ALIGNMENT);
        let (record, later) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
        let body = record.get(RECORD_HEADER_LENGTH..usize::try_from(end).ok()?)?;
        let padding = record.get(RECORD_HEADER_LENGTH + body.len()..)?;
        let is_good = record::finish_crc(crc::append(0, body), raw) == header.crc
            && padding.iter().all(|byte| *byte == 0)
            && !header.is_switch();
        is_good.then_some(Self {
            header,
            body,
            length,
            later,
        })
    }
}

/// Up to `length` of the bytes, and the others.
pub(super) fn take(bytes: &[u8], length: u64) -> (&[u8], &[u8]) {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    bytes.split_at_checked(length).unwrap_or((bytes, &[]))
}

/// Up to `remaining` of the bytes, the others, and how many of the former are still missing.
fn take_remaining(bytes: &[u8], remaining: u32) -> (&[u8], &[u8], u32) {
    let (now, later) = take(bytes, u64::from(remaining));
    // `now` is not longer than `remaining`.
    let missing = u64::from(remaining).saturating_sub(now.len() as u64);
    (now, later, u32::try_from(missing).unwrap_or(remaining))
}
