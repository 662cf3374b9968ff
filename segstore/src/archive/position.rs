//! Small files that hold a position which only the newest of two writes can damage.
//!
//! Two slots are written in turn, in pages of their own, so that a write that is torn by a crash
//! leaves the one before.
//!
//! | offset in a slot | size | field, little-endian |
//! |---|---|---|
//! | 0 | 8 | `wrpos` and a version |
//! | 8 | 8 | sequence number, from 1 on, below 2^64 - 1 |
//! | 16 | 4 | timeline |
//! | 20 | 4 | zero |
//! | 24 | 8 | record end |
//! | 32 | 8 | byte end |
//! | 40 | 4 | CRC-32C of what precedes |

use std::io::IoSlice;
use std::path::Path;

use walproto::{Lsn, TimelineId};

use crate::archive::directory::{ArchiveDirectory, Place};
use crate::disk::OpenMode;
use crate::disk::named_file::NamedFile;
use crate::error::{ArchiveError, Damage, DiskError};

const MAGIC: [u8; 8] = *b"wrpos\0\0\x01";
const SLOT_LENGTH: usize = 44;
/// Where slots are: a torn write of one must not reach the other, whatever the sector size is.
const SLOT_OFFSETS: [u64; 2] = [0, 4096];
const FILE_LENGTH: usize = 8192;
/// The number of the first slot that a file gets.
const FIRST_SEQUENCE: u64 = 1;
/// The first number that no slot has: a file whose slots come to it is made anew.
const SEQUENCE_END: u64 = u64::MAX;
/// How often a reader looks again: the writer may be in the middle of a write.
const READ_ATTEMPTS: usize = 5;

/// How far an archive reaches on a timeline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ArchivePosition {
    /// The timeline.
    pub timeline: TimelineId,
    /// The end of the last complete and valid record.
    pub record_end: Lsn,
    /// The end of all bytes, at least `record_end`.
    pub byte_end: Lsn,
}

/// The last acknowledged position: a lower bound, since it is written now and then only.
///
/// Recovery that finds less WAL than this has found corruption, not the end of WAL.
#[derive(Debug)]
pub(crate) struct Watermark(PositionFile);

impl Watermark {
    pub(crate) fn open(directory: &ArchiveDirectory) -> Result<Self, ArchiveError> {
        PositionFile::open(directory, Place::Watermark).map(Self)
    }

    /// Keeps the file open, if there is one, so that no later write needs a file descriptor.
    pub(crate) fn keep_open(&mut self) -> Result<(), DiskError> {
        self.0.keep_open()
    }

    /// The position, `None` when nothing was acknowledged yet.
    #[must_use]
    pub(crate) const fn get(&self) -> Option<ArchivePosition> {
        self.0.current
    }

    /// Makes a position durable unless it is behind the present one.
    ///
    /// # Errors
    /// When the disk refuses; the file still holds the present position then.
    pub(crate) fn raise(&mut self, position: ArchivePosition) -> Result<(), DiskError> {
        if self.0.current.is_some_and(|current| position <= current) {
            return Ok(());
        }
        if let Some(file) = self.0.write(position)? {
            file.sync_data()?;
        }
        self.0.written(position);
        Ok(())
    }
}

/// Up to where WAL was removed while another process kept the slots, which has to know of it.
#[derive(Debug)]
pub(crate) struct RemovedPosition(PositionFile);

impl RemovedPosition {
    /// Where the WAL that is left begins, as far as it was told; a file that a crash damaged tells
    /// nothing.
    pub(crate) fn read(directory: &ArchiveDirectory) -> Result<Option<Lsn>, ArchiveError> {
        match PositionFile::open(directory, Place::Removed) {
            Err(ArchiveError::Damaged { .. }) => Ok(None),
            result => Ok(result?.current.map(|position| position.record_end)),
        }
    }

    pub(crate) fn open(directory: &ArchiveDirectory) -> Result<Self, ArchiveError> {
        match PositionFile::open(directory, Place::Removed) {
            Err(ArchiveError::Damaged { .. }) => {
                directory.remove(&directory.own(Place::Removed))?;
                PositionFile::open(directory, Place::Removed).map(Self)
            }
            result => result.map(Self),
        }
    }

