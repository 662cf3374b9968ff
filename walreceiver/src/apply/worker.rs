//! The applier's thread.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use segstore::{PieceEnd, RecordPiece, StoredRecords};
use tokio::sync::watch;
use walproto::{Lsn, TimelineHistory, WalPosition};

use super::{Apply, ApplyError, Next, Work};

/// What is read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) records: StoredRecords,
    pub(super) history: Arc<TimelineHistory>,
    /// Where it begins.
    pub(super) from: Lsn,
}

pub(super) struct Worker {
    apply: Box<dyn Apply>,
    applied: Option<WalPosition>,
    work: Arc<Work>,
    progress: watch::Sender<Lsn>,
    reading: Option<Reading>,
    /// The end before which everything was given out.
    exhausted: Lsn,
    /// The last piece that was given out, without its bytes, if there is more of its record.
    unfinished: Option<RecordPiece>,
}

/// What to do next.
enum Order {
    /// Give out a piece that begins before this position.
    Give(Lsn),
    /// Go on with another timeline.
    Change(Box<Next>),
    End,
}

impl Worker {
    pub(super) fn new(
        apply: Box<dyn Apply>,
        applied: Option<WalPosition>,
        work: Arc<Work>,
        progress: watch::Sender<Lsn>,
    ) -> Self {
        Self {
            apply,
            applied,
            work,
            progress,
            reading: None,
            exhausted: Lsn::INVALID,
            unfinished: None,
        }
    }

    pub(super) fn run(mut self) -> Result<(), ApplyError> {
        loop {
            match self.wait() {
                Order::Give(end) => self.give_next(end)?,
                Order::Change(next) => self.change(next.reading)?,
                Order::End => return Ok(()),
            }
        }
    }

    fn wait(&self) -> Order {
        let mut orders = self.work.lock();
        loop {
            if orders.closed {
                return Order::End;
            }
            if self.reading.is_some() && self.exhausted < orders.end {
                return Order::Give(orders.end);
            }
            if let Some(next) = orders.next.take() {
                orders.end = next.end;
                return Order::Change(next);
            }
            orders = self
                .work
                .changed
                .wait(orders)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives out a piece, unless there is none before `end`.
    fn give_next(&mut self, end: Lsn) -> Result<(), ApplyError> {
        let next = match &mut self.reading {
            Some(reading) => reading.records.next_before(end).map_err(ApplyError::Read)?,
            None => None,
        };
        match next {
            // What was read before the end was drawn nearer may lie past it.
            Some(piece) if piece.start < end => self.give(piece),
            Some(_) | None => {
                self.exhausted = end;
                Ok(())
            }
        }
    }

    fn give(&mut self, piece: RecordPiece) -> Result<(), ApplyError> {
        if self
            .applied
            .is_some_and(|applied| piece.start < applied.lsn)
        {
            // Applied between the choice of where to read from and the change to it.
            return Ok(());
        }
        let (timeline, lsn) = (piece.timeline, piece.start);
        let applied = piece.applied();
        self.unfinished = (piece.end == PieceEnd::Continues).then(|| RecordPiece {
            offset: piece.offset.saturating_add(length(&piece.bytes)),
            bytes: Bytes::new(),
            ..piece
        });
        self.apply
            .apply(piece)
            .map_err(|source| ApplyError::Refused {
                timeline,
                lsn,
                source,
            })?;
        if let Some(applied) = applied {
            self.applied = Some(applied);
            self.progress.send_replace(applied.lsn);
        }
        Ok(())
    }

    /// Goes on with another timeline.
    fn change(&mut self, reading: Reading) -> Result<(), ApplyError> {
        if let Some(piece) = self.unfinished.take() {
            self.give(RecordPiece {
                end: PieceEnd::Abandoned,
                ..piece
            })?;
        }
        match self.applied {
            Some(applied) => descends(applied, &reading.history)?,
            None => {
                // What came before is not wanted, and counts as applied: commits wait for it.
                self.applied = Some(WalPosition {
                    timeline: reading.history.timeline_of(reading.from),
                    lsn: reading.from,
                });
                self.progress.send_replace(reading.from);
            }
        }
        self.exhausted = Lsn::INVALID;
        self.reading = Some(reading);
        Ok(())
    }
}

/// No piece is longer than a record, whose length has 32 bits.
fn length(bytes: &Bytes) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Makes sure that all that was applied happened on this timeline, too.
fn descends(applied: WalPosition, history: &TimelineHistory) -> Result<(), ApplyError> {
    let WalPosition { timeline, lsn } = applied;
    let followed = history.timeline();
    if timeline == followed {
        return Ok(());
    }
    match history.switch_point_of(timeline) {
        Some(switch_point) if switch_point < lsn => Err(ApplyError::Forked {
            timeline,
            applied: lsn,
            followed,
            switch_point,
        }),
        Some(_) => Ok(()),
        None => Err(ApplyError::ForeignTimeline {
            timeline,
            applied: lsn,
            followed,
        }),
    }
}
