//! WAL on its way from a chunk to the client.

use std::io::{self, IoSlice, IoSliceMut};
use std::num::NonZeroU64;

use bytes::{Bytes, BytesMut};
use rustix::fs::{Advice, fadvise};
use rustix::io::ReadWriteFlags;
use segstore::{ArchiveError, Chunk, ChunkData};
use walproto::server::WAL_HEADER_LENGTH;

use super::PushError;
use crate::may_block::MayBlock;
use crate::socket::Plain;

/// As much WAL of a file is read without waiting, if the kernel has it in memory; more goes from
/// the file to the client without being read.
const MAX_READ: usize = 16 << 10;

/// How many bytes of a file the kernel is asked to read ahead. A cold archive is sent half as fast
/// again when the disk and the client need not wait for each other.
const READ_AHEAD: u64 = 8 << 20;

/// The most pieces that are given to the kernel at once.
const MAX_PIECES: usize = 64;

/// A message of WAL that has begun.
#[derive(Debug)]
pub(super) struct Unsent {
    pub(super) header: [u8; WAL_HEADER_LENGTH],
    pub(super) chunk: Chunk,
    /// How much of header and chunk is sent.
    pub(super) sent: usize,
}

impl Unsent {
    /// Sends a part, `None` when the client takes nothing.
    pub(super) fn send(&self, plain: &Plain) -> Result<Option<usize>, PushError> {
        let header = self.header.get(self.sent..).unwrap_or_default();
        let done = self.sent.saturating_sub(WAL_HEADER_LENGTH);
        let sent = match &self.chunk.data {
            ChunkData::Memory(pieces) => plain.send_vectored(&slices(header, pieces, done)),
            ChunkData::File { .. } if !header.is_empty() => plain.send(header, true),
            ChunkData::File {
                file,
                offset,
                length,
            } => {
                let Some(descriptor) = file.descriptor() else {
                    return Err(PushError::Io(io::ErrorKind::Unsupported.into()));
                };
                let sent = plain.send_file(descriptor, offset + done as u64, length - done);
                if matches!(sent, Ok(Some(0))) {
                    // Reading says what is wrong: the file has become shorter.
                    file.read_exact_at(&mut [0], offset + done as u64)?;
                }
                sent
            }
        };
        sent.map_err(PushError::Io)
    }
}

/// Asks the kernel for what comes after a chunk in its file, at the file's beginning and each time
/// that half of what was asked for before has gone.
pub(super) fn read_ahead(chunk: &Chunk) {
    let ChunkData::File {
        file,
        offset,
        length,
    } = &chunk.data
    else {
        return;
    };
    let half = READ_AHEAD / 2;
    let is_due = *offset == 0 || offset / half != (offset + *length as u64) / half;
    if let Some(descriptor) = file.descriptor()
        && is_due
    {
        let length = NonZeroU64::new(READ_AHEAD);
        // Without it all goes as well, only slower.
        let _ = fadvise(descriptor, *offset, length, Advice::WillNeed);
    }
}

/// Reads a chunk that is not worth a thread or a call of its own: a short one that the kernel has
/// in memory, or one of a file that cannot be sent from.
pub(super) fn take_into_memory(
    chunk: &mut Chunk,
    may_block: Option<&MayBlock>,
) -> Result<(), ArchiveError> {
    let ChunkData::File {
        file,
        offset,
        length,
    } = &chunk.data
    else {
        return Ok(());
    };
    let bytes = match file.descriptor() {
        Some(descriptor) if may_block.is_none() && *length <= MAX_READ => {
            let mut bytes = BytesMut::zeroed(*length);
            let buffers = &mut [IoSliceMut::new(&mut bytes)];
            let flags = ReadWriteFlags::NOWAIT;
            match rustix::io::preadv2(descriptor, buffers, *offset, flags) {
                Ok(count) if count == *length => bytes,
                // It is not in memory, or this file system cannot tell.
                Ok(_) | Err(_) => return Ok(()),
            }
        }
        Some(_) => return Ok(()),
        None => {
            let mut bytes = BytesMut::new();
            chunk.append_to(&mut bytes)?;
            bytes
        }
    };
    chunk.data = ChunkData::Memory(vec![bytes.freeze()]);
    Ok(())
}

/// The header and the pieces, less the first `done` bytes of the latter, as the kernel takes them.
fn slices<'a>(header: &'a [u8], pieces: &'a [Bytes], done: usize) -> Vec<IoSlice<'a>> {
    let mut slices = Vec::with_capacity(MAX_PIECES.min(pieces.len() + 1));
    if !header.is_empty() {
        slices.push(IoSlice::new(header));
    }
    let mut skip = done;
    for piece in pieces {
        let rest = piece.get(skip..).unwrap_or_default();
        skip = skip.saturating_sub(piece.len());
        if !rest.is_empty() {
            slices.push(IoSlice::new(rest));
        }
        if slices.len() == MAX_PIECES {
            break;
        }
    }
    slices
}
