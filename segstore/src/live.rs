//! How far an archive is durable, as this process knows it, and who wants to hear of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::listeners::Listeners;
use crate::position::ArchivePosition;

/// The durable position of an archive, told to readers in this process.
///
/// Whoever makes WAL durable, or hears that another process did, raises it.
#[derive(Debug, Default)]
pub(crate) struct Live {
    position: Mutex<Option<ArchivePosition>>,
    listeners: Arc<Listeners>,
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
            self.listeners.notify();
        }
    }

    /// Takes what another process tells, be it less than before; whether it is something else, or
    /// something else changed.
    pub(crate) fn set(&self, position: Option<ArchivePosition>, changed: bool) -> bool {
        let before = std::mem::replace(&mut *self.lock(), position);
        let changed = changed || before != position;
        if changed {
            self.listeners.notify();
        }
        changed
    }

    pub(crate) const fn listeners(&self) -> &Arc<Listeners> {
        &self.listeners
    }

    fn lock(&self) -> MutexGuard<'_, Option<ArchivePosition>> {
        // Every change is one assignment.
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
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
    fn a_callback_finds_the_new_position_and_is_called_for_nothing_else() {
        let live = Arc::new(Live::default());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let _subscription = {
            let (weak, seen) = (Arc::downgrade(&live), Arc::clone(&seen));
            live.listeners().subscribe(Arc::new(move || {
                let position = weak.upgrade().unwrap().position();
                seen.lock().unwrap().push(position);
            }))
        };
        live.advance(at(1, 100, 120));
        live.advance(at(1, 100, 120));
        live.advance(at(1, 101, 120));
        let expected = [Some(at(1, 100, 120)), Some(at(1, 101, 120))];
        assert_eq!(*seen.lock().unwrap(), expected);
    }
}
