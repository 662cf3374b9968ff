//! WAL that is good and yet not enough for a base backup, by what its records say.

use walproto::{Lsn, TimelineId};

use super::report::{Fault, Problem, WeakRange};
use crate::wal::settings::{Settings, WeakSetting};

/// What records said about settings, and where.
#[derive(Debug, Default)]
pub(super) struct SaidSettings {
    records: Vec<(TimelineId, Lsn, Settings)>,
    /// All that was said since [`SaidSettings::begin`].
    known: Settings,
}

impl SaidSettings {
    /// Other WAL follows than what comes after the last record.
    pub(super) fn begin(&mut self) {
        self.known = Settings::default();
    }

    /// Notes a record, unless those before it have said the same.
    pub(super) fn add(&mut self, timeline: TimelineId, lsn: Lsn, said: Settings) {
        if self.known.learn(said) {
            self.records.push((timeline, lsn, said));
        }
    }

    pub(super) fn extend(&mut self, others: Self) {
        self.records.extend(others.records);
    }

    /// What no base backup can be recovered past, and what else is to be known.
    ///
    /// A timeline is looked at by itself: a promotion writes a checkpoint, and the settings if they
    /// are not those of the server before.
    pub(super) fn judge(mut self) -> (Vec<Problem>, Vec<WeakRange>) {
        self.records
            .sort_by_key(|(timeline, lsn, _)| (*timeline, *lsn));
        let mut ranges: Vec<WeakRange> = Vec::new();
        let mut of_timeline = None;
        let mut settings = Settings::default();
        for (timeline, lsn, said) in self.records {
            if of_timeline.replace(timeline) != Some(timeline) {
                settings = Settings::default();
            }
            for change in settings.note(lsn, said) {
                if change.begins {
                    ranges.push(WeakRange {
                        timeline,
                        start: lsn,
                        end: None,
                        setting: change.setting,
                    });
                    continue;
                }
                let open = ranges
                    .iter_mut()
                    .rfind(|range| range.setting == change.setting);
                if let Some(range) = open {
                    range.end = Some(lsn);
                }
            }
        }
        let (minimal, others): (Vec<_>, Vec<_>) = ranges
            .into_iter()
            .partition(|range| range.setting == WeakSetting::MinimalWalLevel);
        let problems = minimal.into_iter().map(|range| Problem {
            timeline: range.timeline,
            lsn: range.start,
            place: None,
            fault: Fault::MinimalWal { end: range.end },
        });
        (problems.collect(), others)
    }
}
