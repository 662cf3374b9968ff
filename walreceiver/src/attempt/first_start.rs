//! Where an archive begins that has no WAL.
//!
//! The first flush position that is reported releases every commit that waits for a standby, those
//! included whose WAL the server wrote long before we connected. So the archive begins with the
//! oldest WAL of its timeline that the server still has; no session survives a promotion, so that
//! no commit waits for WAL of an older timeline.
//!
//! No replication command tells which segments there are. START_REPLICATION does for each: a server
//! refuses to stream from one that it has removed (58P01), and can be asked again afterwards.
//!
//! A checkpoint may remove that WAL before it is received. Until the first acknowledgement a slot
//! reserves it: the user's, or a temporary one of ours. A new slot reserves WAL from the last
//! checkpoint on, but the flush position that is reported for a slot replaces its restart position,
//! an older one too (src/backend/replication/walsender.c, `PhysicalConfirmReceivedLocation`, PG 13 to
//! 18). So the start of the archive is reported once, at the start of a stream from there. That
//! releases only commits whose WAL the archive cannot contain. The reports of 0/0 that follow do not
//! move the slot. A later position is never reported for this: on a new connection nothing has been
//! compared yet. With a downstream policy nothing is reported at all: the policy alone releases
//! commits.
//!
//! A server drops the temporary slots of a session on each error in it (src/backend/tcop/postgres.c,
//! `PostgresMain`), so that the slot is created after the search, and again after each refusal.

use pgconn::connection::{Connection, ConnectionError};
use walproto::client::{Event, FlushPosition, Positions};
use walproto::command::{Command, Identifier};
use walproto::error::SqlState;
use walproto::{Lsn, SegmentSize, SlotName, TimelineId};

use super::Attempt;
use crate::config::Acknowledge;
use crate::downstream::Behind;
use crate::error::ReceiveError;
use crate::event::Warning;
use crate::negotiate::{Server, Slot};
use crate::slot::{SlotError, create_temporary_slot, drop_slot};
use crate::standing::StandingWarning;

/// How often the oldest WAL is looked for again, because the server has removed it meanwhile.
const MAX_SEARCHES: u32 = 3;

/// Whether a slot keeps the WAL from a position on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reserved {
    Yes,
    /// No slot may or can.
    No,
    /// The server no longer has that WAL.
    Removed,
}

/// A first start that has not caught up with what the server had flushed when it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CatchingUp {
    /// The start of the archive.
    begin: Lsn,
    /// Up to where WAL has to be durable before any is acknowledged.
    pub(crate) acknowledge_from: Lsn,
}

/// The start of the archive, reported to move a slot there. Nothing here is durable up to it; it
/// releases only commits whose WAL the archive cannot contain.
#[derive(Clone, Copy)]
struct BeforeArchive(Lsn);

impl FlushPosition for BeforeArchive {
    fn lsn(self) -> Lsn {
        self.0
    }

    fn at_most(self, limit: Lsn) -> Self {
        Self(self.0.min(limit))
    }
}

/// A slot of the user's as it was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct FoundSlot {
    pub(super) slot: Slot,
    /// Whether `max_slot_wal_keep_size` limits what it keeps: a slot that is moved back beyond that
    /// is lost.
    pub(super) is_limited: bool,
}

