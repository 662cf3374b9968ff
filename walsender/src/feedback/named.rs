//! The transactions that one standby has named, and since when each of them has been known.

use std::time::{Duration, Instant};

use walproto::copy_data::EpochXid;

/// The most records that are kept for a standby, so that a client that names a new transaction in
/// each message cannot make us keep them all.
const MAX_RECORDS: usize = 64;

/// What a standby needs now, and what it named before.
///
/// Transaction numbers only rise: when a standby names one, all earlier ones exist already. So a
/// number counts from when the standby first named it or a later one. A standby that goes back to
/// an earlier number does not make that one new again, however often it goes to and fro.
#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    current: Option<EpochXid>,
    /// Each is greater than all before it, and was first named then. Both rise.
    records: Vec<(EpochXid, Instant)>,
}

impl Named {
    /// Notes what the standby needs now, `None` for nothing.
    pub(super) fn note(&mut self, xid: Option<EpochXid>, now: Instant, max_age: Duration) {
        self.current = xid;
        let Some(xid) = xid else { return };
        let newest = self.records.last();
        if newest.is_some_and(|(newest, _)| *newest >= xid) {
            return;
        }
        self.forget_expired(now, max_age);
        self.records.push((xid, now));
        if self.records.len() > MAX_RECORDS {
            self.thin_out();
        }
    }

    /// What the standby needs, and since when it has counted.
    pub(super) fn needed(&self) -> Option<(EpochXid, Instant)> {
        let xid = self.current?;
        let first = self.records.iter().find(|(record, _)| *record >= xid);
        first.map(|(_, since)| (xid, *since))
    }

    /// Of the records that no longer count the newest stands for all.
    fn forget_expired(&mut self, now: Instant, max_age: Duration) {
        let expired = |(_, since): &(EpochXid, Instant)| {
            let age = now.saturating_duration_since(*since);
            age >= max_age
        };
        let count = self.records.iter().take_while(|record| expired(record));
        let obsolete = count.count().saturating_sub(1);
        drop(self.records.drain(..obsolete));
    }

    /// Removes the record that is closest in time to the next one. Numbers that it was for count
    /// from the next one's time, which is later by a small part of the time that all records
    /// cover. The newest record stays: a standby that moves on names no other one.
    fn thin_out(&mut self) {
        let gaps = self.records.iter().zip(self.records.iter().skip(1));
        let gaps = gaps.map(|((_, since), (_, next))| next.saturating_duration_since(*since));
        let closest = gaps.enumerate().min_by_key(|(_, gap)| *gap);
        if let Some((index, _)) = closest {
            self.records.remove(index);
        }
    }

    #[cfg(test)]
    pub(super) const fn records(&self) -> usize {
        self.records.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX_AGE: Duration = Duration::from_secs(60);

    fn xid(xid: u32) -> EpochXid {
        EpochXid { epoch: 0, xid }
    }

    #[test]
    fn counts_from_when_the_number_or_a_later_one_was_first_named() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut named = Named::default();
        for (seconds, number, since) in [(0, 5, 0), (10, 9, 10), (20, 5, 0), (30, 7, 10)] {
            named.note(Some(xid(number)), at(seconds), MAX_AGE);
            assert_eq!(named.needed(), Some((xid(number), at(since))));
        }
        // What is taken back is not forgotten.
        named.note(None, at(40), MAX_AGE);
        assert_eq!(named.needed(), None);
        named.note(Some(xid(5)), at(50), MAX_AGE);
        assert_eq!(named.needed(), Some((xid(5), at(0))));
    }

    proptest! {
        #[test]
        fn no_order_of_reports_makes_a_number_count_for_longer(
            reports in proptest::collection::vec((0u64..20, 0u32..40), 1..200),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut named = Named::default();
            let mut all: Vec<(EpochXid, Instant)> = Vec::new();
            for (seconds, number) in reports {
                now += Duration::from_secs(seconds);
                all.push((xid(number), now));
                named.note(Some(xid(number)), now, MAX_AGE);
                let first = all.iter().find(|(named, _)| *named >= xid(number)).unwrap().1;
                let (_, since) = named.needed().unwrap();
                let counts = |since: Instant| now < since + MAX_AGE;
                prop_assert_eq!(counts(since), counts(first));
                if counts(first) {
                    prop_assert_eq!(since, first);
                }
            }
        }

        #[test]
        fn memory_is_bounded_and_costs_a_small_part_of_the_age_only(
            steps in proptest::collection::vec((0u64..2_000, 1u32..5, 0u32..300), 300),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut newest = 0;
            let mut named = Named::default();
            let mut all: Vec<(EpochXid, Instant)> = Vec::new();
            let mut check = |named: &mut Named, number: u32, now: Instant| {
                all.push((xid(number), now));
                named.note(Some(xid(number)), now, MAX_AGE);
                let first = all.iter().find(|(named, _)| *named >= xid(number)).unwrap().1;
                (first, named.needed().unwrap().1)
            };
            for (millis, forward, back) in steps {
                now += Duration::from_millis(millis);
                newest += forward;
                let (first, since) = check(&mut named, newest, now);
                prop_assert_eq!(first, since);
                let (first, since) = check(&mut named, newest.saturating_sub(back), now);
                let expired = first + MAX_AGE <= now;
                prop_assert!(expired || since <= first + MAX_AGE / 16);
                prop_assert!(!expired || since + MAX_AGE <= now + MAX_AGE / 16);
                prop_assert!(named.records() <= MAX_RECORDS);
            }
        }
    }
}
