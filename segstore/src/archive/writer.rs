//! The one who writes WAL into an archive.
//!
//! A [`Writer`] serves one connection: it takes bytes from the connection's start on, in order,
//! and moves through three zones, which may lie anywhere in its segments.
//!
//! ```text
//!   start            record end          byte end
//!     |   compared        |  provisional    |   new
//!     |   must be equal   |  equal: kept    |   written
//!     |                   |  else: replaced |
//!     +-------------------+-----------------+------------------>
//!        of the archive as it was found
//! ```
//!
//! - **Compared.** Below the archive's own record end bytes are valid and may have been
//!   acknowledged. What arrives is compared with them; a difference ends the stream
//!   ([`WriteError::Diverged`]) and the archive stays as it is.
//! - **Provisional.** After the last complete record lies what a crash left of the next one.
//!   Equal bytes are kept. From the first difference on they are given up: segments after this
//!   one go, and this one's valid prefix is copied to a file that is synced and renamed over it.
//!   That is also all that an overwritten contrecord needs: the pages that the primary lost in
//!   its crash lie behind the last complete record.
//! - **New.** Bytes go into the growing segment, one vectored write a batch and segment.
//!
//! Every byte is checked before any of its batch is compared or written. A segment that is full
//! is synced and gets its final name before the next one is begun, so at most one file has
//! unsynced bytes. A new segment's name is made durable before the first sync that covers a byte
//! of it returns, and before there is a name for the next one: of several new names a crash may
//! take any, and a later segment without the one before would pass for the end of the archive.
//!
//! ```text
//!            corrupt, diverged,                failed fsync
//!   Open ----------------------> Stopped -------------------> Latched
//!    |       failed write                                        ^
//!    +-----------------------------------------------------------+
//!                             failed fsync
//! ```
//!
//! A stopped writer takes no more bytes but still syncs what it took. A latched one does nothing:
//! after a failed fsync nobody knows what the file holds, in this process and in the next
//! (the page cache shows bytes that will never reach the disk). A full disk changes nothing, nor does
//! a want of file descriptors or memory: the same bytes may be appended again.

use std::io::IoSlice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use walproto::{Lsn, TimelineHistory, TimelineId};

use crate::archive::flushed::{Appended, Durable, FlushedLsn};
use crate::archive::live::{Live, Unsynced};
use crate::archive::lock::ProcessLock;
use crate::archive::pipeline::Pipeline;
use crate::archive::position::{PublishedPosition, Watermark};
use crate::archive::prepare::{Preparer, ZEROS};
use crate::archive::read::WalReader;
use crate::archive::segment_files::SegmentFiles;
use crate::disk::OpenMode;
use crate::disk::named_file::NamedFile;
use crate::error::{ArchiveError, DiskError};
use crate::wal::corruption::Corruption;
use crate::wal::segment::{SegmentFile, SegmentName};
use crate::wal::settings::{SettingChange, SettingsWatch};
use crate::wal::validator::Validator;

mod batch;
mod durable;
mod error;
mod overlap;
mod rotate;

use batch::Batch;
pub use error::WriteError;

/// From how many bytes on that are written at once nobody waits for a lone commit among them: the
/// receiver catches up, or a bulk load runs.
const BULK: u64 = 256 << 10;

/// How long the first segment of a stream may wait to be made ready. Nobody waits for WAL to be
/// acknowledged yet, and a segment of the usual size takes a tenth of that.
const FIRST_SEGMENT_PATIENCE: Duration = Duration::from_millis(250);

