//! What was received and waits for the disk.

use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use segstore::Durable;
use tokio::sync::Notify;
use walproto::Lsn;

/// How many received bytes may wait for the disk, with the messages around the WAL: what waits is
/// a part of the buffers that all of them were read into. It bounds what a server can make us
/// hold, and is large enough that the network is read on through an ordinary sync.
pub(crate) const QUEUE_BYTES: usize = 8 << 20;

/// What the network task hands over to whoever writes it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    batch: Batch,
    acknowledged: Option<Durable>,
    closed: bool,
}

/// All that waits at one time.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// WAL in the order in which it came.
    pub(super) runs: Vec<Run>,
    /// The bytes that were read for it and around it.
    bytes: usize,
}

/// Bytes that follow one another.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) start: Lsn,
    pub(super) end: Lsn,
    pub(super) data: Vec<Bytes>,
}

/// Why the thread has something to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wake {
    /// WAL waits.
    Filled,
    /// Nothing came for a while.
    Pause,
    /// Nothing will come any more.
    Closed,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A panic while the lock is held leaves nothing half done: every change is one step.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, start: Lsn, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let end = Lsn(start.0.saturating_add(data.len() as u64));
        let mut waiting = self.lock();
        match waiting.batch.runs.last_mut() {
            Some(run) if run.end == start => {
                run.end = end;
                run.data.push(data);
            }
            _ => waiting.batch.runs.push(Run {
                start,
                end,
                data: vec![data],
            }),
        }
    }

    pub(super) fn charge(&self, bytes: u64) {
        let mut waiting = self.lock();
        // Who takes it all has taken it already, or there was nothing: nothing is held.
        if !waiting.batch.runs.is_empty() {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            waiting.batch.bytes = waiting.batch.bytes.saturating_add(bytes);
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.lock().batch.bytes < QUEUE_BYTES
    }

    /// Waits until there is room.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub(super) async fn room(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.has_room() {
                return;
            }
            emptied.await;
        }
    }

    /// Whether something waits, and all of it was read with no more than `bytes`.
    pub(super) fn holds_at_most(&self, bytes: usize) -> bool {
        let waiting = self.lock();
        !waiting.batch.runs.is_empty() && waiting.batch.bytes <= bytes
    }

    /// Takes all that waits.
    pub(super) fn take(&self) -> Batch {
        let batch = mem::take(&mut self.lock().batch);
        self.emptied.notify_waiters();
        batch
    }

    /// Puts a batch back that was just taken, before anything else was pushed.
    pub(super) fn put_back(&self, batch: Batch) {
        self.lock().batch = batch;
    }

    pub(super) fn set_acknowledged(&self, durable: Durable) {
        self.lock().acknowledged = Some(durable);
    }

    pub(super) fn take_acknowledged(&self) -> Option<Durable> {
        self.lock().acknowledged.take()
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake();
    }

    pub(super) fn wake(&self) {
        self.filled.notify_one();
    }

    /// Lets those go on who wait for room: there will be none that matters.
    pub(super) fn give_up(&self) {
        self.emptied.notify_waiters();
    }

    /// Waits for something to do, no longer than `pause`.
    pub(super) fn wait(&self, pause: Duration) -> Wake {
        let nothing = |waiting: &mut Waiting| waiting.batch.runs.is_empty() && !waiting.closed;
        let (waiting, _) = self
            .filled
            .wait_timeout_while(self.lock(), pause, nothing)
            .unwrap_or_else(PoisonError::into_inner);
        match (waiting.batch.runs.is_empty(), waiting.closed) {
            (false, _) => Wake::Filled,
            (true, true) => Wake::Closed,
            (true, false) => Wake::Pause,
        }
    }

    /// Waits for `pause`, or until nothing will come any more: `true`.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let (waiting, _) = self
            .filled
            .wait_timeout_while(self.lock(), pause, |waiting| !waiting.closed)
            .unwrap_or_else(PoisonError::into_inner);
        waiting.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_counts_with_all_that_was_read_around_it() {
        let queue = Queue::default();
        // Nothing waits, so nothing is held.
        queue.charge(QUEUE_BYTES as u64);
        assert!(queue.has_room());
        queue.push(Lsn(8), Bytes::from_static(b"x"));
        queue.charge(31);
        assert!(queue.has_room());
        // One byte of WAL among keepalives keeps their buffer alive.
        queue.charge(QUEUE_BYTES as u64 - 31);
        assert!(!queue.has_room());
        let batch = queue.take();
        assert!(queue.has_room());
        queue.put_back(batch);
        assert!(!queue.has_room());
    }

    #[test]
    fn empty_messages_take_no_place() {
        let queue = Queue::default();
        queue.push(Lsn(8), Bytes::new());
        assert!(queue.take().runs.is_empty());
    }

    #[test]
    fn what_follows_makes_one_run() {
        let queue = Queue::default();
        queue.push(Lsn(8), Bytes::from_static(b"abc"));
        queue.push(Lsn(11), Bytes::from_static(b"de"));
        queue.push(Lsn(20), Bytes::from_static(b"f"));
        let runs = queue.take().runs;
        let ends: Vec<_> = runs.iter().map(|run| (run.start.0, run.end.0)).collect();
        assert_eq!(ends, [(8, 13), (20, 21)]);
    }

    #[test]
    fn what_is_not_waited_for_is_told_apart() {
        let queue = Queue::default();
        assert_eq!(queue.wait(Duration::ZERO), Wake::Pause);
        queue.push(Lsn(8), Bytes::from_static(b"abc"));
        queue.close();
        assert_eq!(queue.wait(Duration::ZERO), Wake::Filled);
        drop(queue.take());
        assert_eq!(queue.wait(Duration::ZERO), Wake::Closed);
    }
}
