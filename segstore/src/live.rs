//! How far an archive is durable, as this process knows it, and who wants to hear of it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::position::ArchivePosition;

/// The durable position of an archive, told to readers in this process.
///
/// Whoever makes WAL durable, or hears that another process did, raises it.
#[derive(Debug, Default)]
pub(crate) struct Live {
    position: Mutex<Option<ArchivePosition>>,
    listeners: Mutex<Listeners>,
}

type Callback = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Listeners {
    next: u64,
    callbacks: Vec<(u64, Callback)>,
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listeners")
            .field("count", &self.callbacks.len())
            .finish_non_exhaustive()
    }
}

/// Has a callback called as long as it lives.
#[must_use = "the callback is called only as long as this lives"]
#[derive(Debug)]
pub struct Subscription {
    live: Weak<Live>,
    number: u64,
}

impl Live {
    pub(crate) fn position(&self) -> Option<ArchivePosition> {
        *self.lock()
    }

    /// Tells that everything up to `position` is durable, which stays so: on a timeline the
    /// position never goes back, and never to an older timeline.
    pub(crate) fn advance(&self, position: ArchivePosition) {
        let mut current = self.lock();
        let merged = current.map_or(position, |current| later(current, position));
        let changed = *current != Some(merged);
        *current = Some(merged);
        drop(current);
        if changed {
            self.notify();
        }
    }

    /// Takes what another process tells, be it less than before; whether it is something else, or
    /// something else changed.
    pub(crate) fn set(&self, position: Option<ArchivePosition>, changed: bool) -> bool {
        let before = std::mem::replace(&mut *self.lock(), position);
        let changed = changed || before != position;
        if changed {
            self.notify();
        }
        changed
    }

    pub(crate) fn subscribe(self: &Arc<Self>, callback: Callback) -> Subscription {
        let mut listeners = self.listeners();
        let number = listeners.next;
        listeners.next += 1;
        listeners.callbacks.push((number, callback));
        Subscription {
            live: Arc::downgrade(self),
            number,
        }
    }

    pub(crate) fn notify(&self) {
        // Called without the lock, so that a callback may subscribe or end a subscription.
        let callbacks = self.listeners().callbacks.clone();
        for (_, callback) in callbacks {
            callback();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<ArchivePosition>> {
        // Every change is one assignment.
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The later of two positions that both are durable.
fn later(current: ArchivePosition, new: ArchivePosition) -> ArchivePosition {
    if current.timeline != new.timeline {
        return current.max(new);
    }
    let record_end = current.record_end.max(new.record_end);
    ArchivePosition {
        timeline: current.timeline,
        record_end,
        // What lies after the last record may have been replaced by less.
        byte_end: new.byte_end.max(record_end),
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(live) = self.live.upgrade() {
            let mut listeners = live.listeners();
            listeners
                .callbacks
                .retain(|(number, _)| *number != self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use walproto::{Lsn, TimelineId};

    use super::*;

    fn at(timeline: u32, record_end: u64, byte_end: u64) -> ArchivePosition {
        ArchivePosition {
            timeline: TimelineId::new(timeline).unwrap(),
            record_end: Lsn(record_end),
            byte_end: Lsn(byte_end),
        }
    }

    #[test]
    fn what_is_durable_here_stays_so() {
        let live = Live::default();
        for (told, expected) in [
            (at(1, 100, 120), at(1, 100, 120)),
            (at(1, 90, 95), at(1, 100, 100)),
            (at(1, 200, 200), at(1, 200, 200)),
            (at(2, 150, 160), at(2, 150, 160)),
            (at(1, 900, 900), at(2, 150, 160)),
        ] {
            live.advance(told);
            assert_eq!(live.position(), Some(expected));
        }
        assert!(live.set(Some(at(2, 140, 140)), false));
        assert_eq!(live.position(), Some(at(2, 140, 140)));
    }

    #[test]
    fn a_callback_finds_the_new_position_and_is_called_as_long_as_it_is_subscribed() {
        let live = Arc::new(Live::default());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let subscription = {
            let (weak, seen) = (Arc::downgrade(&live), Arc::clone(&seen));
            live.subscribe(Arc::new(move || {
                let live = weak.upgrade().unwrap();
                seen.lock().unwrap().push(live.position());
                // One that subscribes must not wait for itself.
                drop(live.subscribe(Arc::new(|| {})));
            }))
        };
        let others = Arc::new(AtomicU32::new(0));
        let _other = {
            let others = Arc::clone(&others);
            live.subscribe(Arc::new(move || {
                others.fetch_add(1, Ordering::Relaxed);
            }))
        };
        live.advance(at(1, 100, 120));
        live.advance(at(1, 100, 120));
        live.advance(at(1, 101, 120));
        drop(subscription);
        live.advance(at(1, 102, 120));
        let expected = [Some(at(1, 100, 120)), Some(at(1, 101, 120))];
        assert_eq!(*seen.lock().unwrap(), expected);
        assert_eq!(others.load(Ordering::Relaxed), 3);
    }
}
