//! An archive that WAL is streamed into.

use std::sync::{Arc, Mutex, PoisonError};

use walproto::{Lsn, TimelineHistory, TimelineId};

use super::Archive;
use crate::archive::directory::Place;
use crate::archive::position::{ArchivePosition, PublishedPosition, Watermark};
use crate::archive::prepare::{Preparation, Preparer};
use crate::archive::read::WalReader;
use crate::archive::recovery::{Examination, Recovery};
use crate::archive::segment_files::SegmentFiles;
use crate::archive::writer::{Notes, Parts, Stored, Writer};
use crate::disk::filled;
use crate::error::{ArchiveError, Evidence};
use crate::wal::page::BLOCK_SIZE;
use crate::wal::segment::{OWN_DIRECTORY, SegmentFile, SegmentName};
use crate::wal::validator::{NotPageAligned, Validator, WalFormat};

#[cfg(test)]
mod tests;

/// What is read at once, in bytes.
const BLOCK: usize = 128 << 10;

impl Archive {
    /// Finds out how far the archive's WAL reaches, makes that durable, and tells other processes.
    /// Whatever wrote the archive before, and however it ended, this comes before each [`Writer`].
    ///
    /// # Errors
    /// When there is no identity yet, a history is missing, WAL that was there is damaged or
    /// gone, or the disk refuses. The archive is as it was.
    pub fn recover(&self) -> Result<Recovery, ArchiveError> {
        self.lock.check()?;
        let mut recovery = Examination {
            archive: self,
            files: self.segment_files()?,
            format: self.wal_format()?,
            notes: self.notes()?,
        }
        .recover()?;
        if let Some(tip) = recovery.tip() {
            let certain = ArchivePosition {
                timeline: tip.timeline,
                record_end: recovery.certain_end,
                byte_end: recovery.certain_end,
            };
            self.live.advance(certain);
            // A crash of the machine may have taken what was told before.
            match recovery.notes.published.publish(certain) {
                // What other processes know stays an older one until there is room.
                Err(error) if error.is_disk_full() => {}
                published => published?,
            }
        }
        Ok(recovery)
    }

    fn notes(&self) -> Result<Notes, ArchiveError> {
        let mut watermark = Watermark::open(&self.directory)?;
        let mut published = PublishedPosition::open(&self.directory)?;
        watermark.keep_open()?;
        published.keep_open()?;
        Ok(Notes {
            watermark,
            published,
            raised: None,
        })
    }

    /// Forgets how far WAL was durable, since none of it is here any more.
    pub(crate) fn forget_positions(&self) -> Result<Notes, ArchiveError> {
        for place in [Place::Watermark, Place::Position] {
            self.directory.remove(&self.directory.own(place))?;
        }
        self.directory.sync(&self.path().join(OWN_DIRECTORY))?;
        self.notes()
    }

    /// A writer of the WAL from `start` on, on the timeline of `history`.
    ///
    /// What the archive has from there on is compared as it arrives, so `start` is
    /// [`Tip::resume_at`](crate::Tip::resume_at) or earlier; on the first start of an archive it
    /// is the start of a segment. A timeline that descends from the tip's may be begun where the
    /// two are still the same.
    ///
    /// A later start, up to the tip's record end, is possible where the server has no more than
    /// that: what the archive has from `resume_at` up to there is then checked in place of being
    /// sent once more, so that the record at `start` must still be the one that goes on here.
    ///
    /// # Errors
    /// When the history is not stored, the timeline does not descend from the archive's newest
    /// one, `start` is not the start of a page or leaves a hole, or the disk refuses.
    pub fn writer(
        &self,
        recovery: Recovery,
        history: &TimelineHistory,
        start: Lsn,
        preparation: Preparation,
    ) -> Result<Writer, ArchiveError> {
        let history = self.stored_history(history)?;
        let files = self.segment_files()?;
        if start.align_down(BLOCK_SIZE) != start {
            return Err(NotPageAligned { lsn: start }.into());
        }
        let stored = self.stored_on_path(&recovery, &history, start)?;
        let validator = self.validator_from(&recovery, &history, start)?;
        let preparer = self.preparer(files.size().bytes(), preparation)?;
        Writer::new(Parts {
            files,
            history,
            validator,
            stored,
            preparer,
            is_synced: self.sync,
            notes: recovery.notes,
            pipeline: self.pipeline.clone(),
            lock: Arc::clone(&self.lock),
            live: Arc::clone(&self.live),
        })
    }

