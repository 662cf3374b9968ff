//! The files that a feed takes its chunks from.

use std::sync::Arc;

use walproto::Lsn;

use super::{Feed, FeedError};
use crate::archive::listing::Listing;
use crate::archive::missing::owner;
use crate::archive::segment_files::{FileOrder, Located};
use crate::archive::segment_reader::SegmentReader;
use crate::error::{ArchiveError, Evidence};
use crate::serve::ledger::FileId;
use crate::serve::open_file::{OpenFile, Span};
use crate::serve::view::Followed;
use crate::wal::corruption::Corruption;
use crate::wal::page::LONG_HEADER_LENGTH;
use crate::wal::segment::SegmentFile;
use crate::wal::validator::Validator;

impl Feed {
    /// Whether the open file has the bytes from here on, up to `end` or to its own.
    pub(super) fn is_open_for(&self, end: Lsn) -> bool {
        let open = self.open.as_ref();
        open.is_some_and(|open| open.span.holds(self.position, end))
    }

    /// Opens the file for the bytes from here up to `end`; what is durable reaches to `limit`.
    pub(super) fn open_here(&mut self, end: Lsn, limit: Lsn) -> Result<(), FeedError> {
        self.open = None;
        if let Some(shared) = &*self.view.newest_file()
            && shared.span.newest == self.path.timeline()
            && shared.span.holds(self.position, end)
        {
            self.open = Some(shared.again());
            return Ok(());
        }
        match self.find_file(self.position, limit)? {
            Some((span, reader)) => self.take(span, reader),
            None => Err(self.missing(self.position)),
        }
    }

    /// Opens the file that holds the byte at `position`, of which what lies before `limit` is durable.
    pub(super) fn find_file(
        &self,
        position: Lsn,
        limit: Lsn,
    ) -> Result<Option<(Span, SegmentReader)>, FeedError> {
        // Twice: the file may have been given another name while it was looked for.
        for _ in 0..2 {
            let located = self
                .view
                .files()
                .locate(&self.path, position, self.order())?;
            if let Some(Located { reader, start, end }) = located {
                let span = Span {
                    newest: self.path.timeline(),
                    start,
                    end,
                    durable_end: limit,
                };
                return Ok(Some((span, reader)));
            }
        }
        Ok(None)
    }

    /// In which order the files of a segment are tried. One that still grows is durable only as far
    /// as a writer says that it is.
    pub(super) fn order(&self) -> FileOrder {
        if self.view.followed() == Followed::CompleteSegmentsOnly {
            FileOrder::CompleteOnly
        } else {
            FileOrder::CompleteFirst
        }
    }

    /// Continues in a file that was found, after its header is checked.
    fn take(&mut self, span: Span, mut reader: SegmentReader) -> Result<(), FeedError> {
        self.view.make_durable(reader.opened())?;
        let file = reader.file();
        let id = FileId::of(&reader)?;
        if reader.is_plain() {
            let needed = span.input_end().bytes_since(span.start);
            let length = reader.opened().length()?;
            if length < needed {
                return Err(ArchiveError::Lost {
                    timeline: file.name.timeline(),
                    found: Lsn(span.start.0.saturating_add(length)),
                    expected: span.input_end(),
                }
                .into());
            }
        }
        let mut header = [0; LONG_HEADER_LENGTH];
        reader.read_exact_at(&mut header, 0)?;
        self.check_header(span, &header)
            .map_err(|corruption| ArchiveError::Corrupt {
                path: reader.path().to_owned(),
                offset: 0,
                corruption,
                evidence: Evidence::Durable {
                    lsn: span.durable_end,
                },
            })?;
        let check = self.check_of(id, &reader, span.start, &header)?;
        let open = OpenFile {
            span,
            reader,
            check,
        };
        if open.reader.is_plain() && span.durable_end < span.end {
            *self.view.newest_file() = Some(open.again());
        }
        self.open = Some(open);
        Ok(())
    }

    /// Checks that a segment is the one that its name says, of this cluster and timeline.
    fn check_header(
        &self,
        span: Span,
        header: &[u8; LONG_HEADER_LENGTH],
    ) -> Result<(), Corruption> {
        let format = self.view.identity().wal_format();
        // The start of a segment is that of a page.
        match Validator::new(format, Arc::clone(&self.path), span.start) {
            Ok(mut validator) => validator.push(header).map(drop),
            Err(_) => Ok(()),
        }
    }

    /// Says why there is no file for the bytes from `position` on.
    pub(super) fn missing(&self, position: Lsn) -> FeedError {
        let files = self.view.files();
        let number = files.size().segment_of(position);
        let timeline = owner(&self.path, number, files.size());
        let segment = files.name_of(timeline, position);
        let listing = match Listing::read(files.directory()) {
            Ok(listing) => listing,
            Err(error) => return error.into(),
        };
        let is_older = |(file, _): (SegmentFile, u64)| {
            let other = file.name.number(files.size());
            other.is_some_and(|other| {
                // What a timeline had after it was left leads nowhere.
                other < number && owner(&self.path, other, files.size()) == file.name.timeline()
            })
        };
        if listing.segments().any(is_older) {
            let start = files.size().start_of(position);
            FeedError::Hole { segment, start }
        } else {
            FeedError::Removed { segment }
        }
    }
}