    /// Tells that what lies before `position` is being removed, durably, unless it was told.
    pub(crate) fn raise(&mut self, timeline: TimelineId, position: Lsn) -> Result<(), DiskError> {
        let told = self.0.current.map(|told| told.record_end);
        if told >= Some(position) {
            return Ok(());
        }
        let position = ArchivePosition {
            timeline,
            record_end: position,
            byte_end: position,
        };
        if let Some(file) = self.0.write(position)? {
            file.sync_data()?;
        }
        self.0.written(position);
        Ok(())
    }
}

/// The durable position as other processes may read it, at any time and without a lock.
#[derive(Debug)]
pub(crate) struct PublishedPosition(PositionFile);

impl PublishedPosition {
    pub(crate) fn open(directory: &ArchiveDirectory) -> Result<Self, ArchiveError> {
        match PositionFile::open(directory, Place::Position) {
            // It is never synced, so a crash of the machine may well have left nothing.
            Err(ArchiveError::Damaged { .. }) => {
                directory.remove(&directory.own(Place::Position))?;
                PositionFile::open(directory, Place::Position).map(Self)
            }
            result => result.map(Self),
        }
    }

    /// As [`Watermark::keep_open`].
    pub(crate) fn keep_open(&mut self) -> Result<(), DiskError> {
        self.0.keep_open()
    }

    /// The position that was last told, `None` when none was.
    #[must_use]
    pub(crate) const fn get(&self) -> Option<ArchivePosition> {
        self.0.current
    }

    /// Tells other processes that everything up to `position` is durable. It may be behind what
    /// was told before, after a recovery.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn publish(&mut self, position: ArchivePosition) -> Result<(), DiskError> {
        if self.0.current != Some(position) {
            self.0.write(position)?;
            self.0.written(position);
        }
        Ok(())
    }
}

/// Reads the position that the writer of the archive in `directory` last published: everything
/// up to it is durable. `None` when no writer ever published one.
///
/// # Errors
/// When the file cannot be read or has no valid content.
pub(crate) fn published(
    directory: &ArchiveDirectory,
) -> Result<Option<ArchivePosition>, ArchiveError> {
    Ok(PositionFile::open(directory, Place::Position)?.current)
}

/// The position up to which everything is durable, by what the archive's writer told: the one
/// last published, or, if a crash of the machine damaged or took that, the watermark. `None` when
/// no writer ever told one.
pub(crate) fn last_told(
    directory: &ArchiveDirectory,
) -> Result<Option<ArchivePosition>, ArchiveError> {
    match published(directory) {
        Ok(None) | Err(ArchiveError::Damaged { .. }) => Ok(Watermark::open(directory)?.get()),
        told => told,
    }
}

#[derive(Debug)]
struct PositionFile {
    directory: ArchiveDirectory,
    place: Place,
    file: Option<NamedFile>,
    sequence: u64,
    current: Option<ArchivePosition>,
}

impl PositionFile {
    fn open(directory: &ArchiveDirectory, place: Place) -> Result<Self, ArchiveError> {
        let path = directory.own(place);
        let mut newest = None;
        for _ in 0..READ_ATTEMPTS {
            let Some(content) = directory.read(&path, FILE_LENGTH)? else {
                break;
            };
            newest = newest_of(&content);
            if newest.is_some() {
                break;
            }
        }
        let this = Self {
            directory: directory.clone(),
            place,
            file: None,
            sequence: newest.map_or(0, |(sequence, _)| sequence),
            current: newest.map(|(_, position)| position),
        };
        if newest.is_none() && this.exists()? {
            return Err(ArchiveError::Damaged {
                path,
                reason: Damage::Empty,
            });
        }
        Ok(this)
    }

    fn keep_open(&mut self) -> Result<(), DiskError> {
        if self.file.is_none() {
            let path = self.directory.own(self.place);
            let disk = self.directory.disk();
            self.file = NamedFile::open_if_exists(disk, path, OpenMode::ReadWrite)?;
        }
        Ok(())
    }

    fn exists(&self) -> Result<bool, DiskError> {
        let path = self.directory.own(self.place);
        Ok(NamedFile::open_if_exists(self.directory.disk(), path, OpenMode::Read)?.is_some())
    }

