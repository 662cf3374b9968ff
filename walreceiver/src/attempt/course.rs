//! What to stream from a server, and what has to be done before.

use pgconn::connection::Connection;
use walproto::client::Event;
use walproto::result::TimelineEnd;
use walproto::{Lsn, SlotName, TimelineId};

use super::Attempt;
use super::first_start::FoundSlot;
use crate::config::{FirstStart, OnFork, OnLostSlot};
use crate::error::ReceiveError;
use crate::event::{ReceiverEvent, Warning};
use crate::follow::{self, Course, Held, Refusal};
use crate::negotiate::{Server, Slot, read_slot, slots_are_unlimited};
use crate::slot::{NewPhysicalSlot, create_slot};
use crate::standing::StandingWarning;

impl Attempt<'_> {
    /// How to go on with what the archive has.
    pub(super) fn resume(&self, held: &Held, server: &Server) -> Result<Course, Refusal> {
        follow::resume(
            held,
            &server.upstream,
            server.facts.segment_size,
            self.follows_forks(),
        )
    }

    /// Whether a timeline is followed that lacks a part of the archive.
    pub(super) fn follows_forks(&self) -> bool {
        self.config.fork == OnFork::Follow
    }

    /// What to stream from a server that was chosen, if it can be streamed.
    pub(super) async fn decide(
        &mut self,
        connection: &mut Connection,
        server: &Server,
    ) -> Result<Course, ReceiveError> {
        let held = self.held();
        let mut is_limited = false;
        let slot = match &self.config.slot {
            Some(name) => {
                let unlimited = slots_are_unlimited(connection).await?;
                is_limited = !unlimited;
                let warning = unlimited.then_some(Warning::SlotUnlimited { slot: name });
                let about = StandingWarning::SlotLimit;
                self.warnings.tell(self.reporter, about, warning);
                self.check_slot(connection, server, name, held.as_ref())
                    .await?
            }
            None => Slot::Unknown,
        };
        match (held, self.config.start) {
            // The first segment begins before the position that was asked for.
            (Some(held), Some(start))
                if server.facts.segment_size.start_of(start) > held.record_end =>
            {
                Err(ReceiveError::NotEmpty {
                    start,
                    timeline: held.timeline,
                    resume_at: held.resume_at,
                })
            }
            (Some(held), _) => {
                if held.timeline != server.timeline() {
                    // No commit of an older timeline waits after a promotion.
                    *self.catching_up = None;
                }
                let course = self.resume(&held, server)?;
                if matches!(course, Course::Stream { .. }) {
                    self.reserve_again(connection, server).await?;
                }
                Ok(course)
            }
            (None, start) => {
                let of_slot = match slot {
                    Slot::Reserves(lsn) => Some(lsn),
                    Slot::Unknown | Slot::Missing | Slot::ReservesNothing => None,
                };
                *self.catching_up = None;
                let start = match (start, self.config.first_start) {
                    (Some(start), _) => start,
                    (None, FirstStart::ServerFlush) => of_slot.unwrap_or(server.upstream.flush),
                    (None, FirstStart::OldestWal) => {
                        let found = FoundSlot { slot, is_limited };
                        self.first_start(connection, server, found).await?
                    }
                };
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
        &mut self,
        connection: &mut Connection,
        server: &Server,
        name: &SlotName,
        held: Option<&Held>,
    ) -> Result<Slot, ReceiveError> {
        let found = read_slot(connection, name).await?;
        *self.slot_reserves |= matches!(found, Slot::Reserves(_));
        let failed_over = held.is_some_and(|held| held.timeline < server.timeline());
        match (found, held) {
            (Slot::Missing | Slot::Unknown, _) if failed_over => {
                let new = NewPhysicalSlot {
                    reserve_wal: true,
                    // A server older than 15 cannot be asked for the slot.
                    may_exist: found == Slot::Unknown,
                };
                if create_slot(connection, name, new).await? {
                    let warning = Warning::SlotCreated { slot: name };
                    self.reporter.report(&ReceiverEvent::Warning(warning));
                }
                read_slot(connection, name).await
            }
            (Slot::Missing, _) => Err(ReceiveError::NoSuchSlot { slot: name.clone() }),
            (Slot::ReservesNothing, Some(held)) => match self.config.lost_slot {
                // A new slot that could not be moved to the start of the archive reserves WAL from
                // the first acknowledgement on.
                OnLostSlot::Stop if self.catching_up.is_none() || *self.slot_reserves => {
                    Err(ReceiveError::LostSlot {
                        slot: name.clone(),
                        timeline: held.timeline,
                        needed: held.record_end,
                    })
                }
                OnLostSlot::Stop | OnLostSlot::Warn => {
                    let warning = Warning::SlotReservesNothing { slot: name };
                    let about = StandingWarning::SlotReserve;
                    self.warnings.tell(self.reporter, about, Some(warning));
                    Ok(found)
                }
            },
            _ => {
                let about = StandingWarning::SlotReserve;
                self.warnings.tell(self.reporter, about, None);
                Ok(found)
            }
        }
    }

    /// Makes the archive ready for a course that was decided.
    pub(super) async fn embark(
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
        let left = self.held().map(|held| held.timeline);
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
        if let Some(left) = left {
            self.switched(&server.upstream.history, left, timeline);
        }
        Ok((timeline, start))
    }

    /// Goes on with the timeline that follows the one that ended.
    pub(super) async fn switch(
        &mut self,
        connection: &mut Connection,
        (timeline, start): (TimelineId, Lsn),
        end: TimelineEnd,
    ) -> Result<(Server, TimelineId, Lsn), ReceiveError> {
        while connection.event().await? != Event::Ready {}
        self.end_reservation(connection).await?;
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
        let held = self.held();
        // Of WAL on an older timeline, only what the one that ended shares counts. With all of it
        // here, the course leads to a newer timeline, so that none is streamed again at once.
        let received_end = held.as_ref().map_or(start, |held| {
            let left = history.switch_point_of(held.timeline);
            left.map_or(held.record_end, |left| held.record_end.min(left))
        });
        if received_end < switch_point {
            return Err(ReceiveError::SwitchPastEnd {
                timeline,
                next,
                switch_point,
                received_end,
            });
        }
        let course = match &held {
            Some(held) => self.resume(held, &server)?,
            // The timeline ended where the stream began, so that nothing of it was received.
            None => follow::begin(switch_point, &server.upstream, server.facts.segment_size)?,
        };
        let left = timeline;
        let (timeline, start) = self.embark(&server, course).await?;
        if held.is_none() {
            self.switched(&server.upstream.history, left, timeline);
        }
        Ok((server, timeline, start))
    }
}
