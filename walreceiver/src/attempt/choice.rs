//! Which server to stream from.

use std::collections::BTreeMap;
use std::mem::{Discriminant, discriminant};
use std::time::Instant;

use pgconn::connection::{Attempt as Try, ConnectError, ConnectFailure, Connection};
use pgconn::hosts::{Answer, Answered, Suits, ask_all, connect_checked};
use segstore::{Archive, ArchiveError};
use walproto::SegmentSize;
use walproto::client::SessionTimes;

use super::Attempt;
use crate::error::{Phase, ReceiveError};
use crate::event::{ReceiverEvent, Warning};
use crate::follow::Refusal;
use crate::follow::among::{Candidate, Choice, Kin, Split, choose};
use crate::negotiate::Server;
use crate::standing::StandingWarning;

/// Remembers over all connections why hosts are passed over, so that it is said once.
#[derive(Debug, Default)]
pub(crate) struct HostMemory {
    told: BTreeMap<String, Reason>,
}

/// A reason without its positions, which change all the time.
type Reason = (
    Discriminant<ReceiveError>,
    Option<Discriminant<Refusal>>,
    Option<Discriminant<ArchiveError>>,
);

impl HostMemory {
    /// Whether the reason is another one than before.
    fn is_news(&mut self, server: &str, error: &ReceiveError) -> bool {
        let (mut refusal, mut of_archive) = (None, None);
        match error {
            // To the user these are one: once the archive has the newer timeline, it says so itself.
            ReceiveError::Refused(Refusal::Superseded { .. } | Refusal::OlderTimeline { .. }) => {}
            ReceiveError::Refused(error) => refusal = Some(discriminant(error)),
            ReceiveError::Archive(error) => of_archive = Some(discriminant(error)),
            _ => {}
        }
        let reason = (discriminant(error), refusal, of_archive);
        self.told.insert(server.to_owned(), reason) != Some(reason)
    }
}

/// A server that answered, and its answer.
type Asked<'a> = Answer<'a, Server>;