    /// What makes segments of `size` bytes ready, be it for a writer before.
    fn preparer(
        &self,
        size: u64,
        preparation: Preparation,
    ) -> Result<Arc<Mutex<Preparer>>, ArchiveError> {
        let mut kept = self.preparer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(preparer) = &*kept {
            let is_right = preparer
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is(preparation);
            if is_right {
                return Ok(Arc::clone(preparer));
            }
        }
        let preparer = Preparer::new(self.directory.clone(), size, preparation)?;
        Ok(Arc::clone(kept.insert(Arc::new(Mutex::new(preparer)))))
    }

    /// What checks the stream from `start` on, and knows the record before it if there is one.
    fn validator_from(
        &self,
        recovery: &Recovery,
        history: &Arc<TimelineHistory>,
        start: Lsn,
    ) -> Result<Validator, ArchiveError> {
        let resume_at = recovery.tip().map_or(start, |tip| tip.resume_at).min(start);
        let mut validator = Validator::new(self.wal_format()?, Arc::clone(history), resume_at)?;
        let mut reader = self.reader(Arc::clone(history), resume_at)?;
        let mut block = vec![0; BLOCK];
        while reader.position() < start {
            let count = reader.read(&mut block, start)?;
            let bytes = filled(&block, count);
            if bytes.is_empty() {
                return Err(ArchiveError::Lost {
                    timeline: history.timeline(),
                    found: reader.position(),
                    expected: start,
                });
            }
            if let Err(corruption) = validator.push(bytes) {
                let size = self.bound()?.segment_size();
                let name = SegmentName::of(corruption.timeline, corruption.lsn, size);
                let file = reader.file().unwrap_or(SegmentFile::partial(name));
                return Err(ArchiveError::Corrupt {
                    path: self.directory.path(file),
                    offset: size.offset_of(corruption.lsn),
                    corruption,
                    evidence: Evidence::Durable { lsn: start },
                });
            }
        }
        Ok(validator)
    }

    /// Reads WAL of the timeline of `history` and its ancestors, from `start` on.
    ///
    /// # Errors
    /// When there is no identity yet.
    pub fn reader(
        &self,
        history: impl Into<Arc<TimelineHistory>>,
        start: Lsn,
    ) -> Result<WalReader, ArchiveError> {
        Ok(WalReader::new(self.segment_files()?, history.into(), start))
    }

    /// What the archive holds on the way along the timeline of `history`.
    fn stored_on_path(
        &self,
        recovery: &Recovery,
        history: &TimelineHistory,
        start: Lsn,
    ) -> Result<Stored, ArchiveError> {
        let timeline = history.timeline();
        let Some(tip) = recovery.tip() else {
            let size = self.bound()?.segment_size();
            if size.offset_of(start) != 0 {
                return Err(ArchiveError::Hole {
                    timeline,
                    expected: size.start_of(start),
                    found: start,
                });
            }
            return Ok(Stored {
                record_end: start,
                byte_end: start,
            });
        };
        let left_at = if tip.timeline == timeline {
            Lsn(u64::MAX)
        } else {
            let left_at = history.switch_point_of(tip.timeline);
            left_at.ok_or(ArchiveError::NotDescendant {
                newest: tip.timeline,
                found: timeline,
            })?
        };
        let stored = Stored {
            record_end: recovery.certain_end.min(left_at),
            byte_end: tip.byte_end.min(left_at),
        };
        let record_end = tip.record_end.lsn().min(left_at);
        if start > record_end {
            return Err(ArchiveError::Hole {
                timeline,
                expected: record_end,
                found: start,
            });
        }
        Ok(stored)
    }

    /// The history of a timeline that there is WAL of.
    pub(crate) fn history_of(
        &self,
        timeline: TimelineId,
    ) -> Result<Arc<TimelineHistory>, ArchiveError> {
        match self.histories.get(&timeline) {
            Some(history) => Ok(Arc::new(history.clone())),
            None if timeline == TimelineId::FIRST => {
                Ok(Arc::new(TimelineHistory::without_ancestors(timeline)))
            }
            None => Err(ArchiveError::HistoryMissing { timeline }),
        }
    }

    /// A history is durable before the first byte of its timeline.
    fn stored_history(
        &self,
        history: &TimelineHistory,
    ) -> Result<Arc<TimelineHistory>, ArchiveError> {
        let stored = self.history_of(history.timeline())?;
        if *stored != *history {
            let timeline = history.timeline();
            return Err(ArchiveError::HistoryMissing { timeline });
        }
        Ok(stored)
    }

    pub(crate) fn segment_files(&self) -> Result<SegmentFiles, ArchiveError> {
        let size = self.bound()?.segment_size();
        Ok(SegmentFiles::new(self.directory.clone(), size))
    }

    pub(crate) fn wal_format(&self) -> Result<WalFormat, ArchiveError> {
        Ok(self.bound()?.wal_format())
    }
}
