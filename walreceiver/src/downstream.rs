//! Those who get the WAL from this receiver's archive, as far as its upstream has to know of them.
//!
//! A relay is told by them how far they are and which transactions they need. Who serves them
//! decides what follows from that; the receiver only passes it on.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use walproto::client::{FlushPosition, Positions};
use walproto::{Confirmed, Horizons, Lsn, TimelineId};

/// What the upstream is to be told of those behind a receiver.
#[derive(Clone, Debug)]
pub struct Downstream {
    /// How far those are who must have WAL before it is acknowledged. `None` if nobody must: what
    /// is durable here is acknowledged.
    pub confirmed: Option<watch::Receiver<Confirmed>>,
    /// Which transactions they need (hot standby feedback). They are told to the upstream on each
    /// connection, with each change, and as long as there are any at each status interval; that
    /// there are none any more at a stop. `None` is a receiver that does not speak of it.
    pub needs: Option<watch::Receiver<Horizons>>,
}

/// The positions that are reported upstream in place of `local`, on a stream of `timeline` from `start`.
///
/// Never more than `local`. Without enough standbys the flush position is left out (`0/0`): the
/// upstream does not count us then, and at its shutdown waits for what is written here. So it is
/// while they do not have what lies before `start`, since no session says less than that.
pub(crate) fn limit<F: FlushPosition>(
    confirmed: &Confirmed,
    timeline: TimelineId,
    start: Lsn,
    local: Positions<F>,
) -> Positions<F> {
    let progress = confirmed.on(timeline);
    let confirmed = progress.and_then(|progress| Some((progress, progress.flush?)));
    let Some((progress, confirmed)) = confirmed.filter(|(_, flush)| *flush >= start) else {
        return Positions {
            flush: None,
            apply: None,
            ..local
        };
    };
    let flush = local.flush.map(|flush| flush.at_most(confirmed));
    Positions {
        write: local.write.min(progress.write.unwrap_or(Lsn::INVALID)),
        flush,
        // Without a position of theirs the session repeats what it last reported.
        apply: local
            .apply
            .map(|apply| apply.min(progress.apply.unwrap_or(Lsn::INVALID))),
        // No standby confirms what follows the last record, and no commit waits for it.
        byte_end: match (flush.map(F::lsn), local.flush.map(F::lsn)) {
            (Some(flush), Some(local)) if flush != local => flush,
            _ => local.byte_end,
        },
    }
}

/// What a receiver knows of those behind it over all of its connections.
#[derive(Debug)]
pub(crate) struct Behind {
    pub(crate) downstream: Downstream,
    /// Whether it was said that acknowledgements are held.
    held: AtomicBool,
}

/// What has become of acknowledgements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    Held { present: usize, needed: usize },
    GoesOn { needed: usize },
}

impl Behind {
    pub(crate) const fn new(downstream: Downstream) -> Self {
        Self {
            downstream,
            held: AtomicBool::new(false),
        }
    }

    /// What is to be said about `confirmed` that was not said before.
    pub(crate) fn change(&self, confirmed: &Confirmed, timeline: TimelineId) -> Option<Change> {
        let held = confirmed.on(timeline).is_none();
        if self.held.swap(held, Ordering::Relaxed) == held {
            return None;
        }
        let needed = confirmed.needed;
        Some(match (held, confirmed.progress) {
            (false, _) => Change::GoesOn { needed },
            (true, None) => Change::Held {
                present: confirmed.present,
                needed,
            },
            // They are there, on another timeline.
            (true, Some(_)) => Change::Held { present: 0, needed },
        })
    }
}

#[cfg(test)]
mod tests {
    use pgconn::scripted::Claimed;
    use walproto::StandbyProgress;

    use super::*;

    const START: Lsn = Lsn(0x2000);

    fn confirmed(timeline: u32, [write, flush, apply]: [u64; 3]) -> Confirmed {
        Confirmed {
            present: 1,
            needed: 1,
            timeline: TimelineId::new(timeline),
            progress: Some(StandbyProgress {
                write: Some(Lsn(write)),
                flush: Some(Lsn(flush)),
                apply: Some(Lsn(apply)),
            }),
        }
    }

    fn positions(
        write: u64,
        flush: Option<u64>,
        apply: Option<u64>,
        byte_end: u64,
    ) -> Positions<Claimed> {
        Positions {
            write: Lsn(write),
            flush: flush.map(|lsn| Claimed(Lsn(lsn))),
            apply: apply.map(Lsn),
            byte_end: Lsn(byte_end),
        }
    }

    const UNMET: Confirmed = Confirmed {
        timeline: Some(TimelineId::FIRST),
        present: 1,
        needed: 2,
        progress: None,
    };

    #[test]
    fn the_upstream_is_told_the_lesser_of_here_and_there() {
        let local = positions(0x3000, Some(0x2f00), Some(0x2e00), 0x2f80);
        let held = positions(0x3000, None, None, 0x2f80);
        // pg_receivewal applies nothing, and a primary must not see an earlier position.
        let mut without_apply = confirmed(1, [0x2800, 0x2700, 0]);
        let progress = without_apply.progress.as_mut().unwrap();
        progress.apply = None;
        for (confirmed, told) in [
            (
                confirmed(1, [0x2800, 0x2700, 0x2600]),
                positions(0x2800, Some(0x2700), Some(0x2600), 0x2700),
            ),
            (confirmed(1, [0x4000, 0x4000, 0x4000]), local),
            (
                confirmed(1, [0x4000, 0x2f00, 0x2000]),
                positions(0x3000, Some(0x2f00), Some(0x2000), 0x2f80),
            ),
            (
                without_apply,
                positions(0x2800, Some(0x2700), Some(0), 0x2700),
            ),
            // The session would raise it to the start, up to which commits may be waiting.
            (confirmed(1, [0x3000, 0x1f00, 0x1f00]), held),
            (confirmed(2, [0x4000, 0x4000, 0x4000]), held),
            (UNMET, held),
        ] {
            assert_eq!(limit(&confirmed, TimelineId::FIRST, START, local), told);
        }
        let nothing = positions(0x3000, None, None, 0x3000);
        let all = confirmed(1, [0x4000, 0x4000, 0x4000]);
        assert_eq!(limit(&all, TimelineId::FIRST, START, nothing), nothing);
    }

    #[test]
    fn that_acknowledgements_are_held_is_said_when_it_begins_and_when_it_ends() {
        let behind = Behind::new(Downstream {
            confirmed: None,
            needs: None,
        });
        let met = confirmed(1, [0x4000, 0x4000, 0x4000]);
        let held = |present, needed| Some(Change::Held { present, needed });
        for (confirmed, change) in [
            (met, None),
            (UNMET, held(1, 2)),
            (UNMET, None),
            (met, Some(Change::GoesOn { needed: 1 })),
            (met, None),
            (confirmed(2, [0x4000, 0x4000, 0x4000]), held(0, 1)),
        ] {
            assert_eq!(behind.change(&confirmed, TimelineId::FIRST), change);
        }
    }
}
