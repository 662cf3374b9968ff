//! Where an archive begins that has no WAL.
//!
//! The first flush position that is reported releases every commit that waits for a standby, those
//! included whose WAL the server wrote long before we connected. So the archive begins with the
//! oldest WAL of its timeline that the server still has; no session survives a promotion, so that
//! no commit waits for WAL of an older timeline.
//!
//! No replication command tells which segments there are. START_REPLICATION does for each: a server
//! refuses to stream from one that it has removed (58P01), and can be asked again afterwards.

use walproto::client::Event;
use walproto::command::Command;
use walproto::error::SqlState;
use walproto::{Lsn, SegmentSize, TimelineId};

use crate::error::ReceiveError;
use crate::negotiate::Server;
use pgconn::connection::{Connection, ConnectionError};

/// The first byte of the oldest segment of a server's timeline that the server still has.
///
/// # Errors
/// When it does not answer, or refuses for another reason than that it has removed a segment.
pub(super) async fn oldest_wal(
    connection: &mut Connection,
    server: &Server,
) -> Result<Lsn, ReceiveError> {
    let size = server.facts.segment_size;
    let (timeline, flush) = (server.timeline(), server.upstream.flush);
    // A cluster's WAL begins with its second segment (src/backend/access/transam/xlog.c,
    // `BootStrapXLOG`, PG 15).
    let begin = server.upstream.history.begin();
    let first = number(size, begin.unwrap_or(Lsn(size.bytes())));
    let mut search = Search::new(first, number(size, flush));
    while let Some(segment) = search.next() {
        let start = Lsn(segment.saturating_mul(size.bytes()));
        let is_there = has_wal_at(connection, timeline, start).await?;
        search.note(segment, is_there);
    }
    Ok(Lsn(search.oldest.saturating_mul(size.bytes())))
}

fn number(size: SegmentSize, lsn: Lsn) -> u64 {
    lsn.0.div_euclid(size.bytes())
}

/// A search for the oldest of the segments that are there, downwards in steps that double, and
/// then by halves. A server logs an error for each one that is missing, so that few of those are
/// asked for.
#[derive(Debug)]
struct Search {
    /// The first one that may be there.
    lowest: u64,
    /// The oldest one known to be there.
    oldest: u64,
    /// How far below it is looked next, until one is missing.
    step: Option<u64>,
}

impl Search {
    /// Among the segments from `first` to `newest`, which is there.
    fn new(first: u64, newest: u64) -> Self {
        Self {
            lowest: first.min(newest),
            oldest: newest,
            step: Some(1),
        }
    }

    /// The segment to ask for.
    fn next(&self) -> Option<u64> {
        let left = self.oldest - self.lowest;
        match self.step {
            _ if left == 0 => None,
            Some(step) => Some(self.oldest - step.min(left)),
            None => Some(self.lowest + left / 2),
        }
    }

    fn note(&mut self, segment: u64, is_there: bool) {
        if is_there {
            self.oldest = segment;
            self.step = self.step.map(|step| step.saturating_mul(2));
        } else {
            self.lowest = segment + 1;
            self.step = None;
        }
    }
}

/// Whether a server sends WAL from a position on. The stream is ended again at once.
async fn has_wal_at(
    connection: &mut Connection,
    timeline: TimelineId,
    start: Lsn,
) -> Result<bool, ReceiveError> {
    let command = Command::StartReplication {
        slot: None,
        start,
        timeline: Some(timeline),
    };
    connection.send(&command)?;
    let mut found = None;
    loop {
        match connection.event().await? {
            Event::WalData { .. } if found.is_none() => {
                found = Some(true);
                connection.finish_copy();
            }
            Event::Failed(message) if message.sqlstate == SqlState::UNDEFINED_FILE => {
                found = Some(false);
            }
            Event::Failed(message) => {
                return Err(ConnectionError::Failed {
                    command: "START_REPLICATION".to_owned(),
                    message,
                }
                .into());
            }
            Event::ServerCopyDone if found.is_none() => {
                connection.finish_copy();
            }
            Event::Ready => return Ok(found.unwrap_or(false)),
            Event::ServerStopping | Event::Closed => return Err(ConnectionError::Closed.into()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_segment_is_found_with_few_questions() {
        for (first, oldest, newest) in [
            (1, 1, 1),
            (1, 1, 5),
            (1, 5, 5),
            (1, 4, 5),
            (1, 700, 1000),
            (7, 7, 1 << 40),
            (1, (1 << 40) - 64, 1 << 40),
        ] {
            let mut search = Search::new(first, newest);
            let (mut asked, mut missing) = (0, 0);
            while let Some(segment) = search.next() {
                assert!((first..newest).contains(&segment));
                search.note(segment, segment >= oldest);
                asked += 1;
                missing += u32::from(segment < oldest);
            }
            assert_eq!(search.oldest, oldest);
            let doublings = (newest - oldest).max(1).ilog2() + 2;
            assert!(asked <= 2 * doublings && missing <= doublings, "{asked}");
        }
    }
}
