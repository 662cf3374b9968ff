//! What is done with each completed segment, in the background: one stage after the other.
//!
//! How far a segment has come is what the disk shows of it, so that a crash forgets nothing: a stage
//! says which segments it has yet to process ([`Stage::left`]), and processes one again without harm.
//! A compressed segment shows it by its file's name. A stage whose result is elsewhere, such as a copy
//! in another place, would note it in the archive's own directory.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::listing::Listing;
use crate::error::{ArchiveError, DiskError, Operation};
use crate::wal::segment::SegmentName;

/// How many segments wait at most: names alone, 24 bytes each. Those beyond stay as they are
/// until the archive is opened again.
const QUEUE_LENGTH: usize = 1 << 16;

/// What is done with each completed segment. The thread of the pipeline calls it.
pub(crate) trait Stage: Debug + Send {
    /// The segments of earlier runs that are yet to be processed, by what the disk shows.
    fn left(&self, listing: &Listing) -> Vec<SegmentName>;

    /// Processes a segment, and makes durable that it did. One that is processed already, or gone,
    /// stays as it is. Once `go_on` says no, it ends early and leaves the segment as it was.
    fn process(&self, name: SegmentName, go_on: &dyn Fn() -> bool) -> Result<(), ArchiveError>;
}

/// A thread that takes completed segments through all stages, one segment after the other.
///
/// After a failure in one stage a segment does not reach the next one; the next opening of the
/// archive tries again. Stopping it leaves what it has not finished as it was.
#[derive(Debug)]
pub(crate) struct Pipeline {
    queue: Option<SyncSender<SegmentName>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    failure: Mutex<Option<ArchiveError>>,
    ended: Mutex<bool>,
    end: Condvar,
}

impl Pipeline {
    /// Starts the thread, for the archive in `root`. It processes what the stages have
    /// [`left`](Stage::left), too, but each segment not before a later one is queued: until then a
    /// writer may move it out of the way, and one processed meanwhile would be back.
    pub(crate) fn start(
        root: &Path,
        stages: Vec<Box<dyn Stage>>,
        listing: &Listing,
    ) -> Result<Self, DiskError> {
        let left = stages
            .iter()
            .flat_map(|stage| stage.left(listing))
            .collect();
        let (queue, segments) = sync_channel(QUEUE_LENGTH);
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("wal-pipeline".to_owned())
            .spawn(move || {
                let _ended = Ended(&theirs);
                work(&stages, left, &segments, &theirs);
            })
            .map_err(DiskError::at(Operation::StartThread, root))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
            shared,
        })
    }

    /// Queues a completed segment; never waits. `false` when the queue has no room: it is processed
    /// after the archive is next opened.
    pub(crate) fn enqueue(&self, name: SegmentName) -> bool {
        match self.queue.as_ref().map(|queue| queue.try_send(name)) {
            Some(Ok(())) => true,
            None | Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) => false,
        }
    }

    /// The first failure since this was last asked. The segment it was about is still there, as the
    /// failed stage found it.
    pub(crate) fn take_failure(&self) -> Option<ArchiveError> {
        self.shared.failure().take()
    }

    /// Processes what is queued, for as long as `patience` lasts, then stops. Returns the first
    /// failure.
    pub(crate) fn finish(mut self, patience: Duration) -> Option<ArchiveError> {
        self.queue = None;
        let shared = Arc::clone(&self.shared);
        let ended = shared.ended();
        // Whether it has ended or is out of time now makes no difference.
        drop(
            shared
                .end
                .wait_timeout_while(ended, patience, |ended| !*ended)
                .unwrap_or_else(PoisonError::into_inner),
        );
        drop(self);
        shared.failure().take()
    }
}

/// Says that the thread has ended, also by a panic.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        *self.0.ended() = true;
        self.0.end.notify_all();
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed, and nothing depends on the thread's end.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn failure(&self) -> MutexGuard<'_, Option<ArchiveError>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, bool> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

fn work(
    stages: &[Box<dyn Stage>],
    mut left: BTreeSet<SegmentName>,
    segments: &Receiver<SegmentName>,
    shared: &Shared,
) {
    for queued in segments {
        // Those after it may yet be given up for other WAL.
        let after = left.split_off(&queued);
        let before = std::mem::replace(&mut left, after);
        left.remove(&queued);
        for name in before.into_iter().chain([queued]) {
            for stage in stages {
                if !shared.goes_on() {
                    return;
                }
                if let Err(error) = stage.process(name, &|| shared.goes_on()) {
                    shared.failure().get_or_insert(error);
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
