//! Records out of an archive that another thread or process may be filling.

use std::sync::Arc;

use bytes::BytesMut;
use walproto::Lsn;
use walproto::result::TimelineEnd;

use super::feed::{Chunk, ChunkData, Feed, FeedError, FeedStep};
use super::view::ArchiveView;
use crate::error::ArchiveError;
use crate::wal::corruption::Corruption;
use crate::wal::page::BLOCK_SIZE;
use crate::wal::records::{RecordPiece, RecordReader};
use crate::wal::validator::Validator;

#[cfg(test)]
mod tests;

/// Why records cannot be read from a view.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordFeedError {
    /// The WAL cannot be read.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// The WAL is damaged.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
}

/// The records of an archive's newest timeline and its ancestors, as far as they are durable.
///
/// It follows the archive onto each newer timeline that continues where the records end.
#[derive(Debug)]
pub struct RecordFeed {
    view: ArchiveView,
    feed: Feed,
    records: RecordReader,
    buffer: BytesMut,
    /// The damage that was found, to be reported after the records before it.
    damage: Option<Corruption>,
}

impl ArchiveView {
    /// Reads the durable records that begin at `from` or after it, as [`RecordReader`] does: whole up
    /// to `whole_length` bytes after the header.
    ///
    /// # Errors
    /// As for [`feed`](Self::feed).
    pub fn records(&self, from: Lsn, whole_length: usize) -> Result<RecordFeed, FeedError> {
        let start = from.align_down(BLOCK_SIZE);
        let feed = self.feed(None, start)?;
        let format = self.identity().wal_format();
        let validator =
            Validator::new(format, Arc::clone(feed.path()), start).map_err(ArchiveError::from)?;
        Ok(RecordFeed {
            view: self.clone(),
            feed,
            records: RecordReader::new(validator, from, whole_length),
            buffer: BytesMut::new(),
            damage: None,
        })
    }
}

impl RecordFeed {
    /// The end of what was read.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        self.feed.position()
    }

    /// The next record or piece of one; `None` when all that is durable was given. There is more
    /// once the view's position has advanced.
    ///
    /// # Errors
    /// Those of [`Feed::next_step`], and [`FeedError::NotInHistory`] if the archive continues with a
    /// timeline that begins before what was given. Damage comes after the records before it, and
    /// then always.
    pub fn next_piece(&mut self) -> Result<Option<RecordPiece>, RecordFeedError> {
        loop {
            if let Some(piece) = self.records.next_piece() {
                return Ok(Some(piece));
            }
            if let Some(damage) = &self.damage {
                return Err((*damage).into());
            }
            match self.feed.next_step()? {
                FeedStep::Chunk(chunk) => self.push(chunk)?,
                FeedStep::CaughtUp => return Ok(None),
                FeedStep::EndOfTimeline {
                    switch_point,
                    next_timeline,
                } => self.switch(TimelineEnd {
                    switch_point,
                    next_timeline,
                })?,
            }
        }
    }

    fn push(&mut self, chunk: Chunk) -> Result<(), FeedError> {
        // Another timeline may be the newest now. It is the same up to the end of the chunk.
        self.records.onto(self.feed.path());
        let pieces = match chunk.data {
            ChunkData::Memory(pieces) => pieces,
            ChunkData::File { .. } => {
                chunk.append_to(&mut self.buffer)?;
                vec![self.buffer.split().freeze()]
            }
        };
        for piece in pieces {
            if let Err(damage) = self.records.feed(piece) {
                self.damage = Some(damage);
                break;
            }
        }
        Ok(())
    }

    /// Continues on the timeline that follows.
    fn switch(&mut self, end: TimelineEnd) -> Result<(), FeedError> {
        let position = self.feed.position();
        if end.switch_point < position {
            return Err(FeedError::NotInHistory {
                timeline: self.feed.timeline(),
                start: position,
                switch_point: end.switch_point,
            });
        }
        self.feed = self.view.feed(Some(end.next_timeline), position)?;
        Ok(())
    }
}
