//! What is sent to one who asks for WAL from a position on.
//!
//! A feed walks along one timeline as PostgreSQL's walsender does. It looks for each byte on the
//! way of the archive's newest timeline: where that left an older one, the segment is read from
//! the newest timeline's file that there is, which begins with a copy.
//!
//! ```text
//!   timeline 1   ──────────────────┐ switch point
//!   timeline 2                     └──────────────────▶ durable end
//!
//!   asked for 1:  Chunk ... Chunk, EndOfTimeline { switch_point, next_timeline: 2 }
//!   asked for 2:  Chunk ............................ Chunk, CaughtUp, later more
//! ```
//!
//! What this process has just written is taken from memory, all else from files, and it makes no
//! difference to who asks.
//!
//! **What is read from a file is checked before it leaves**, each file once in a process: a flipped bit
//! is an error that names the place.
//!
//! **What leaves is durable and stays as it is.** A file is read up to the position that was known
//! to be durable when it was opened, and opened by its name again for what lies behind. So it
//! makes no difference when a segment gets its final name, is compressed, or has the tail behind
//! that position replaced by another file, in this process or in another.

use std::sync::Arc;

use bytes::BytesMut;
use walproto::result::TimelineEnd;
use walproto::{Lsn, TimelineHistory, TimelineId};

use crate::archive::live::Reader;
use crate::serve::open_file::OpenFile;
use crate::serve::view::ArchiveView;
use crate::wal::page::BLOCK_SIZE;

mod checked;
mod chunk;
mod error;
mod files;
#[cfg(test)]
pub(super) mod tests;

pub use chunk::{Chunk, ChunkData, ChunkFile};
pub use error::FeedError;

/// What a feed gives next.
#[derive(Debug)]
pub enum FeedStep {
    /// WAL that goes on where the last chunk ended.
    Chunk(Chunk),
    /// All that is durable was given. There is more once the view's position has advanced.
    CaughtUp,
    /// The timeline ends here. More than it may have been given, if its end was not known yet.
    EndOfTimeline {
        /// The first position that is no longer the timeline's.
        switch_point: Lsn,
        /// The timeline that goes on there.
        next_timeline: TimelineId,
    },
}

/// The durable WAL of a timeline, from a position on, in chunks.
#[derive(Debug)]
pub struct Feed {
    view: ArchiveView,
    timeline: TimelineId,
    /// The way to the archive's newest timeline.
    path: Arc<TimelineHistory>,
    end: Option<TimelineEnd>,
    position: Lsn,
    /// Whether the start was found to be no later than what is durable.
    begun: bool,
    open: Option<OpenFile>,
    /// Has the newest WAL kept in memory, while there is not much before it to be given.
    reader: Option<Reader>,
}

impl ArchiveView {
    /// The WAL of `timeline`, or of the newest one, from `start` on.
    ///
    /// A start that lies on an ancestor is allowed: a new timeline is asked for from the
    /// beginning of its first segment on. One after the durable end is an error of the first
    /// [`Feed::next_step`], where PostgreSQL tells it too.
    ///
    /// # Errors
    /// When the newest timeline does not descend from `timeline`, or left it before `start`; when
    /// nothing is durable; or when a history cannot be read.
    ///
    /// Source: src/backend/replication/walsender.c, `StartReplication` (PG 15).
    pub fn feed(&self, timeline: Option<TimelineId>, start: Lsn) -> Result<Feed, FeedError> {
        let durable = self.durable().ok_or(FeedError::NothingDurable)?;
        let timeline = timeline.unwrap_or(durable.timeline);
        let path = self.history_of(durable.timeline)?;
        let end = end_on(&path, timeline)?;
        if let Some(end) = end.filter(|end| end.switch_point < start) {
            return Err(FeedError::NotInHistory {
                timeline,
                start,
                switch_point: end.switch_point,
            });
        }
        let mut feed = Feed {
            view: self.clone(),
            timeline,
            path,
            end,
            position: start,
            begun: false,
            open: None,
            reader: None,
        };
        feed.keep_memory(durable.record_end);
        Ok(feed)
    }
}

impl Feed {
    /// The timeline.
    #[must_use]
    pub const fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The history of the archive's newest timeline, along which WAL is read.
    pub(crate) const fn path(&self) -> &Arc<TimelineHistory> {
        &self.path
    }