/// Writes the WAL of one connection into the archive.
#[derive(Debug)]
pub struct Writer {
    files: SegmentFiles,
    history: Arc<TimelineHistory>,
    validator: Validator,
    /// What the records say about the settings of the server.
    settings: SettingsWatch,
    /// The position of the next byte: what lies before was compared or written.
    position: Lsn,
    stored: Stored,
    segment: Option<OpenSegment>,
    /// Whether names in the directory changed since they were last synced.
    names_changed: bool,
    /// Whether the open segment got its first name since then: a crash may leave it without any.
    name_is_new: bool,
    /// Complete segments that are not handed to the pipeline yet.
    sealed: Vec<SegmentName>,
    preparer: Arc<Mutex<Preparer>>,
    /// How long the first segment may wait for being made ready; later ones do not.
    patience: Duration,
    overlap: Option<WalReader>,
    state: State,
    durable: Durable,
    /// What recovery found to be durable, of which this connection has not seen all yet.
    recovered_end: Lsn,
    notes: Notes,
    pipeline: Option<Arc<Pipeline>>,
    /// What views in this process are told with each sync.
    unsynced: Unsynced,
    /// Whether a sync makes anything durable.
    is_synced: bool,
    /// Held as long as anything is written.
    lock: Arc<ProcessLock>,
}

/// What the archive holds on the way along the writer's timeline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stored {
    /// The end of the last complete record. What lies before is never replaced.
    pub(crate) record_end: Lsn,
    /// The end of all bytes. What arrives before is compared, what arrives after is written.
    pub(crate) byte_end: Lsn,
}

/// What is kept beside the segments about how far they reach.
#[derive(Debug)]
pub(crate) struct Notes {
    pub(crate) watermark: Watermark,
    pub(crate) published: PublishedPosition,
    /// When the watermark was last raised.
    pub(crate) raised: Option<Instant>,
}

/// The growing segment.
#[derive(Debug)]
struct OpenSegment {
    name: SegmentName,
    file: NamedFile,
    /// Whether bytes were written since the last sync.
    dirty: bool,
    /// Whether the stream went past its end.
    full: bool,
    /// How often it was synced.
    syncs: u32,
    /// Up to which offset its blocks are known to have been written, in bytes.
    filled: u64,
}

impl OpenSegment {
    const fn new(name: SegmentName, file: NamedFile) -> Self {
        Self {
            name,
            file,
            dirty: false,
            full: false,
            syncs: 0,
            filled: 0,
        }
    }

    /// Writes zeros behind a little WAL that ends at the offset `end`, in a segment of `size` bytes.
    ///
    /// The first sync after a block was first written has the file system's own notes to make
    /// durable as well, and takes several times as long. Where only space was reserved, as in the
    /// segment in which a receiver has caught up, that would be every few commits; so it is once
    /// for many blocks.
    fn fill_behind(&mut self, end: u64, size: u64) -> Result<(), DiskError> {
        if end <= self.filled {
            return Ok(());
        }
        let until = end.next_multiple_of(ZEROS.len() as u64).min(size);
        let length = usize::try_from(until.saturating_sub(end)).unwrap_or_default();
        let zeros = ZEROS.get(..length).unwrap_or_default();
        match self.file.write_at(&[IoSlice::new(zeros)], end) {
            Ok(()) => self.filled = until,
            // There may be room for WAL, which is what matters.
            Err(error) if error.is_disk_full() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Open,
    Stopped,
    Latched,
}

/// What a writer is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) files: SegmentFiles,
    pub(crate) history: Arc<TimelineHistory>,
    pub(crate) validator: Validator,
    pub(crate) stored: Stored,
    pub(crate) preparer: Arc<Mutex<Preparer>>,
    pub(crate) is_synced: bool,
    pub(crate) notes: Notes,
    pub(crate) pipeline: Option<Arc<Pipeline>>,
    pub(crate) lock: Arc<ProcessLock>,
    pub(crate) live: Arc<Live>,
}

impl Writer {
    /// A writer that goes on where its validator starts, which is not past what is stored.
    pub(crate) fn new(parts: Parts) -> Result<Self, ArchiveError> {
        let start = parts.validator.position();
        let mut this = Self {
            durable: Durable {
                timeline: parts.history.timeline(),
                record_end: FlushedLsn::synced(parts.validator.progress().record_end),
                byte_end: start,
            },
            files: parts.files,
            history: parts.history,
            validator: parts.validator,
            settings: SettingsWatch::default(),
            position: start,
            stored: parts.stored,
            segment: None,
            names_changed: false,
            name_is_new: false,
            sealed: Vec::new(),
            preparer: parts.preparer,
            patience: FIRST_SEGMENT_PATIENCE,
            overlap: None,
            state: State::Open,
            recovered_end: parts.stored.record_end,
            notes: parts.notes,
            pipeline: parts.pipeline,
            unsynced: Unsynced::new(parts.live),
            is_synced: parts.is_synced,
            lock: parts.lock,
        };
        this.lock.check()?;
        // From here on only a clean end says that there is nothing in the cache alone.
        this.files.directory().begin_unclean()?;
        // Before the first byte, so that from then on recovery can tell what a crash took from
        // what was damaged.
        this.unsynced.synced(this.safe());
        this.notes.watermark.raise(this.safe())?;
        this.notes.published.publish(this.safe())?;
        if !this.has_growing_segment() {
            this.preparer().request();
        }
        Ok(this)
    }

