//! What there is to check, and in which pieces.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use walproto::{Lsn, SegmentSize, TimelineHistory, TimelineId};

use super::guess;
use super::report::{Fault, Problem};
use super::segment::Segment;
use super::tip::Tip;
use crate::archive::directory::ArchiveDirectory;
use crate::archive::history;
use crate::archive::identity::Identity;
use crate::archive::listing::Listing;
use crate::archive::missing::missing_segments;
use crate::archive::position::ArchivePosition;
use crate::archive::segment_files::SegmentFiles;
use crate::error::ArchiveError;
use crate::wal::segment::{SegmentFile, SegmentName};

/// About the most chunks there are, so that what is kept of each stays small.
const MOST_CHUNKS: usize = 4096;

/// All that there is to check.
#[derive(Debug)]
pub(super) struct Plan {
    size: SegmentSize,
    /// In the order of timelines and positions.
    pub(super) runs: Vec<Run>,
    /// In the order of their runs; the indices are those of the run and of its segments.
    chunks: Vec<(usize, Range<usize>)>,
    /// Where a timeline's segments follow on those of another one: that one and the position.
    handed_over: BTreeSet<(TimelineId, Lsn)>,
    /// Files of segments that another file is preferred to.
    pub(super) copies: Vec<(SegmentFile, SegmentFile)>,
    pub(super) durable: Option<ArchivePosition>,
    /// The history of the timeline of `durable`.
    pub(super) durable_history: Option<Arc<TimelineHistory>>,
    /// The timelines whose histories were guessed.
    guessed: BTreeSet<TimelineId>,
    problems: Vec<Problem>,
}

/// Segments of one timeline that follow one another.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) history: Arc<TimelineHistory>,
    /// Whether its file is missing, so that the history was made up from what the pages say.
    pub(super) history_is_guessed: bool,
    pub(super) segments: Vec<Segment>,
    /// What the last segment must hold, if it may end before its end.
    pub(super) tip: Option<Tip>,
}

impl Run {
    pub(super) fn timeline(&self) -> TimelineId {
        self.history.timeline()
    }

    pub(super) fn start(&self) -> Lsn {
        self.segments
            .first()
            .map_or(Lsn::INVALID, |segment| segment.start)
    }

    /// The timeline whose segments lead to this run, if it is not the same one.
    pub(super) fn predecessor(&self) -> Option<TimelineId> {
        let before = Lsn(self.start().0.checked_sub(1)?);
        let timeline = self.history.timeline_of(before);
        (timeline != self.timeline()).then_some(timeline)
    }
}

impl Plan {
    /// And what is wrong with what is there at first sight.
    pub(super) fn new(
        files: &SegmentFiles,
        listing: &Listing,
        identity: Option<&Identity>,
        durable: Option<ArchivePosition>,
    ) -> Result<(Self, Vec<Problem>), ArchiveError> {
        let mut this = Self {
            size: files.size(),
            runs: Vec::new(),
            chunks: Vec::new(),
            handed_over: BTreeSet::new(),
            copies: Vec::new(),
            durable,
            durable_history: None,
            guessed: BTreeSet::new(),
            problems: Vec::new(),
        };
        this.note_unsynced(files, listing)?;
        let histories = this.histories(files, listing, identity, durable);
        this.durable_history =
            durable.and_then(|durable| histories.get(&durable.timeline).cloned());
        this.find_runs(files.size(), listing, &histories, files);
        this.find_missing(listing, &histories, files.size());
        this.leave_out_empty(files)?;
        this.find_tips(files, &histories);
        let problems = mem::take(&mut this.problems);
        Ok((this, problems))
    }

    /// The chunk with this index.
    pub(super) fn chunk(&self, index: usize) -> Option<(&Run, Range<usize>)> {
        let (run, segments) = self.chunks.get(index)?;
        Some((self.runs.get(*run)?, segments.clone()))
    }

    pub(super) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// Whether the segments of another timeline follow on those of `timeline` at `lsn`.
    pub(super) fn is_handed_over(&self, timeline: TimelineId, lsn: Lsn) -> bool {
        self.handed_over.contains(&(timeline, lsn))
    }

