//! Durable records for whoever embeds the receiver, on a thread of their own.

use std::error::Error;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use segstore::{Archive, ArchiveError, ReadRecordError, RecordPiece};
use tokio::sync::watch;
use walproto::{Lsn, TimelineHistory, TimelineId, WalPosition};

mod worker;

use worker::{Reading, Worker};

#[cfg(test)]
mod tests;

/// Takes WAL records, each once it is durable in the archive, in order. A closure is one, too.
///
/// It runs on its own thread and reads back from the archive, so that however long it takes, no
/// acknowledgement of the flush position waits for it. How far it has come is reported to the
/// server as the apply position: with `synchronous_commit = remote_apply` a commit waits for it.
pub trait Apply: Send {
    /// Takes a record, or a piece of a large one. A record whose last piece it returned `Ok` for
    /// counts as applied.
    ///
    /// The pieces of one record follow each other. Those of a record that never became complete
    /// end with [`PieceEnd::Abandoned`](segstore::PieceEnd::Abandoned), or with the receiver: it is
    /// not applied then, and comes again from its first piece if there is one.
    ///
    /// # Errors
    /// Any error ends the receiver.
    fn apply(&mut self, piece: RecordPiece) -> Result<(), Box<dyn Error + Send + Sync>>;
}

impl<F> Apply for F
where
    F: FnMut(RecordPiece) -> Result<(), Box<dyn Error + Send + Sync>> + Send,
{
    fn apply(&mut self, piece: RecordPiece) -> Result<(), Box<dyn Error + Send + Sync>> {
        self(piece)
    }
}

/// What an applier gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApplyConfig {
    /// How far records were applied before, where to go on. `None`: only what is received from
    /// now on.
    pub from: Option<WalPosition>,
    /// The length in bytes, after its header, up to which a record comes whole; a longer one comes
    /// in pieces. It bounds the memory that a record takes.
    pub whole_length: usize,
}

/// Why applying ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The applier refused a record.
    #[error("applying the WAL record at {lsn} (timeline {timeline})")]
    Refused {
        /// The record's timeline.
        timeline: TimelineId,
        /// Where the record starts.
        lsn: Lsn,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A record could not be read back.
    #[error("reading WAL to be applied")]
    Read(#[source] ReadRecordError),
    /// The timeline that is followed lacks records that were applied.
    #[error(
        "WAL was applied up to {applied} on timeline {timeline}, but timeline {followed} left it \
         at {switch_point}; what was applied must be made anew"
    )]
    Forked {
        /// The timeline of what was applied.
        timeline: TimelineId,
        /// The end of the last record that was applied.
        applied: Lsn,
        /// The timeline that is followed.
        followed: TimelineId,
        /// Where it, or an ancestor, left the one that was applied.
        switch_point: Lsn,
    },
    /// The timeline that is followed does not descend from that of what was applied.
    #[error(
        "WAL was applied up to {applied} on timeline {timeline}, which timeline {followed} does \
         not descend from; what was applied must be made anew"
    )]
    ForeignTimeline {
        /// The timeline of what was applied.
        timeline: TimelineId,
        /// The end of the last record that was applied.
        applied: Lsn,
        /// The timeline that is followed.
        followed: TimelineId,
    },
    /// The thread could not be started.
    #[error("start the applier thread")]
    Thread(#[source] io::Error),
}

/// The receiver's hold on the thread. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Applier {
    work: Arc<Work>,
    whole_length: usize,
    applied: watch::Receiver<Lsn>,
    thread: Option<JoinHandle<Result<(), ApplyError>>>,
}

#[derive(Debug, Default)]
struct Work {
    orders: Mutex<Orders>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Orders {
    /// The timeline that is followed.
    timeline: Option<TimelineId>,
    /// Up to where records are durable on the timeline that the thread reads. When another one
    /// is followed next, not past the point where it branches off.
    end: Lsn,
    /// What to read after that.
    next: Option<Box<Next>>,
    closed: bool,
}

/// A timeline to go on with.
#[derive(Debug)]
struct Next {
    reading: Reading,
    /// Up to where records are durable on it.
    end: Lsn,
}

impl Work {
    fn lock(&self) -> MutexGuard<'_, Orders> {
        // A panic while the lock is held leaves nothing half done: every change is one step.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Applier {
    /// Starts the thread. It has nothing to do until [`Applier::follow`].
    pub(crate) fn start(apply: Box<dyn Apply>, config: ApplyConfig) -> Result<Self, ApplyError> {
        let work = Arc::new(Work::default());
        let from = config.from.map_or(Lsn::INVALID, |applied| applied.lsn);
        let (sender, applied) = watch::channel(from);
        let worker = Worker::new(apply, config.from, Arc::clone(&work), sender);
        let thread = thread::Builder::new()
            .name("applier".into())
            .spawn(move || worker.run())
            .map_err(ApplyError::Thread)?;
        Ok(Self {
            work,
            whole_length: config.whole_length,
            applied,
            thread: Some(thread),
        })
    }

    /// Goes on along the timeline of `history`, from what was applied or else from `durable` on,
    /// up to where its records are known to be durable.
    ///
    /// # Errors
    /// When the archive cannot be read. That the timeline lacks what was applied ends the thread.
    pub(crate) fn follow(
        &self,
        archive: &Archive,
        history: &TimelineHistory,
        durable: Lsn,
    ) -> Result<(), ArchiveError> {
        let timeline = history.timeline();
        if self.work.lock().timeline == Some(timeline) {
            // What lies before the end of the last durable record stays the same for ever.
            self.durable(durable);
            return Ok(());
        }
        let applied = *self.applied.borrow();
        let from = if applied.is_invalid() {
            durable
        } else {
            applied
        };
        let history = Arc::new(history.clone());
        let records = archive.records(Arc::clone(&history), from, self.whole_length)?;
        let mut orders = self.work.lock();
        if let Some(old) = orders.timeline.replace(timeline) {
            // Nothing is applied that only the old timeline has.
            let branch = history.switch_point_of(old).unwrap_or_default();
            orders.end = orders.end.min(branch);
        }
        orders.next = Some(Box::new(Next {
            reading: Reading {
                records,
                history,
                from,
            },
            end: durable,
        }));
        self.work.changed.notify_one();
        Ok(())
    }

    /// Says that records are durable up to `end` on the timeline that is followed.
    pub(crate) fn durable(&self, end: Lsn) {
        let mut orders = self.work.lock();
        let known = match &mut orders.next {
            Some(next) => &mut next.end,
            None => &mut orders.end,
        };
        if *known < end {
            *known = end;
            self.work.changed.notify_one();
        }
    }

    /// How far the thread has come; closed when it has ended.
    pub(crate) fn applied(&self) -> watch::Receiver<Lsn> {
        self.applied.clone()
    }

    /// Waits until the thread has ended by itself.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub(crate) async fn ended(&self) {
        let mut applied = self.applied();
        while applied.changed().await.is_ok() {}
    }

    /// Ends the thread after the piece of a record that it is at.
    ///
    /// # Errors
    /// What stopped it before.
    pub(crate) async fn finish(mut self) -> Result<(), ApplyError> {
        self.close();
        self.ended().await;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }

    fn close(&self) {
        self.work.lock().closed = true;
        self.work.changed.notify_one();
    }
}

impl Drop for Applier {
    fn drop(&mut self) {
        self.close();
    }
}
