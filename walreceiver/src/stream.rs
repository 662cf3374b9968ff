//! One stream of WAL, from `START_REPLICATION` to its end: what comes in goes to the flusher,
//! what the flusher made durable goes back as a status.
//!
//! The loop waits at once for the server's messages, the flusher's and the applier's progress,
//! news of those behind us, and the word to stop. While the flusher's queue is full it does not
//! read, but it still sends its statuses, so that a slow disk does not look like a dead receiver.

mod incomplete;
mod lag;
mod positions;
mod report;
mod start;

use std::future::{Future, pending};
use std::pin::Pin;
use std::time::{Duration, Instant};

use pgconn::connection::{Connection, ConnectionError};
use segstore::{Archive, Durable, ErrorKind, Preparation, Recovery};
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};
use walproto::client::Event;
use walproto::result::TimelineEnd;
use walproto::{Confirmed, Horizons, Lsn, SegmentSize, SlotName, TimelineHistory, TimelineId};

use crate::apply::Applier;
use crate::config::{Acknowledge, ReceiverConfig};
use crate::downstream::Behind;
use crate::error::ReceiveError;
use crate::event::{Progress, ReceiverEvent, Reporter};
use crate::flusher::{Flushed, Flusher};
pub(crate) use incomplete::TailMemory;
use positions::news;
use start::{notice, refused, start, stream_end};

/// How long the server may take to end the stream after we did.
const FAREWELL: Duration = Duration::from_secs(5);

/// The word to stop. It must not be polled again after it has come.
pub(crate) type Stop<'a> = Pin<&'a mut (dyn Future<Output = ()> + Send + 'a)>;

/// How a stream ended, when nothing is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum StreamEnd {
    /// We were told to stop.
    Stopped,
    /// The position up to which WAL was wanted has been received.
    EndReached,
    /// The server's history goes on with another timeline.
    TimelineEnded(TimelineEnd),
    /// What applies the records has failed.
    ApplierEnded,
    /// The server ended the stream and named no other timeline, or is being shut down.
    ServerEnded,
}

/// What a stream is to be.
pub(crate) struct Order<'a> {
    pub(crate) config: &'a ReceiverConfig,
    /// The user's slot, or a temporary one.
    pub(crate) slot: Option<&'a SlotName>,
    pub(crate) reporter: &'a dyn Reporter,
    pub(crate) progress: &'a watch::Sender<Option<Progress>>,
    /// What applies the records, if anything does.
    pub(crate) applier: Option<&'a Applier>,
    /// Those who get the WAL from here, if the server is to know of them.
    pub(crate) behind: Option<&'a Behind>,
    pub(crate) history: &'a TimelineHistory,
    pub(crate) start: Lsn,
    /// Up to where WAL has to be durable before any is acknowledged, `None` is not at all: an
    /// archive that begins covers then all that a commit may wait for.
    pub(crate) acknowledge_from: Option<Lsn>,
    /// The end of the server's WAL on this timeline, as far as it is known before it streams.
    pub(crate) server_end: Lsn,
    pub(crate) segment_size: SegmentSize,
    /// Whether the server is a standby, for which no commit waits.
    pub(crate) upstream_is_standby: bool,
    /// How long the server waits for a sign of life; `None` is for ever.
    pub(crate) sender_timeout: Option<Duration>,
    /// Whether the archive does not know yet what magic number its pages carry.
    pub(crate) magic_is_new: bool,
}

impl Order<'_> {
    const fn timeline(&self) -> TimelineId {
        self.history.timeline()
    }
}

/// What a stream left behind.
pub(crate) struct Streamed {
    /// How it ended.
    pub(crate) end: Result<StreamEnd, ReceiveError>,
    /// The end of the bytes that the archive got; the start, if there were none.
    pub(crate) byte_end: Lsn,
    /// The end of the last record that was made durable; the start, if there was none.
    pub(crate) durable_end: Lsn,
    /// What is left of [`Order::acknowledge_from`]: `None` once all WAL up to it is durable.
    pub(crate) acknowledge_from: Option<Lsn>,
    /// The magic number of the pages, if there were any.
    pub(crate) page_magic: Option<u16>,
}

