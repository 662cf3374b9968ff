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
//! **Durable before it counts.** What is found may be in the page cache only, written by a process
//! that was killed. So every file that was read is synced, and the directory, before recovery
//! vouches for a position.
//!
//! **After a failed sync** the cache shows bytes that will never reach the disk, and a second
//! sync succeeds without them. A file with such a marker is copied into a new one, which is
//! synced and takes its name; its tail is then sent and compared once more.

use std::sync::Arc;

use walproto::{Lsn, SegmentNumber, TimelineHistory, TimelineId};

use crate::archive::Archive;
use crate::corruption::Corruption;
use crate::disk::OpenMode;
use crate::error::{ArchiveError, DiskError, Evidence};
use crate::flushed::FlushedLsn;
use crate::listing::Listing;
use crate::page::{BLOCK_SIZE, PageHeader, SHORT_HEADER_LENGTH};
use crate::position::ArchivePosition;
use crate::prepare::remove_prepared;
use crate::read::WalReader;
use crate::record::RecordHeader;
use crate::segment::{Encoding, SegmentFile, SegmentName};
use crate::segment_files::SegmentFiles;
use crate::validator::{Progress, RecordVisitor, Validator, WalFormat};
use crate::writer::Notes;

mod rebuild;

/// What is read at once, in bytes.
const BLOCK: usize = 256 << 10;

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

/// The run of segments at the end of a timeline, as far as it was read.
struct Run {
    history: Arc<TimelineHistory>,
    first: SegmentNumber,
    last: SegmentFile,
    last_start: Lsn,
    progress: Progress,
    /// Where the last record starts, if it is one after which nothing follows in its segment.
    switch: Option<Lsn>,
    /// Why the run is not valid to its end.
    stop: Option<Corruption>,
}

/// Tells records after which a segment holds nothing more from others.
#[derive(Default)]
struct LastRecord {
    begun: Option<(Lsn, bool)>,
    /// Where the last complete record starts, if it is such a one.
    switch: Option<Lsn>,
}

impl RecordVisitor for LastRecord {
    fn begin(&mut self, start: Lsn, header: &RecordHeader) {
        self.begun = Some((start, header.is_switch()));
    }

    fn end(&mut self, _end: Lsn) {
        let switch = self.begun.filter(|(_, is_switch)| *is_switch);
        self.switch = switch.map(|(start, _)| start);
    }
}

impl Run {
    /// The end of what is certain to be what was sent.
    ///
    /// After a segment switch zeros are as valid as the page headers that a server may send
    /// there, and no checksum tells which there were. A segment that is still growing was never
    /// acknowledged to its end, which comes after its last name; so in one that ends with a
    /// switch, all from the switch on is provisional.
    fn certain_end(&self) -> Lsn {
        match self.switch {
            Some(start) if self.last.partial && self.ends_with_last() => start,
            _ => self.progress.record_end,
        }
    }

    /// Whether the last record ends in the last segment.
    fn ends_with_last(&self) -> bool {
        self.progress.record_end > self.last_start
    }
}