    /// What another process could not sync must not be taken for good.
    fn note_unsynced(
        &mut self,
        files: &SegmentFiles,
        listing: &Listing,
    ) -> Result<(), ArchiveError> {
        let directory = files.directory();
        let poisoned = match directory.poisoned() {
            // The archive of another program.
            Err(error) if error.is_not_found() => return Ok(()),
            poisoned => poisoned?,
        };
        for file in poisoned {
            if listing.length_of(file).is_some() {
                self.problems.push(Problem {
                    timeline: file.name.timeline(),
                    lsn: start_of(file.name, files.size()).unwrap_or_default(),
                    place: None,
                    fault: Fault::NotSynced { file },
                });
            }
        }
        Ok(())
    }

    /// The histories of all timelines of which there is one, a segment or a position.
    fn histories(
        &mut self,
        files: &SegmentFiles,
        listing: &Listing,
        identity: Option<&Identity>,
        durable: Option<ArchivePosition>,
    ) -> BTreeMap<TimelineId, Arc<TimelineHistory>> {
        let of_segments = listing.segments().map(|(file, _)| file.name);
        let of_histories = listing.histories().iter().map(|file| (file.timeline, None));
        let of_durable = durable.map(|durable| (durable.timeline, None));
        let mut timelines: BTreeMap<TimelineId, Option<SegmentName>> =
            of_histories.chain(of_durable).collect();
        for name in of_segments {
            timelines
                .entry(name.timeline())
                .or_default()
                .get_or_insert(name);
        }
        let mut histories = BTreeMap::new();
        for (timeline, first) in timelines {
            let found = match find_history(files.directory(), timeline, identity) {
                Ok(Some(history)) => Ok(history),
                Ok(None) if timeline == TimelineId::FIRST => {
                    Ok(TimelineHistory::without_ancestors(timeline))
                }
                Ok(None) => Err(ArchiveError::HistoryMissing { timeline }),
                Err(error) => Err(error),
            };
            match found {
                Ok(history) => drop(histories.insert(timeline, Arc::new(history))),
                Err(error) => {
                    let lsn = first.and_then(|name| start_of(name, files.size()));
                    self.problems.push(Problem {
                        timeline,
                        lsn: lsn.unwrap_or_default(),
                        place: None,
                        fault: Fault::File(error),
                    });
                    if let Some(history) = guess::history(files, listing, timeline) {
                        self.guessed.insert(timeline);
                        histories.insert(timeline, Arc::new(history));
                    }
                }
            }
        }
        histories
    }

    fn find_runs(
        &mut self,
        size: SegmentSize,
        listing: &Listing,
        histories: &BTreeMap<TimelineId, Arc<TimelineHistory>>,
        files: &SegmentFiles,
    ) {
        let mut preferred: Option<SegmentFile> = None;
        for (file, _) in listing.segments() {
            if let Some(preferred) = preferred
                && preferred.name == file.name
            {
                self.copies.push((file, preferred));
                continue;
            }
            preferred = Some(file);
            let timeline = file.name.timeline();
            let Some(start) = start_of(file.name, size) else {
                self.problems.push(Problem {
                    timeline,
                    lsn: Lsn::INVALID,
                    place: None,
                    fault: Fault::File(ArchiveError::ImpossibleSegment {
                        path: files.directory().path(file),
                        segment_size: size,
                    }),
                });
                continue;
            };
            let Some(history) = histories.get(&timeline) else {
                // Which is a problem by itself.
                continue;
            };
            let segment = Segment { start, file };
            match self.runs.last_mut() {
                Some(run)
                    if run.timeline() == timeline
                        && run
                            .segments
                            .last()
                            .is_some_and(|last| files.end_of(last.start) == start) =>
                {
                    run.segments.push(segment);
                }
                _ => self.runs.push(Run {
                    history: Arc::clone(history),
                    history_is_guessed: self.guessed.contains(&timeline),
                    segments: vec![segment],
                    tip: None,
                }),
            }
        }
    }

