//! One try: connect, decide what to stream, and stream one timeline after the other until
//! something ends it.

use segstore::{Archive, ArchiveError, Identity, Recovery, SegmentFile, SegmentName, ServerFacts};
use tokio::sync::watch;
use walproto::client::{Event, SessionTimes};
use walproto::result::TimelineEnd;
use walproto::{Lsn, SlotName, TimelineHistory, TimelineId};

use crate::apply::Applier;
use crate::config::{OnFork, OnLostSlot, ReceiverConfig};
use crate::connection::{ConnectError, Connection};
use crate::conninfo::ConnectionConfig;
use crate::error::ReceiveError;
use crate::event::{Progress, ReceiverEvent, Reporter, Warning};
use crate::follow::{self, Course, Held, Refusal};
use crate::hosts::connect_all;
use crate::negotiate::{Server, Slot, read_slot, slots_are_unlimited};
use crate::slot::{NewPhysicalSlot, create_slot};
use crate::stream::{Order, Stop, StreamEnd, TailMemory, stream};

/// One try, and what is left after it.
pub(crate) struct Attempt<'a> {
    pub(crate) config: &'a ReceiverConfig,
    pub(crate) connection: &'a ConnectionConfig,
    pub(crate) reporter: &'a dyn Reporter,
    pub(crate) progress: &'a watch::Sender<Option<Progress>>,
    pub(crate) applier: Option<&'a Applier>,
    pub(crate) tail: &'a mut TailMemory,
    /// Away while a thread for blocking work has it.
    pub(crate) archive: Option<Archive>,
    /// What the archive holds, since it was last looked at.
    pub(crate) recovery: Option<Recovery>,
    /// Whether a server answered.
    pub(crate) connected: bool,
    /// Whether WAL was streamed.
    pub(crate) streamed: bool,
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
        loop {
            self.reporter.report(&ReceiverEvent::StreamingStarted {
                timeline,
                lsn: start,
            });
            let from = (timeline, start);
            let later = self.later_start(&server, from);
            let streamed = self
                .stream(&mut connection, &server, from, stop.as_mut())
                .await;
            let (end, received_end) = match (streamed, later) {
                (Err(ReceiveError::WalRemoved { .. }), Some(later)) => {
                    self.look_again(&mut connection).await?;
                    start = later;
                    continue;
                }
                (streamed, _) => streamed?,
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
                    let switched = tokio::select! {
                        biased;
                        () = &mut stop => {
                            self.reporter.report(&ReceiverEvent::StopRequested);
                            return Ok(());
                        }
                        switched = self.switch(&mut connection, timeline, end) => switched,
                    };
                    (server, timeline, start) = switched?;
                    continue;
                }
            }
            connection.close().await;
            return Ok(());
        }
    }

    /// Where to begin instead if the server has removed the WAL at the start. Our last record
    /// may begin in the segment before the one in which it ends, and only that one does a slot
    /// keep for us. What is not sent once more is then checked from the archive.
    fn later_start(&self, server: &Server, from: (TimelineId, Lsn)) -> Option<Lsn> {
        let (timeline, start) = from;
        let held = self.held().filter(|held| held.timeline == timeline)?;
        let later = server.facts.segment_size.start_of(held.record_end);
        (start < later).then_some(later)
    }

    /// Makes ready for another stream after one that the server refused.
    async fn look_again(&mut self, connection: &mut Connection) -> Result<(), ReceiveError> {
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
        stop: Stop<'_>,
    ) -> Result<(StreamEnd, Lsn), ReceiveError> {
        let history = server
            .history_of(timeline)
            .ok_or(ReceiveError::NoHistory { timeline })?;
        let (Some(archive), Some(recovery)) = (&mut self.archive, self.recovery.take()) else {
            return Err(ReceiveError::ArchiveLost);
        };
        let order = Order {
            config: self.config,
            reporter: self.reporter,
            progress: self.progress,
            applier: self.applier,
            history: &history,
            start,
            segment_size: server.facts.segment_size,
            upstream_is_standby: server.upstream.is_standby,
            sender_timeout: server.sender_timeout,
            magic_is_new: archive.identity().and_then(Identity::page_magic).is_none(),
        };
        if let Some(applier) = self.applier {
            // What a fork lacks is not a part of its timeline.
            let durable = recovery.tip().map_or(start, |tip| {
                let branch = history.switch_point_of(tip.timeline);
                let record_end = tip.record_end.lsn();
                branch.map_or(record_end, |branch| record_end.min(branch))
            });
            applier.follow(archive, &history, durable)?;
        }
        let streamed = stream(connection, &order, archive, recovery, self.tail, stop).await;
        if let Some(magic) = streamed.page_magic {
            archive.learn_page_magic(magic)?;
        }
        let byte_end = streamed.byte_end;
        self.streamed |= byte_end > start;
        if order.segment_size.offset_of(byte_end) != 0 {
            let name = SegmentName::of(timeline, byte_end, order.segment_size);
            let file_name = SegmentFile::partial(name).to_string();
            let event = ReceiverEvent::SegmentLeftPartial {
                file_name: &file_name,
            };
            self.reporter.report(&event);
        }
        streamed.end.map(|end| (end, byte_end))
    }

    /// Connects, and decides. The archive is not touched before it is decided that the server may
    /// be followed.
    async fn prepare(&mut self) -> Result<Prepared, ReceiveError> {
        let (mut connection, server) = self.choose().await?;
        let course = self.decide(&mut connection, &server).await?;
        let (timeline, start) = self.embark(&server, course).await?;
        Ok(Prepared {
            connection,
            server,
            timeline,
            start,
        })
    }

    /// Of the servers that answer and may be followed, the one on the newest timeline; of those
    /// one that has what comes next, for commits on it may wait for us.
    async fn choose(&mut self) -> Result<(Connection, Server), ReceiveError> {
        let mut best: Option<((TimelineId, bool), Connection, Server)> = None;
        let mut refused = None;
        let times = SessionTimes {
            receive_timeout: self.config.receive_timeout,
            status_interval: self.config.status_interval,
        };
        let answered = connect_all(self.connection, times).await?;
        for mut connection in answered.connections {
            self.connected = true;
            match self.consider(&mut connection).await {
                Ok(server) => {
                    let rank = (server.timeline(), !self.must_wait_for(&server));
                    if best.as_ref().is_none_or(|(best, ..)| rank > *best) {
                        best = Some((rank, connection, server));
                    }
                }
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        let others = ConnectError {
            attempts: answered.failed,
        };
        match (best, refused) {
            (Some((_, connection, server)), _) => Ok((connection, server)),
            (
                None,
                Some(ReceiveError::Refused(
                    refusal @ (Refusal::OlderTimeline { .. } | Refusal::ForeignTimeline { .. }),
                )),
            ) if others.is_transient() => Err(ReceiveError::OthersMissing { refusal }),
            (None, Some(error)) => Err(error),
            (None, None) => Err(ReceiveError::NoServer),
        }
    }

    /// Whether nothing can be streamed from a server yet, which may be followed.
    fn must_wait_for(&self, server: &Server) -> bool {
        let course = self.held().map(|held| self.resume(&held, server));
        matches!(course, Some(Ok(Course::Wait { .. })))
    }

    /// Whether a server may be followed.
    async fn consider(&mut self, connection: &mut Connection) -> Result<Server, ReceiveError> {
        let server = Server::identify(connection).await?;
        let (facts, histories) = (server.facts, server.histories.clone());
        let examined = self
            .blocking(move |archive| examine(archive, &facts, &histories))
            .await?;
        let Examined { recovery, restored } = examined?;
        for timeline in restored {
            let warning = Warning::HistoryRestored { timeline };
            self.reporter.report(&ReceiverEvent::Warning(warning));
        }
        self.recovery = recovery;
        if let Some(held) = self.held() {
            self.resume(&held, &server)?;
        }
        Ok(server)
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

    fn resume(&self, held: &Held, server: &Server) -> Result<Course, Refusal> {
        let follow_fork = self.config.fork == OnFork::Follow;
        follow::resume(
            held,
            &server.upstream,
            server.facts.segment_size,
            follow_fork,
        )
    }

    async fn decide(
        &self,
        connection: &mut Connection,
        server: &Server,
    ) -> Result<Course, ReceiveError> {
        let held = self.held();
        let slot = match &self.config.slot {
            Some(name) => {
                if slots_are_unlimited(connection).await? {
                    let warning = Warning::SlotUnlimited { slot: name };
                    self.reporter.report(&ReceiverEvent::Warning(warning));
                }
                self.check_slot(connection, server, name, held.as_ref())
                    .await?
            }
            None => Slot::Unknown,
        };
        match (held, self.config.start) {
            (Some(held), Some(start)) if start > held.record_end => Err(ReceiveError::NotEmpty {
                start,
                timeline: held.timeline,
                resume_at: held.resume_at,
            }),
            (Some(held), _) => Ok(self.resume(&held, server)?),
            (None, start) => {
                let of_slot = match slot {
                    Slot::Reserves(lsn) => Some(lsn),
                    Slot::Unknown | Slot::Missing | Slot::ReservesNothing => None,
                };
                let start = start.or(of_slot).unwrap_or(server.upstream.flush);
                Ok(follow::begin(
                    start,
                    &server.upstream,
                    server.facts.segment_size,
                )?)
            }
        }
    }

    /// Looks at the slot. After a failover the new primary does not have it, and gets it.
    async fn check_slot(
        &self,
        connection: &mut Connection,
        server: &Server,
        name: &SlotName,
        held: Option<&Held>,
    ) -> Result<Slot, ReceiveError> {
        let found = read_slot(connection, name).await?;
        let failed_over = held.is_some_and(|held| held.timeline < server.timeline());
        match (found, held) {
            (Slot::Missing, _) if failed_over => {
                let new = NewPhysicalSlot {
                    reserve_wal: true,
                    may_exist: false,
                };
                create_slot(connection, name, new).await?;
                self.reporter
                    .report(&ReceiverEvent::Warning(Warning::SlotCreated { slot: name }));
                read_slot(connection, name).await
            }
            (Slot::Missing, _) => Err(ReceiveError::NoSuchSlot { slot: name.clone() }),
            (Slot::ReservesNothing, Some(held)) => match self.config.lost_slot {
                OnLostSlot::Stop => Err(ReceiveError::LostSlot {
                    slot: name.clone(),
                    timeline: held.timeline,
                    needed: held.record_end,
                }),
                OnLostSlot::Warn => {
                    let warning = Warning::SlotReservesNothing { slot: name };
                    self.reporter.report(&ReceiverEvent::Warning(warning));
                    Ok(found)
                }
            },
            _ => Ok(found),
        }
    }

    /// Makes the archive ready for a course that was decided.
    async fn embark(
        &mut self,
        server: &Server,
        course: Course,
    ) -> Result<(TimelineId, Lsn), ReceiveError> {
        let (timeline, start) = match course {
            Course::Stream { timeline, start } => (timeline, start),
            Course::StreamFork {
                timeline,
                start,
                fork,
            } => {
                self.reporter
                    .report(&ReceiverEvent::Warning(Warning::ForkFollowed {
                        timeline,
                        fork: fork.switch_point,
                        old_timeline: fork.timeline,
                        old_end: fork.record_end,
                    }));
                (timeline, start)
            }
            Course::Wait { flush } => {
                let held = self.held();
                let timeline = server.timeline();
                return Err(ReceiveError::StandbyBehind {
                    timeline,
                    flush,
                    archive: held.as_ref().map_or(timeline, |held| held.timeline),
                    record_end: held.map_or(flush, |held| held.record_end),
                });
            }
        };
        let (facts, histories) = (server.facts, server.histories.clone());
        let known = self.recovery.is_some();
        let recovery = self
            .blocking(move |archive| {
                archive.bind(&facts)?;
                for history in &histories {
                    archive.store_history(history)?;
                }
                if known {
                    Ok(None)
                } else {
                    archive.recover().map(Some)
                }
            })
            .await?;
        self.recovery = recovery?.or(self.recovery.take());
        Ok((timeline, start))
    }

    /// Goes on with the timeline that follows the one that ended.
    async fn switch(
        &mut self,
        connection: &mut Connection,
        timeline: TimelineId,
        end: TimelineEnd,
    ) -> Result<(Server, TimelineId, Lsn), ReceiveError> {
        while connection.event().await? != Event::Ready {}
        // The server may have learned of the new timeline only now, and so of its history.
        let server = self.consider(connection).await?;
        let TimelineEnd {
            next_timeline: next,
            switch_point,
        } = end;
        let history = &server.upstream.history;
        if history.successor_of(timeline) != Some(next)
            || history.switch_point_of(timeline) != Some(switch_point)
        {
            return Err(ReceiveError::OtherSwitch {
                timeline,
                next,
                switch_point,
            });
        }
        let Some(held) = self.held() else {
            return Err(ReceiveError::ArchiveLost);
        };
        if held.record_end < switch_point {
            let received_end = held.record_end;
            return Err(ReceiveError::SwitchPastEnd {
                timeline,
                next,
                switch_point,
                received_end,
            });
        }
        let course = self.resume(&held, &server)?;
        let (timeline, start) = self.embark(&server, course).await?;
        self.reporter.report(&ReceiverEvent::TimelineSwitched {
            timeline,
            switch_point,
        });
        Ok((server, timeline, start))
    }
}

/// What became of the archive next to a server.
struct Examined {
    /// What it holds; `None` if there is no WAL in it.
    recovery: Option<Recovery>,
    /// The timelines whose histories were gone, and were taken from the server.
    restored: Vec<TimelineId>,
}

/// Compares a server with the archive, and finds out what the archive holds. An archive without
/// WAL is not told yet whose it is going to be: nothing is decided.
fn examine(
    archive: &mut Archive,
    facts: &ServerFacts,
    histories: &[TimelineHistory],
) -> Result<Examined, ArchiveError> {
    if archive.system_id().is_some() {
        archive.bind(facts)?;
    }
    for history in histories {
        archive.check_history(history)?;
    }
    let mut restored = Vec::new();
    for history in histories {
        // Whatever else becomes of the server: it is the one that was here.
        if archive.restore_history(history)? {
            restored.push(history.timeline());
        }
    }
    let recovery = match archive.identity() {
        Some(_) => Some(archive.recover()?),
        None => None,
    };
    Ok(Examined { recovery, restored })
}
