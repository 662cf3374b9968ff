//! Hot standby feedback of several standbys made into one: what the upstream is to keep for all
//! of them.
//!
//! A standby that answers queries tells its upstream the oldest transaction whose rows it still
//! needs, so that they are not vacuumed away. A relay has to pass on the oldest of all, and to
//! take it back when the standby is gone, or the primary's tables grow for ever.
//!
//! Source: src/backend/replication/walreceiver.c, `XLogWalRcvSendHSFeedback`;
//! src/backend/replication/walsender.c, `ProcessStandbyHSFeedbackMessage` (PG 15).

mod named;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use walproto::{Horizons, SlotName};

use self::named::Named;

/// The standbys that have left and whose transactions are remembered.
const MAX_DEPARTED: usize = 256;

/// A standby, or a slot that keeps what its standby needs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FeedbackSource {
    /// A connection: what it needs ends with it.
    Connection {
        /// A number of its own.
        number: u64,
        /// The client, by which it is recognized when it connects again.
        client: ClientName,
    },
    /// A slot, which keeps what its standby needs while that one is away.
    Slot(SlotName),
}

/// The names that a client connects with.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ClientName {
    /// The user.
    pub user: String,
    /// The name that the client gives itself.
    pub application_name: String,
}

/// The feedback of all standbys.
///
/// A transaction counts for a limited time from when its standby first named it or a later one: a
/// standby that never moves on, because of a forgotten query or because it is silent, does not hold
/// the primary's vacuum back for ever. Neither does one that names old transactions in turn, takes
/// them back for a while, or connects again. On an idle primary transactions do not move on
/// either; the next one that the standby names counts again.
///
/// So a standby that goes back to transactions that are older than what has expired does not count
/// until it has caught up with that. Their rows may be gone already, for it did not name them
/// in time.
#[derive(Debug)]
pub struct FeedbackMerge {
    max_age: Duration,
    sources: BTreeMap<FeedbackSource, Source>,
    /// Of clients that left, and when they did.
    departed: BTreeMap<ClientName, (Source, Instant)>,
}

#[derive(Clone, Debug, Default)]
struct Source {
    xmin: Named,
    catalog_xmin: Named,
}

impl FeedbackMerge {
    /// No standby needs anything yet. `max_age` is how long a transaction counts.
    #[must_use]
    pub const fn new(max_age: Duration) -> Self {
        Self {
            max_age,
            sources: BTreeMap::new(),
            departed: BTreeMap::new(),
        }
    }

    /// What a standby needs now, in place of what it needed before.
    pub fn report(&mut self, source: FeedbackSource, now: Instant, needs: Horizons) {
        if needs == Horizons::default() && !self.sources.contains_key(&source) {
            return;
        }
        let before = match &source {
            FeedbackSource::Connection { client, .. } if !self.sources.contains_key(&source) => {
                self.departed.remove(client).map(|(source, _)| source)
            }
            _ => None,
        };
        let source = self.sources.entry(source).or_default();
        if let Some(before) = before {
            *source = before;
        }
        source.xmin.note(needs.xmin, now, self.max_age);
        let catalog_xmin = &mut source.catalog_xmin;
        catalog_xmin.note(needs.catalog_xmin, now, self.max_age);
    }

    /// Removes the feedback of a standby whose connection has ended or whose slot was dropped. If a
    /// client of the same name reconnects, the time limit of its transaction IDs does not restart.
    pub fn withdraw(&mut self, source: &FeedbackSource, now: Instant) {
        let before = self.sources.remove(source);
        if let (Some(before), FeedbackSource::Connection { client, .. }) = (before, source) {
            let max_age = self.max_age;
            self.departed
                .retain(|_, (_, left)| now.saturating_duration_since(*left) < max_age);
            if self.departed.len() >= MAX_DEPARTED {
                let oldest = self.departed.iter().min_by_key(|(_, (_, left))| *left);
                let oldest = oldest.map(|(client, _)| client.clone());
                oldest.and_then(|client| self.departed.remove(&client));
            }
            self.departed.insert(client.clone(), (before, now));
        }
    }

    /// What all standbys together need.
    #[must_use]
    pub fn merged(&self, now: Instant) -> Horizons {
        let oldest = |named: fn(&Source) -> &Named| {
            let all = self.sources.values();
            let all = all.filter_map(|source| named(source).needed());
            let counted = all.filter(|(_, since)| self.end_of(*since).is_none_or(|end| now < end));
            counted.map(|(xid, _)| xid).min()
        };
        Horizons {
            xmin: oldest(|source| &source.xmin),
            catalog_xmin: oldest(|source| &source.catalog_xmin),
        }
    }

    /// When [`FeedbackMerge::merged`] may next change by itself.
    #[must_use]
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        let all = self.sources.values();
        let needed = all.flat_map(|source| [source.xmin.needed(), source.catalog_xmin.needed()]);
        needed
            .flatten()
            .filter_map(|(_, since)| self.end_of(since))
            .filter(|end| *end > now)
            .min()
    }

    /// When what counts since then ceases to count; `None` where the clock does not reach.
    fn end_of(&self, since: Instant) -> Option<Instant> {
        since.checked_add(self.max_age)
    }
}

#[cfg(test)]
mod tests {
    use walproto::copy_data::EpochXid;

    use super::*;
    use proptest::prelude::*;

