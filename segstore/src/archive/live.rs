//! How far an archive is durable, as this process knows it, and who wants to hear of it.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use walproto::{Lsn, TimelineId};

use crate::archive::listeners::Listeners;
use crate::archive::position::ArchivePosition;
use crate::archive::tail::Tail;

/// How much memory is used for the newest bytes, for feeds, unless something else is asked for:
/// with segments of the usual size one of them.
pub const DEFAULT_TAIL_BYTES: usize = 16 << 20;

/// The durable position of an archive, told to readers in this process.
///
/// Whoever makes WAL durable, or hears that another process did, raises it.
#[derive(Debug)]
pub(crate) struct Live {
    state: Mutex<State>,
    listeners: Arc<Listeners>,
    /// How many bytes are kept in memory at most.
    tail_capacity: AtomicUsize,
    /// How many feeds are near the end: without any, nothing is kept.
    readers: AtomicUsize,
}

#[derive(Debug)]
struct State {
    position: Option<ArchivePosition>,
    tail: Tail,
}

/// A feed that is near the end, as long as this lives.
#[derive(Debug)]
pub(crate) struct Reader(Arc<Live>);

/// What a writer has taken and not yet made durable, as far as it is to be kept in memory.
#[derive(Debug)]
pub(crate) struct Unsynced {
    live: Arc<Live>,
    tail: Tail,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                position: None,
                tail: Tail::new(DEFAULT_TAIL_BYTES),
            }),
            listeners: Arc::default(),
            tail_capacity: AtomicUsize::new(DEFAULT_TAIL_BYTES),
            readers: AtomicUsize::new(0),
        }
    }
}

impl Live {
    pub(crate) fn position(&self) -> Option<ArchivePosition> {
        self.lock().position
    }

    /// Tells that everything up to `position` is durable, which stays so: on a timeline the
    /// position never goes back, and never to an older timeline.
    pub(crate) fn advance(&self, position: ArchivePosition) {
        self.advance_with(position, None);
    }

    fn advance_with(&self, position: ArchivePosition, durable: Option<&mut Tail>) {
        let mut state = self.lock();
        if let Some(durable) = durable {
            state.tail.take(durable);
        }
        let current = state.position;
        let merged = current.map_or(position, |current| later(current, position));
        state.position = Some(merged);
        drop(state);
        if current != Some(merged) {
            self.listeners.notify();
        }
    }

    /// Keeps at most so many of the newest bytes in memory.
    pub(crate) fn set_tail_capacity(&self, bytes: usize) {
        self.tail_capacity.store(bytes, Ordering::Relaxed);
        self.lock().tail.set_capacity(bytes);
    }

    pub(crate) fn tail_capacity(&self) -> usize {
        self.tail_capacity.load(Ordering::Relaxed)
    }

    /// The bytes of `range` on the way to `timeline`, if they are in memory. The caller knows that
    /// they are durable.
    pub(crate) fn tail(&self, timeline: TimelineId, range: Range<Lsn>) -> Option<Vec<Bytes>> {
        self.lock().tail.read(timeline, range)
    }

    pub(crate) fn reader(self: &Arc<Self>) -> Reader {
        self.readers.fetch_add(1, Ordering::Relaxed);
        Reader(Arc::clone(self))
    }

    /// Takes what another process tells, be it less than before; whether it is something else, which
    /// is yet to be told.
    pub(crate) fn set(&self, position: Option<ArchivePosition>) -> bool {
        std::mem::replace(&mut self.lock().position, position) != position
    }

    pub(crate) const fn listeners(&self) -> &Arc<Listeners> {
        &self.listeners
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No change of it can panic half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.0.readers.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.lock().tail.clear();
        }
    }
}

impl Unsynced {
    pub(crate) fn new(live: Arc<Live>) -> Self {
        // Another connection may bring other bytes after the last complete record, and not all
        // that it brings is kept.
        live.lock().tail.clear();
        let tail = Tail::new(0);
        Self { live, tail }
    }

    /// Takes the bytes from `start` up to `end`, which `data` begins with.
    pub(crate) fn append(&mut self, timeline: TimelineId, start: Lsn, end: Lsn, data: &[Bytes]) {
        if self.live.readers.load(Ordering::Relaxed) == 0 {
            self.tail.clear();
            return;
        }
        self.tail.set_capacity(self.live.tail_capacity());
        self.tail.append(timeline, start, end, data);
    }

    /// Tells that everything up to `position` is durable, and all that was taken.
    pub(crate) fn synced(&mut self, position: ArchivePosition) {
        self.live.advance_with(position, Some(&mut self.tail));
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
        assert!(live.set(Some(at(2, 140, 140))));
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
