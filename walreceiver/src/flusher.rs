//! The thread that owns the archive's writer: it checks what was received, writes it, makes it
//! durable, and says so.
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

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, mem, thread};

use bytes::Bytes;
use segstore::{Appended, Durable, IncompleteRecord, WriteError, Writer};
use tokio::sync::{Notify, watch};
use walproto::Lsn;

/// How many received bytes may wait for the disk, with the messages around the WAL: what waits is
/// a part of the buffers that all of them were read into. It bounds what a server can make us
/// hold, and is large enough that the network is read on through an ordinary sync.
pub(crate) const QUEUE_BYTES: usize = 8 << 20;

/// The longest pause between an acknowledgement and the note of it in the archive's watermark,
/// and between two tries to write to a full disk.
const PAUSE: Duration = Duration::from_secs(1);

/// How far the thread has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flushed {
    /// What was written and found valid, `None` before the first byte.
    pub(crate) written: Option<Written>,
    /// What is durable, `None` before the first sync.
    pub(crate) durable: Option<Durable>,
    /// The magic number of the stream's pages, `None` before the first page.
    pub(crate) page_magic: Option<u16>,
    /// Since when the disk has been full, while it is.
    pub(crate) held_since: Option<Instant>,
    /// Whether the thread has ended; its result says why.
    pub(crate) ended: bool,
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
    flushed: watch::Receiver<Flushed>,
    thread: Option<JoinHandle<Result<(), WriteError>>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    runs: Vec<Run>,
    bytes: usize,
    acknowledged: Option<Durable>,
    closed: bool,
}

/// Bytes that follow one another.
#[derive(Debug)]
struct Run {
    start: Lsn,
    end: Lsn,
    data: Vec<Bytes>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A panic while the lock is held leaves nothing half done: every change is one step.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, start: Lsn, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let end = Lsn(start.0.saturating_add(data.len() as u64));
        let mut waiting = self.lock();
        match waiting.runs.last_mut() {
            Some(run) if run.end == start => {
                run.end = end;
                run.data.push(data);
            }
            _ => waiting.runs.push(Run {
                start,
                end,
                data: vec![data],
            }),
        }
    }

    fn charge(&self, bytes: u64) {
        let mut waiting = self.lock();
        // Who takes it all has taken it already, or there was nothing: nothing is held.
        if !waiting.runs.is_empty() {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            waiting.bytes = waiting.bytes.saturating_add(bytes);
        }
    }

    fn has_room(&self) -> bool {
        self.lock().bytes < QUEUE_BYTES
    }
}

impl Flusher {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no room for another thread.
    pub(crate) fn start(writer: Writer) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let (sender, flushed) = watch::channel(Flushed::default());
        let for_worker = Arc::clone(&queue);
        let work = move || {
            let _ended = Ended(&for_worker, &sender);
            Worker::new(writer, &for_worker, &sender).run()
        };
        let thread = thread::Builder::new().name("flusher".into()).spawn(work)?;
        Ok(Self {
            queue,
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

    /// Wakes the thread after a number of [`Flusher::push`].
    pub(crate) fn wake(&self) {
        self.queue.filled.notify_one();
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
        loop {
            let emptied = self.queue.emptied.notified();
            if self.has_room() {
                return;
            }
            emptied.await;
        }
    }

    /// Notes that `durable` was reported to the server as flushed.
    pub(crate) fn acknowledged(&self, durable: Durable) {
        self.queue.lock().acknowledged = Some(durable);
    }

    /// How far the thread has come.
    pub(crate) fn flushed(&self) -> watch::Receiver<Flushed> {
        self.flushed.clone()
    }

    /// Says that nothing more will be handed over: the thread ends after all that was is
    /// durable, or could not be made so.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.wake();
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

/// Says that the thread has ended, also by a panic: the network task would wait for ever.
struct Ended<'a>(&'a Queue, &'a watch::Sender<Flushed>);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let Self(queue, flushed) = self;
        flushed.send_modify(|flushed| flushed.ended = true);
        queue.emptied.notify_waiters();
    }
}

struct Worker<'a> {
    writer: Writer,
    queue: &'a Queue,
    flushed: &'a watch::Sender<Flushed>,
    /// What was acknowledged and is not yet in the archive's watermark.
    unnoted: Option<Durable>,
}

/// What to do next.
enum Next {
    Append,
    Note,
    Close,
}

impl<'a> Worker<'a> {
    const fn new(writer: Writer, queue: &'a Queue, flushed: &'a watch::Sender<Flushed>) -> Self {
        Self {
            writer,
            queue,
            flushed,
            unnoted: None,
        }
    }

    fn run(mut self) -> Result<(), WriteError> {
        let worked = self.work();
        let noted = self.note();
        // The writer is closed whatever happened, so that the prefix that is good is kept.
        let closed = self.writer.close().map(drop);
        worked.and(noted).and(closed)
    }

    fn work(&mut self) -> Result<(), WriteError> {
        let mut runs = Vec::new();
        loop {
            match self.wait(&mut runs) {
                Next::Append => {
                    for run in &runs {
                        self.append(run)?;
                    }
                    runs.clear();
                    let durable = self.writer.sync()?;
                    self.publish(durable);
                    self.note()?;
                }
                Next::Note => self.note()?,
                Next::Close => return Ok(()),
            }
        }
    }

