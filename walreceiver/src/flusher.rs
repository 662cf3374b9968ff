//! Whoever owns the archive's writer: it checks what was received, writes it, makes it durable,
//! and says so.
//!
//! ```text
//!  network task            queue (bounded)           this thread
//!  ------------            ---------------           -------------------------------
//!  push(WAL) ────────────▶ one run of bytes ───────▶ take all of it, append, sync
//!       ▲                                                 │
//!       └──────────── watch: Flushed ◀───────────────────┘
//! ```
//!
//! The network task goes on reading while a sync runs; what gathers meanwhile is the next batch.
//! So batches grow by themselves when the disk is slow, and a lone commit waits for nobody.
//!
//! On a fast disk the two switches between threads take longer than the sync of a lone commit.
//! There the network task may do the thread's work itself ([`ShortSyncs::OnTask`]), for a little
//! WAL and as long as the last sync was short: whoever has the [`Worker`] at that moment takes
//! what waits, so that order does not depend on who works.

mod queue;
#[cfg(test)]
mod tests;
mod worker;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use segstore::{Durable, IncompleteRecord, SettingChange, WriteError, Writer};
use tokio::sync::watch;
use walproto::Lsn;

use crate::config::ShortSyncs;
#[cfg(test)]
pub(crate) use queue::QUEUE_BYTES;
use queue::{Queue, Wake};
use worker::Worker;

/// The longest pause between an acknowledgement and the note of it in the archive's watermark.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// How much WAL, with the messages around it, the network task makes durable by itself at the
/// most: what many clients commit at one time, but not what a bulk load sends.
const SHORT_BYTES: usize = 128 << 10;

/// How far the thread has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flushed {
    /// What was written and found valid, `None` before the first byte.
    pub(crate) written: Option<Written>,
    /// What is durable, `None` before the first sync.
    pub(crate) durable: Option<Durable>,
    /// The magic number of the stream's pages, `None` before the first page.
    pub(crate) page_magic: Option<u16>,
    /// The first changes of settings that a base backup depends on, in their order.
    pub(crate) settings: Vec<SettingChange>,
    /// Since when the disk has been full, while it is.
    pub(crate) held_since: Option<Instant>,
    /// Whether the thread has ended; its result says why.
    pub(crate) ended: bool,
}

impl Flushed {
    /// Whether all WAL before `lsn` is durable.
    pub(crate) fn covers(&self, lsn: Lsn) -> bool {
        self.durable.is_some_and(|durable| durable.byte_end >= lsn)
    }
}

/// Positions of WAL that was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// The end of the last complete record.
    pub(crate) record_end: Lsn,
    /// The end of the last byte.
    pub(crate) byte_end: Lsn,
    /// The record that is to go on there, if it is not the end of one.
    pub(crate) incomplete: Option<IncompleteRecord>,
}

/// The network task's hold on the thread, which ends after what it was handed over when this is
/// dropped.
#[derive(Debug)]
pub(crate) struct Flusher {
    queue: Arc<Queue>,
    worker: Arc<Mutex<Worker>>,
    short_syncs: ShortSyncs,
    flushed: watch::Receiver<Flushed>,
    thread: Option<JoinHandle<Result<(), WriteError>>>,
}

impl Flusher {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no room for another thread.
    pub(crate) fn start(writer: Writer, short_syncs: ShortSyncs) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let (sender, flushed) = watch::channel(Flushed::default());
        let sender = Arc::new(sender);
        let worker = Worker::new(writer, Arc::clone(&queue), Arc::clone(&sender));
        let worker = Arc::new(Mutex::new(worker));
        let (for_thread, its_queue) = (Arc::clone(&worker), Arc::clone(&queue));
        let work = move || {
            let _ended = Ended(&its_queue, &sender);
            run(&for_thread, &its_queue)
        };
        let thread = thread::Builder::new().name("flusher".into()).spawn(work)?;
        Ok(Self {
            queue,
            worker,
            short_syncs,
            flushed,
            thread: Some(thread),
        })
    }

    /// Hands over WAL that was received at `start`.
    pub(crate) fn push(&self, start: Lsn, data: Bytes) {
        self.queue.push(start, data);
    }

    /// Notes that `bytes` were read from the server, for what was handed over or around it: as
    /// long as any of it waits, the memory of all of it may be kept alive.
    pub(crate) fn charge(&self, bytes: u64) {
        self.queue.charge(bytes);
    }

    /// Has done what there is to do after a number of [`Flusher::push`]: at once if it is little
    /// and the disk is quick and free, or else by the thread.
    pub(crate) fn go_on(&self) {
        if self.short_syncs == ShortSyncs::OnTask
            && self.queue.holds_at_most(SHORT_BYTES)
            && let Ok(mut worker) = self.worker.try_lock()
            && worker.is_quick()
            && worker.work_shortly()
        {
            return;
        }
        self.queue.wake();
    }

    /// Whether the queue takes more.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.has_room()
    }

    /// Waits until the queue takes more.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub(crate) async fn room(&self) {
        self.queue.room().await;
    }

    /// Notes that `durable` was reported to the server as flushed.
    pub(crate) fn acknowledged(&self, durable: Durable) {
        self.queue.set_acknowledged(durable);
    }

    /// How far the work has come.
    pub(crate) fn flushed(&self) -> watch::Receiver<Flushed> {
        self.flushed.clone()
    }

    /// Says that nothing more will be handed over: the thread ends after all that was is
    /// durable, or could not be made so.
    pub(crate) fn close(&self) {
        self.queue.close();
    }

    /// Closes the queue and waits for the thread's end.
    ///
    /// # Errors
    /// What stopped the thread.
    pub(crate) async fn finish(mut self) -> Result<(), WriteError> {
        self.close();
        let mut flushed = self.flushed();
        while !flushed.borrow_and_update().ended && flushed.changed().await.is_ok() {}
        // The thread has nothing left to do but return.
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.close();
    }
}

/// The thread's work, until the queue is closed or something fails.
fn run(worker: &Mutex<Worker>, queue: &Queue) -> Result<(), WriteError> {
    loop {
        let wake = queue.wait(NOTE_INTERVAL);
        let mut worker = lock(worker);
        match wake {
            Wake::Filled => worker.work(),
            Wake::Pause => worker.note(),
            Wake::Closed => return worker.close(),
        }
        if worker.has_failed() {
            return worker.close();
        }
    }
}

fn lock(worker: &Mutex<Worker>) -> MutexGuard<'_, Worker> {
    // Who panics with it takes its thread or task along; nothing more is acknowledged then.
    worker.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says that the thread has ended, also by a panic: the network task would wait for ever.
struct Ended<'a>(&'a Queue, &'a watch::Sender<Flushed>);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let Self(queue, flushed) = self;
        flushed.send_modify(|flushed| flushed.ended = true);
        queue.give_up();
    }
}
