//! The files that a feed takes its chunks from.

use std::sync::Arc;

use walproto::{Lsn, TimelineId};

use super::chunk::ChunkFile;
use super::decoded::Decoded;
use super::ledger::{FileCheck, FileId};
use super::{Feed, FeedError};
use crate::archive::listing::Listing;
use crate::archive::missing::owner;
use crate::archive::segment_files::{FileOrder, SegmentFiles};
use crate::disk::named_file::NamedFile;
use crate::error::{ArchiveError, Evidence};
use crate::serve::view::Followed;
use crate::wal::corruption::Corruption;
use crate::wal::page::LONG_HEADER_LENGTH;
use crate::wal::segment::{Encoding, SegmentFile, SegmentName};
use crate::wal::validator::Validator;

#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) span: Span,
    pub(super) file: SegmentFile,
    pub(super) source: Source,
    /// How far it is checked.
    pub(super) check: Arc<FileCheck>,
}

#[derive(Debug)]
pub(super) enum Source {
    Plain(Arc<ChunkFile>),
    Decoded(Decoded),
}

impl Source {
    /// Reads a file that was opened.
    pub(super) fn open(file: SegmentFile, opened: NamedFile) -> Result<Self, ArchiveError> {
        if file.encoding == Encoding::Plain {
            return Ok(Self::Plain(Arc::new(ChunkFile::new(opened))));
        }
        Ok(Self::Decoded(Decoded::new(file, opened)?))
    }

    /// The file, if it grows: as long as it is open no other file is taken for it.
    pub(super) fn growing(&self, file: SegmentFile) -> Option<Arc<ChunkFile>> {
        match self {
            Self::Plain(opened) if file.partial => Some(Arc::clone(opened)),
            Self::Plain(_) | Self::Decoded(_) => None,
        }
    }

    /// Fills `buffer` with the bytes from `offset` on, which in a compressed file must not lie before
    /// those that were read last.
    pub(super) fn read_exact_at(
        &mut self,
        buffer: &mut [u8],
        offset: u64,
    ) -> Result<(), ArchiveError> {
        match self {
            Self::Plain(file) => file.read_exact_at(buffer, offset),
            Self::Decoded(decoded) => decoded.read_exact_at(buffer, offset),
        }
    }
}

/// Which positions are read from a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    /// The newest timeline when the file was looked for.
    newest: TimelineId,
    /// The start of its segment.
    pub(super) start: Lsn,
    /// The end of its segment, or where its timeline was left.
    pub(super) end: Lsn,
    /// What was durable when it was opened.
    pub(super) durable_end: Lsn,
}

impl Span {
    /// Whether the bytes from `position` up to `end`, or to where the next file takes over, are
    /// what they were and will be.
    fn holds(&self, position: Lsn, end: Lsn) -> bool {
        (self.start..self.end).contains(&position) && end.min(self.end) <= self.durable_end
    }

    /// Up to where the file is read.
    pub(super) fn input_end(&self) -> Lsn {
        self.end.min(self.durable_end)
    }

    /// The end of its segment.
    pub(super) fn segment_end(&self, files: &SegmentFiles) -> Lsn {
        files.end_of(self.start)
    }
}

/// The file of the segment that grows, which all feeds at the end share.
#[derive(Debug)]
pub(crate) struct SharedFile {
    span: Span,
    file: SegmentFile,
    opened: Arc<ChunkFile>,
    check: Arc<FileCheck>,
}

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
            self.open = Some(OpenFile {
                span: shared.span,
                file: shared.file,
                source: Source::Plain(Arc::clone(&shared.opened)),
                check: Arc::clone(&shared.check),
            });
            return Ok(());
        }
        match self.find_file(self.position, limit)? {
            Some((span, file, opened)) => self.take(span, file, opened),
            None => Err(self.missing(self.position)),
        }
    }

    /// Opens the file that holds the byte at `position`, of which what lies before `limit` is durable.
    pub(super) fn find_file(
        &self,
        position: Lsn,
        limit: Lsn,
    ) -> Result<Option<(Span, SegmentFile, NamedFile)>, FeedError> {
        // Twice: the file may have been given another name while it was looked for.
        for _ in 0..2 {
            let files = self.view.files();
            for (timeline, end) in files.candidates(&self.path, position) {
                let name = files.name_of(timeline, position);
                if let Some((file, opened)) = files.find_among(self.names(name))? {
                    let span = Span {
                        newest: self.path.timeline(),
                        start: files.size().start_of(position),
                        end,
                        durable_end: limit,
                    };
                    return Ok(Some((span, file, opened)));
                }
            }
        }
        Ok(None)
    }

    /// The files that may hold a segment. One that still grows is durable only as far as a writer
    /// says that it is.
    pub(super) fn names(&self, name: SegmentName) -> Vec<SegmentFile> {
        self.order().files(name)
    }

    /// In which order the files of a segment are tried.
    pub(super) fn order(&self) -> FileOrder {
        if self.view.followed() == Followed::CompleteSegmentsOnly {
            FileOrder::CompleteOnly
        } else {
            FileOrder::CompleteFirst
        }
    }

    /// Goes on in a file that was found, after a look at it.
    fn take(&mut self, span: Span, file: SegmentFile, opened: NamedFile) -> Result<(), FeedError> {
        self.view.make_durable(&opened)?;
        let mut header = [0; LONG_HEADER_LENGTH];
        let path = opened.path().to_owned();
        let id = FileId::of(file, &opened)?;
        if file.encoding == Encoding::Plain {
            let needed = span.input_end().bytes_since(span.start);
            let length = opened.length()?;
            if length < needed {
                return Err(ArchiveError::Lost {
                    timeline: file.name.timeline(),
                    found: Lsn(span.start.0.saturating_add(length)),
                    expected: span.input_end(),
                }
                .into());
            }
        }
        let mut source = Source::open(file, opened)?;
        match &mut source {
            Source::Plain(file) => file.read_exact_at(&mut header, 0)?,
            Source::Decoded(decoded) => header = *decoded.header(),
        }
        self.check_header(span, &header)
            .map_err(|corruption| ArchiveError::Corrupt {
                path,
                offset: 0,
                corruption,
                evidence: Evidence::Durable {
                    lsn: span.durable_end,
                },
            })?;
        let check = self.check_of(file, id, &source, span.start, &header)?;
        if let Source::Plain(opened) = &source
            && span.durable_end < span.end
        {
            *self.view.newest_file() = Some(SharedFile {
                span,
                file,
                opened: Arc::clone(opened),
                check: Arc::clone(&check),
            });
        }
        self.open = Some(OpenFile {
            span,
            file,
            source,
            check,
        });
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
