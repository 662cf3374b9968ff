//! The histories of an archive's timelines.

use walproto::{TimelineHistory, TimelineId};

use super::Archive;
use crate::archive::history;
use crate::archive::identity::Identity;
use crate::error::ArchiveError;

impl Archive {
    /// The history of a timeline, if it is here. The first timeline has none.
    #[must_use]
    pub fn history(&self, timeline: TimelineId) -> Option<&TimelineHistory> {
        self.histories.get(&timeline)
    }

    /// All histories, by their timelines.
    pub fn histories(&self) -> impl DoubleEndedIterator<Item = &TimelineHistory> {
        self.histories.values()
    }

    /// The timelines whose histories were kept here once and are gone.
    #[must_use]
    pub fn lost_histories(&self) -> Vec<TimelineId> {
        let recorded = self.identity.iter().flat_map(Identity::recorded_histories);
        recorded
            .filter(|timeline| !self.histories.contains_key(timeline))
            .collect()
    }

    /// Makes a timeline's history durable. That of the first timeline, which has no file, is
    /// ignored.
    ///
    /// # Errors
    /// When other content is known for the timeline, there is no identity yet, or the disk
    /// refuses.
    pub fn store_history(&mut self, history: &TimelineHistory) -> Result<(), ArchiveError> {
        let timeline = history.timeline();
        if timeline == TimelineId::FIRST {
            return Ok(());
        }
        let mut identity = self.bound()?.clone();
        self.check_history(history)?;
        if !self.histories.contains_key(&timeline) {
            history::write(&self.directory, history)?;
            self.histories.insert(timeline, history.clone());
        }
        if identity.history_sum(timeline).is_none() {
            identity.record_history(history);
            identity.save(&self.directory)?;
            self.identity = Some(identity);
        }
        Ok(())
    }

    /// Compares a server's history of a timeline with what is known of it, and writes nothing.
    ///
    /// # Errors
    /// When other content is known for the timeline.
    pub fn check_history(&self, history: &TimelineHistory) -> Result<(), ArchiveError> {
        let timeline = history.timeline();
        let present = self.histories.get(&timeline);
        let recorded = self
            .identity
            .as_ref()
            .and_then(|known| known.history_sum(timeline));
        if present.is_some_and(|present| present.content() != history.content())
            || recorded.is_some_and(|sum| sum.check(history.content()).is_err())
        {
            return Err(ArchiveError::OtherHistory {
                timeline,
                path: self.directory.path(history::plain(timeline)),
            });
        }
        Ok(())
    }

    /// Puts back, durably, the file of a history that was kept here once and is gone; whether it
    /// was gone. A history that never was here is not taken.
    ///
    /// # Errors
    /// When other content is known for the timeline, or the disk refuses.
    pub fn restore_history(&mut self, history: &TimelineHistory) -> Result<bool, ArchiveError> {
        self.check_history(history)?;
        let timeline = history.timeline();
        let gone = self.lost_histories().contains(&timeline);
        if gone {
            history::write(&self.directory, history)?;
            self.histories.insert(timeline, history.clone());
        }
        Ok(gone)
    }
}