    /// Notes what is missing on the way along any timeline that there are segments of.
    fn find_missing(
        &mut self,
        listing: &Listing,
        histories: &BTreeMap<TimelineId, Arc<TimelineHistory>>,
        size: SegmentSize,
    ) {
        let timelines: BTreeSet<TimelineId> = self.runs.iter().map(Run::timeline).collect();
        let mut known = BTreeSet::new();
        for history in timelines
            .iter()
            .filter_map(|timeline| histories.get(timeline))
        {
            for missing in missing_segments(listing, history, size) {
                if known.insert(missing.first) {
                    self.problems.push(Problem {
                        timeline: missing.first.timeline(),
                        lsn: missing.start,
                        place: None,
                        fault: Fault::Missing {
                            first: missing.first,
                            last: missing.last,
                            end: missing.end,
                        },
                    });
                }
            }
        }
    }

    /// Leaves out growing segments at the end of a run of which no byte was kept in a crash, so
    /// that the one before is the last.
    fn leave_out_empty(&mut self, files: &SegmentFiles) -> Result<(), ArchiveError> {
        for run in &mut self.runs {
            while let [.., before, last] = run.segments.as_slice()
                && before.file.partial
                && files.is_empty(last.file)?
            {
                run.segments.pop();
            }
        }
        Ok(())
    }

    /// Finds out where runs lead from one timeline to another, and which may end anywhere.
    fn find_tips(
        &mut self,
        files: &SegmentFiles,
        histories: &BTreeMap<TimelineId, Arc<TimelineHistory>>,
    ) {
        let starts = self.runs.iter();
        self.handed_over = starts
            .filter_map(|run| Some((run.predecessor()?, run.start())))
            .collect();
        let newest: BTreeMap<TimelineId, Lsn> = self
            .runs
            .iter()
            .map(|run| (run.timeline(), run.start()))
            .collect();
        for run in &mut self.runs {
            let timeline = run.timeline();
            let Some(last) = run.segments.last() else {
                continue;
            };
            let end = files.end_of(last.start);
            if last.file.partial
                && newest.get(&timeline) == Some(&run.start())
                && !self.handed_over.contains(&(timeline, end))
            {
                let left_at = histories
                    .values()
                    .filter(|history| !self.guessed.contains(&history.timeline()))
                    .filter_map(|history| history.switch_point_of(timeline))
                    .max();
                let durable = self.durable.filter(|durable| durable.timeline == timeline);
                run.tip = Some(Tip::new(files, last, durable, left_at));
            }
        }
    }

    /// Cuts the runs into chunks of at least so many bytes, where they are as long.
    pub(super) fn cut(&mut self, least_bytes: u64) {
        let total: usize = self.runs.iter().map(|run| run.segments.len()).sum();
        let least = usize::try_from(least_bytes / self.size.bytes()).unwrap_or(usize::MAX);
        let length = least.max(total.div_ceil(MOST_CHUNKS)).max(1);
        for (index, run) in self.runs.iter().enumerate() {
            let mut from = 0;
            for (at, segment) in run.segments.iter().enumerate() {
                let handed_over = self.handed_over.contains(&(run.timeline(), segment.start));
                if at > from && (handed_over || at - from >= length) {
                    self.chunks.push((index, from..at));
                    from = at;
                }
            }
            self.chunks.push((index, from..run.segments.len()));
        }
    }
}

/// A history beside the segments, or one directory above, where barman has it: its segments lie in
/// directories whose names are the first 16 digits of theirs.
fn find_history(
    directory: &ArchiveDirectory,
    timeline: TimelineId,
    identity: Option<&Identity>,
) -> Result<Option<TimelineHistory>, ArchiveError> {
    let found = history::find(directory, timeline, identity)?;
    let name = directory.root().file_name().and_then(|name| name.to_str());
    let is_part = name
        .is_some_and(|name| name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit()));
    match directory.root().parent() {
        Some(parent) if found.is_none() && is_part => {
            history::find(&directory.elsewhere(parent), timeline, identity)
        }
        _ => Ok(found),
    }
}

fn start_of(name: SegmentName, size: SegmentSize) -> Option<Lsn> {
    name.number(size)?.start(size)
}
