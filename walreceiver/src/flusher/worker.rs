//! The work on what was received, whichever thread does it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use segstore::{Appended, Durable, ErrorKind, WriteError, Writer};
use tokio::sync::watch;
use walproto::Lsn;

use super::queue::{Batch, Queue, Run};
use super::{Flushed, Written};

/// How much is checked and then written at once: what was just checked is still in the
/// processor's cache.
const STEP_BYTES: usize = 512 << 10;

/// From what time on a sync is long. Only then it pays to say before it what was written, which
/// commits with `synchronous_commit = remote_write` wait for: each word wakes the network task and
/// the server. And only a sync that is not long may be made by the network task itself.
const LONG_SYNC: Duration = Duration::from_millis(2);

/// The maximum number of changes of settings that are reported per connection. On a genuine server
/// each change requires a restart.
const MAX_SETTINGS: usize = 64;

/// How long a full disk is left alone before the next try to write.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);

/// Owns the writer.
#[derive(Debug)]
pub(super) struct Worker {
    /// `None` once it has been closed.
    writer: Option<Writer>,
    queue: Arc<Queue>,
    flushed: Arc<watch::Sender<Flushed>>,
    /// What was acknowledged and is not yet in the archive's watermark.
    unnoted: Option<Durable>,
    /// How long the last sync took.
    last_sync: Duration,
    failure: Option<WriteError>,
}

/// What to do about a full disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WhenFull {
    /// Wait for room.
    Wait,
    /// Return the error.
    Return,
}

impl Worker {
    pub(super) fn new(
        writer: Writer,
        queue: Arc<Queue>,
        flushed: Arc<watch::Sender<Flushed>>,
    ) -> Self {
        Self {
            writer: Some(writer),
            queue,
            flushed,
            unnoted: None,
            last_sync: Duration::ZERO,
            failure: None,
        }
    }

    /// Whether nothing more can be written.
    pub(super) const fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Whether another sync can be expected to be short.
    pub(super) fn is_quick(&self) -> bool {
        self.last_sync < LONG_SYNC && self.failure.is_none() && self.writer.is_some()
    }

    /// Writes all that waits and makes it durable. While the disk is full it waits for room.
    pub(super) fn work(&mut self) {
        let batch = self.queue.take();
        if let Err(error) = self.try_work(batch) {
            self.fail(error);
        }
    }

    /// As [`work`](Self::work) for a little WAL; it never waits for room on a full disk, but puts
    /// back what it took. `false` when somebody who can wait has to go on.
    pub(super) fn work_shortly(&mut self) -> bool {
        let batch = self.queue.take();
        // A second run means a hole, which ends the stream.
        let [run] = batch.runs.as_slice() else {
            self.queue.put_back(batch);
            return false;
        };
        let done = match self.append(run.start, &run.data, WhenFull::Return) {
            Ok(()) => self.sync(),
            Err(error) if error.is_temporary() => {
                self.queue.put_back(batch);
                return false;
            }
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => true,
            Err(error) => {
                self.fail(error);
                // The thread has nothing to wait for any more.
                self.queue.close();
                false
            }
        }
    }

    fn try_work(&mut self, batch: Batch) -> Result<(), WriteError> {
        if self.failure.is_some() {
            return Ok(());
        }
        for run in batch.runs {
            self.append_run(run)?;
        }
        self.sync()?;
        self.try_note()
    }

    /// Writes a run, and lets go of what was written as it goes.
    fn append_run(&mut self, run: Run) -> Result<(), WriteError> {
        let mut start = run.start;
        let mut rest = run.data.into_iter().peekable();
        let mut step = Vec::new();
        while rest.peek().is_some() {
            let mut length = 0;
            while let Some(piece) = rest.next_if(|_| length < STEP_BYTES) {
                length += piece.len();
                step.push(piece);
            }
            self.append(start, &step, WhenFull::Wait)?;
            step.clear();
            start = Lsn(start.0.saturating_add(length as u64));
        }
        Ok(())
    }

    /// Writes bytes that follow one another. What precedes the first bad one is written and
    /// synced all the same.
    fn append(
        &mut self,
        start: Lsn,
        data: &[Bytes],
        when_full: WhenFull,
    ) -> Result<(), WriteError> {
        let Some(writer) = &mut self.writer else {
            return Err(WriteError::Stopped);
        };
        loop {
            match writer.append(start, data) {
                Ok(_) => {
                    self.flushed
                        .send_if_modified(|flushed| flushed.held_since.take().is_some());
                    return Ok(());
                }
                Err(error) if error.is_temporary() && when_full == WhenFull::Return => {
                    return Err(error);
                }
                Err(error @ WriteError::DiskFull { .. }) => {
                    self.flushed.send_if_modified(|flushed| {
                        let first = flushed.held_since.is_none();
                        flushed.held_since.get_or_insert_with(Instant::now);
                        first
                    });
                    if self.queue.pause(FULL_DISK_PAUSE) {
                        return Err(error);
                    }
                }
                Err(error) => {
                    // The prefix is good even when what follows is not.
                    return Err(match self.sync() {
                        Ok(()) => error,
                        Err(unsynced) => graver(error, unsynced),
                    });
                }
            }
        }
    }