impl Examination<'_> {
    pub(crate) fn recover(self) -> Result<Recovery, ArchiveError> {
        let rebuilt = self.rebuild_poisoned()?;
        remove_prepared(self.files.directory())?;
        let listing = Listing::read(self.files.directory())?;
        let (newest, empty) = self.newest_with_content(&listing)?;
        let Some(last) = newest else {
            self.check_nothing_lost(None)?;
            return Ok(Recovery {
                tip: None,
                notes: self.notes,
            });
        };
        let run = self.read_run(&listing, last)?;
        self.check_end(&run)?;
        self.check_nothing_lost(Some(&run))?;
        let byte_end = self.byte_end(&run)?;
        self.make_durable(&run)?;
        self.finish_names(&listing, &run, &empty)?;
        let tip = Tip {
            timeline: last.name.timeline(),
            record_end: FlushedLsn::synced(run.certain_end()),
            byte_end,
            resume_at: self.resume_at(&run, rebuilt),
        };
        Ok(Recovery {
            tip: Some(tip),
            notes: self.notes,
        })
    }

    /// The last file of the newest timeline that holds anything, and those after it that do not:
    /// growing segments of which no byte was kept. One is taken if there is nothing else.
    fn newest_with_content(
        &self,
        listing: &Listing,
    ) -> Result<(Option<SegmentFile>, Vec<SegmentFile>), ArchiveError> {
        let mut names: Vec<SegmentName> = listing.segments().map(|(file, _)| file.name).collect();
        names.dedup();
        let mut empty = Vec::new();
        while let Some(name) = names.pop() {
            let partial = SegmentFile::partial(name);
            let preferred = match listing.length_of(partial) {
                Some(_) => Some(partial),
                None => listing.of_segment(name).next(),
            };
            if preferred != Some(partial) || names.is_empty() || !self.is_empty(partial)? {
                return Ok((preferred, empty));
            }
            empty.push(partial);
        }
        Ok((None, empty))
    }

    fn is_empty(&self, file: SegmentFile) -> Result<bool, ArchiveError> {
        let directory = self.files.directory();
        let opened = directory.open(directory.path(file), OpenMode::Read)?;
        let mut block = vec![0; BLOCK];
        let mut offset = 0;
        loop {
            let count = opened.read_full_at(&mut block, offset)?;
            let bytes = block.get(..count).unwrap_or_default();
            if length_without_zeros(bytes).is_some() {
                return Ok(false);
            }
            if count < block.len() {
                return Ok(true);
            }
            offset += count as u64;
        }
    }

    /// Reads from the segment before the last on, or from as far back as it takes to find a
    /// record that starts.
    fn read_run(&self, listing: &Listing, last: SegmentFile) -> Result<Run, ArchiveError> {
        let history = self.archive.history_of(last.name.timeline())?;
        let size = self.files.size();
        let number = |name: SegmentName| name.number(size).unwrap_or(SegmentNumber(0));
        let last_number = number(last.name);
        let mut first = last_number;
        let mut reach = 1;
        loop {
            while first.0 > 0 && last_number.0 - first.0 < reach {
                let before = SegmentNumber(first.0 - 1);
                if !self.is_on_path(listing, &history, before) {
                    break;
                }
                first = before;
            }
            // Renames of completed segments may have been lost, though the segment after is
            // there.
            while first.0 > 0
                && let Some(before) =
                    SegmentName::new(history.timeline(), SegmentNumber(first.0 - 1), size)
                && listing.length_of(SegmentFile::partial(before)).is_some()
            {
                first = SegmentNumber(first.0 - 1);
            }
            let (progress, switch, stop) = self.check(&history, first, last_number)?;
            let tried_all = last_number.0 - first.0 < reach;
            if progress.last_record.is_some() || tried_all {
                return Ok(Run {
                    history,
                    first,
                    last,
                    last_start: self.start_of(last),
                    progress,
                    switch,
                    stop,
                });
            }
            reach *= 2;
        }
    }

    /// Whether the archive holds the segment, on the timeline or an ancestor.
    fn is_on_path(
        &self,
        listing: &Listing,
        history: &TimelineHistory,
        number: SegmentNumber,
    ) -> bool {
        let size = self.files.size();
        let Some(start) = number.start(size) else {
            return false;
        };
        // The segment before the last is never the one in which the last one's timeline begins,
        // or the last would begin with a copy of it; so one timeline holds all of it, or it is
        // the part before a switch point that the last one repeats.
        let timelines = history
            .ancestors()
            .iter()
            .filter(|ancestor| start < ancestor.switch_point)
            .map(|ancestor| ancestor.timeline)
            .chain([history.timeline()]);
        timelines
            .filter_map(|timeline| SegmentName::new(timeline, number, size))
            .any(|name| listing.of_segment(name).next().is_some())
    }

    /// Checks the WAL of some segments that follow one another.
    fn check(
        &self,
        history: &Arc<TimelineHistory>,
        first: SegmentNumber,
        last: SegmentNumber,
    ) -> Result<(Progress, Option<Lsn>, Option<Corruption>), ArchiveError> {
        let size = self.files.size();
        let start = first.start(size).unwrap_or_default();
        let end = self.files.end_of(last.start(size).unwrap_or_default());
        let mut reader = self.reader(history, start);
        let mut validator = Validator::new(self.format, Arc::clone(history), start)?;
        let mut block = vec![0; BLOCK];
        let mut records = LastRecord::default();
        let stop = loop {
            let count = reader.read(&mut block, end)?;
            let bytes = block.get(..count).unwrap_or_default();
            if bytes.is_empty() {
                break None;
            }
            if let Err(corruption) = validator.push_with(bytes, &mut records) {
                break Some(corruption);
            }
        };
        Ok((validator.progress(), records.switch, stop))
    }

    fn reader(&self, history: &Arc<TimelineHistory>, start: Lsn) -> WalReader {
        WalReader::new(self.files.clone(), Arc::clone(history), start)
    }

    fn start_of(&self, file: SegmentFile) -> Lsn {
        let number = file.name.number(self.files.size());
        number
            .and_then(|number| number.start(self.files.size()))
            .unwrap_or_default()
    }

    /// Tells the end of WAL from damage by what lies around it.
    fn check_end(&self, run: &Run) -> Result<(), ArchiveError> {
        let Some(corruption) = run.stop else {
            return self.check_no_hole(run);
        };
        let seen = run.progress.byte_end;
        let evidence = if seen < run.last_start {
            Some(Evidence::LaterSegment { file: run.last })
        } else if !run.last.partial {
            Some(Evidence::Complete)
        } else if self.noted_positions().next().is_none() && !corruption.reason.is_unwritten() {
            let page = self.later_page(run, seen)?;
            page.map(|lsn| Evidence::LaterPage { lsn })
        } else {
            None
        };
        evidence.map_or(Ok(()), |evidence| {
            Err(self.corrupt(run, corruption, evidence))
        })
    }

    /// Files shorter than a segment end a run without anything wrong in them.
    fn check_no_hole(&self, run: &Run) -> Result<(), ArchiveError> {
        let end = run.progress.byte_end;
        if end < run.last_start || (!run.last.partial && end < self.end_of(run)) {
            return Err(ArchiveError::Lost {
                timeline: run.history.timeline(),
                found: end,
                expected: run.last_start,
            });
        }
        Ok(())
    }

    fn end_of(&self, run: &Run) -> Lsn {
        self.files.end_of(run.last_start)
    }

    fn corrupt(&self, run: &Run, corruption: Corruption, evidence: Evidence) -> ArchiveError {
        let mut reader = self.reader(&run.history, corruption.lsn);
        // Only to learn the file's name.
        let file = match reader.read(&mut [0], Lsn(corruption.lsn.0.saturating_add(1))) {
            Ok(_) => reader.file(),
            Err(_) => None,
        };
        ArchiveError::Corrupt {
            path: self.files.directory().path(file.unwrap_or(run.last)),
            offset: self.files.size().offset_of(corruption.lsn),
            corruption,
            evidence,
        }
    }

    /// The last page after `seen` that is where its header says, in the last segment.
    fn later_page(&self, run: &Run, seen: Lsn) -> Result<Option<Lsn>, ArchiveError> {
        let end = self.end_of(run);
        let mut found = None;
        let mut page = seen.align_down(BLOCK_SIZE).checked_add(BLOCK_SIZE);
        let mut header = [0; SHORT_HEADER_LENGTH];
        let mut reader = self.reader(&run.history, seen);
        while let Some(lsn) = page.filter(|lsn| *lsn < end) {
            reader.seek(lsn);
            if reader.read_full(&mut header, end)? < header.len() {
                break;
            }
            if PageHeader::parse(&header).0.address == lsn {
                found = Some(lsn);
            }
            page = lsn.checked_add(BLOCK_SIZE);
        }
        Ok(found)
    }

    fn noted_positions(&self) -> impl Iterator<Item = ArchivePosition> {
        [self.notes.watermark.get(), self.notes.published.get()]
            .into_iter()
            .flatten()
    }

    /// The positions that were durable before, none where nothing is synced.
    fn known_positions(&self) -> impl Iterator<Item = ArchivePosition> {
        let synced = self.archive.is_synced();
        self.noted_positions().filter(move |_| synced)
    }

    /// Checks that there is all WAL that was durable before.
    fn check_nothing_lost(&self, run: Option<&Run>) -> Result<(), ArchiveError> {
        for known in self.known_positions() {
            let found = match run {
                Some(run) => self.reach_of(run, known.timeline)?,
                // The first segment of an archive may have been asked for and nothing come.
                None if self.files.size().offset_of(known.record_end) == 0 => None,
                None => Some(Lsn::INVALID),
            };
            let Some(found) = found.filter(|found| *found < known.record_end) else {
                continue;
            };
            let stop = run.and_then(|run| Some((run, run.stop?)));
            return Err(match stop {
                Some((run, corruption)) => {
                    let lsn = known.record_end;
                    self.corrupt(run, corruption, Evidence::Durable { lsn })
                }
                None => ArchiveError::Lost {
                    timeline: known.timeline,
                    found,
                    expected: known.record_end,
                },
            });
        }
        Ok(())
    }

    /// How far `timeline` can be told to reach from the run that was read: `None` when the run
    /// says nothing about it.
    fn reach_of(&self, run: &Run, timeline: TimelineId) -> Result<Option<Lsn>, ArchiveError> {
        let found = run.progress.record_end;
        if run.history.timeline() == timeline {
            return Ok(Some(found));
        }
        if let Some(left_at) = run.history.switch_point_of(timeline) {
            // What the ancestor has after its end is not on the way; before it, the run has it.
            return Ok((found < left_at).then_some(found));
        }
        if timeline > run.history.timeline() {
            // Asked for, but nothing of it came: all of it is the ancestors'.
            let history = self.archive.history_of(timeline)?;
            return Ok(history
                .switch_point_of(run.history.timeline())
                .map(|left_at| found.min(left_at)));
        }
        Ok(None)
    }

    /// The end of the last byte in the last segment that is not zero.
    fn byte_end(&self, run: &Run) -> Result<Lsn, ArchiveError> {
        let record_end = run.certain_end();
        let mut byte_end = record_end.max(run.last_start);
        let end = self.end_of(run);
        let mut reader = self.reader(&run.history, byte_end);
        let mut block = vec![0; BLOCK];
        loop {
            let position = reader.position();
            let count = reader.read(&mut block, end)?;
            if count == 0 {
                return Ok(byte_end);
            }
            let bytes = block.get(..count).unwrap_or_default();
            if let Some(length) = length_without_zeros(bytes) {
                byte_end = Lsn(position.0 + length as u64);
            }
        }
    }

    /// Syncs what was read, and the names.
    fn make_durable(&self, run: &Run) -> Result<(), ArchiveError> {
        let directory = self.files.directory();
        let end = self.end_of(run);
        let mut start = run.first.start(self.files.size()).unwrap_or_default();
        while start < end {
            let timelines = run.history.ancestors().iter().map(|a| a.timeline);
            for timeline in timelines.chain([run.history.timeline()]) {
                let name = self.files.name_of(timeline, start);
                if let Some((file, opened)) = self.files.find(name)? {
                    opened
                        .sync_data()
                        .map_err(|error| self.sync_failed(file, error))?;
                }
            }
            start = self.files.end_of(start);
        }
        directory
            .sync_root()
            .map_err(|error| self.sync_failed(run.last, error))
    }

    /// Leaves a marker, so that the next recovery trusts the cache no more than this one may.
    fn sync_failed(&self, file: SegmentFile, error: DiskError) -> ArchiveError {
        // The error that is returned is the one that says what is wrong with the disk.
        drop(self.files.directory().poison(file));
        error.into()
    }

    /// Gives segments that are valid to their end their final names, and removes those without
    /// content.
    fn finish_names(
        &self,
        listing: &Listing,
        run: &Run,
        empty: &[SegmentFile],
    ) -> Result<(), ArchiveError> {
        let directory = self.files.directory();
        let mut changed = false;
        let growing = listing
            .of_timeline(run.history.timeline())
            .map(|(file, _)| file)
            .filter(|file| file.partial && file.encoding == Encoding::Plain);
        for file in growing {
            let start = self.start_of(file);
            let read = run.first.start(self.files.size()) <= Some(start);
            if read && self.files.end_of(start) <= run.certain_end() {
                let complete = SegmentFile::complete(file.name);
                directory.rename_unsynced(&directory.path(file), &directory.path(complete))?;
                changed = true;
            }
        }
        for file in empty {
            directory.remove(&directory.path(file))?;
            changed = true;
        }
        if changed {
            directory
                .sync_root()
                .map_err(|error| self.sync_failed(run.last, error))?;
        }
        Ok(())
    }

    /// Where to begin again: with the page on which the last record starts, but not before the
    /// timeline's own first segment, which is all that a server has of it.
    fn resume_at(&self, run: &Run, rebuilt: bool) -> Lsn {
        let size = self.files.size();
        let first = run.first.start(size).unwrap_or_default();
        let mut resume = run.progress.resume_at().unwrap_or(first);
        if rebuilt {
            let known = self.known_positions();
            let known = known.filter(|known| known.timeline == run.history.timeline());
            let safe = known
                .map(|known| known.record_end.align_down(BLOCK_SIZE))
                .max();
            resume = resume.min(safe.unwrap_or(first));
        }
        let begin = run.history.begin().map(|begin| size.start_of(begin));
        resume.max(first).max(begin.unwrap_or(first))
    }
}

/// The length up to the last byte that is not zero, `None` when all are.
fn length_without_zeros(bytes: &[u8]) -> Option<usize> {
    static ZEROS: [u8; 4096] = [0; 4096];
    let mut end = bytes.len();
    // Whole steps at once: most of a growing segment is zeros.
    for step in bytes.rchunks(ZEROS.len()) {
        if ZEROS.get(..step.len()) != Some(step) {
            let last = step.iter().rposition(|byte| *byte != 0);
            return last.map(|index| end - step.len() + index + 1);
        }
        end -= step.len();
    }
    None
}
