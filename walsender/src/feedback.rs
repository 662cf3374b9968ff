//! Hot standby feedback of several standbys made into one: what the upstream is to keep for all
//! of them.
//!
//! A standby that answers queries tells its upstream the oldest transaction whose rows it still
//! needs, so that they are not vacuumed away. A relay has to pass on the oldest of all, and to
//! take it back when the standby is gone, or the primary's tables grow for ever.
//!
//! Source: src/backend/replication/walreceiver.c, `XLogWalRcvSendHSFeedback`;
//! src/backend/replication/walsender.c, `ProcessStandbyHSFeedbackMessage` (PG 15).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use walproto::SlotName;
use walproto::copy_data::EpochXid;

/// The oldest transactions that somebody still needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Horizons {
    /// For its queries.
    pub xmin: Option<EpochXid>,
    /// For the catalogue, as logical slots need it.
    pub catalog_xmin: Option<EpochXid>,
}

impl Horizons {
    /// What a message says, in which a transaction number of 0 is none.
    #[must_use]
    pub fn of_message(xmin: EpochXid, catalog_xmin: EpochXid) -> Self {
        let some = |xid: EpochXid| (xid.xid != 0).then_some(xid);
        Self {
            xmin: some(xmin),
            catalog_xmin: some(catalog_xmin),
        }
    }
}

/// Who needs something.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FeedbackSource {
    /// A connection, by a number of its own: what it says ends with it.
    Connection(u64),
    /// A slot, which keeps what its standby said while that one is away.
    Slot(SlotName),
}

/// The feedback of all standbys.
///
/// A transaction counts for a limited time from when it was first named: a standby that never
/// moves on, be it for a forgotten query or because it is silent, does not hold the primary's
/// vacuum back for ever. On an idle primary transactions do not move on either; what is taken
/// back then counts again with the next one that the standby names.
#[derive(Debug)]
pub struct FeedbackMerge {
    max_age: Duration,
    sources: BTreeMap<FeedbackSource, Source>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Source {
    xmin: Option<Needed>,
    catalog_xmin: Option<Needed>,
}

#[derive(Clone, Copy, Debug)]
struct Needed {
    xid: EpochXid,
    since: Instant,
}

impl FeedbackMerge {
    /// Nobody needs anything yet. `max_age` is how long a transaction counts.
    #[must_use]
    pub const fn new(max_age: Duration) -> Self {
        Self {
            max_age,
            sources: BTreeMap::new(),
        }
    }

    /// What somebody needs now, in place of what was said before.
    pub fn report(&mut self, source: FeedbackSource, now: Instant, needs: Horizons) {
        if needs == Horizons::default() {
            self.sources.remove(&source);
            return;
        }
        let before = self.sources.entry(source).or_default();
        *before = Source {
            xmin: renewed(before.xmin, needs.xmin, now),
            catalog_xmin: renewed(before.catalog_xmin, needs.catalog_xmin, now),
        };
    }

    /// Forgets somebody.
    pub fn withdraw(&mut self, source: &FeedbackSource) {
        self.sources.remove(source);
    }

    /// What all together need.
    #[must_use]
    pub fn merged(&self, now: Instant) -> Horizons {
        let oldest = |needed: fn(&Source) -> Option<Needed>| {
            let all = self.sources.values().filter_map(needed);
            let counted = all.filter(|needed| self.end_of(*needed).is_none_or(|end| now < end));
            counted.map(|needed| needed.xid).min()
        };
        Horizons {
            xmin: oldest(|source| source.xmin),
            catalog_xmin: oldest(|source| source.catalog_xmin),
        }
    }

    /// When [`FeedbackMerge::merged`] may next change by itself.
    #[must_use]
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        let all = self.sources.values();
        let ends = all.flat_map(|source| [source.xmin, source.catalog_xmin]);
        ends.flatten()
            .filter_map(|needed| self.end_of(needed))
            .filter(|end| *end > now)
            .min()
    }

    /// When a transaction ceases to count; `None` where the clock does not reach.
    fn end_of(&self, needed: Needed) -> Option<Instant> {
        needed.since.checked_add(self.max_age)
    }
}

/// A transaction that was named before has counted since then.
fn renewed(before: Option<Needed>, xid: Option<EpochXid>, now: Instant) -> Option<Needed> {
    let xid = xid?;
    match before {
        Some(before) if before.xid == xid => Some(before),
        _ => Some(Needed { xid, since: now }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX_AGE: Duration = Duration::from_secs(60);

    fn xid(epoch: u32, xid: u32) -> EpochXid {
        EpochXid { epoch, xid }
    }

    fn needs(xmin: EpochXid, catalog_xmin: EpochXid) -> Horizons {
        Horizons::of_message(xmin, catalog_xmin)
    }

    #[test]
    fn the_oldest_of_each_kind_counts_with_its_epoch() {
        let now = Instant::now();
        let mut merge = FeedbackMerge::new(MAX_AGE);
        assert_eq!(merge.merged(now), Horizons::default());
        let slot = FeedbackSource::Slot(SlotName::new("s").unwrap());
        // Before the 32 bits ran over is older than after.
        merge.report(slot.clone(), now, needs(xid(1, 7), xid(0, 0)));
        merge.report(
            FeedbackSource::Connection(1),
            now,
            needs(xid(0, u32::MAX), xid(1, 3)),
        );
        let merged = merge.merged(now);
        assert_eq!(merged, needs(xid(0, u32::MAX), xid(1, 3)));
        merge.withdraw(&FeedbackSource::Connection(1));
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
        let source = FeedbackSource::Connection(1);
        for seconds in [0, 30, 59] {
            merge.report(source.clone(), at(seconds), needs(xid(0, 5), xid(0, 0)));
        }
        merge.report(
            FeedbackSource::Connection(2),
            at(40),
            needs(xid(0, 9), xid(0, 0)),
        );
        assert_eq!(merge.merged(at(59)).xmin, Some(xid(0, 5)));
        assert_eq!(merge.next_change(at(59)), Some(at(60)));
        assert_eq!(merge.merged(at(60)).xmin, Some(xid(0, 9)));
        assert_eq!(merge.next_change(at(60)), Some(at(100)));
        merge.report(source, at(70), needs(xid(0, 6), xid(0, 0)));
        assert_eq!(merge.merged(at(70)).xmin, Some(xid(0, 6)));
        assert_eq!(merge.merged(at(130)), Horizons::default());
        assert_eq!(merge.next_change(at(130)), None);
    }

    proptest! {
        #[test]
        fn what_is_merged_is_the_least_of_what_each_said_last(
            reports in proptest::collection::vec((0u64..4, 0u32..3, 0u32..4, 0u32..4), 0..20),
        ) {
            let now = Instant::now();
            let mut merge = FeedbackMerge::new(MAX_AGE);
            let mut last = BTreeMap::new();
            for (connection, epoch, xmin, catalog_xmin) in reports {
                let needs = needs(xid(epoch, xmin), xid(epoch, catalog_xmin));
                merge.report(FeedbackSource::Connection(connection), now, needs);
                last.insert(connection, needs);
            }
            let expected = Horizons {
                xmin: last.values().filter_map(|needs| needs.xmin).min(),
                catalog_xmin: last.values().filter_map(|needs| needs.catalog_xmin).min(),
            };
            prop_assert_eq!(merge.merged(now), expected);
        }
    }
}
