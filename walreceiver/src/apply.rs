//! Durable records for whoever embeds the receiver, on a thread of their own.

use std::error::Error;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use segstore::{Archive, ArchiveError, PieceEnd, ReadRecordError, RecordPiece, StoredRecords};
use tokio::sync::watch;
use walproto::{Lsn, TimelineHistory, TimelineId};

/// Takes WAL records, each once it is durable in the archive, in order.
///
/// It runs on its own thread and reads back from the archive, so that however long it takes, no
/// acknowledgement of the flush position waits for it. How far it has come is reported to the
/// server as the apply position: with `synchronous_commit = remote_apply` a commit waits for it.
pub trait Apply: Send {
    /// Takes a record, or a piece of a large one. A record whose last piece it returned `Ok` for
    /// counts as applied.
    ///
    /// # Errors
    /// Any error ends the receiver.
    fn apply(&mut self, piece: RecordPiece) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// What an applier gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApplyConfig {
    /// The end of the last record that was applied before, where to go on. `None`: only what is
    /// received from now on.
    pub from: Option<Lsn>,
    /// The length in bytes, after its header, up to which a record comes whole; a longer one comes
    /// in pieces. It bounds the memory that a record takes.
    pub whole_length: usize,
}

/// Why applying ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The applier refused a record.
    #[error("applying the WAL record at {lsn}")]
    Refused {
        /// The end of the last record that was applied.
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
        "WAL was applied up to {applied}, but the timeline that is followed left it at \
         {switch_point}; what was applied must be made anew"
    )]
    Forked {
        /// The end of the last record that was applied.
        applied: Lsn,
        /// Where the timeline left the one that was applied.
        switch_point: Lsn,
    },
    /// The thread could not be started.
    #[error("start the applier thread")]
    Thread(#[source] io::Error),
}

/// The receiver's hold on the thread.
#[derive(Debug)]
pub(crate) struct Applier {
    work: Arc<Work>,
    config: ApplyConfig,
    /// The timeline of what was applied.
    timeline: Mutex<Option<TimelineId>>,
    applied: watch::Receiver<Lsn>,
    thread: JoinHandle<Result<(), ApplyError>>,
}

#[derive(Debug, Default)]
struct Work {
    orders: Mutex<Orders>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Orders {
    /// Where to read, which takes the place of the one before.
    records: Option<StoredRecords>,
    /// Up to where records are durable.
    end: Lsn,
    closed: bool,
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
        let (sender, applied) = watch::channel(config.from.unwrap_or(Lsn::INVALID));
        let for_thread = Arc::clone(&work);
        let thread = thread::Builder::new()
            .name("applier".into())
            .spawn(move || run(apply, &for_thread, &sender))
            .map_err(ApplyError::Thread)?;
        Ok(Self {
            work,
            config,
            timeline: Mutex::new(None),
            applied,
            thread,
        })
    }

    /// Goes on along the timeline of `history`, from what was applied or else from `start` on.
    ///
    /// # Errors
    /// When the timeline lacks what was applied, or the archive cannot be read.
    pub(crate) fn follow(
        &self,
        archive: &Archive,
        history: &TimelineHistory,
        start: Lsn,
    ) -> Result<(), ReadyError> {
        let mut timeline = self.timeline.lock().unwrap_or_else(PoisonError::into_inner);
        let applied = *self.applied.borrow();
        let left_at = timeline.and_then(|timeline| history.switch_point_of(timeline));
        if let Some(switch_point) = left_at
            && switch_point < applied
        {
            return Err(ApplyError::Forked {
                applied,
                switch_point,
            }
            .into());
        }
        let from = if applied.is_invalid() { start } else { applied };
        let records = archive.records(Arc::new(history.clone()), from, self.config.whole_length)?;
        *timeline = Some(history.timeline());
        let mut orders = self.work.lock();
        orders.records = Some(records);
        // Of another timeline, it may be.
        orders.end = Lsn::INVALID;
        Ok(())
    }

    /// Says that records are durable up to `end`.
    pub(crate) fn durable(&self, end: Lsn) {
        let mut orders = self.work.lock();
        if orders.end < end {
            orders.end = end;
            self.work.changed.notify_one();
        }
    }

    /// How far the thread has come; closed when it has ended.
    pub(crate) fn applied(&self) -> watch::Receiver<Lsn> {
        self.applied.clone()
    }

    /// Ends the thread after the record that it is at.
    ///
    /// # Errors
    /// What stopped it before.
    pub(crate) async fn finish(self) -> Result<(), ApplyError> {
        self.work.lock().closed = true;
        self.work.changed.notify_one();
        let Self {
            mut applied,
            thread,
            ..
        } = self;
        while applied.changed().await.is_ok() {}
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Why the applier cannot go on along a timeline.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadyError {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

fn run(
    mut apply: Box<dyn Apply>,
    work: &Work,
    applied: &watch::Sender<Lsn>,
) -> Result<(), ApplyError> {
    let mut records = None;
    while let Some(end) = next(work, &mut records) {
        let Some(records) = &mut records else {
            continue;
        };
        while let Some(piece) = records.next_before(end).map_err(ApplyError::Read)? {
            let piece_end = piece.end;
            let lsn = *applied.borrow();
            apply
                .apply(piece)
                .map_err(|source| ApplyError::Refused { lsn, source })?;
            if let PieceEnd::Complete(end) = piece_end {
                applied.send_replace(end);
                if work.lock().closed {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Waits for new records to read or more durable records; `None` when it is time to end.
fn next(work: &Work, records: &mut Option<StoredRecords>) -> Option<Lsn> {
    let mut orders = work.lock();
    loop {
        if orders.closed {
            return None;
        }
        if let Some(replacement) = orders.records.take() {
            *records = Some(replacement);
        }
        let end = orders.end;
        if records
            .as_ref()
            .is_some_and(|records| records.position() < end)
        {
            return Some(end);
        }
        orders = work
            .changed
            .wait(orders)
            .unwrap_or_else(PoisonError::into_inner);
    }
}
