//! A compressed segment that is sent from.

use std::io::{self, Read};

use walproto::SegmentSize;

use crate::archive::segment_reader::{SegmentReader, unreadable};
use crate::disk::named_file::NamedFile;
use crate::error::{ArchiveError, Damage};
use crate::wal::page::LONG_HEADER_LENGTH;
use crate::wal::segment::SegmentFile;

/// Reads a compressed segment forwards, from any offset on.
#[derive(Debug)]
pub(super) struct Decoded {
    bytes: SegmentReader,
    /// The offset of the next byte that is decoded.
    offset: u64,
    /// What was decoded first, to be looked at.
    header: [u8; LONG_HEADER_LENGTH],
}

impl Decoded {
    pub(super) fn new(file: SegmentFile, opened: NamedFile) -> Result<Self, ArchiveError> {
        let mut bytes = SegmentReader::over(opened, file)?;
        let mut header = [0; LONG_HEADER_LENGTH];
        let count = bytes.read_full(&mut header)?;
        let this = Self {
            bytes,
            offset: count as u64,
            header,
        };
        if count < LONG_HEADER_LENGTH {
            return Err(this.too_short());
        }
        Ok(this)
    }

    /// The first bytes of the segment.
    pub(super) const fn header(&self) -> &[u8; LONG_HEADER_LENGTH] {
        &self.header
    }

    /// Fills `buffer` with the bytes from `offset` on, which must not lie before those that were
    /// read last. After an error there is no going on.
    pub(super) fn read_exact_at(
        &mut self,
        buffer: &mut [u8],
        offset: u64,
    ) -> Result<(), ArchiveError> {
        let head = usize::try_from(offset).unwrap_or(usize::MAX);
        let head = self.header.get(head..).unwrap_or_default();
        let (from_head, rest) = buffer.split_at_mut(head.len().min(buffer.len()));
        for (to, from) in from_head.iter_mut().zip(head) {
            *to = *from;
        }
        let from = offset.saturating_add(from_head.len() as u64);
        let skip = from.saturating_sub(self.offset);
        let skipped = io::copy(&mut self.bytes.by_ref().take(skip), &mut io::sink())
            .map_err(|error| unreadable(self.bytes.path(), error))?;
        let count = self.bytes.read_full(rest)?;
        self.offset += skipped + count as u64;
        if skipped < skip || count < rest.len() {
            return Err(self.too_short());
        }
        Ok(())
    }

    /// Checks, behind the last byte of a segment, that nothing follows, and the file's own checksum.
    pub(super) fn check_end(&mut self, size: SegmentSize) -> Result<(), ArchiveError> {
        if self.bytes.read_full(&mut [0])? == 0 {
            return Ok(());
        }
        Err(ArchiveError::WrongLength {
            path: self.bytes.path().to_owned(),
            found: size.bytes() + 1,
            expected: size.bytes(),
            partial: self.bytes.file().partial,
        })
    }

    fn too_short(&self) -> ArchiveError {
        ArchiveError::Damaged {
            path: self.bytes.path().to_owned(),
            reason: Damage::Compression(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
