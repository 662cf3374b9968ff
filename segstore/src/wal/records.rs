//! Records out of a stream of WAL, for those who apply them.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use walproto::{Lsn, TimelineHistory, TimelineId, WalPosition};

use crate::wal::corruption::Corruption;
use crate::wal::record::RecordHeader;
use crate::wal::validator::{Progress, RecordVisitor, Validator};

#[cfg(test)]
mod tests;

/// A record, or a piece of one that is too long to be held whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordPiece {
    /// The timeline that the record starts on.
    pub timeline: TimelineId,
    /// Where the record starts.
    pub start: Lsn,
    /// The record's header.
    pub header: RecordHeader,
    /// The bytes of the record between its header and this piece: 0 in the first piece.
    pub offset: u32,
    /// The piece's bytes, without page headers. They may keep a larger buffer alive: copy what is
    /// to be kept for long.
    pub bytes: Bytes,
    /// What comes after the piece.
    pub end: PieceEnd,
}

impl RecordPiece {
    /// Up to where records are applied once this piece is, `None` if it does not complete one: the
    /// end of the record, on the timeline that it started on.
    ///
    /// An applier that stores this with what it makes of the record resumes there after a restart,
    /// and takes no record twice and misses none.
    #[must_use]
    pub const fn applied(&self) -> Option<WalPosition> {
        match self.end {
            PieceEnd::Complete(lsn) => Some(WalPosition {
                timeline: self.timeline,
                lsn,
            }),
            PieceEnd::Continues | PieceEnd::Abandoned => None,
        }
    }
}

/// What comes after a piece of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PieceEnd {
    /// Another piece of the same record, whose CRC is not checked yet.
    Continues,
    /// Another record: this piece was the last, the record's CRC is right, and it ends here, as
    /// in [`Progress::record_end`].
    Complete(Lsn),
    /// The rest of the record was lost in a crash of the primary: it never happened, and what
    /// was made of its pieces must be undone. Comes without bytes, and never for a record of
    /// which there was no piece.
    Abandoned,
}

/// Takes WAL as it is stored and yields its records, each checked once more.
///
/// Records of up to a given length are yielded whole. Longer ones come in pieces as they lie on
/// the pages, so that memory stays bounded by that length and by what is fed at a time. The last
/// piece is yielded only after the record's CRC has been checked.
#[derive(Debug)]
pub struct RecordReader {
    validator: Validator,
    assembly: Assembly,
}

impl RecordReader {
    /// Reads on where `validator` is, which has to be before the record wanted first, and yields
    /// the records that start at `from` or later; whole if what follows their header is not
    /// longer than `whole_length` bytes.
    #[must_use]
    pub fn new(validator: Validator, from: Lsn, whole_length: usize) -> Self {
        let assembly = Assembly {
            history: Arc::clone(validator.history()),
            from,
            whole_length,
            source: Bytes::new(),
            current: Current::None,
            ready: VecDeque::new(),
        };
        Self {
            validator,
            assembly,
        }
    }

    /// Continues along another history, which must be the same up to here.
    pub(crate) fn onto(&mut self, history: &Arc<TimelineHistory>) {
        if self.validator.history().timeline() != history.timeline() {
            self.validator = self.validator.clone().onto(Arc::clone(history));
            self.assembly.history = Arc::clone(history);
        }
    }

    /// The position of the next byte to feed.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        self.validator.position()
    }

    /// How far what was fed is good.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.validator.progress()
    }

    /// Takes the bytes that follow [`position`](Self::position). The records that end in them
    /// are then ready, and should be taken before more is fed.
    ///
    /// # Errors
    /// When they are not valid WAL, at once and on every later call. Records before the bad
    /// place are ready all the same.
    pub fn feed(&mut self, bytes: Bytes) -> Result<(), Corruption> {
        self.assembly.source = bytes.clone();
        let pushed = self.validator.push_with(&bytes, &mut self.assembly);
        self.assembly.source = Bytes::new();
        pushed.map(|_| ())
    }

    /// Takes the next record or piece of what was fed, `None` when more has to be fed first.
    pub fn next_piece(&mut self) -> Option<RecordPiece> {
        self.assembly.ready.pop_front()
    }
}

