//! Reading the last segments of the newest timeline.

use std::sync::Arc;

use walproto::{Lsn, SegmentNumber, TimelineHistory};

use super::uncertain::{Search, Stretch};
use super::{BLOCK, Examination};
use crate::archive::listing::Listing;
use crate::archive::read::WalReader;
use crate::archive::segment_files::length_without_zeros;
use crate::disk::filled;
use crate::error::ArchiveError;
use crate::wal::corruption::Corruption;
use crate::wal::segment::{SegmentFile, SegmentName};
use crate::wal::validator::{Progress, Validator};

/// The run of segments at the end of a timeline, as far as it was read.
pub(super) struct Run {
    pub(super) history: Arc<TimelineHistory>,
    /// The first position that was read.
    pub(super) start: Lsn,
    pub(super) last: SegmentFile,
    /// The first position of the last segment.
    pub(super) last_start: Lsn,
    pub(super) findings: Findings,
}

/// What the validator says.
pub(super) struct Findings {
    pub(super) progress: Progress,
    /// The first bytes before the end of valid WAL that are valid whatever they are, and are not
    /// known to be durable.
    pub(super) uncertain: Option<Stretch>,
    /// Why the run is not valid to its end.
    pub(super) stop: Option<Corruption>,
}

impl Run {
    /// The end of the last complete and valid record.
    pub(super) const fn record_end(&self) -> Lsn {
        self.findings.progress.record_end
    }

    /// The end of what cannot be other than what was sent.
    pub(super) fn certain_end(&self) -> Lsn {
        let uncertain = self.findings.uncertain;
        uncertain.map_or(self.record_end(), |stretch| stretch.start)
    }
}

impl Examination<'_> {
    /// The last file of the newest timeline that holds anything, and those after it that do not:
    /// growing segments of which no byte was kept. One is taken if there is nothing else.
    pub(super) fn newest_with_content(
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
            if preferred != Some(partial) || names.is_empty() || !self.files.is_empty(partial)? {
                return Ok((preferred, empty));
            }
            empty.push(partial);
        }
        Ok((None, empty))
    }

    /// Reads from the segment before the last on, or from as far back as it takes to find a
    /// record that starts.
    pub(super) fn read_run(
        &self,
        listing: &Listing,
        last: SegmentFile,
    ) -> Result<Run, ArchiveError> {
        let history = self.archive.history_of(last.name.timeline())?;
        let size = self.files.size();
        let number = |name: SegmentName| name.number(size).unwrap_or(SegmentNumber(0));
        let last_number = number(last.name);
        let last_start = self.start_of(last)?;
        let end = self.files.end_of(last_start);
        let settled = self.settled(last, last_start);
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
            let Some(start) = first.start(size) else {
                return Err(ArchiveError::Internal(
                    "a segment that was found has no position",
                ));
            };
            let findings = self.check(&history, start, end, settled)?;
            let tried_all = last_number.0 - first.0 < reach;
            if findings.progress.last_record.is_some() || tried_all {
                return Ok(Run {
                    history,
                    start,
                    last,
                    last_start,
                    findings,
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

    /// Up to where all bytes are durable: all segments but a growing one, and that up to the
    /// position that was last noted.
    fn settled(&self, last: SegmentFile, last_start: Lsn) -> Lsn {
        if !last.partial {
            return Lsn(u64::MAX);
        }
        let known = self.known_positions();
        known
            .filter(|known| known.timeline == last.name.timeline())
            .map(|known| known.record_end)
            .fold(last_start, Lsn::max)
    }

    /// Checks the WAL from `start`, the start of a segment, up to `end`.
    fn check(
        &self,
        history: &Arc<TimelineHistory>,
        start: Lsn,
        end: Lsn,
        settled: Lsn,
    ) -> Result<Findings, ArchiveError> {
        let mut reader = self.reader(history, start);
        let mut validator = Validator::new(self.format, Arc::clone(history), start)?;
        let mut block = vec![0; BLOCK];
        let mut search = Search::new(start, settled);
        let stop = loop {
            let count = reader.read(&mut block, end)?;
            let bytes = filled(&block, count);
            if bytes.is_empty() {
                break None;
            }
            if let Err(corruption) = validator.push_with(bytes, &mut search) {
                break Some(corruption);
            }
        };
        let progress = validator.progress();
        Ok(Findings {
            progress,
            uncertain: search.finish(progress.record_end),
            stop,
        })
    }

    pub(super) fn reader(&self, history: &Arc<TimelineHistory>, start: Lsn) -> WalReader {
        WalReader::new(self.files.clone(), Arc::clone(history), start)
    }

    /// The start of a segment that is listed, so that its name has a position.
    pub(super) fn start_of(&self, file: SegmentFile) -> Result<Lsn, ArchiveError> {
        let size = self.files.size();
        let number = file.name.number(size);
        number
            .and_then(|number| number.start(size))
            .ok_or(ArchiveError::Internal("a listed segment has no position"))
    }

    /// The end of the last byte in the last segment that is not zero.
    pub(super) fn byte_end(&self, run: &Run) -> Result<Lsn, ArchiveError> {
        let record_end = run.record_end();
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
            let bytes = filled(&block, count);
            if let Some(length) = length_without_zeros(bytes) {
                byte_end = Lsn(position.0 + length as u64);
            }
        }
    }
}
