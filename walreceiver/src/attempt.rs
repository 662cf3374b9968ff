//! One try: connect, decide what to stream, and stream one timeline after the other until
//! something ends it.

use std::time::Instant;

use pgconn::connection::Connection;
use pgconn::conninfo::ConnectionConfig;
use segstore::{Archive, ErrorKind, Identity, Recovery, SegmentFile, SegmentName};
use tokio::sync::watch;
use walproto::client::Event;
use walproto::{Lsn, SlotName, TimelineHistory, TimelineId};

use crate::apply::Applier;
use crate::config::ReceiverConfig;
use crate::downstream::Behind;
use crate::error::{Phase, ReceiveError};
use crate::event::{Progress, ReceiverEvent, Reporter, Warning};
use crate::follow::{self, Held};
use crate::negotiate::Server;
use crate::outage::Streaming;
use crate::served::{ReceivedArchive, show};
use crate::standing::StandingWarnings;
use crate::stream::{Order, Stop, StreamEnd, TailMemory, stream};

mod choice;
mod course;
mod examine;
mod first_start;

pub(crate) use choice::HostMemory;
pub(crate) use first_start::CatchingUp;

/// How often the start of an archive is looked for again, because a checkpoint has removed the
/// oldest WAL just then.
const MAX_FIRST_STARTS: u32 = 3;

/// One try, and what is left after it.
pub(crate) struct Attempt<'a> {
    pub(crate) config: &'a ReceiverConfig,
    pub(crate) connection: &'a ConnectionConfig,
    pub(crate) reporter: &'a dyn Reporter,
    pub(crate) progress: &'a watch::Sender<Option<Progress>>,
    pub(crate) shown: &'a watch::Sender<ReceivedArchive>,
    pub(crate) applier: Option<&'a Applier>,
    pub(crate) behind: Option<&'a Behind>,
    pub(crate) tail: &'a mut TailMemory,
    pub(crate) hosts: &'a mut HostMemory,
    pub(crate) warnings: &'a mut StandingWarnings,
    pub(crate) streaming: &'a Streaming,
    pub(crate) phase: Phase,
    /// Away while a thread for blocking work has it.
    pub(crate) archive: Option<Archive>,
    /// What the archive holds, since it was last looked at.
    pub(crate) recovery: Option<Recovery>,
    /// Set when an archive begins, and kept over reconnects until it has caught up.
    pub(crate) catching_up: &'a mut Option<CatchingUp>,
    /// Whether the slot was seen to reserve WAL in this run.
    pub(crate) slot_reserves: &'a mut bool,
    /// The temporary slot that reserves WAL for a first start.
    pub(crate) reservation: Option<SlotName>,
    /// When a server answered.
    pub(crate) connected_at: Option<Instant>,
    /// Whether WAL became durable that was not here before.
    pub(crate) advanced: bool,
    /// Whether another host than the followed one could not be asked.
    pub(crate) others_unasked: bool,
}

/// A server to stream from, and what.
struct Prepared {
    connection: Connection,
    server: Server,
    timeline: TimelineId,
    start: Lsn,
}