    /// Makes durable what was written, and says so.
    fn sync(&mut self) -> Result<(), WriteError> {
        let Some(writer) = &mut self.writer else {
            return Err(WriteError::Stopped);
        };
        if self.last_sync >= LONG_SYNC {
            self.flushed
                .send_modify(|flushed| tell_written(writer, flushed));
        }
        let started = Instant::now();
        let durable = writer.sync()?;
        self.last_sync = started.elapsed();
        self.flushed.send_modify(|flushed| {
            tell_written(writer, flushed);
            flushed.durable = Some(durable);
            for change in writer.take_setting_changes() {
                if flushed.settings.len() < MAX_SETTINGS {
                    flushed.settings.push(change);
                }
            }
        });
        Ok(())
    }

    /// Tells the writer how far the server counts us, which it notes now and then.
    pub(super) fn note(&mut self) {
        if let Err(error) = self.check_lock().and_then(|()| self.try_note()) {
            self.fail(error);
        }
    }

    /// Keeps the error that the thread ends by.
    fn fail(&mut self, error: WriteError) {
        self.failure = Some(match self.failure.take() {
            Some(first) => graver(first, error),
            None => error,
        });
    }

    fn check_lock(&mut self) -> Result<(), WriteError> {
        self.writer.as_mut().map_or(Ok(()), Writer::check_lock)
    }

    fn try_note(&mut self) -> Result<(), WriteError> {
        let newest = self.queue.take_acknowledged().or(self.unnoted.take());
        if let (Some(durable), Some(writer)) = (newest, &mut self.writer)
            && !writer.acknowledged(durable, Instant::now())?
        {
            self.unnoted = newest;
        }
        Ok(())
    }

    /// Ends the work. The writer is closed whatever happened, so that the prefix that is good is
    /// kept.
    ///
    /// # Errors
    /// What stopped the work, or else what goes wrong now. An error of the archive itself precedes
    /// one that another try may avoid.
    pub(super) fn close(&mut self) -> Result<(), WriteError> {
        self.note();
        if let Some(Err(error)) = self.writer.take().map(Writer::close) {
            self.fail(error);
        }
        self.failure.take().map_or(Ok(()), Err)
    }
}

/// The error to return of two. The first one tells more, but must not hide that the archive itself
/// failed, as by a sync: the same must not be tried again.
fn graver(first: WriteError, second: WriteError) -> WriteError {
    let is_own = |error: &WriteError| error.kind() == ErrorKind::Archive;
    if is_own(&second) && !is_own(&first) {
        second
    } else {
        first
    }
}

fn tell_written(writer: &Writer, flushed: &mut Flushed) {
    let Appended {
        record_end,
        byte_end,
        incomplete,
        ..
    } = writer.appended();
    flushed.page_magic = writer.page_magic();
    flushed.written = Some(Written {
        record_end,
        byte_end,
        incomplete,
    });
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use segstore::sim::SimDisk;
    use segstore::{Disk, OsDisk, Preparation};

    use super::*;
    use crate::sample::{ROOT, START, archive_at, first_timeline, generator};

    fn worker(disk: impl Disk + 'static, root: &Path) -> Worker {
        let archive = archive_at(disk, root);
        let recovery = archive.recover().unwrap();
        let writer = archive.writer(recovery, &first_timeline(), START, Preparation::Inline);
        let flushed = Arc::new(watch::Sender::default());
        Worker::new(writer.unwrap(), Arc::default(), flushed)
    }

    #[test]
    fn is_quick_only_after_a_short_sync_and_while_it_can_write() {
        let mut worker = worker(SimDisk::new(ROOT), Path::new(ROOT));
        assert!(worker.is_quick());
        worker.last_sync = LONG_SYNC;
        assert!(!worker.is_quick());
        worker.last_sync = Duration::ZERO;
        worker.fail(WriteError::Stopped);
        assert!(!worker.is_quick());
        worker.failure = None;
        worker.writer = None;
        assert!(!worker.is_quick());
    }

    #[test]
    fn notes_what_was_acknowledged() {
        let mut worker = worker(SimDisk::new(ROOT), Path::new(ROOT));
        let mut wal = generator();
        wal.record(100);
        let data = [Bytes::copy_from_slice(wal.bytes())];
        worker.append(START, &data, WhenFull::Return).unwrap();
        worker.sync().unwrap();
        let durable = worker.flushed.borrow().durable.unwrap();
        worker.queue.set_acknowledged(durable);
        worker.note();
        assert!(!worker.has_failed());
        // It is noted, and neither waits in the queue nor for a later note.
        assert_eq!(worker.queue.take_acknowledged(), None);
        assert_eq!(worker.unnoted, None);
    }

    #[test]
    fn fails_when_the_lock_of_the_archive_is_lost() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("archive");
        std::fs::create_dir(&root).unwrap();
        let mut worker = worker(OsDisk::new(), &root);
        worker.note();
        assert!(!worker.has_failed());
        std::fs::rename(&root, parent.path().join("aside")).unwrap();
        worker.note();
        assert!(worker.has_failed());
    }
}
