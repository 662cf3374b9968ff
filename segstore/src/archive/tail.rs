//! The newest WAL, kept in memory for those who have all before it.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use walproto::{Lsn, TimelineId};

#[cfg(test)]
mod tests;

/// The longest piece. It bounds what a client that is slow keeps alive of a piece that was given up,
/// and how much is given up at once.
const MAX_PIECE: usize = 128 << 10;

/// Pieces that are shorter are joined as soon as there are as many bytes of them.
const LARGE: usize = 64 << 10;

/// What a piece takes beside its bytes: its place in the queue, and what the allocator and the
/// reference count need.
const PIECE_OVERHEAD: usize = 128;

/// The last bytes of the way to one timeline, as many as there is room for.
///
/// It is a cache: what it does not have is in a file. Bytes are copied into it: a piece of a buffer
/// would keep the whole buffer alive, and a server chooses how much of a buffer is WAL.
#[derive(Debug)]
pub(crate) struct Tail {
    capacity: usize,
    timeline: TimelineId,
    /// They follow one another, and none is empty.
    pieces: VecDeque<Piece>,
    /// The position after the last piece.
    end: Lsn,
    /// How many bytes the pieces have.
    length: usize,
    /// How much memory they take.
    memory: usize,
    /// How many bytes the small ones at the end have, which are yet to be joined.
    small: usize,
}

#[derive(Debug)]
struct Piece {
    start: Lsn,
    bytes: Bytes,
}

impl Tail {
    pub(crate) const fn new(capacity: usize) -> Self {
        Self {
            capacity,
            timeline: TimelineId::FIRST,
            pieces: VecDeque::new(),
            end: Lsn::INVALID,
            length: 0,
            memory: 0,
            small: 0,
        }
    }

    pub(crate) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.make_room();
    }

    /// Gives up all memory.
    pub(crate) fn clear(&mut self) {
        self.pieces = VecDeque::new();
        (self.length, self.memory, self.small) = (0, 0, 0);
    }

    /// Takes the bytes from `start` up to `end`. They begin `data`, whose pieces follow one another,
    /// and replace what is here from `start` on.
    pub(crate) fn append(&mut self, timeline: TimelineId, start: Lsn, end: Lsn, data: &[Bytes]) {
        if self.capacity == 0 {
            return;
        }
        self.go_on_at(timeline, start);
        let mut left = to_usize(end.bytes_since(start));
        let mut copied = BytesMut::new();
        for piece in data {
            let mut rest = piece.get(..left).unwrap_or(piece);
            left -= rest.len();
            while !rest.is_empty() {
                if copied.is_empty() {
                    copied = BytesMut::with_capacity(MAX_PIECE.min(rest.len() + left));
                }
                let room = copied.capacity() - copied.len();
                let (now, later) = rest.split_at(rest.len().min(room));
                copied.extend_from_slice(now);
                rest = later;
                if copied.len() == copied.capacity() {
                    self.push(std::mem::take(&mut copied).freeze());
                    self.make_room();
                }
            }
        }
        self.push(copied.freeze());
        self.make_room();
    }

    /// Takes all that another one has, which is empty then.
    pub(crate) fn take(&mut self, newer: &mut Self) {
        if let Some(first) = newer.pieces.front() {
            self.go_on_at(newer.timeline, first.start);
        }
        for piece in newer.pieces.drain(..) {
            self.push(piece.bytes);
        }
        newer.clear();
        self.make_room();
    }

    /// The bytes of `range`, which is not empty, on the way to `timeline`, if all of them are here.
    pub(crate) fn read(&self, timeline: TimelineId, range: Range<Lsn>) -> Option<Vec<Bytes>> {
        let first = self.pieces.front()?;
        if self.timeline != timeline || range.start < first.start || self.end < range.end {
            return None;
        }
        let after = self
            .pieces
            .partition_point(|piece| piece.start <= range.start);
        let pieces = self.pieces.range(after.saturating_sub(1)..);
        let pieces = pieces.take_while(|piece| piece.start < range.end);
        let slices = pieces.map(|piece| {
            let from = to_usize(range.start.bytes_since(piece.start));
            let end = to_usize(range.end.bytes_since(piece.start));
            piece.bytes.slice(from..end.min(piece.bytes.len()))
        });
        Some(slices.collect())
    }

    /// Sees to it that the next byte is the one at `start`, on the way to `timeline`.
    fn go_on_at(&mut self, timeline: TimelineId, start: Lsn) {
        if self.timeline != timeline || self.end < start {
            self.clear();
        }
        while let Some(last) = self.pieces.back_mut()
            && start < self.end
        {
            let kept = to_usize(start.bytes_since(last.start));
            let lost = last.bytes.len().saturating_sub(kept);
            // A part would keep all of the piece alive.
            last.bytes = Bytes::copy_from_slice(last.bytes.get(..kept).unwrap_or_default());
            self.end = last.start;
            self.length -= lost;
            self.memory -= lost;
            // Less than there are to be joined may be left: then they are joined later.
            self.small = self.small.saturating_sub(lost);
            if kept > 0 {
                break;
            }
            self.pieces.pop_back();
            self.memory -= PIECE_OVERHEAD;
        }
        self.timeline = timeline;
        self.end = start;
    }

    fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let start = self.end;
        self.end = Lsn(start.0.saturating_add(bytes.len() as u64));
        self.length += bytes.len();
        self.memory += bytes.len() + PIECE_OVERHEAD;
        if bytes.len() >= LARGE {
            self.small = 0;
        } else {
            self.small += bytes.len();
        }
        self.pieces.push_back(Piece { start, bytes });
        if self.small >= LARGE {
            self.join();
        }
    }

    /// Makes one piece of the small ones at the end, as many as one may have.
    fn join(&mut self) {
        let (mut count, mut length) = (0, 0);
        for piece in self.pieces.iter().rev() {
            let more = length + piece.bytes.len();
            if piece.bytes.len() >= LARGE || more > MAX_PIECE {
                break;
            }
            (count, length) = (count + 1, more);
        }
        let first = self.pieces.len() - count;
        let mut joined = BytesMut::with_capacity(length);
        let start = self.pieces.get(first).map_or(self.end, |piece| piece.start);
        for piece in self.pieces.drain(first..) {
            joined.extend_from_slice(&piece.bytes);
        }
        self.pieces.push_back(Piece {
            start,
            bytes: joined.freeze(),
        });
        self.memory -= count.saturating_sub(1) * PIECE_OVERHEAD;
        self.small = 0;
    }

    /// Gives up the oldest pieces until the rest takes no more memory than it may.
    fn make_room(&mut self) {
        while self.memory > self.capacity
            && let Some(oldest) = self.pieces.pop_front()
        {
            self.length -= oldest.bytes.len();
            self.memory -= oldest.bytes.len() + PIECE_OVERHEAD;
        }
        self.small = self.small.min(self.length);
    }
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
