//! Telling the end of WAL from damage.

use walproto::{Lsn, TimelineId};

use super::Examination;
use super::run::Run;
use crate::archive::position::ArchivePosition;
use crate::error::{ArchiveError, Evidence};
use crate::wal::corruption::Corruption;
use crate::wal::page::{BLOCK_SIZE, PageHeader, SHORT_HEADER_LENGTH};

impl Examination<'_> {
    /// Tells the end of WAL from damage by what lies around it.
    pub(super) fn check_end(&self, run: &Run) -> Result<(), ArchiveError> {
        let Some(corruption) = run.findings.stop else {
            return self.check_no_hole(run);
        };
        let seen = run.findings.progress.byte_end;
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
        let end = run.findings.progress.byte_end;
        if end < run.last_start || (!run.last.partial && end < self.end_of(run)) {
            return Err(ArchiveError::Lost {
                timeline: run.history.timeline(),
                found: end,
                expected: run.last_start,
            });
        }
        Ok(())
    }

    pub(super) fn end_of(&self, run: &Run) -> Lsn {
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
    pub(super) fn known_positions(&self) -> impl Iterator<Item = ArchivePosition> {
        let synced = self.archive.is_synced();
        self.noted_positions().filter(move |_| synced)
    }

    /// Checks that there is all WAL that was durable before.
    pub(super) fn check_nothing_lost(&self, run: Option<&Run>) -> Result<(), ArchiveError> {
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
            let stop = run.and_then(|run| Some((run, run.findings.stop?)));
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
        let found = run.record_end();
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
}
