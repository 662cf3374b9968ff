//! Finding out, after any end of the process before, how far an archive's WAL reaches.
//!
//! The last segments of the newest timeline are read and checked as if they had just arrived,
//! from the segment before the last one on, or from further back if a record is that long. The
//! end of valid WAL is where a writer goes on. What follows it is the provisional tail: left of a
//! record that did not arrive whole, or of writes that a crash of the machine tore.
//!
//! **End or damage.** A record that is not valid may also be one that was. It is damage, and an
//! error that changes nothing, when
//!
//! - WAL up to there or further was durable, as the watermark or the published position says;
//! - the segment has its final name, or a later one exists: a segment is synced before either;
//! - WAL goes on behind it with a page that has its right address, and no position was ever noted
//!   in this archive. (Where one was, it is no more than a second older than what was
//!   acknowledged, and what lies after it may well be torn: writes that were not synced reach the
//!   disk in any order.)
//!
//! **Files that are moved away.** Other programs take completed segments out of the directory, as
//! barman does. Those before the last ones are not missed; one that goes while it is read has
//! recovery begin anew. That none at all is left between two segments is no loss either where the
//! archive was told so ([`Archive::let_segments_be_moved`]).
//!
//! **Durable before it counts.** What is found may be in the page cache only, written by a process
//! that was killed. So every file that was read is synced, and the directory, before recovery
//! vouches for a position.
//!
//! **After a failed sync** the cache shows bytes that will never reach the disk, and a second
//! sync succeeds without them. A file with such a marker is copied into a new one, which is
//! synced and takes its name; its tail is then sent and compared once more. Where no marker could be
//! written either, there is no note of a clean end, and the newest file is copied as well.

use walproto::{Lsn, TimelineId};

use crate::archive::Archive;
use crate::archive::flushed::FlushedLsn;
use crate::archive::listing::Listing;
use crate::archive::segment_files::SegmentFiles;
use crate::archive::writer::Notes;
use crate::error::ArchiveError;
use crate::wal::page::BLOCK_SIZE;
use crate::wal::validator::WalFormat;

mod evidence;
mod rebuild;
mod run;
mod settle;
mod uncertain;
mod unclean;

use run::Run;
pub(crate) use unclean::renew_name;

/// What is read at once, in bytes.
const BLOCK: usize = 256 << 10;

/// How often recovery begins anew because files were taken away while it looked at them.
const MOST_CHANGES: usize = 3;

/// How far an archive's WAL reaches: at the end of its newest timeline, not in the segment with
/// the highest number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Tip {
    /// The newest timeline of which there is WAL.
    pub timeline: TimelineId,
    /// The end of its last complete and valid record.
    pub record_end: FlushedLsn,
    /// The end of what lies after it, which may be left of a torn write.
    pub byte_end: Lsn,
    /// From where the timeline has to be sent again, so that its last record and page are
    /// compared: the start of a page.
    pub resume_at: Lsn,
}

/// What recovery found. It is good for one [`Writer`](crate::Writer), which may change all of it.
#[derive(Debug)]
pub struct Recovery {
    pub(crate) tip: Option<Tip>,
    /// The end of what is never replaced, at most the tip's record end.
    pub(crate) certain_end: Lsn,
    pub(crate) notes: Notes,
}

impl Recovery {
    /// How far the archive reaches, `None` when there is no WAL in it.
    #[must_use]
    pub const fn tip(&self) -> Option<Tip> {
        self.tip
    }
}

/// An examination of an archive.
pub(crate) struct Examination<'a> {
    pub(crate) archive: &'a Archive,
    pub(crate) files: SegmentFiles,
    pub(crate) format: WalFormat,
    pub(crate) notes: Notes,
}

impl Examination<'_> {
    pub(crate) fn recover(self) -> Result<Recovery, ArchiveError> {
        // Until all of it is synced, an end of this process is not a clean one.
        let was_clean = self.files.directory().begin_unclean()?;
        let rebuilt = self.rebuild_poisoned()?;
        if !was_clean && self.archive.is_synced() {
            self.renew_newest()?;
        }
        let mut listing = Listing::read(self.files.directory())?;
        for _ in 0..MOST_CHANGES {
            let found = self.look(&listing, rebuilt);
            let now = Listing::read(self.files.directory())?;
            if found.is_ok() || now == listing {
                return self.vouch(found?);
            }
            // Whoever takes completed segments away did so just now.
            listing = now;
        }
        let found = self.look(&listing, rebuilt)?;
        self.vouch(found)
    }

    /// Finds out how far the files of `listing` reach, and makes that durable. With the tip comes
    /// the end of what is never replaced.
    fn look(&self, listing: &Listing, rebuilt: bool) -> Result<Option<(Tip, Lsn)>, ArchiveError> {
        let (newest, empty) = self.newest_with_content(listing)?;
        let Some(last) = newest else {
            if !self.archive.segments_are_moved() {
                self.check_nothing_lost(None)?;
            }
            return Ok(None);
        };
        let run = self.read_run(listing, last)?;
        self.check_end(&run)?;
        self.check_nothing_lost(Some(&run))?;
        let byte_end = self.byte_end(&run)?;
        self.make_durable(&run)?;
        self.finish_names(listing, &run, &empty)?;
        let tip = Tip {
            timeline: last.name.timeline(),
            record_end: FlushedLsn::synced(self.tip_end(&run)),
            byte_end,
            resume_at: self.resume_at(&run, rebuilt),
        };
        Ok(Some((tip, run.certain_end())))
    }

    fn vouch(mut self, found: Option<(Tip, Lsn)>) -> Result<Recovery, ArchiveError> {
        if found.is_none() && self.check_nothing_lost(None).is_err() {
            // All of it was moved away. What is begun now may end before what was noted of it.
            self.notes = self.archive.forget_positions()?;
        }
        if self.archive.is_synced() {
            // Without it, the next recovery does more than it must.
            drop(self.files.directory().note_clean_end());
        }
        Ok(Recovery {
            tip: found.map(|(tip, _)| tip),
            certain_end: found.map_or(Lsn::INVALID, |(_, certain_end)| certain_end),
            notes: self.notes,
        })
    }

    /// The record end to go on from. A growing segment was never acknowledged to its end, for its
    /// final name comes before that; one that cannot be given the name yet is not full.
    fn tip_end(&self, run: &Run) -> Lsn {
        let full = run.last.partial && run.record_end() == self.end_of(run);
        match run.findings.progress.last_record {
            Some(last) if full && run.certain_end() < run.record_end() => last,
            _ => run.record_end(),
        }
    }

    /// Where to begin again: with the page on which the last record starts, or from further back
    /// if bytes before it need to be compared, but not before the timeline's own first segment,
    /// which is all that a server has of it.
    fn resume_at(&self, run: &Run, rebuilt: bool) -> Lsn {
        let mut resume = run.findings.progress.resume_at().unwrap_or(run.start);
        if let Some(stretch) = run.findings.uncertain {
            resume = resume.min(stretch.record.align_down(BLOCK_SIZE));
        }
        if rebuilt {
            let known = self.known_positions();
            let known = known.filter(|known| known.timeline == run.history.timeline());
            let safe = known
                .map(|known| known.record_end.align_down(BLOCK_SIZE))
                .max();
            resume = resume.min(safe.unwrap_or(run.start));
        }
        let begin = run.history.begin();
        let begin = begin.map(|begin| self.files.size().start_of(begin));
        resume.max(run.start).max(begin.unwrap_or(run.start))
    }
}
