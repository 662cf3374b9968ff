//! Warnings about what does not change from one connection to the next: told once a run, and again
//! only when they say something else.

use std::collections::BTreeMap;

use walproto::TimelineId;

use crate::event::{ReceiverEvent, Reporter, Warning};

/// What a warning is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum StandingWarning {
    /// How much WAL slots may hold on the server.
    SlotLimit,
    /// Whether the slot reserves WAL.
    SlotReserve,
    /// Whether WAL is reserved for a first start.
    FirstStartReserve,
    /// A history file that was fetched again. Another program may move it away every time.
    HistoryRestored(TimelineId),
    /// The history files that are gone.
    HistoriesLost,
}

/// The warnings that were reported over all connections.
#[derive(Debug, Default)]
pub(crate) struct StandingWarnings(BTreeMap<StandingWarning, String>);

impl StandingWarnings {
    /// Reports a warning, unless its text is that of the last report. `None` clears the warning.
    pub(crate) fn tell(
        &mut self,
        reporter: &dyn Reporter,
        about: StandingWarning,
        warning: Option<Warning<'_>>,
    ) {
        let Some(warning) = warning else {
            self.0.remove(&about);
            return;
        };
        let text = warning.to_string();
        if self.0.get(&about) != Some(&text) {
            self.0.insert(about, text);
            reporter.report(&ReceiverEvent::Warning(warning));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_warning_is_told_again_only_after_a_change() {
        let told = Mutex::new(Vec::new());
        let reporter = |event: &ReceiverEvent<'_>| {
            let ReceiverEvent::Warning(warning) = event else {
                panic!("{event:?}");
            };
            told.lock().unwrap().push(warning.to_string());
        };
        let lost = |number| [TimelineId::new(number).unwrap()];
        let mut standing = StandingWarnings::default();
        for (timeline, times) in [
            (Some(2), 1),
            (Some(2), 1),
            (Some(3), 2),
            (None, 2),
            (Some(3), 3),
        ] {
            let timelines = timeline.map(lost);
            let warning = timelines
                .as_ref()
                .map(|timelines| Warning::HistoriesLost { timelines });
            standing.tell(&reporter, StandingWarning::HistoriesLost, warning);
            assert_eq!(told.lock().unwrap().len(), times, "{timeline:?}");
        }
    }
}