    /// Whether there is a partial segment to append to. If so, the next segment is needed only once
    /// that one is full, which may never happen on this connection.
    fn has_growing_segment(&self) -> bool {
        let name = self.files.name_of(self.timeline(), self.stored.byte_end);
        let growing = self.files.open(SegmentFile::partial(name), OpenMode::Read);
        matches!(growing, Ok(Some(_)))
    }

    fn preparer(&self) -> MutexGuard<'_, Preparer> {
        self.preparer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that no other process can have come to stream into the archive; about once a second
    /// is enough, since the directory itself is locked where that is possible.
    ///
    /// # Errors
    /// [`ArchiveError::LockLost`]; no more bytes are taken then.
    pub fn check_lock(&mut self) -> Result<(), WriteError> {
        self.lock.check().map_err(|error| {
            let error = WriteError::Archive(error);
            self.stop_after(&error);
            error
        })
    }

    /// The timeline that is written.
    #[must_use]
    pub fn timeline(&self) -> TimelineId {
        self.history.timeline()
    }

    /// The position of the next byte to append.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        self.position
    }

    /// What the last sync made durable; before the first one, the start of the stream.
    #[must_use]
    pub const fn durable(&self) -> Durable {
        self.durable
    }

    /// The magic number of the stream's pages, `None` before the first page.
    #[must_use]
    pub const fn page_magic(&self) -> Option<u16> {
        self.validator.page_magic()
    }

    /// How far the stream has come; nothing of it need be durable.
    #[must_use]
    pub fn appended(&self) -> Appended {
        Appended {
            record_end: self.validator.progress().record_end,
            byte_end: self.position,
            incomplete: self.validator.incomplete_record(),
        }
    }

    /// Takes the bytes at `at`, which is [`position`](Self::position): the pieces of `data`
    /// follow one another. They are checked, then compared with what is there or written.
    ///
    /// # Errors
    /// - [`WriteError::DiskFull`], [`WriteError::OutOfResources`]: nothing has changed, the same
    ///   bytes may be appended again.
    /// - Those of wrong input: what came before the first wrong byte, up to the last complete
    ///   record, is kept, and [`sync`](Self::sync) makes it durable. No more bytes are taken.
    /// - Those of the disk: no more bytes are taken; after a failed fsync nothing is synced
    ///   either.
    pub fn append(&mut self, at: Lsn, data: &[Bytes]) -> Result<Appended, WriteError> {
        if self.state != State::Open {
            return Err(self.refusal());
        }
        if at != self.position {
            self.state = State::Stopped;
            return Err(WriteError::Hole {
                timeline: self.timeline(),
                expected: self.position,
                found: at,
            });
        }
        // Kept apart until the bytes are stored, so that a full disk leaves no trace.
        let mut validator = self.validator.clone();
        let mut settings = self.settings;
        let verdict = {
            let mut visitor = settings.visitor(validator.page_magic());
            data.iter()
                .try_for_each(|piece| validator.push_with(piece, &mut visitor).map(|_| ()))
        };
        let progress = validator.progress();
        let end = match verdict {
            Ok(()) => progress.byte_end,
            Err(_) => progress.record_end.max(at),
        };
        let batch = Batch::new(at, data);
        let stored = match verdict {
            Ok(()) => self.store(batch, at, end),
            // WAL of another history need not make sense after ours.
            Err(_) => {
                let received_end = Lsn(data
                    .iter()
                    .fold(at.0, |end, piece| end + piece.len() as u64));
                self.check_same_history(batch, at, received_end)
                    .and_then(|()| self.store(batch, at, end))
            }
        };
        if let Err(error) = stored {
            self.stop_after(&error);
            return Err(error);
        }
        if self.stored.byte_end < end {
            let error = self.internal(end, "not all bytes that were taken are stored");
            self.stop_after(&error);
            return Err(error);
        }
        self.stored.record_end = self.stored.record_end.max(progress.record_end);
        self.validator = validator;
        self.settings = settings;
        self.position = end;
        self.unsynced.append(self.history.timeline(), at, end, data);
        match verdict {
            Ok(()) => Ok(self.appended()),
            Err(corruption) => {
                self.state = State::Stopped;
                Err(self.corrupt(corruption))
            }
        }
    }