    /// The end of what was given.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        self.position
    }

    /// Where the timeline ends, as far as it is known yet; `None` for the newest one. There is
    /// nothing to give if that is no later than [`position`](Self::position).
    #[must_use]
    pub const fn end(&self) -> Option<TimelineEnd> {
        self.end
    }

    /// Gives what comes next. It may open, read and decompress files.
    ///
    /// # Errors
    /// - [`FeedError::StartAhead`], only before the first chunk.
    /// - [`FeedError::Removed`] and [`FeedError::Hole`]: there is no file for the position.
    /// - Those of the archive: a file is damaged or cannot be read, or a history cannot. What is good
    ///   before the damage is given first.
    /// - [`FeedError::UnknownTimeline`]: the archive went on with a timeline that does not descend
    ///   from the feed's.
    pub fn next_step(&mut self) -> Result<FeedStep, FeedError> {
        let durable = self.view.durable().ok_or(FeedError::NothingDurable)?;
        self.learn(durable.timeline)?;
        let limit = self.limit(durable.record_end);
        if let Some(step) = self.step_without_wal(limit) {
            return step;
        }
        self.keep_memory(durable.record_end);
        let end = self.chunk_end(limit);
        if let Some(chunk) = self.chunk_from_memory(end) {
            return Ok(FeedStep::Chunk(chunk));
        }
        if !self.is_open_for(end) {
            self.open_here(end, limit)?;
        }
        let end = self.check_up_to(end)?;
        self.chunk_from_file(end)
    }

    /// Gives what comes next if no file needs to be opened, checked or decompressed for it, `None`
    /// if one does: then [`next_step`](Self::next_step) is to be called where waiting for a disk does no
    /// harm.
    ///
    /// Bytes that are still in a file do not count: the caller reads or sends them from it.
    ///
    /// # Errors
    /// [`FeedError::StartAhead`], as for [`next_step`](Self::next_step).
    pub fn ready_step(&mut self) -> Result<Option<FeedStep>, FeedError> {
        let durable = self.view.durable().ok_or(FeedError::NothingDurable)?;
        if durable.timeline != self.path.timeline() {
            return Ok(None);
        }
        let limit = self.limit(durable.record_end);
        if let Some(step) = self.step_without_wal(limit) {
            return step.map(Some);
        }
        self.keep_memory(durable.record_end);
        let end = self.chunk_end(limit);
        if let Some(chunk) = self.chunk_from_memory(end) {
            return Ok(Some(FeedStep::Chunk(chunk)));
        }
        match &self.open {
            Some(open)
                if open.reader.is_plain()
                    && self.is_open_for(end)
                    && open.check.good_end() >= end.min(open.span.end) =>
            {
                self.chunk_from_file(end).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Has the newest WAL kept in memory if what is kept may soon be all that is still to be given.
    fn keep_memory(&mut self, durable_end: Lsn) {
        let live = self.view.live();
        let behind = durable_end.bytes_since(self.position);
        if behind > live.tail_capacity() as u64 {
            self.reader = None;
        } else if self.reader.is_none() {
            self.reader = Some(live.reader());
        }
    }

    /// Takes note of the archive's newest timeline.
    fn learn(&mut self, newest: TimelineId) -> Result<(), FeedError> {
        if self.path.timeline() != newest {
            let path = self.view.history_of(newest)?;
            self.end = end_on(&path, self.timeline)?;
            self.path = path;
            self.open = None;
        }
        Ok(())
    }

    /// Up to where WAL may be given.
    fn limit(&self, record_end: Lsn) -> Lsn {
        self.end
            .map_or(record_end, |end| end.switch_point.min(record_end))
    }

    /// What comes next when that is no WAL.
    fn step_without_wal(&mut self, limit: Lsn) -> Option<Result<FeedStep, FeedError>> {
        if let Some(end) = self.end.filter(|end| end.switch_point <= self.position) {
            self.open = None;
            return Some(Ok(FeedStep::EndOfTimeline {
                switch_point: end.switch_point,
                next_timeline: end.next_timeline,
            }));
        }
        if self.position > limit && !self.begun {
            return Some(Err(FeedError::StartAhead {
                timeline: self.timeline,
                start: self.position,
                durable_end: limit,
            }));
        }
        self.begun = true;
        if self.position >= limit {
            // It would only be kept from being closed: more needs to be opened anew.
            self.open = None;
            return Some(Ok(FeedStep::CaughtUp));
        }
        None
    }

    /// The end of a chunk from here: the limit, which is a record's end, or the last page boundary
    /// that it can reach.
    fn chunk_end(&self, limit: Lsn) -> Lsn {
        let longest = Lsn(self.position.0.saturating_add(Chunk::MAX_LENGTH as u64));
        if limit <= longest {
            limit
        } else {
            longest.align_down(BLOCK_SIZE)
        }
    }

    /// A chunk up to `end`, if this process has just written it.
    fn chunk_from_memory(&mut self, end: Lsn) -> Option<Chunk> {
        let start = self.position;
        let live = self.view.live();
        let pieces = live.tail(self.path.timeline(), start..end)?;
        self.open = None;
        self.position = end;
        Some(Chunk {
            start,
            end,
            data: ChunkData::Memory(pieces),
        })
    }

    /// A chunk up to `end`, or to the end of the file that is open.
    fn chunk_from_file(&mut self, end: Lsn) -> Result<FeedStep, FeedError> {
        let start = self.position;
        let Some(open) = &mut self.open else {
            return Err(self.missing(start));
        };
        let end = end.min(open.span.end);
        let length = usize::try_from(end.bytes_since(start)).unwrap_or(usize::MAX);
        let offset = start.bytes_since(open.span.start);
        let data = if open.reader.is_plain() {
            ChunkData::File {
                file: ChunkFile::new(Arc::clone(open.reader.opened())),
                offset,
                length,
            }
        } else {
            let mut bytes = BytesMut::zeroed(length);
            open.reader.read_exact_at(&mut bytes, offset)?;
            ChunkData::Memory(vec![bytes.freeze()])
        };
        self.position = end;
        Ok(FeedStep::Chunk(Chunk { start, end, data }))
    }
}

/// Where the way of `path` leaves `timeline`, `None` when it ends there.
fn end_on(path: &TimelineHistory, timeline: TimelineId) -> Result<Option<TimelineEnd>, FeedError> {
    if path.timeline() == timeline {
        return Ok(None);
    }
    let left = path
        .switch_point_of(timeline)
        .zip(path.successor_of(timeline));
    match left {
        Some((switch_point, next_timeline)) => Ok(Some(TimelineEnd {
            switch_point,
            next_timeline,
        })),
        None => Err(FeedError::UnknownTimeline {
            timeline,
            newest: path.timeline(),
        }),
    }
}