    /// Writes the slot whose turn it is, without a sync; `None` when the file was made instead,
    /// durably. The other slot is not touched until [`PositionFile::written`] was called.
    fn write(&mut self, position: ArchivePosition) -> Result<Option<&NamedFile>, DiskError> {
        let sequence = self.next_sequence();
        let slot = encode(sequence, position);
        let path = self.directory.own(self.place);
        if sequence == FIRST_SEQUENCE {
            // What is open is the file that is replaced.
            self.file = None;
            create(&self.directory, &path, &slot)?;
            // If it cannot be opened now, the next write opens it.
            self.keep_open().ok();
            return Ok(None);
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => self.directory.open(path, OpenMode::ReadWrite)?,
        };
        let file = self.file.insert(file);
        let [even, odd] = SLOT_OFFSETS;
        let offset = if sequence.is_multiple_of(2) {
            even
        } else {
            odd
        };
        file.write_at(&[IoSlice::new(&slot)], offset)?;
        Ok(Some(file))
    }

    const fn written(&mut self, position: ArchivePosition) {
        self.sequence = self.next_sequence();
        self.current = Some(position);
    }

    /// The number of the next slot; the first one begins a new file.
    const fn next_sequence(&self) -> u64 {
        match self.sequence + 1 {
            SEQUENCE_END => FIRST_SEQUENCE,
            next => next,
        }
    }
}

/// The first write makes the file whole, so that its space is reserved.
fn create(
    directory: &ArchiveDirectory,
    path: &Path,
    slot: &[u8; SLOT_LENGTH],
) -> Result<(), DiskError> {
    let mut content = vec![0; FILE_LENGTH];
    // The first sequence number is odd.
    let odd = content.iter_mut().skip(4096);
    for (to, from) in odd.zip(slot) {
        *to = *from;
    }
    directory.replace(path, &content)
}

fn encode(sequence: u64, position: ArchivePosition) -> [u8; SLOT_LENGTH] {
    let mut slot = [0; SLOT_LENGTH];
    slot[0..8].copy_from_slice(&MAGIC);
    slot[8..16].copy_from_slice(&sequence.to_le_bytes());
    slot[16..20].copy_from_slice(&position.timeline.number().to_le_bytes());
    slot[24..32].copy_from_slice(&position.record_end.0.to_le_bytes());
    slot[32..40].copy_from_slice(&position.byte_end.0.to_le_bytes());
    let checksum = crc32c::crc32c(&slot[..40]);
    slot[40..44].copy_from_slice(&checksum.to_le_bytes());
    slot
}

fn decode(slot: &[u8; SLOT_LENGTH]) -> Option<(u64, ArchivePosition)> {
    let (content, checksum) = slot.split_first_chunk::<40>()?;
    if crc32c::crc32c(content).to_le_bytes() != checksum {
        return None;
    }
    let (magic, content) = content.split_first_chunk::<8>()?;
    let (sequence, content) = content.split_first_chunk::<8>()?;
    let (timeline, content) = content.split_first_chunk::<4>()?;
    let (_, content) = content.split_first_chunk::<4>()?;
    let (record_end, content) = content.split_first_chunk::<8>()?;
    let (byte_end, _) = content.split_first_chunk::<8>()?;
    let position = ArchivePosition {
        timeline: TimelineId::new(u32::from_le_bytes(*timeline))?,
        record_end: Lsn(u64::from_le_bytes(*record_end)),
        byte_end: Lsn(u64::from_le_bytes(*byte_end)),
    };
    let sequence = u64::from_le_bytes(*sequence);
    let counted = (FIRST_SEQUENCE..SEQUENCE_END).contains(&sequence);
    (*magic == MAGIC && counted).then_some((sequence, position))
}

fn newest_of(content: &[u8]) -> Option<(u64, ArchivePosition)> {
    SLOT_OFFSETS
        .iter()
        .filter_map(|&offset| {
            let from = content.get(usize::try_from(offset).ok()?..)?;
            decode(from.first_chunk()?)
        })
        .max_by_key(|(sequence, _)| *sequence)
}

#[cfg(test)]
mod tests;
