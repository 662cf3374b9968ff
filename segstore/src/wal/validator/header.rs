//! What page and record headers must say.

use walproto::{Lsn, Major, TimelineId};

use super::{Content, Overwritten, RecordVisitor, Validator};
use crate::wal::corruption::{Corruption, CorruptionReason};
use crate::wal::page::{
    self, BLOCK_SIZE, FIRST_IS_CONTRECORD, FIRST_IS_OVERWRITE_CONTRECORD, LONG_HEADER, PageHeader,
    SHORT_HEADER_LENGTH, SegmentHeader,
};
use crate::wal::record::{RM_LAST_BUILTIN, RecordHeader};

impl Validator {
    /// Takes bytes of the page header, of which `have` of `length` have been there.
    pub(super) fn push_page_header<'a, V: RecordVisitor>(
        &mut self,
        bytes: &'a [u8],
        have: usize,
        length: usize,
        visitor: &mut V,
    ) -> Result<&'a [u8], Corruption> {
        let (now, later) = bytes.split_at(bytes.len().min(length - have));
        if let Some((place, _)) = self
            .page_header
            .get_mut(have..)
            .and_then(|place| place.split_at_mut_checked(now.len()))
        {
            place.copy_from_slice(now);
        }
        if have + now.len() == length {
            let page = self.page();
            if let Err((lsn, reason)) = self.check_page(page, visitor) {
                let last = now.len().saturating_sub(1) as u64;
                return Err(self.fail(Lsn(self.position.0 + last), lsn, reason));
            }
        }
        self.advance(now);
        Ok(later)
    }

    /// Checks the header of the page at `page`, which is complete, and what it says about the
    /// record that the page before left unfinished.
    fn check_page<V: RecordVisitor>(
        &mut self,
        page: Lsn,
        visitor: &mut V,
    ) -> Result<(), (Lsn, CorruptionReason)> {
        let [short @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = self.page_header;
        let (header, padding) = PageHeader::parse(&short);
        let unwritten = short.iter().all(|byte| *byte == 0);
        if let Content::Switched { start, leftover } = self.content {
            let ours = self.check_page_fields(page, &header, padding);
            let recycled = self.is_recycled(page, &header);
            let written = unwritten || ours.is_ok();
            let leftover = leftover
                .at_page(page, written, recycled, short[0])
                .map_err(|(lsn, found)| (lsn, CorruptionReason::AfterSwitch { found }))?;
            self.content = Content::Switched { start, leftover };
            return Ok(());
        }
        let here = |reason| (page, reason);
        if unwritten {
            return Err(here(CorruptionReason::NoPage));
        }
        self.check_page_fields(page, &header, padding)
            .map_err(here)?;
        if header.flags & LONG_HEADER != 0 {
            self.check_segment_fields().map_err(here)?;
        }
        self.content = self.continue_record(&header, visitor).map_err(here)?;
        self.page_flags = header.flags;
        self.format.page_magic = Some(header.magic);
        Ok(())
    }

    /// Checks what every page header says about itself.
    ///
    /// Source: src/backend/access/transam/xlogreader.c, `XLogReaderValidatePageHeader` (PG 15).
    fn check_page_fields(
        &mut self,
        page: Lsn,
        header: &PageHeader,
        padding: u32,
    ) -> Result<(), CorruptionReason> {
        self.check_magic(header.magic)?;
        let first_of_segment = self.format.segment_size.offset_of(page) == 0;
        let unknown_flags = header.flags & !page::ALL_FLAGS != 0 && is_known(header.magic);
        if unknown_flags || (header.flags & LONG_HEADER != 0) != first_of_segment {
            let found = header.flags;
            return Err(CorruptionReason::PageFlags { found });
        }
        if header.address != page {
            return Err(CorruptionReason::PageAddress {
                expected: page,
                found: header.address,
            });
        }
        let expected = self.timeline_of(page);
        if header.timeline() != Some(expected) {
            return Err(CorruptionReason::PageTimeline {
                expected,
                found: header.timeline,
            });
        }
        if padding != 0 {
            return Err(CorruptionReason::PagePadding { found: padding });
        }
        Ok(())
    }

    fn check_magic(&self, found: u16) -> Result<(), CorruptionReason> {
        let unknown = CorruptionReason::UnknownPageMagic { found };
        let expected = match (self.format.page_magic, self.format.server_version_num) {
            (Some(expected), _) => expected,
            (None, None) if is_known(found) => found,
            (None, None) => return Err(unknown),
            (None, Some(version)) => match Major::numbered(version / 10_000) {
                Some(major) => major.page_magic,
                // A newer server has a number of its own.
                None if version / 10_000 > Major::NEWEST.number && !is_known(found) => found,
                None => return Err(unknown),
            },
        };
        if found != expected {
            return Err(CorruptionReason::PageMagic { expected, found });
        }
        Ok(())
    }

    fn check_segment_fields(&self) -> Result<(), CorruptionReason> {
        let Some(bytes) = self.page_header.last_chunk() else {
            return Ok(());
        };
        let header = SegmentHeader::parse(bytes);
        if header.system_id != self.format.system_id {
            return Err(CorruptionReason::SystemId {
                expected: self.format.system_id,
                found: header.system_id,
            });
        }
        let segment_size = self.format.segment_size.bytes();
        if u64::from(header.segment_size) != segment_size {
            return Err(CorruptionReason::SegmentSize {
                expected: segment_size,
                found: header.segment_size,
            });
        }
        if u64::from(header.block_size) != BLOCK_SIZE {
            return Err(CorruptionReason::BlockSize {
                expected: BLOCK_SIZE,
                found: header.block_size,
            });
        }
        Ok(())
    }

    /// What the page's content begins with, if that agrees with what came before.
    fn continue_record<V: RecordVisitor>(
        &mut self,
        header: &PageHeader,
        visitor: &mut V,
    ) -> Result<Content, CorruptionReason> {
        let found = header.remaining;
        let continues = header.flags & FIRST_IS_CONTRECORD != 0;
        let overwrites = header.flags & FIRST_IS_OVERWRITE_CONTRECORD != 0;
        if overwrites && (continues || found != 0) {
            let found = header.flags;
            return Err(CorruptionReason::PageFlags { found });
        }
        let (record, expected) = match self.content {
            Content::Start if overwrites => return Ok(Content::Boundary),
            Content::Start if continues && found != 0 => {
                return Ok(Content::Skipped { remaining: found });
            }
            Content::Start | Content::Boundary | Content::Padding { .. } => {
                return match (continues || found != 0, overwrites) {
                    (true, _) => Err(CorruptionReason::UnexpectedContrecord { found }),
                    (_, true) => Err(CorruptionReason::UnexpectedOverwrite),
                    _ => Ok(Content::Boundary),
                };
            }
            Content::Skipped { remaining } => (self.start, remaining),
            Content::Header { start, have } => {
                let total = RecordHeader::parse(&self.record_header).total_length;
                let have = u32::try_from(have).unwrap_or_default();
                (start, total.saturating_sub(have))
            }
            Content::Body {
                start, remaining, ..
            } => (start, remaining),
            Content::Switched { .. } => return Ok(self.content),
        };
        if overwrites {
            if matches!(self.content, Content::Body { .. }) {
                visitor.abandon();
            }
            if !matches!(self.content, Content::Skipped { .. }) {
                self.overwritten = Some(Overwritten::new(record));
            }
            return Ok(Content::Boundary);
        }
        if !continues {
            return Err(CorruptionReason::MissingContrecord {
                record,
                remaining: expected,
            });
        }
        if found != expected {
            return Err(CorruptionReason::ContrecordLength { expected, found });
        }
        Ok(self.content)
    }

    /// Checks the header of the record at `start`, but for its length.
    ///
    /// Source: src/backend/access/transam/xlogreader.c, `ValidXLogRecordHeader` (PG 15).
    pub(super) fn check_record_header(
        &self,
        start: Lsn,
        header: &RecordHeader,
    ) -> Result<(), CorruptionReason> {
        let resource_manager = header.resource_manager;
        if !self.is_resource_manager(resource_manager) {
            let found = resource_manager;
            return Err(CorruptionReason::ResourceManager { found });
        }
        let found = header.previous;
        match self.last_record {
            Some(expected) if found != expected => {
                return Err(CorruptionReason::PreviousRecord { expected, found });
            }
            None if !self.may_precede(found) => {
                let start = self.start;
                return Err(CorruptionReason::PreviousRecordPosition { start, found });
            }
            _ => {}
        }
        let page = start.align_down(BLOCK_SIZE);
        let page_header = page::header_length(page, self.format.segment_size) as u64;
        let first_on_page = start.bytes_since(page) == page_header;
        let overwrites = first_on_page && self.page_flags & FIRST_IS_OVERWRITE_CONTRECORD != 0;
        if header.is_overwrite_contrecord() != overwrites {
            return Err(CorruptionReason::OverwriteRecord {
                resource_manager,
                info: header.info,
            });
        }
        Ok(())
    }

    /// Whether a record before the stream, or none at all, can be at `previous`.
    fn may_precede(&self, previous: Lsn) -> bool {
        let in_page = previous.bytes_since(previous.align_down(BLOCK_SIZE));
        previous.is_invalid()
            || previous < self.start
                && previous.align_down(page::ALIGNMENT) == previous
                && in_page >= SHORT_HEADER_LENGTH as u64
    }

    fn is_resource_manager(&self, id: u8) -> bool {
        // None was ever taken away.
        if id <= RM_LAST_BUILTIN {
            return true;
        }
        let major = self.format.page_magic.and_then(Major::of_page_magic);
        // Of a newer server it is not known which ones it has.
        major.is_none_or(|major| major.has_resource_manager(id))
    }

    /// The timeline that the page at `page` was begun on. Where the timeline changes inside a
    /// page, its header stays the older one's.
    ///
    /// Source: src/backend/access/transam/xlog.c, `XLogInitNewTimeline` (PG 15).
    fn timeline_of(&mut self, page: Lsn) -> TimelineId {
        if page >= self.timeline_end {
            self.timeline = self.history.timeline_of(page);
            let end = self.history.switch_point_of(self.timeline);
            self.timeline_end = end.unwrap_or(Lsn(u64::MAX));
        }
        self.timeline
    }
}

fn is_known(magic: u16) -> bool {
    Major::of_page_magic(magic).is_some()
}