/// Puts records together again as the validator takes them apart.
#[derive(Debug)]
struct Assembly {
    history: Arc<TimelineHistory>,
    from: Lsn,
    whole_length: usize,
    /// What is being fed, of which most records are slices.
    source: Bytes,
    current: Current,
    ready: VecDeque<RecordPiece>,
}

/// The record that is not complete yet.
#[derive(Debug)]
enum Current {
    /// There is none, or it is not wanted.
    None,
    /// To be yielded whole: what there is of it.
    Whole {
        start: Lsn,
        header: RecordHeader,
        body: Body,
    },
    /// To be yielded in pieces. The next one is kept back until it is known not to be the last.
    Pieces {
        start: Lsn,
        header: RecordHeader,
        offset: u32,
        kept: Bytes,
    },
}

#[derive(Debug)]
enum Body {
    /// All in what is being fed.
    Slice(Bytes),
    /// Put together from several pages or feeds.
    Joined(Vec<u8>),
}

impl Body {
    fn append(&mut self, source: &Bytes, bytes: &[u8]) {
        match self {
            Self::Slice(slice) if slice.is_empty() => *slice = source.slice_ref(bytes),
            Self::Slice(slice) => {
                let mut joined = Vec::with_capacity(slice.len() + bytes.len());
                joined.extend_from_slice(slice);
                joined.extend_from_slice(bytes);
                *self = Self::Joined(joined);
            }
            Self::Joined(joined) => joined.extend_from_slice(bytes),
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Slice(slice) => slice,
            Self::Joined(joined) => joined.into(),
        }
    }
}

impl RecordVisitor for Assembly {
    fn begin(&mut self, start: Lsn, header: &RecordHeader) {
        let header = *header;
        self.current = if start < self.from {
            Current::None
        } else if usize::try_from(header.body_length()).is_ok_and(|n| n <= self.whole_length) {
            let body = Body::Slice(Bytes::new());
            Current::Whole {
                start,
                header,
                body,
            }
        } else {
            Current::Pieces {
                start,
                header,
                offset: 0,
                kept: Bytes::new(),
            }
        };
    }

    fn body(&mut self, bytes: &[u8]) {
        match &mut self.current {
            Current::None => {}
            Current::Whole { body, .. } => body.append(&self.source, bytes),
            Current::Pieces {
                start,
                header,
                offset,
                kept,
            } => {
                let piece = mem::replace(kept, self.source.slice_ref(bytes));
                if piece.is_empty() {
                    return;
                }
                let at = *offset;
                // No piece is longer than the record, whose length has 32 bits.
                *offset = at.saturating_add(u32::try_from(piece.len()).unwrap_or(u32::MAX));
                self.ready.push_back(RecordPiece {
                    timeline: self.history.timeline_of(*start),
                    start: *start,
                    header: *header,
                    offset: at,
                    bytes: piece,
                    end: PieceEnd::Continues,
                });
            }
        }
    }

    fn end(&mut self, end: Lsn) {
        let (start, header, offset, bytes) = match mem::replace(&mut self.current, Current::None) {
            Current::None => return,
            Current::Whole {
                start,
                header,
                body,
            } => (start, header, 0, body.into_bytes()),
            Current::Pieces {
                start,
                header,
                offset,
                kept,
            } => (start, header, offset, kept),
        };
        self.ready.push_back(RecordPiece {
            timeline: self.history.timeline_of(start),
            start,
            header,
            offset,
            bytes,
            end: PieceEnd::Complete(end),
        });
    }

    fn abandon(&mut self) {
        let current = mem::replace(&mut self.current, Current::None);
        if let Current::Pieces {
            start,
            header,
            offset,
            ..
        } = current
            && offset > 0
        {
            self.ready.push_back(RecordPiece {
                timeline: self.history.timeline_of(start),
                start,
                header,
                offset,
                bytes: Bytes::new(),
                end: PieceEnd::Abandoned,
            });
        }
    }
}