    /// Waits for WAL, and takes all there is.
    fn wait(&mut self, runs: &mut Vec<Run>) -> Next {
        let mut waiting = self.queue.lock();
        loop {
            self.unnoted = waiting.acknowledged.take().or(self.unnoted.take());
            if !waiting.runs.is_empty() {
                mem::swap(runs, &mut waiting.runs);
                waiting.bytes = 0;
                drop(waiting);
                self.queue.emptied.notify_waiters();
                return Next::Append;
            }
            if waiting.closed {
                return Next::Close;
            }
            let (guard, timeout) = self
                .queue
                .filled
                .wait_timeout(waiting, PAUSE)
                .unwrap_or_else(PoisonError::into_inner);
            waiting = guard;
            let anything = !waiting.runs.is_empty() || waiting.closed;
            if timeout.timed_out() && !anything {
                self.unnoted = waiting.acknowledged.take().or(self.unnoted.take());
                if self.unnoted.is_some() {
                    return Next::Note;
                }
            }
        }
    }

    /// Writes a run. What precedes the first bad byte of it is written and synced all the same.
    fn append(&mut self, run: &Run) -> Result<(), WriteError> {
        loop {
            match self.writer.append(run.start, &run.data) {
                Ok(Appended {
                    record_end,
                    byte_end,
                    incomplete,
                    ..
                }) => {
                    let page_magic = self.writer.page_magic();
                    self.flushed.send_modify(|flushed| {
                        flushed.page_magic = page_magic;
                        flushed.written = Some(Written {
                            record_end,
                            byte_end,
                            incomplete,
                        });
                        flushed.held_since = None;
                    });
                    return Ok(());
                }
                Err(error @ WriteError::DiskFull { .. }) => self.hold(error)?,
                Err(error) => {
                    // The prefix is good even when what follows is not; if it cannot be made
                    // durable either, the first error still tells more.
                    if let Ok(durable) = self.writer.sync() {
                        self.publish(durable);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Waits for room on a full disk, for as long as the network task does.
    fn hold(&self, error: WriteError) -> Result<(), WriteError> {
        let now = Instant::now();
        self.flushed.send_if_modified(|flushed| {
            let first = flushed.held_since.is_none();
            flushed.held_since.get_or_insert(now);
            first
        });
        let waiting = self.queue.lock();
        let (waiting, _) = self
            .queue
            .filled
            .wait_timeout_while(waiting, PAUSE, |waiting| !waiting.closed)
            .unwrap_or_else(PoisonError::into_inner);
        if waiting.closed { Err(error) } else { Ok(()) }
    }

    fn publish(&self, durable: Durable) {
        self.flushed
            .send_modify(|flushed| flushed.durable = Some(durable));
    }

    /// Tells the writer how far the server counts us, which it notes now and then.
    fn note(&mut self) -> Result<(), WriteError> {
        match self.unnoted.take() {
            Some(durable) => self.writer.acknowledged(durable, Instant::now()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use segstore::sim::SimDisk;
    use segstore::{Archive, ArchiveError, ArchiveOptions, Compression, Preparation, ServerFacts};
    use walproto::{SegmentSize, SystemId, TimelineHistory, TimelineId};

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
    }

    #[test]
    fn a_thread_that_panics_says_that_it_has_ended() {
        let queue = Queue::default();
        let (sender, flushed) = watch::channel(Flushed::default());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ended = Ended(&queue, &sender);
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        assert!(flushed.borrow().ended);
    }

    #[test]
    fn a_flusher_that_is_dropped_lets_go_of_the_archive() {
        let disk = Arc::new(SimDisk::new("/archive"));
        let open = || {
            let options = ArchiveOptions {
                directory: "/archive".into(),
                sync: true,
                compression: Compression::NONE,
            };
            Archive::open(disk.clone(), options)
        };
        let mut archive = open().unwrap();
        archive
            .bind(&ServerFacts {
                system_id: SystemId(1),
                segment_size: SegmentSize::DEFAULT,
                block_size: 8192,
                server_version_num: 150_018,
                data_directory_mode: 0o700,
            })
            .unwrap();
        let history = TimelineHistory::without_ancestors(TimelineId::FIRST);
        let recovery = archive.recover().unwrap();
        let writer = archive.writer(recovery, &history, Lsn(0), Preparation::Inline);
        let flusher = Flusher::start(writer.unwrap()).unwrap();
        drop(archive);
        assert!(matches!(open(), Err(ArchiveError::Locked { .. })));
        let mut flushed = flusher.flushed();
        drop(flusher);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let ended = runtime.block_on(flushed.wait_for(|flushed| flushed.ended));
        drop(ended.unwrap());
        drop(open().unwrap());
    }

    #[test]
    fn empty_messages_take_no_place() {
        let queue = Queue::default();
        queue.push(Lsn(8), Bytes::new());
        assert!(queue.lock().runs.is_empty());
    }

    #[test]
    fn what_follows_makes_one_run() {
        let queue = Queue::default();
        queue.push(Lsn(8), Bytes::from_static(b"abc"));
        queue.push(Lsn(11), Bytes::from_static(b"de"));
        queue.push(Lsn(20), Bytes::from_static(b"f"));
        let runs = &queue.lock().runs;
        let ends: Vec<_> = runs.iter().map(|run| (run.start.0, run.end.0)).collect();
        assert_eq!(ends, [(8, 13), (20, 21)]);
    }
}
