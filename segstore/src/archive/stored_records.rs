//! Records out of an archive.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use walproto::{Lsn, TimelineHistory};

use crate::archive::Archive;
use crate::archive::read::WalReader;
use crate::error::ArchiveError;
use crate::wal::corruption::Corruption;
use crate::wal::page::BLOCK_SIZE;
use crate::wal::records::{RecordPiece, RecordReader};
use crate::wal::validator::Validator;

#[cfg(test)]
mod tests;

/// How many bytes are read at once.
const READ_SIZE: usize = 128 << 10;

/// Why records cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadRecordError {
    /// The archive cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The archive's WAL is damaged.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// The archive ends before the position that was to be read to.
    #[error("the archive has no WAL at {lsn}, which lies before its end")]
    Missing {
        /// The position.
        lsn: Lsn,
    },
}

/// Reads the records of a timeline and its ancestors from an archive.
#[derive(Debug)]
pub struct StoredRecords {
    wal: WalReader,
    records: RecordReader,
    buffer: BytesMut,
    /// The damage that was met, to be told after the records before it.
    damage: Option<Corruption>,
}

impl Archive {
    /// Reads the records that begin at `from` or after it, on the timeline of `history` and its
    /// ancestors, as [`RecordReader`] does: whole up to `whole_length` bytes after the header.
    ///
    /// # Errors
    /// When the archive has no identity yet.
    pub fn records(
        &self,
        history: Arc<TimelineHistory>,
        from: Lsn,
        whole_length: usize,
    ) -> Result<StoredRecords, ArchiveError> {
        let start = from.align_down(BLOCK_SIZE);
        let validator = Validator::new(self.wal_format()?, Arc::clone(&history), start)?;
        Ok(StoredRecords {
            wal: self.reader(history, start)?,
            records: RecordReader::new(validator, from, whole_length),
            buffer: BytesMut::new(),
            damage: None,
        })
    }
}

impl StoredRecords {
    /// The end of what was read.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        self.wal.position()
    }

    /// The next record or piece of one. Nothing at `end` or after it is read, which is a position
    /// that a sync or recovery vouched for; `None` when all before it was given.
    ///
    /// # Errors
    /// When it cannot be read. Damage comes after the records before it, and then always.
    pub fn next_before(&mut self, end: Lsn) -> Result<Option<RecordPiece>, ReadRecordError> {
        loop {
            if let Some(piece) = self.records.next_piece() {
                return Ok(Some(piece));
            }
            if let Some(damage) = &self.damage {
                return Err((*damage).into());
            }
            if self.wal.position() >= end {
                return Ok(None);
            }
            let bytes = self.read(end)?;
            self.damage = self.records.feed(bytes).err();
        }
    }

    fn read(&mut self, end: Lsn) -> Result<Bytes, ReadRecordError> {
        // What a lone commit wrote is small, and often all that there is to read.
        let left = end.bytes_since(self.wal.position());
        let size = usize::try_from(left).map_or(READ_SIZE, |left| left.min(READ_SIZE));
        self.buffer.clear();
        self.buffer.resize(size, 0);
        let mut count = self.wal.read(&mut self.buffer, end)?;
        if count == 0 {
            // The segment may have been given another name while it was looked for.
            count = self.wal.read(&mut self.buffer, end)?;
        }
        if count == 0 {
            return Err(ReadRecordError::Missing {
                lsn: self.wal.position(),
            });
        }
        self.buffer.truncate(count);
        Ok(self.buffer.split().freeze())
    }
}