impl Attempt<'_> {
    /// Where an archive begins that has no WAL: at the oldest WAL that the server has, or at the
    /// slot, if that is older or cannot be moved back.
    pub(super) async fn first_start(
        &mut self,
        connection: &mut Connection,
        server: &Server,
        found: FoundSlot,
    ) -> Result<Lsn, ReceiveError> {
        let size = server.facts.segment_size;
        let of_slot = match found.slot {
            Slot::Reserves(lsn) => Some(lsn),
            Slot::Unknown | Slot::Missing | Slot::ReservesNothing => None,
        };
        let mut searches = 0;
        let begin = loop {
            searches += 1;
            let oldest = oldest_wal(connection, server).await?;
            if let Some(lsn) = of_slot.filter(|lsn| size.start_of(*lsn) <= oldest) {
                break lsn;
            }
            let reserved = self
                .reserve(connection, server, oldest, Some(found))
                .await?;
            match reserved {
                Reserved::Removed if searches < MAX_SEARCHES => {}
                Reserved::Yes | Reserved::Removed => break oldest,
                Reserved::No => break of_slot.unwrap_or(oldest),
            }
        };
        *self.catching_up = Some(CatchingUp {
            begin,
            acknowledge_from: server.upstream.flush,
        });
        Ok(begin)
    }

    /// Reserves WAL from the start of the archive on again, on a new connection. The user's slot has
    /// kept it.
    pub(super) async fn reserve_again(
        &mut self,
        connection: &mut Connection,
        server: &Server,
    ) -> Result<(), ReceiveError> {
        if self.config.slot.is_none()
            && let Some(CatchingUp { begin, .. }) = *self.catching_up
        {
            // If the server no longer has it, what is left to receive is not reserved.
            self.reserve(connection, server, begin, None).await?;
        }
        Ok(())
    }

    async fn reserve(
        &mut self,
        connection: &mut Connection,
        server: &Server,
        start: Lsn,
        found: Option<FoundSlot>,
    ) -> Result<Reserved, ReceiveError> {
        // Without acknowledgements a slot would keep WAL for ever.
        if self.config.acknowledge == Acknowledge::Never || !self.config.sync {
            return Ok(Reserved::No);
        }
        // The report that moves a slot would pass over the policy.
        let has_policy = |behind: &Behind| behind.downstream.confirmed.is_some();
        if self.behind.is_some_and(has_policy) {
            return Ok(Reserved::No);
        }
        let timeline = server.timeline();
        let size = server.facts.segment_size;
        let flush = server.upstream.flush;
        let reserved = match (&self.config.slot, found) {
            (Some(_), Some(found)) if found.is_limited && found.slot != Slot::ReservesNothing => {
                return Ok(Reserved::No);
            }
            // Nothing can be sent from there yet.
            (Some(_), _) if start >= flush => return Ok(Reserved::No),
            (Some(name), _) => move_slot(connection, timeline, start, name).await,
            (None, _) => {
                let name = temporary_name();
                let created = match create_temporary_slot(connection, &name).await {
                    // It reserves WAL from the last checkpoint on, which is not newer.
                    Ok(()) if size.start_of(start) >= size.start_of(flush) => Ok(true),
                    Ok(()) => move_slot(connection, timeline, start, &name).await,
                    Err(error) => Err(error),
                };
                self.reservation = created.as_ref().is_ok_and(|found| *found).then_some(name);
                created
            }
        };
        match reserved {
            Ok(true) => {
                let about = StandingWarning::FirstStartReserve;
                self.warnings.tell(self.reporter, about, None);
                Ok(Reserved::Yes)
            }
            Ok(false) => Ok(Reserved::Removed),
            Err(error @ ConnectionError::Failed { .. }) => {
                let about = StandingWarning::FirstStartReserve;
                let warning = Warning::WalNotReserved { error: &error };
                self.warnings.tell(self.reporter, about, Some(warning));
                Ok(Reserved::No)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Drops the temporary slot, which would keep WAL as long as the connection lasts.
    pub(super) async fn end_reservation(
        &mut self,
        connection: &mut Connection,
    ) -> Result<(), ReceiveError> {
        let Some(name) = self.reservation.take() else {
            return Ok(());
        };
        match drop_slot(connection, &name).await {
            // An error has dropped it.
            Ok(()) | Err(SlotError::Refused { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A name that no other receiver uses.
fn temporary_name() -> SlotName {
    let name = format!("wal_receiver_{:016x}", fastrand::u64(..));
    SlotName::new(name).unwrap_or_else(|_| unreachable!("it has letters and digits only"))
}

/// Moves the restart position of a slot to `start`; `false` if the server has removed that WAL.
async fn move_slot(
    connection: &mut Connection,
    timeline: TimelineId,
    start: Lsn,
    slot: &SlotName,
) -> Result<bool, ConnectionError> {
    has_wal_at(connection, timeline, start, Some(slot)).await
}

/// The first byte of the oldest segment of a server's timeline that the server still has.
///
/// # Errors
/// When it does not answer, or refuses for another reason than that it has removed a segment.
async fn oldest_wal(connection: &mut Connection, server: &Server) -> Result<Lsn, ReceiveError> {
    let size = server.facts.segment_size;
    let (timeline, flush) = (server.timeline(), server.upstream.flush);
    // A cluster's WAL begins with its second segment (src/backend/access/transam/xlog.c,
    // `BootStrapXLOG`, PG 15).
    let begin = server.upstream.history.begin();
    let first = number(size, begin.unwrap_or(Lsn(size.bytes())));
    let mut search = Search::new(first, number(size, flush));
    while let Some(segment) = search.next() {
        let start = Lsn(segment.saturating_mul(size.bytes()));
        let is_there = has_wal_at(connection, timeline, start, None).await?;
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

/// Whether a server sends WAL from a position on. The stream is ended again at once, after `start`
/// was reported for the slot, if there is one.
async fn has_wal_at(
    connection: &mut Connection,
    timeline: TimelineId,
    start: Lsn,
    slot: Option<&SlotName>,
) -> Result<bool, ConnectionError> {
    let command = Command::StartReplication {
        slot: slot.map(Identifier::from),
        start,
        timeline: Some(timeline),
    };
    connection.send(&command)?;
    let mut found = None;
    loop {
        match connection.event().await? {
            Event::WalData { .. } if found.is_none() => {
                found = Some(Ok(true));
                if slot.is_some() {
                    connection.report(Positions {
                        write: start,
                        flush: Some(BeforeArchive(start)),
                        apply: None,
                        byte_end: start,
                    });
                }
                connection.finish_copy();
            }
            Event::Failed(message) if message.sqlstate == SqlState::UNDEFINED_FILE => {
                found = Some(Ok(false));
            }
            // Another command can be sent once the server is ready for it.
            Event::Failed(message) => {
                found = Some(Err(ConnectionError::Failed {
                    command: "START_REPLICATION".to_owned(),
                    message,
                }));
            }
            Event::ServerCopyDone if found.is_none() => {
                connection.finish_copy();
            }
            Event::Ready => return found.unwrap_or(Ok(false)),
            Event::ServerStopping | Event::Closed => return Err(ConnectionError::Closed),
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