/// Streams until the timeline, the server, the user or an error ends it. All that was received is
/// durable when it returns, unless the error says otherwise. `accepted` is called once the server
/// streams and the archive is ready for it.
pub(crate) async fn stream(
    connection: &mut Connection,
    order: &Order<'_>,
    archive: &Archive,
    recovery: Recovery,
    tail: &mut TailMemory,
    accepted: impl FnOnce(),
    mut stop: Stop<'_>,
) -> Streamed {
    let nothing = |end| Streamed {
        end,
        byte_end: order.start,
        durable_end: order.start,
        acknowledge_from: order.acknowledge_from,
        page_magic: None,
    };
    let started = tokio::select! {
        biased;
        () = &mut stop => {
            order.reporter.report(&ReceiverEvent::StopRequested);
            return nothing(Ok(StreamEnd::Stopped));
        }
        started = start(connection, order) => started,
    };
    let flusher = match started {
        Ok(Some(end)) => return nothing(Ok(end)),
        Ok(None) => flusher(order, archive, recovery),
        Err(error) => Err(error),
    };
    let flusher = match flusher {
        Ok(flusher) => flusher,
        Err(error) => return nothing(Err(error)),
    };
    accepted();
    let flushed = flusher.flushed();
    let ended = Receiving::new(connection, order, archive, &flusher, tail)
        .run(stop)
        .await;
    // What stopped the disk matters more than how the connection then ended.
    let end = match (flusher.finish().await, ended) {
        (Err(error), Err(ReceiveError::DiskStayedFull { timeline, lsn, .. }))
            if error.kind() != ErrorKind::Archive =>
        {
            Err(ReceiveError::DiskStayedFull {
                timeline,
                lsn,
                source: Some(error),
            })
        }
        (Err(error), _) => Err(error.into()),
        (Ok(()), ended) => ended,
    };
    let flushed = flushed.borrow();
    let byte_end = flushed
        .written
        .map_or(order.start, |written| written.byte_end);
    let durable_end = flushed
        .durable
        .map_or(order.start, |durable| durable.record_end.lsn());
    let acknowledge_from = order.acknowledge_from.filter(|&from| !flushed.covers(from));
    Streamed {
        end,
        byte_end,
        durable_end,
        acknowledge_from,
        page_magic: flushed.page_magic,
    }
}

fn flusher(
    order: &Order<'_>,
    archive: &Archive,
    recovery: Recovery,
) -> Result<Flusher, ReceiveError> {
    let preparation = Preparation::Background;
    let writer = archive.writer(recovery, order.history, order.start, preparation)?;
    Flusher::start(writer, order.config.short_syncs).map_err(|source| ReceiveError::Thread {
        name: "flusher",
        source,
    })
}

/// A stream that runs.
struct Receiving<'a> {
    connection: &'a mut Connection,
    order: &'a Order<'a>,
    archive: &'a Archive,
    flusher: &'a Flusher,
    tail: &'a mut TailMemory,
    flushed: watch::Receiver<Flushed>,
    applied: Option<watch::Receiver<Lsn>>,
    confirmed: Option<watch::Receiver<Confirmed>>,
    needs: Option<watch::Receiver<Horizons>>,
    /// What the server was last told to keep.
    told_needs: Horizons,
    /// When it is to be told again.
    feedback_at: Option<Instant>,
    received_end: Lsn,
    server_end: Lsn,
    /// How many of the bytes that the connection read the flusher's queue was charged with.
    charged: u64,
    /// What is acknowledged as far as it is up to us.
    acknowledged: Option<Durable>,
    /// The flush position that it was told last, which those behind us may hold back.
    told_flush: Option<Lsn>,
    /// The end of the last segment that was said to be finished.
    finished_end: Lsn,
    /// When a full disk has been waited for long enough.
    hold_until: Option<Instant>,
    /// Whether the pages' magic number is still to be looked at.
    magic_is_new: bool,
    /// How many changes of settings were looked at.
    settings_seen: usize,
}

impl<'a> Receiving<'a> {
    fn new(
        connection: &'a mut Connection,
        order: &'a Order<'a>,
        archive: &'a Archive,
        flusher: &'a Flusher,
        tail: &'a mut TailMemory,
    ) -> Self {
        let downstream = order.behind.map(|behind| &behind.downstream);
        tail.lag.follow(order.timeline());
        Self {
            confirmed: downstream.and_then(|downstream| downstream.confirmed.clone()),
            needs: downstream.and_then(|downstream| downstream.needs.clone()),
            told_needs: Horizons::default(),
            feedback_at: None,
            charged: connection.bytes_read(),
            connection,
            order,
            archive,
            flusher,
            tail,
            flushed: flusher.flushed(),
            applied: order.applier.map(Applier::applied),
            received_end: order.start,
            server_end: order.server_end.max(order.start),
            acknowledged: None,
            told_flush: None,
            finished_end: order.segment_size.start_of(order.start),
            hold_until: None,
            magic_is_new: order.magic_is_new,
            settings_seen: 0,
        }
    }