impl Attempt<'_> {
    /// The server to follow, of those that answer. Each host that is refused is named, but for
    /// one that is the only one.
    pub(super) async fn choose(&mut self) -> Result<(Connection, Server), ReceiveError> {
        let times = SessionTimes {
            receive_timeout: self.config.receive_timeout,
            status_interval: self.config.status_interval,
        };
        let config = self.connection;
        let answered = ask_all(config, times, |mut connection| async {
            let server = Server::identify(&mut connection).await;
            (connection, server)
        })
        .await;
        let Answered {
            mut answers,
            refused,
            failed,
        } = answered;
        if !(answers.is_empty() && refused.is_empty()) {
            self.connected_at.get_or_insert_with(Instant::now);
        }
        let is_alone = answers.len() + refused.len() + failed.len() == 1;
        let mut rest = Rest {
            is_alone,
            refused,
            failed,
        };
        self.others_unasked = !is_alone && rest.has_unasked(self.phase);
        let mut chosen = self.pick(&answers, &mut rest).await?;
        if !is_alone
            && let Some(answer) = answers.get_mut(chosen)
            && !is_as_before(answer).await
        {
            // It was lost while the others were waited for, or has been promoted.
            let connected = connect_checked(config, &answer.address, times).await;
            let (mut connection, suits) =
                connected.map_err(|attempts| ConnectError { attempts })?;
            answer.said = Server::identify(&mut connection).await?;
            answer.suits = suits;
            answer.connection = connection;
            chosen = self.pick(&answers, &mut rest).await?;
        }
        if chosen < answers.len() {
            let answer = answers.swap_remove(chosen);
            return Ok((answer.connection, answer.said));
        }
        Err(ReceiveError::NoServer)
    }

    /// The index of the answer whose connection is used.
    async fn pick(
        &mut self,
        answers: &[Asked<'_>],
        rest: &mut Rest,
    ) -> Result<usize, ReceiveError> {
        let verdicts = self
            .examine(answers.iter().map(|answer| &answer.said))
            .await?;
        let mut refused = Vec::new();
        let mut candidates = Vec::new();
        for (answer, verdict) in answers.iter().zip(verdicts) {
            let kin = match &verdict {
                Ok(()) => Kin::Ours,
                Err(ArchiveError::OtherHistory { .. }) => Kin::Contradicts,
                Err(_) => Kin::Foreign,
            };
            candidates.push(Candidate {
                system_id: answer.said.facts.system_id,
                upstream: &answer.said.upstream,
                suits: answer.suits,
                kin,
            });
            if let Err(error) = verdict {
                refused.push((answer.connection.server().to_owned(), error.into()));
            }
        }
        let name = |index: usize| {
            let answer = answers.get(index);
            answer.map_or(String::new(), |answer| {
                answer.connection.server().to_owned()
            })
        };
        // All servers of one cluster have segments of one size.
        let segment_size = answers
            .iter()
            .zip(&candidates)
            .find_map(|(answer, candidate)| {
                (candidate.kin == Kin::Ours).then_some(answer.said.facts.segment_size)
            });
        let decided = choose(
            self.held().as_ref(),
            &candidates,
            segment_size.unwrap_or(SegmentSize::DEFAULT),
            self.follows_forks(),
        );
        let chosen = match decided {
            Ok(choice) => {
                let Choice {
                    chosen,
                    refused: by_lineage,
                } = choice;
                let named = by_lineage
                    .into_iter()
                    .map(|(index, refusal)| (name(index), refusal.into()));
                refused.extend(named);
                chosen
            }
            Err(Split { refusal, .. }) if rest.is_alone => return Err(refusal.into()),
            Err(Split { servers, refusal }) => {
                self.name_refused(rest.refused.iter().chain(&refused));
                let servers = servers.into_iter().map(name).collect();
                return Err(ReceiveError::Split { servers, refusal });
            }
        };
        if !rest.is_alone {
            self.name_refused(rest.refused.iter().chain(&refused));
        }
        match chosen {
            Some(chosen) => {
                let server = name(chosen);
                self.hosts.told.remove(&server);
                Ok(chosen)
            }
            None => Err(rest.why_none(answers, refused, self.phase)),
        }
    }

    /// What an error of the followed server means if other hosts could not be asked: one of them may
    /// still have the WAL that the server has removed.
    pub(super) fn with_others(&self, error: ReceiveError, server: &str) -> ReceiveError {
        match error {
            ReceiveError::WalRemoved { .. } if self.others_unasked => ReceiveError::OthersMissing {
                server: server.to_owned(),
                reason: Box::new(error),
            },
            error => error,
        }
    }

    /// Names the hosts that are not followed.
    fn name_refused<'e>(&mut self, refused: impl Iterator<Item = &'e (String, ReceiveError)>) {
        for (server, error) in refused {
            if self.hosts.is_news(server, error) {
                let warning = Warning::HostPassedOver { server, error };
                self.reporter.report(&ReceiverEvent::Warning(warning));
            }
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
}

/// The hosts that gave no answer to choose from.
struct Rest {
    /// Whether there is one host with one address only.
    is_alone: bool,
    /// Those whose answer made no sense.
    refused: Vec<(String, ReceiveError)>,
    failed: Vec<Try>,
}

impl Rest {
    /// Whether a host could not be asked that may answer soon.
    fn has_unasked(&self, phase: Phase) -> bool {
        match phase {
            Phase::Before => self
                .failed
                .iter()
                .any(|attempt| attempt.failure.is_transient()),
            // In a failover a host may fail for any reason.
            Phase::After => !self.failed.is_empty(),
        }
    }

    /// Why there is no server to follow.
    fn why_none(
        &mut self,
        answers: &[Asked<'_>],
        refused: Vec<(String, ReceiveError)>,
        phase: Phase,
    ) -> ReceiveError {
        let mut all_refused = std::mem::take(&mut self.refused);
        all_refused.extend(refused);
        let mut attempts = std::mem::take(&mut self.failed);
        attempts.extend(answers.iter().filter_map(|answer| match answer.suits {
            Suits::No { wanted, found } => Some(Try {
                server: answer.connection.server().to_owned(),
                failure: ConnectFailure::Target { found, wanted },
            }),
            Suits::Fallback | Suits::Well => None,
        }));
        let others = ConnectError { attempts };
        // In a failover a host may fail for any reason, so that it could not be asked.
        let is_unasked = match phase {
            Phase::Before => others.is_transient(),
            Phase::After => !others.attempts.is_empty(),
        };
        let may_be_another = is_unasked
            || all_refused
                .iter()
                .any(|(_, error)| !error.ends(Phase::After));
        match all_refused.into_iter().next() {
            None if others.attempts.is_empty() => ReceiveError::NoServer,
            None => others.into(),
            Some((server, error)) if may_be_another && is_passed_over(&error) => {
                let reason = Box::new(error);
                ReceiveError::OthersMissing { server, reason }
            }
            Some((_, error)) => error,
        }
    }
}

/// Whether an error says that the server is the wrong one, so that another one is the right one.
const fn is_passed_over(error: &ReceiveError) -> bool {
    matches!(
        error,
        ReceiveError::Refused(
            Refusal::OlderTimeline { .. } | Refusal::Superseded { .. } | Refusal::LostWal { .. }
        ) | ReceiveError::Archive(
            ArchiveError::OtherCluster { .. }
                | ArchiveError::OtherHistory { .. }
                | ArchiveError::OtherSegmentSize { .. }
        )
    )
}

/// Whether a server is still there and what it was when it was asked: others may have taken their
/// time since, and a server with a short `idle_session_timeout` has hung up meanwhile.
async fn is_as_before(answer: &mut Asked<'_>) -> bool {
    let asked = answer.said.ask_again(&mut answer.connection).await;
    // An error is met again on the next connection, if it is not about this one.
    asked.is_ok_and(|is_the_same| is_the_same)
}

#[cfg(test)]
mod tests {
    use walproto::TimelineId;

    use super::*;

    fn passed_over() -> (String, ReceiveError) {
        let refusal = Refusal::Superseded {
            server: TimelineId::FIRST,
            newest: TimelineId::FIRST,
        };
        ("zombie".to_owned(), refusal.into())
    }

    fn rest(refused: Vec<(String, ReceiveError)>) -> Rest {
        let failure = ConnectFailure::WrongPeer {
            required: "postgres".to_owned(),
            actual: "root".to_owned(),
        };
        let server = "primary".to_owned();
        Rest {
            is_alone: false,
            refused,
            failed: vec![Try { server, failure }],
        }
    }

    #[test]
    fn a_host_that_fails_for_any_reason_may_be_the_one_to_follow_once_streaming_began() {
        let why = |phase| rest(Vec::new()).why_none(&[], vec![passed_over()], phase);
        let before = why(Phase::Before);
        assert!(matches!(before, ReceiveError::Refused(_)), "{before}");
        let after = why(Phase::After);
        assert!(
            matches!(after, ReceiveError::OthersMissing { .. }),
            "{after}"
        );
    }

    #[test]
    fn a_host_whose_answer_makes_no_sense_may_be_the_one_to_follow() {
        let refused = vec![(
            "primary".to_owned(),
            ReceiveError::HistoriesTooLong { limit: 1 },
        )];
        let mut rest = rest(refused);
        rest.failed.clear();
        let why = rest.why_none(&[], vec![passed_over()], Phase::After);
        assert!(!why.ends(Phase::After), "{why}");
    }
}
