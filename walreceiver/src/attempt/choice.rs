//! Which server to stream from.

use std::time::Instant;

use segstore::{Archive, ArchiveError, Recovery, ServerFacts};
use walproto::client::SessionTimes;
use walproto::{TimelineHistory, TimelineId};

use super::Attempt;
use crate::connection::{ConnectError, Connection};
use crate::error::ReceiveError;
use crate::event::Warning;
use crate::follow::{Course, Refusal};
use crate::hosts::connect_all;
use crate::negotiate::Server;
use crate::receiver::StandingWarning;

impl Attempt<'_> {
    /// Of the servers that answer and may be followed, the one on the newest timeline; of those
    /// one that has what comes next, for commits on it may wait for us.
    pub(super) async fn choose(&mut self) -> Result<(Connection, Server), ReceiveError> {
        let mut best: Option<((TimelineId, bool), Connection, Server)> = None;
        let mut refused = None;
        let times = SessionTimes {
            receive_timeout: self.config.receive_timeout,
            status_interval: self.config.status_interval,
        };
        let answered = connect_all(self.connection, times).await?;
        for mut connection in answered.connections {
            self.connected_at.get_or_insert_with(Instant::now);
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

    /// Tells which histories are gone that no server that answered could give back.
    pub(super) fn warn_of_lost_histories(&mut self) {
        let lost = self.archive.as_ref().map(Archive::lost_histories);
        let timelines = lost.as_deref().unwrap_or_default();
        let warning = (!timelines.is_empty()).then_some(Warning::HistoriesLost { timelines });
        let about = StandingWarning::HistoriesLost;
        self.warnings.tell(self.reporter, about, warning);
    }

    /// Whether nothing can be streamed from a server yet, which may be followed.
    fn must_wait_for(&self, server: &Server) -> bool {
        let course = self.held().map(|held| self.resume(&held, server));
        matches!(course, Some(Ok(Course::Wait { .. })))
    }

    /// Whether a server may be followed.
    pub(super) async fn consider(
        &mut self,
        connection: &mut Connection,
    ) -> Result<Server, ReceiveError> {
        let server = Server::identify(connection).await?;
        let (facts, histories) = (server.facts, server.histories.clone());
        let examined = self
            .blocking(move |archive| examine(archive, &facts, &histories))
            .await?;
        let Examined { recovery, restored } = examined?;
        for timeline in restored {
            let about = StandingWarning::HistoryRestored(timeline);
            let warning = Warning::HistoryRestored { timeline };
            self.warnings.tell(self.reporter, about, Some(warning));
        }
        self.recovery = recovery;
        if let Some(held) = self.held() {
            self.resume(&held, &server)?;
        }
        Ok(server)
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
