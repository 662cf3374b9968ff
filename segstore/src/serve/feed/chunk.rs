//! A piece of WAL to be sent.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use walproto::Lsn;

use crate::disk::named_file::NamedFile;
use crate::error::ArchiveError;

/// Durable WAL that goes into one message: it ends at a page boundary or at a record's end, so
/// that whoever writes it as it comes never has half of what another message will replace.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The position of the first byte.
    pub start: Lsn,
    /// The position after the last byte; at most [`Chunk::MAX_LENGTH`] bytes on.
    pub end: Lsn,
    /// Where the bytes are.
    pub data: ChunkData,
}

/// Where the bytes of a chunk are.
#[derive(Clone, Debug)]
pub enum ChunkData {
    /// In a file, `length` bytes from `offset` on. They are there and do not change, also after
    /// the file has lost its name.
    File {
        /// The file.
        file: ChunkFile,
        /// The offset of the first byte.
        offset: u64,
        /// How many bytes, at least 1.
        length: usize,
    },
    /// In memory, in pieces that follow one another, none of them empty.
    Memory(Vec<Bytes>),
}

/// A segment file that is sent from. Clones are the same open file.
#[derive(Clone, Debug)]
pub struct ChunkFile(Arc<NamedFile>);

impl Chunk {
    /// The longest chunk in bytes (`MAX_SEND_SIZE`).
    ///
    /// Source: src/backend/replication/walsender.c (PG 15).
    pub const MAX_LENGTH: usize = 128 << 10;

    /// How many bytes it has.
    #[must_use]
    pub fn length(&self) -> usize {
        match &self.data {
            ChunkData::File { length, .. } => *length,
            ChunkData::Memory(pieces) => pieces.iter().map(Bytes::len).sum(),
        }
    }

    /// Appends a copy of the bytes to `out`, for who cannot send them from where they are.
    ///
    /// # Errors
    /// When the file cannot be read; `out` is as it was then.
    pub fn append_to(&self, out: &mut BytesMut) -> Result<(), ArchiveError> {
        match &self.data {
            ChunkData::File {
                file,
                offset,
                length,
            } => {
                let before = out.len();
                out.resize(before + length, 0);
                let place = out.get_mut(before..).unwrap_or_default();
                if let Err(error) = file.read_exact_at(place, *offset) {
                    out.truncate(before);
                    return Err(error);
                }
            }
            ChunkData::Memory(pieces) => {
                for piece in pieces {
                    out.extend_from_slice(piece);
                }
            }
        }
        Ok(())
    }
}

impl ChunkFile {
    pub(super) const fn new(file: Arc<NamedFile>) -> Self {
        Self(file)
    }

    /// Whether both are one open file.
    #[cfg(test)]
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The path that it was opened by; it may have another name by now, or none.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The operating system's handle, for `sendfile`; `None` on a disk that has none.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.descriptor()
    }

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// When the disk refuses, or the file has become shorter.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), ArchiveError> {
        Ok(self.0.read_exact_at(buffer, offset)?)
    }
}
