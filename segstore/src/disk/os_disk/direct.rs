//! Writes that pass by the page cache.
//!
//! A receiver that catches up writes gigabytes that nobody reads back soon. Through the page
//! cache most of its time goes into finding memory for them: five to ten times as much as into
//! everything else together. With `O_DIRECT` the device takes the bytes out of one small buffer.
//! Such a write has to begin and end at a block of the device, in the file and in memory, so the
//! bytes are copied into a buffer that does, and what is left over at either end is written as
//! usual. The kernel keeps both kinds of writes and all reads coherent.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::disk::aligned::{ALIGNMENT, AlignedBuffer};

/// How much is handed to the device at once, in bytes. It fits into a processor's cache, so that
/// what was just checked is copied from there.
const BUFFER_LENGTH: usize = 512 << 10;

/// What the files of a disk share.
#[derive(Debug, Default)]
pub(super) struct DirectWrites {
    /// Set once a file system turned out not to have them.
    unsupported: AtomicBool,
    /// The buffer, allocated when it is first needed.
    buffer: Mutex<Option<AlignedBuffer>>,
}

/// A file's second descriptor, by which it is written directly.
#[derive(Debug, Default)]
pub(super) struct DirectFile(OnceLock<Option<File>>);

impl DirectFile {
    fn get(&self, file: &File, shared: &DirectWrites) -> Option<&File> {
        if shared.unsupported.load(Ordering::Relaxed) {
            return None;
        }
        let opened = self.0.get_or_init(|| {
            // Not by its name, which may have changed.
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let flags = i32::try_from(OFlags::DIRECT.bits()).ok()?;
            let mut options = OpenOptions::new();
            options.write(true).custom_flags(flags).open(path).ok()
        });
        opened.as_ref()
    }
}

/// Writes all of `buffers` to `file` from `offset` on, directly as far as that is possible.
pub(super) fn write(
    file: &File,
    direct: &DirectFile,
    shared: &DirectWrites,
    buffers: &[IoSlice<'_>],
    offset: u64,
) -> io::Result<()> {
    let Some(direct) = direct.get(file, shared) else {
        return super::write_all(file, buffers, offset);
    };
    let mut pieces = Pieces::new(buffers);
    let mut offset = offset;
    let mut buffer = shared.buffer.lock().unwrap_or_else(PoisonError::into_inner);
    let buffer = buffer.get_or_insert_with(|| AlignedBuffer::new(BUFFER_LENGTH));
    if !buffer.is_aligned() {
        return super::write_all(file, buffers, offset);
    }
    let buffer = buffer.bytes();
    // Up to the first block, then as many blocks as fit, and the rest.
    let mut wanted = up_to_block(offset);
    loop {
        let (place, _) = buffer.split_at_mut(wanted.min(buffer.len()));
        let length = pieces.fill(place);
        let (blocks, rest) = place
            .get(..length)
            .unwrap_or_default()
            .split_at(length - length % ALIGNMENT);
        let aligned = offset.is_multiple_of(ALIGNMENT as u64);
        let written = if aligned {
            write_blocks(direct, shared, blocks, offset)?
        } else {
            0
        };
        let usual = [blocks.get(written..).unwrap_or_default(), rest];
        let at = offset + written as u64;
        super::write_all(file, &usual.map(IoSlice::new), at)?;
        if length < wanted {
            return Ok(());
        }
        offset += length as u64;
        wanted = BUFFER_LENGTH;
    }
}

/// How many bytes lie between `offset` and the next block, if any.
fn up_to_block(offset: u64) -> usize {
    let into = usize::try_from(offset % ALIGNMENT as u64).unwrap_or_default();
    (ALIGNMENT - into) % ALIGNMENT
}

/// Writes whole blocks and returns how many bytes of them; the rest is for a usual write.
fn write_blocks(
    direct: &File,
    shared: &DirectWrites,
    blocks: &[u8],
    offset: u64,
) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = blocks.get(done..)
        && !rest.is_empty()
        && done.is_multiple_of(ALIGNMENT)
    {
        match direct.write_at(rest, offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::StorageFull.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The file system takes the flag, but not the write.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                shared.unsupported.store(true, Ordering::Relaxed);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// The bytes of several buffers, to be taken one after the other.
struct Pieces<'a, 'b> {
    buffers: std::slice::Iter<'a, IoSlice<'b>>,
    current: &'a [u8],
}

impl<'a, 'b> Pieces<'a, 'b> {
    fn new(buffers: &'a [IoSlice<'b>]) -> Self {
        Self {
            buffers: buffers.iter(),
            current: &[],
        }
    }

    /// Copies into `place` what there is and returns how much it was; less than there is room
    /// only at the end.
    fn fill(&mut self, place: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(free) = place.get_mut(done..)
            && !free.is_empty()
        {
            if self.current.is_empty() {
                match self.buffers.next() {
                    Some(next) => self.current = next,
                    None => break,
                }
            }
            let count = free.len().min(self.current.len());
            let (now, later) = self.current.split_at(count);
            free.split_at_mut(count).0.copy_from_slice(now);
            self.current = later;
            done += count;
        }
        done
    }
}
