//! The check of what is read from files, before it is given.
//!
//! Bytes were checked when they arrived; a disk or a copy may have changed them since. They are good
//! once all records that they belong to are complete and valid. So the check reads on where a record
//! ends in a later chunk or file, and looks for its beginning where it began in an earlier file.

use std::sync::Arc;

use walproto::Lsn;

use super::{Feed, FeedError};
use crate::archive::read::WalReader;
use crate::archive::segment_reader::SegmentReader;
use crate::disk::filled;
use crate::error::{ArchiveError, Evidence};
use crate::serve::ledger::{BLOCK, FileCheck, FileId, good_end};
use crate::serve::open_file::Span;
use crate::wal::corruption::{Corruption, CorruptionReason};
use crate::wal::page::{BLOCK_SIZE, FIRST_IS_CONTRECORD, LONG_HEADER_LENGTH, PageHeader};
use crate::wal::segment::SegmentFile;
use crate::wal::validator::Validator;

/// A file that lies whole inside a record, and the check at its end.
struct Passed {
    reader: SegmentReader,
    id: Option<FileId>,
    validator: Validator,
    end: Lsn,
}

impl Feed {
    /// Checks the open file, so that bytes up to `end` can be given, and returns up to where they
    /// can be: less if what follows is damaged, but something.
    pub(super) fn check_up_to(&mut self, end: Lsn) -> Result<Lsn, FeedError> {
        let Some(open) = &self.open else {
            return Err(self.missing(self.position));
        };
        let end = end.min(open.span.end);
        if open.check.good_end() >= end {
            return Ok(end);
        }
        let (check, span) = (Arc::clone(&open.check), open.span);
        let mut reader = open.reader.again();
        let mut block = self.view.ledger().block();
        let checked = self.check_open(&mut reader, &check, span, end, &mut block);
        self.view.ledger().put_back(block);
        let good = check.good_end().min(end);
        match checked {
            Ok(()) => Ok(good),
            // What is good is given first.
            Err(_) if good > self.position => Ok(good),
            Err(error) => {
                // If the file is replaced, the new one is checked from its start.
                self.view.ledger().forget(&check);
                *self.view.newest_file() = None;
                self.open = None;
                Err(error)
            }
        }
    }

    /// Checks the open file until all up to `end` is good, or the whole of a compressed one: its own
    /// checksum comes last.
    fn check_open(
        &self,
        reader: &mut SegmentReader,
        check: &FileCheck,
        span: Span,
        end: Lsn,
        block: &mut [u8],
    ) -> Result<(), FeedError> {
        let input_end = span.input_end();
        let mut validator = check.validator(&self.path);
        let begun_at = validator.position();
        let wanted = if reader.is_plain() { end } else { input_end };
        while validator.position() < input_end && good_end(&validator) < wanted {
            let pushed = push_block(&mut validator, reader, span.start, input_end, block);
            check.raise(good_end(&validator));
            pushed?.map_err(|corruption| self.damaged(corruption, span))?;
        }
        let segment_end = span.segment_end(self.view.files());
        if !reader.is_plain() && begun_at < segment_end && validator.position() == segment_end {
            reader.check_end(self.view.files().size())?;
        }
        if validator.position() < input_end || check.good_end() >= end {
            return Ok(());
        }
        if good_end(&validator) < input_end {
            let mut rest = validator.clone();
            if input_end < span.durable_end {
                rest = self.complete_record(rest, span, block)?;
            }
            let is_complete = rest.progress().record_end != validator.progress().record_end;
            if !is_complete && let Some(corruption) = self.unfinished(&rest, span) {
                return Err(self.damaged(corruption, span).into());
            }
        }
        // Behind what is durable there is nothing to check by.
        check.raise(input_end);
        Ok(())
    }

    /// The damage of a record that extends past the durable WAL although that ends with a record: its
    /// length. A record may be unfinished at a switch point, and where only complete segments count.
    fn unfinished(&self, validator: &Validator, span: Span) -> Option<Corruption> {
        let end = span.durable_end;
        let record = validator.incomplete_record()?;
        let is_damaged =
            self.end.is_none() && validator.position() == end && self.view.is_record_end(end);
        is_damaged.then(|| Corruption {
            timeline: self.path.timeline_of(record.start),
            lsn: record.start,
            reason: CorruptionReason::RecordEnd { end },
        })
    }