    /// The changes of settings that a base backup depends on in what was appended since this was
    /// last called, in their order.
    pub fn take_setting_changes(&mut self) -> impl Iterator<Item = SettingChange> + use<> {
        self.settings.take_changes()
    }

    /// Stores the bytes from `position` up to `end`, segment by segment.
    fn store(&mut self, batch: Batch<'_>, position: Lsn, end: Lsn) -> Result<(), WriteError> {
        let mut position = position;
        while position < end {
            let mut until = end.min(self.files.end_of(position));
            if position < self.stored.byte_end {
                until = until.min(self.stored.byte_end);
                if let Some(different) = self.compare(batch, position, until)? {
                    self.give_up_tail(different)?;
                    position = different;
                    continue;
                }
            } else {
                self.write(batch, position, until)?;
            }
            position = until;
            if self.files.size().offset_of(position) == 0 {
                self.finish_segment_before(position)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, batch: Batch<'_>, from: Lsn, end: Lsn) -> Result<(), WriteError> {
        let size = self.files.size();
        let offset = size.offset_of(from);
        let length = end.bytes_since(from);
        let slices: Vec<_> = batch.range(from, end).map(IoSlice::new).collect();
        let given: usize = slices.iter().map(|slice| slice.len()).sum();
        if given as u64 != length {
            return Err(self.internal(from, "fewer bytes are given than are to be written"));
        }
        let segment = self.open_segment_at(from)?;
        segment.dirty = true;
        let written = if length >= BULK {
            segment.file.write_bulk_at(&slices, offset)
        } else {
            let written = segment.file.write_at(&slices, offset);
            // Nothing is stored behind the last byte, so zeros take nothing away.
            written.and_then(|()| segment.fill_behind(offset + length, size.bytes()))
        };
        written.map_err(WriteError::of_write)?;
        segment.filled = segment.filled.max(offset + length);
        self.stored.byte_end = self.stored.byte_end.max(end);
        self.overlap = None;
        Ok(())
    }

    /// An error that latches the writer: something that cannot be has come about.
    fn internal(&self, lsn: Lsn, what: &'static str) -> WriteError {
        WriteError::Internal {
            timeline: self.timeline(),
            lsn,
            what,
        }
    }

    fn refusal(&self) -> WriteError {
        match self.state {
            State::Open | State::Stopped => WriteError::Stopped,
            State::Latched => WriteError::Latched,
        }
    }

    /// Passes to the state in which `error` leaves the writer.
    fn stop_after(&mut self, error: &WriteError) {
        match error {
            error if error.is_temporary() => {}
            WriteError::SyncFailed { .. } | WriteError::Internal { .. } => {
                self.state = State::Latched;
            }
            _ if self.state == State::Open => self.state = State::Stopped,
            _ => {}
        }
    }

    fn corrupt(&self, corruption: Corruption) -> WriteError {
        WriteError::Corrupt {
            corruption,
            file: SegmentFile::partial(self.files.name_of(corruption.timeline, corruption.lsn)),
            offset: self.files.size().offset_of(corruption.lsn),
            record_end: self.validator.progress().record_end,
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(segment) = &self.segment {
            self.preparer().note_growing(segment.name, segment.filled);
        }
    }
}

#[cfg(test)]
mod tests;