    const MAX_AGE: Duration = Duration::from_secs(60);

    fn xid(epoch: u32, xid: u32) -> EpochXid {
        EpochXid { epoch, xid }
    }

    fn connection(number: u64) -> FeedbackSource {
        FeedbackSource::Connection {
            number,
            client: ClientName {
                user: "any".to_owned(),
                application_name: "standby".to_owned(),
            },
        }
    }

    fn needs(xmin: EpochXid, catalog_xmin: EpochXid) -> Horizons {
        let some = |xid: EpochXid| (xid.xid != 0).then_some(xid);
        Horizons {
            xmin: some(xmin),
            catalog_xmin: some(catalog_xmin),
        }
    }

    #[test]
    fn the_oldest_of_each_kind_counts_with_its_epoch() {
        let now = Instant::now();
        let mut merge = FeedbackMerge::new(MAX_AGE);
        assert_eq!(merge.merged(now), Horizons::default());
        let slot = FeedbackSource::Slot(SlotName::new("s").unwrap());
        // Before the 32 bits ran over is older than after.
        merge.report(slot.clone(), now, needs(xid(1, 7), xid(0, 0)));
        merge.report(connection(1), now, needs(xid(0, u32::MAX), xid(1, 3)));
        let merged = merge.merged(now);
        assert_eq!(merged, needs(xid(0, u32::MAX), xid(1, 3)));
        merge.withdraw(&connection(1), now);
        assert_eq!(merge.merged(now), needs(xid(1, 7), xid(0, 0)));
        merge.report(slot, now, Horizons::default());
        assert_eq!(merge.merged(now), Horizons::default());
        assert_eq!(merge.next_change(now), None);
    }

    #[test]
    fn a_transaction_counts_only_so_long_from_when_it_was_first_named() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut merge = FeedbackMerge::new(MAX_AGE);
        let source = connection(1);
        for seconds in [0, 30, 59] {
            merge.report(source.clone(), at(seconds), needs(xid(0, 5), xid(0, 0)));
        }
        merge.report(connection(2), at(40), needs(xid(0, 9), xid(0, 0)));
        assert_eq!(merge.merged(at(59)).xmin, Some(xid(0, 5)));
        assert_eq!(merge.next_change(at(59)), Some(at(60)));
        assert_eq!(merge.merged(at(60)).xmin, Some(xid(0, 9)));
        assert_eq!(merge.next_change(at(60)), Some(at(100)));
        merge.report(source, at(70), needs(xid(0, 6), xid(0, 0)));
        assert_eq!(merge.merged(at(70)).xmin, Some(xid(0, 6)));
        assert_eq!(merge.merged(at(130)), Horizons::default());
        assert_eq!(merge.next_change(at(130)), None);
    }

    #[test]
    fn naming_two_old_transactions_in_turn_does_not_make_them_count_for_longer() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut merge = FeedbackMerge::new(MAX_AGE);
        for seconds in 0..300 {
            let number = 5 + u32::from(seconds % 2 == 1);
            merge.report(connection(1), at(seconds), needs(xid(0, number), xid(0, 0)));
            let expected = match (seconds, seconds % 2) {
                (0..60, _) | (60, 1) => Some(xid(0, number)),
                _ => None,
            };
            assert_eq!(merge.merged(at(seconds)).xmin, expected, "{seconds}");
        }
        merge.report(connection(1), at(300), needs(xid(0, 7), xid(0, 0)));
        assert_eq!(merge.merged(at(300)).xmin, Some(xid(0, 7)));
    }

    #[test]
    fn a_transaction_does_not_count_anew_after_it_was_taken_back_or_after_a_reconnect() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let five = needs(xid(0, 5), xid(0, 5));
        let mut merge = FeedbackMerge::new(MAX_AGE);
        merge.report(connection(1), at(0), five);
        merge.report(connection(1), at(20), Horizons::default());
        assert_eq!(merge.merged(at(20)), Horizons::default());
        merge.report(connection(1), at(30), five);
        merge.withdraw(&connection(1), at(40));
        assert_eq!(merge.merged(at(40)), Horizons::default());
        merge.report(connection(2), at(50), five);
        assert_eq!(merge.merged(at(59)), five);
        assert_eq!(merge.merged(at(60)), Horizons::default());
        // Another client of that name, at the same time, has a time of its own.
        merge.report(connection(3), at(61), five);
        assert_eq!(merge.merged(at(61)), five);
    }

    proptest! {
        #[test]
        fn what_is_merged_is_the_least_of_what_each_said_last(
            reports in proptest::collection::vec((0u64..4, 0u32..3, 0u32..4, 0u32..4), 0..20),
        ) {
            let now = Instant::now();
            let mut merge = FeedbackMerge::new(MAX_AGE);
            let mut last = BTreeMap::new();
            for (number, epoch, xmin, catalog_xmin) in reports {
                let needs = needs(xid(epoch, xmin), xid(epoch, catalog_xmin));
                merge.report(connection(number), now, needs);
                last.insert(number, needs);
            }
            let expected = Horizons {
                xmin: last.values().filter_map(|needs| needs.xmin).min(),
                catalog_xmin: last.values().filter_map(|needs| needs.catalog_xmin).min(),
            };
            prop_assert_eq!(merge.merged(now), expected);
        }
    }
}