    /// Checks the rest of a record that continues after the end of a file.
    fn complete_record(
        &self,
        mut validator: Validator,
        span: Span,
        block: &mut [u8],
    ) -> Result<Validator, FeedError> {
        let before = validator.progress().record_end;
        let mut passed = Vec::new();
        while validator.position() < span.durable_end {
            let at = validator.position();
            let Some(found) = self.find_file(at, span.durable_end)? else {
                return Err(self.missing(at));
            };
            let (span, mut reader) = found;
            let id = FileId::of(&reader)?;
            let input_end = span.input_end();
            while validator.progress().record_end == before && validator.position() < input_end {
                let pushed = push_block(&mut validator, &mut reader, span.start, input_end, block)?;
                match pushed {
                    Ok(()) => {}
                    // The damage comes after the record.
                    Err(_) if validator.progress().record_end != before => return Ok(validator),
                    Err(corruption) => return Err(self.damaged(corruption, span).into()),
                }
            }
            let end = validator.position();
            passed.push(Passed {
                reader,
                id,
                validator: validator.clone(),
                end,
            });
            if validator.progress().record_end != before {
                break;
            }
        }
        let good = good_end(&validator);
        let ledger = self.view.ledger();
        for file in passed {
            // What another feed has found is not given up for this.
            if ledger.get(file.reader.file().name, file.id).is_none() {
                let good = good.min(file.end);
                ledger.insert(&file.reader, file.id, file.validator, good);
            }
        }
        Ok(validator)
    }

    /// The check of a file that was opened, as far as it has come or from the beginning.
    pub(super) fn check_of(
        &self,
        id: Option<FileId>,
        reader: &SegmentReader,
        start: Lsn,
        header: &[u8; LONG_HEADER_LENGTH],
    ) -> Result<Arc<FileCheck>, FeedError> {
        let ledger = self.view.ledger();
        if let Some(known) = ledger.get(reader.file().name, id) {
            return Ok(known);
        }
        let validator = self.begin_at(start, header)?;
        Ok(ledger.insert(reader, id, validator, Lsn::INVALID))
    }

    /// Starts the check of a segment. The record that continues into the segment is read first.
    ///
    /// If an earlier file cannot be read, the check begins at `start`, as in the first segment of
    /// an archive: the damage is reported to the client that requests that file.
    fn begin_at(
        &self,
        start: Lsn,
        header: &[u8; LONG_HEADER_LENGTH],
    ) -> Result<Validator, FeedError> {
        let files = self.view.files();
        let path = &self.path;
        let Some(last_byte) = start.0.checked_sub(1).map(Lsn) else {
            return Ok(self.new_check(start)?);
        };
        for (timeline, _) in files.candidates(path, last_byte) {
            let name = files.name_of(timeline, last_byte);
            if let Some(before) = self.view.ledger().at_end(name, start) {
                return Ok(before.onto(Arc::clone(path)));
            }
        }
        if remaining(header).is_none() {
            return Ok(self.new_check(start)?);
        }
        let Some(from) = self.record_begins_in(start)? else {
            // It began before the archive, or before what can be read.
            return Ok(self.new_check(start)?);
        };
        let mut block = self.view.ledger().block();
        let checked = self.check_between(from, start, &mut block);
        self.view.ledger().put_back(block);
        match if_readable(checked)? {
            Some(validator) => Ok(validator),
            None => Ok(self.new_check(start)?),
        }
    }

    /// A check that knows nothing of what lies before `at`.
    fn new_check(&self, at: Lsn) -> Result<Validator, ArchiveError> {
        let format = self.view.identity().wal_format();
        Ok(Validator::new(format, Arc::clone(&self.path), at)?)
    }