    async fn run(&mut self, mut stop: Stop<'_>) -> Result<StreamEnd, ReceiveError> {
        self.note_confirmed();
        self.send_feedback();
        loop {
            tokio::select! {
                biased;
                () = &mut stop => {
                    self.order.reporter.report(&ReceiverEvent::StopRequested);
                    self.leave().await;
                    return Ok(StreamEnd::Stopped);
                }
                _ = self.flushed.changed() => {
                    if self.report() {
                        // The flusher's own result says why.
                        return Ok(StreamEnd::ServerEnded);
                    }
                }
                () = until(self.hold_until) => return Err(self.disk_stayed_full()),
                () = news(&mut self.confirmed) => self.note_confirmed(),
                () = news(&mut self.needs) => self.send_feedback(),
                () = until(self.feedback_at) => self.send_feedback(),
                event = next_event(self.connection, self.flusher) => {
                    let Some(event) = event? else { continue };
                    if let Some(end) = self.take(event)? {
                        if end == StreamEnd::EndReached {
                            self.leave().await;
                            self.order.reporter.report(&ReceiverEvent::EndReached {
                                timeline: self.order.timeline(),
                                lsn: self.received_end,
                            });
                        }
                        return Ok(end);
                    }
                }
                // Last, for an applier that catches up has news all the time.
                alive = changed(&mut self.applied) => {
                    if !alive {
                        return Ok(StreamEnd::ApplierEnded);
                    }
                    self.report();
                }
            }
        }
    }

    /// Takes an event, and all others that came with it, so that they make one batch.
    fn take(&mut self, event: Event) -> Result<Option<StreamEnd>, ReceiveError> {
        let mut next = Some(event);
        let mut end = Ok(None);
        while let Some(event) = next {
            end = self.take_one(event);
            if !matches!(end, Ok(None)) {
                break;
            }
            next = self.connection.try_event();
        }
        let read = self.connection.bytes_read();
        self.flusher.charge(read.saturating_sub(self.charged));
        self.charged = read;
        self.flusher.go_on();
        self.show_progress();
        end
    }

    fn take_one(&mut self, event: Event) -> Result<Option<StreamEnd>, ReceiveError> {
        match event {
            Event::WalData {
                start,
                wal_end,
                data,
                ..
            } => {
                self.received_end = Lsn(start.0.saturating_add(data.len() as u64));
                self.server_end = self.server_end.max(wal_end).max(self.received_end);
                self.flusher.push(start, data);
                if self
                    .order
                    .config
                    .end
                    .is_some_and(|end| end < self.received_end)
                {
                    return Ok(Some(StreamEnd::EndReached));
                }
            }
            Event::Keepalive {
                wal_end,
                reply_requested,
                ..
            } => {
                self.server_end = self.server_end.max(wal_end);
                if reply_requested && self.order.config.acknowledge == Acknowledge::SegmentEnd {
                    self.report_positions(true);
                }
            }
            Event::WalStaysIncomplete { .. } => self.record_stays_incomplete()?,
            Event::Notice(message) => notice(self.connection, self.order, &message),
            Event::Failed(message) => {
                return Err(refused(self.order, message));
            }
            Event::ServerCopyDone => self.connection.finish_copy(),
            Event::StreamEnded(table) => {
                let (timeline, end) = (self.order.timeline(), self.received_end);
                return stream_end(table.as_ref(), timeline, end).map(Some);
            }
            Event::ServerStopping | Event::Ready | Event::Closed => {
                return Ok(Some(StreamEnd::ServerEnded));
            }
            _ => {}
        }
        Ok(None)
    }

    /// Ends the stream from our side: makes durable what was received, says so, and waits a
    /// little for the server's end of it. A connection that fails meanwhile changes nothing.
    async fn leave(&mut self) {
        self.flusher.close();
        while !self.report() {
            tokio::select! {
                changed = self.flushed.changed() => if changed.is_err() { return },
                _gone = self.connection.tend() => return,
            }
        }
        self.withdraw_feedback();
        self.connection.finish_copy();
        let farewell = async {
            loop {
                match self.connection.event().await {
                    Ok(Event::StreamEnded(_) | Event::Ready | Event::Closed) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        };
        // Everything is durable and was reported; a server that does not answer changes nothing.
        let _ = timeout(FAREWELL, farewell).await;
    }
}

/// Waits for the server's next message, or while the flusher's queue is full, for room in it:
/// `None`.
async fn next_event(
    connection: &mut Connection,
    flusher: &Flusher,
) -> Result<Option<Event>, ConnectionError> {
    if flusher.has_room() {
        return connection.event().await.map(Some);
    }
    tokio::select! {
        error = connection.tend() => Err(error),
        () = flusher.room() => Ok(None),
    }
}

/// Waits for the applier's next progress, for ever without an applier; `false` when it has ended.
async fn changed(applied: &mut Option<watch::Receiver<Lsn>>) -> bool {
    match applied {
        Some(receiver) => receiver.changed().await.is_ok(),
        None => pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
