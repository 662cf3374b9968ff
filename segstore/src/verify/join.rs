//! Making one finding of what was found in each chunk.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use walproto::{Lsn, TimelineId};

use super::check::{Checked, Checker, Stop, Stretch, Walk};
use super::copies;
use super::plan::{Plan, Run};
use super::report::{Fault, GoodRange, Problem, Verification, add_good, merge};
use super::segment::Why;
use crate::archive::listing::Listing;
use crate::error::{ArchiveError, Evidence};
use crate::wal::segment::SegmentFile;

/// Joins chunks to runs and runs to timelines, in their order.
#[derive(Debug)]
pub(super) struct Join<'a> {
    checker: Checker<'a>,
    plan: &'a Plan,
    listing: &'a Listing,
    /// How WAL goes on where another timeline's segments follow.
    handed_over: BTreeMap<(TimelineId, Lsn), Walk>,
    good: Vec<GoodRange>,
    problems: Vec<Problem>,
}

/// WAL that is good as far as it was looked at, and goes on.
#[derive(Debug)]
struct Open {
    /// Where it begins, as soon as a record does.
    from: Option<Lsn>,
    walk: Walk,
}

impl<'a> Join<'a> {
    /// `problems` are those that were found before anything was read.
    pub(super) const fn new(
        checker: Checker<'a>,
        plan: &'a Plan,
        listing: &'a Listing,
        problems: Vec<Problem>,
    ) -> Self {
        Self {
            checker,
            plan,
            listing,
            handed_over: BTreeMap::new(),
            good: Vec::new(),
            problems,
        }
    }

    /// Joins what was found in the chunks of the plan.
    pub(super) fn finish(mut self, checked: Checked) -> Result<Verification, ArchiveError> {
        let mut open = None;
        for (index, stretches) in checked.chunks {
            let Some((run, chunk)) = self.plan.chunk(index) else {
                break;
            };
            if chunk.start == 0 {
                open = self.begin(run);
            }
            let at_end = chunk.end == run.segments.len();
            open = self.join(run, chunk, stretches, open)?;
            if at_end && let Some(open) = open.take() {
                self.add_good(run, &open);
            }
        }
        let mut said = checked.said;
        said.extend(self.checker.take_said());
        let (problems, warnings) = said.judge();
        self.problems.extend(problems);
        self.check_copies();
        self.good = merge(self.good);
        self.check_nothing_lost();
        self.good.retain(|range| range.start < range.end);
        self.problems
            .sort_by_key(|problem| (problem.timeline, problem.lsn));
        let format = self.checker.format();
        Ok(Verification {
            system_id: format.system_id,
            segment_size: format.segment_size,
            segments: checked.segments,
            bytes: checked.bytes,
            durable: self.plan.durable,
            good: self.good,
            problems: self.problems,
            warnings,
            foreign: self.listing.foreign().to_vec(),
        })
    }

    /// What goes on with a run's first segment.
    fn begin(&self, run: &Run) -> Option<Open> {
        let before = self.handed_over.get(&(run.predecessor()?, run.start()))?;
        let walk = before.clone().onto(Arc::clone(&run.history));
        Some(Open {
            from: Some(walk.validator.progress().record_end),
            walk,
        })
    }

    /// Joins a chunk to what goes on with it, and returns what goes on behind it.
    fn join(
        &mut self,
        run: &Run,
        chunk: Range<usize>,
        mut stretches: Vec<Stretch>,
        before: Option<Open>,
    ) -> Result<Option<Open>, ArchiveError> {
        let mut from = None;
        if let Some(mut before) = before {
            let (first, stop) = self.checker.link(run, chunk.clone(), &mut before.walk);
            before.from = before.from.or(first.good_from());
            if let Some(stop) = stop {
                let rest = stop.segment + 1..chunk.end;
                self.stopped(run, &before, stop);
                stretches = self.checker.stretches(run, rest)?;
            } else if first.is_complete() {
                from = before.from;
            } else {
                // No record starts here, or the last one that there is.
                return Ok(Some(self.hand_over(run, before)));
            }
        }
        let mut open = None;
        for stretch in stretches {
            let after = Open {
                from: from.take().or(stretch.first.good_from()),
                walk: stretch.walk,
            };
            match stretch.stop {
                Some(stop) => self.stopped(run, &after, stop),
                None => open = Some(self.hand_over(run, after)),
            }
        }
        Ok(open)
    }

    /// Keeps how WAL goes on, if the segments of another timeline follow here.
    fn hand_over(&mut self, run: &Run, open: Open) -> Open {
        let place = (run.timeline(), open.walk.validator.position());
        if self.plan.is_handed_over(place.0, place.1) {
            self.handed_over.insert(place, open.walk.clone());
        }
        open
    }

    fn add_good(&mut self, run: &Run, open: &Open) {
        let end = open.walk.validator.progress().record_end;
        if run.history_is_guessed {
            // Where its ancestors end is not known for certain.
            let start = open.from.unwrap_or(end);
            self.good.push(GoodRange {
                timeline: run.timeline(),
                start,
                end,
            });
            return;
        }
        add_good(&mut self.good, &run.history, open.from.unwrap_or(end), end);
    }