impl Attempt<'_> {
    /// Tries. It returns without an error when it was told to stop, or has come to the configured
    /// end.
    pub(crate) async fn run(&mut self, mut stop: Stop<'_>) -> Result<(), ReceiveError> {
        let prepared = tokio::select! {
            biased;
            () = &mut stop => {
                self.reporter.report(&ReceiverEvent::StopRequested);
                return Ok(());
            }
            prepared = self.prepare() => prepared?,
        };
        let Prepared {
            mut connection,
            mut server,
            mut timeline,
            mut start,
        } = prepared;
        self.reporter.report(&ReceiverEvent::Connected {
            host: connection.host(),
            port: connection.port(),
            version: connection.server_version(),
            system_id: server.facts.system_id,
        });
        let mut announced = false;
        let mut first_starts = 0;
        loop {
            if self.config.end.is_some_and(|end| end < start) {
                // As with PostgreSQL's program the start is named also if nothing is streamed.
                if !announced {
                    let lsn = start;
                    self.reporter
                        .report(&ReceiverEvent::StreamingStarted { timeline, lsn });
                }
                // The server may never write another byte that would show it.
                self.reporter.report(&ReceiverEvent::EndReached {
                    timeline,
                    lsn: start,
                });
                connection.close().await;
                return Ok(());
            }
            let from = (timeline, start);
            let held = self.held();
            let is_new = held.is_none();
            let other = held.and_then(|held| {
                follow::without_removed(&held, &server.upstream, server.facts.segment_size, from)
            });
            let streamed = self
                .stream(
                    &mut connection,
                    &server,
                    from,
                    &mut announced,
                    stop.as_mut(),
                )
                .await;
            let may_start_anew =
                is_new && self.catching_up.is_some() && first_starts < MAX_FIRST_STARTS;
            let (end, received_end) = match streamed {
                Err(ReceiveError::WalRemoved { .. }) if other.is_some() || may_start_anew => {
                    first_starts += u32::from(other.is_none());
                    let found = tokio::select! {
                        biased;
                        () = &mut stop => {
                            self.reporter.report(&ReceiverEvent::StopRequested);
                            return Ok(());
                        }
                        found = self.find_start(&mut connection, &server, timeline, other) => found,
                    };
                    (timeline, start) = found?;
                    announced = false;
                    continue;
                }
                streamed => {
                    streamed.map_err(|error| self.with_others(error, connection.server()))?
                }
            };
            match end {
                StreamEnd::Stopped | StreamEnd::EndReached => {}
                StreamEnd::ApplierEnded => return Err(ReceiveError::ApplierEnded),
                StreamEnd::ServerEnded => {
                    return Err(ReceiveError::ServerEnded {
                        timeline,
                        lsn: received_end,
                    });
                }
                StreamEnd::TimelineEnded(end) => {
                    // No commit of an older timeline waits after a promotion.
                    *self.catching_up = None;
                    let switched = tokio::select! {
                        biased;
                        () = &mut stop => {
                            self.reporter.report(&ReceiverEvent::StopRequested);
                            return Ok(());
                        }
                        switched = self.switch(&mut connection, from, end) => switched,
                    };
                    (server, timeline, start) = switched?;
                    continue;
                }
            }
            connection.close().await;
            return Ok(());
        }
    }

    /// Tells that `left` goes on with `timeline`, unless they are the same.
    fn switched(&self, history: &TimelineHistory, left: TimelineId, timeline: TimelineId) {
        let switch_point = history.switch_point_of(left);
        if let Some(switch_point) = switch_point.filter(|_| left != timeline) {
            self.reporter.report(&ReceiverEvent::TimelineSwitched {
                timeline,
                switch_point,
            });
        }
    }

    /// Says so when a stream begins where the archive ends.
    fn warn_of_nothing_compared(&self, timeline: TimelineId, lsn: Lsn) {
        if self.held().is_some_and(|held| lsn >= held.record_end) {
            let warning = Warning::NothingCompared { timeline, lsn };
            self.reporter.report(&ReceiverEvent::Warning(warning));
        }
    }

    /// Finds another start after the server has removed the WAL of the one on `left`: `other`, or
    /// without it a new start of the archive, whose oldest WAL a checkpoint has removed since.
    async fn find_start(
        &mut self,
        connection: &mut Connection,
        server: &Server,
        left: TimelineId,
        other: Option<(TimelineId, Lsn)>,
    ) -> Result<(TimelineId, Lsn), ReceiveError> {
        self.look_again(connection).await?;
        let Some((timeline, start)) = other else {
            let course = self.decide(connection, server).await?;
            return self.embark(server, course).await;
        };
        self.switched(&server.upstream.history, left, timeline);
        self.warn_of_nothing_compared(timeline, start);
        Ok((timeline, start))
    }

    /// Makes ready for another stream after one that the server refused.
    async fn look_again(&mut self, connection: &mut Connection) -> Result<(), ReceiveError> {
        // The server has dropped it with the error.
        self.reservation = None;
        while connection.event().await? != Event::Ready {}
        let recovery = self.blocking(|archive| archive.recover()).await?;
        self.recovery = Some(recovery?);
        Ok(())
    }

    async fn stream(
        &mut self,
        connection: &mut Connection,
        server: &Server,
        (timeline, start): (TimelineId, Lsn),
        announced: &mut bool,
        stop: Stop<'_>,
    ) -> Result<(StreamEnd, Lsn), ReceiveError> {
        let history = server
            .history_of(timeline)
            .ok_or(ReceiveError::NoHistory { timeline })?;
        let (Some(archive), Some(recovery)) = (&mut self.archive, self.recovery.take()) else {
            return Err(ReceiveError::ArchiveLost);
        };
        // Whose archive it is was known at the latest when it was decided what to stream.
        show(archive, self.shown)?;
        let announce = || {
            self.streaming.begins();
            if !std::mem::replace(announced, true) {
                let event = ReceiverEvent::StreamingStarted {
                    timeline,
                    lsn: start,
                };
                self.reporter.report(&event);
            }
        };
        let order = Order {
            config: self.config,
            slot: self.config.slot.as_ref().or(self.reservation.as_ref()),
            reporter: self.reporter,
            progress: self.progress,
            applier: self.applier,
            behind: self.behind,
            history: &history,
            start,
            acknowledge_from: self.catching_up.map(|first| first.acknowledge_from),
            server_end: if server.timeline() == timeline {
                server.upstream.flush
            } else {
                start
            },
            segment_size: server.facts.segment_size,
            upstream_is_standby: server.upstream.is_standby,
            sender_timeout: server.sender_timeout,
            magic_is_new: archive.identity().and_then(Identity::page_magic).is_none(),
        };
        // What a fork lacks is not a part of its timeline.
        let durable = recovery.tip().map_or(start, |tip| {
            let branch = history.switch_point_of(tip.timeline);
            let record_end = tip.record_end.lsn();
            branch.map_or(record_end, |branch| record_end.min(branch))
        });
        if let Some(applier) = self.applier {
            applier.follow(archive, &history, durable)?;
        }
        let tail = &mut *self.tail;
        let streamed = stream(connection, &order, archive, recovery, tail, announce, stop).await;
        if streamed.acknowledge_from.is_none() {
            *self.catching_up = None;
        }
        let learned = match streamed.page_magic {
            Some(magic) => archive.learn_page_magic(magic),
            None => Ok(()),
        };
        let byte_end = streamed.byte_end;
        self.advanced |= streamed.durable_end > durable;
        // Nothing is left of a segment that has not been written to.
        if byte_end > start && order.segment_size.offset_of(byte_end) != 0 {
            let name = SegmentName::of(timeline, byte_end, order.segment_size);
            let file_name = SegmentFile::partial(name).to_string();
            let event = ReceiverEvent::SegmentLeftPartial {
                file_name: &file_name,
            };
            self.reporter.report(&event);
        }
        let end = match (streamed.end, learned) {
            // Only an error of the archive itself replaces one after which streaming resumes.
            (Err(error), Err(learned))
                if error.ends(Phase::After) || learned.kind() != ErrorKind::Archive =>
            {
                Err(error)
            }
            (_, Err(learned)) => Err(learned.into()),
            (end, Ok(())) => end,
        };
        end.map(|end| (end, byte_end))
    }

    /// Connects, and decides. The archive is not touched before it is decided that the server may
    /// be followed.
    async fn prepare(&mut self) -> Result<Prepared, ReceiveError> {
        let (mut connection, server) = self.choose().await?;
        self.warn_of_lost_histories();
        let course = self.decide(&mut connection, &server).await?;
        let (timeline, start) = self.embark(&server, course).await?;
        Ok(Prepared {
            connection,
            server,
            timeline,
            start,
        })
    }

    /// Works on the archive where it may take its time.
    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Archive) -> T + Send + 'static,
    ) -> Result<T, ReceiveError> {
        let mut archive = self.archive.take().ok_or(ReceiveError::ArchiveLost)?;
        let work = move || {
            let done = work(&mut archive);
            (archive, done)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok((archive, done)) => {
                self.archive = Some(archive);
                Ok(done)
            }
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Where the archive's newest timeline ends, if it has any WAL.
    fn held(&self) -> Option<Held> {
        let tip = self.recovery.as_ref()?.tip()?;
        Some(Held {
            timeline: tip.timeline,
            record_end: tip.record_end.lsn(),
            resume_at: tip.resume_at,
        })
    }
}

#[cfg(test)]
mod tests;