    /// The check of the bytes between two positions, which leaves out damaged pages.
    fn check_between(
        &self,
        mut from: Lsn,
        start: Lsn,
        block: &mut [u8],
    ) -> Result<Validator, ArchiveError> {
        let mut reader = self.reader_at(from);
        let mut validator = self.new_check(from)?;
        while validator.position() < start {
            reader.seek(validator.position());
            // One page first: where one is damaged, the next ones may be.
            let is_first = validator.position() == from;
            let end = from.checked_add(BLOCK_SIZE).filter(|_| is_first);
            let count = reader.read(block, end.unwrap_or(start))?;
            let bytes = filled(block, count);
            if count == 0 {
                validator = self.new_check(start)?;
            } else if validator.push(bytes).is_err() {
                // The client that requests the damaged page gets the error. The record may begin
                // after it.
                let page = validator.position().max(from).align_down(BLOCK_SIZE);
                from = page.checked_add(BLOCK_SIZE).unwrap_or(start).min(start);
                validator = self.new_check(from)?;
            }
        }
        Ok(validator)
    }

    /// Reads from the files that [`find_file`](Self::find_file) finds.
    fn reader_at(&self, position: Lsn) -> WalReader {
        let files = self.view.files().clone();
        WalReader::new(files, Arc::clone(&self.path), position).in_order(self.order())
    }

    /// The start of the segment that contains the beginning of the record that continues at `start`.
    /// `None` if that segment is missing or unreadable.
    fn record_begins_in(&self, start: Lsn) -> Result<Option<Lsn>, ArchiveError> {
        let size = self.view.files().size();
        let mut at = start;
        loop {
            let Some(last_byte) = at.0.checked_sub(1).map(Lsn) else {
                return Ok(None);
            };
            at = size.start_of(last_byte);
            let mut header = [0; LONG_HEADER_LENGTH];
            let read = self.reader_at(at).read_full(&mut header, start);
            if if_readable(read)?.is_none_or(|count| count < header.len()) {
                return Ok(None);
            }
            // What page headers take is less than this leaves out.
            let goes_through = remaining(&header).map(u64::from);
            if goes_through.is_none_or(|length| length < size.bytes() / 2) {
                return Ok(Some(at));
            }
        }
    }

    /// Where the archive is damaged.
    fn damaged(&self, corruption: Corruption, span: Span) -> ArchiveError {
        let files = self.view.files();
        let lsn = corruption.lsn;
        let found = files.locate(&self.path, lsn, self.order());
        let path = match found.ok().flatten() {
            Some(located) => located.reader.path().to_owned(),
            // It was removed just now.
            None => {
                let name = files.name_of(self.path.timeline_of(lsn), lsn);
                files.directory().path(SegmentFile::complete(name))
            }
        };
        ArchiveError::Corrupt {
            path,
            offset: files.size().offset_of(lsn),
            corruption,
            evidence: Evidence::Durable {
                lsn: span.durable_end,
            },
        }
    }
}

/// What was read of an earlier file, `None` if it cannot be read. A lack of resources says nothing
/// about the file and stays an error.
fn if_readable<T>(read: Result<T, ArchiveError>) -> Result<Option<T>, ArchiveError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(ArchiveError::Disk(error)) if error.is_out_of_resources() => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// Reads a block of a file that begins at `start`, and checks it.
fn push_block(
    validator: &mut Validator,
    reader: &mut SegmentReader,
    start: Lsn,
    end: Lsn,
    block: &mut [u8],
) -> Result<Result<(), Corruption>, ArchiveError> {
    let at = validator.position();
    let wanted = usize::try_from(end.bytes_since(at)).map_or(BLOCK, |wanted| wanted.min(BLOCK));
    let block = block.get_mut(..wanted).unwrap_or_default();
    reader.read_exact_at(block, at.bytes_since(start))?;
    Ok(validator.push(block).map(drop))
}

/// How much of a record that began before is still missing at the start of a page.
fn remaining(header: &[u8; LONG_HEADER_LENGTH]) -> Option<u32> {
    let (header, _) = PageHeader::parse(header.first_chunk()?);
    (header.flags & FIRST_IS_CONTRECORD != 0).then_some(header.remaining)
}