    /// Takes what is good up to where it did not go on, and tells why unless that is the end.
    fn stopped(&mut self, run: &Run, open: &Open, stop: Stop) {
        self.add_good(run, open);
        let Some(segment) = run.segments.get(stop.segment) else {
            return;
        };
        let record_end = open.walk.validator.progress().record_end;
        let position = open.walk.validator.position();
        let is_last = stop.segment + 1 == run.segments.len();
        let tip = run.tip.as_ref().filter(|_| is_last);
        let (lsn, fault) = match (stop.why, tip) {
            (Why::Corrupt(corruption), Some(tip))
                if !tip.is_damage(&corruption.reason, record_end, position) =>
            {
                return;
            }
            (Why::Corrupt(corruption), _) => (corruption.lsn, Fault::Corrupt(corruption.reason)),
            (Why::Unreadable(error), Some(tip)) if tip.is_unfinished(&error) => {
                let Some(evidence) = tip.goes_on_after(record_end) else {
                    return;
                };
                (position, Fault::Ends { evidence })
            }
            (Why::Unreadable(error), _) => (position, Fault::File(error)),
            (Why::Compressed(method), _) => {
                let file = segment.file;
                (segment.start, Fault::Compressed { file, method })
            }
            (Why::Ends, Some(tip)) => {
                let Some(evidence) = tip.goes_on_after(record_end) else {
                    return;
                };
                (position, Fault::Ends { evidence })
            }
            (Why::Ends, None) => {
                let evidence = self.goes_on_in(segment.file, segment.start);
                (position, Fault::Ends { evidence })
            }
            (Why::Gone, _) => {
                if self.is_pruned(segment.start) {
                    return;
                }
                let name = segment.file.name;
                let missing = Fault::Missing {
                    first: name,
                    last: name,
                    end: self.checker.files().end_of(segment.start),
                };
                (segment.start, missing)
            }
        };
        self.note(run, lsn, fault);
    }

    fn note(&mut self, run: &Run, lsn: Lsn, fault: Fault) {
        let file = match &fault {
            Fault::Corrupt(_) | Fault::Ends { .. } => self.file_of(run, lsn),
            // It is named already, or there is none.
            _ => None,
        };
        let files = self.checker.files();
        self.problems.push(Problem {
            timeline: run.timeline(),
            lsn,
            place: file.map(|file| (files.directory().path(file), files.size().offset_of(lsn))),
            fault,
        });
    }

    /// The file that the byte at `lsn` was read from.
    fn file_of(&self, run: &Run, lsn: Lsn) -> Option<SegmentFile> {
        let files = self.checker.files();
        let start = files.size().start_of(lsn);
        let found = run
            .segments
            .binary_search_by_key(&start, |segment| segment.start);
        if let Ok(index) = found {
            return run.segments.get(index).map(|segment| segment.file);
        }
        // Of a record that started on the timeline before.
        let candidates = files.candidates(&run.history, lsn).into_iter();
        candidates
            .map(|(timeline, _)| files.name_of(timeline, lsn))
            .find_map(|name| self.listing.of_segment(name).next())
    }

    /// Why a segment that is not the last should be whole.
    fn goes_on_in(&self, file: SegmentFile, start: Lsn) -> Evidence {
        if !file.partial {
            return Evidence::Complete;
        }
        let files = self.checker.files();
        let later = self.listing.segments().find(|(other, _)| {
            let number = other.name.number(files.size());
            let other_start = number.and_then(|number| number.start(files.size()));
            other.name.timeline() >= file.name.timeline()
                && other_start.is_some_and(|other_start| other_start > start)
        });
        later.map_or(Evidence::Complete, |(file, _)| Evidence::LaterSegment {
            file,
        })
    }

    /// Whether nothing is left that is older than a segment that is gone: it was removed because
    /// nobody needed it any more.
    fn is_pruned(&self, start: Lsn) -> bool {
        let files = self.checker.files();
        let Ok(now) = Listing::read(files.directory()) else {
            return false;
        };
        now.segments().all(|(file, _)| {
            let number = file.name.number(files.size());
            number
                .and_then(|number| number.start(files.size()))
                .is_none_or(|other| other > start)
        })
    }

    fn check_copies(&mut self) {
        let files = self.checker.files();
        for &(copy, preferred) in &self.plan.copies {
            let checked = copies::check(files.directory(), copy, preferred, files.size());
            let number = copy.name.number(files.size());
            if let Err(error) = checked {
                self.problems.push(Problem {
                    timeline: copy.name.timeline(),
                    lsn: number
                        .and_then(|number| number.start(files.size()))
                        .unwrap_or_default(),
                    place: None,
                    fault: Fault::File(error),
                });
            }
        }
    }

    /// Checks that there is all that was durable, unless it was told already why not.
    fn check_nothing_lost(&mut self) {
        let (Some(durable), Some(history)) = (self.plan.durable, &self.plan.durable_history) else {
            return;
        };
        let expected = durable.record_end;
        let size = self.checker.files().size();
        let nothing_came = self.plan.runs.is_empty() && size.offset_of(expected) == 0;
        let Some(last) = expected.0.checked_sub(1).filter(|_| !nothing_came) else {
            return;
        };
        let owner = history.timeline_of(Lsn(last));
        let mut found = Lsn::INVALID;
        for range in &self.good {
            if range.timeline == owner && (range.start..=range.end).contains(&expected) {
                return;
            }
            if history.contains(range.timeline) && range.end < expected {
                found = found.max(range.end);
            }
        }
        let is_told = self.problems.iter().any(|problem| {
            let on_path = history.contains(problem.timeline);
            on_path && (found..expected).contains(&problem.lsn)
        });
        if !is_told {
            self.problems.push(Problem {
                timeline: durable.timeline,
                lsn: found,
                place: None,
                fault: Fault::Lost { expected },
            });
        }
    }
}
