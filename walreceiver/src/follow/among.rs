//! Which of several servers is followed: decided from what all of them know.
//!
//! The newest timeline that any of them names decides. A server on an older one was replaced by a
//! promotion, or will be: if the newest one forked off before the end of the archive, what older
//! ones have after the fork is lost to the cluster, and must not be acknowledged any more.
//!
//! | a server of the cluster, next to the newest timeline | it is |
//! |---|---|
//! | on it, and its WAL continues the archive | followed |
//! | on it, and its WAL does not continue the archive | the end of receiving, whatever others have |
//! | on it, with another history than another server | the end of receiving |
//! | on it, and its history contradicts the archive's | the end of receiving |
//! | on an older one, a primary | passed over: it was replaced |
//! | on an older one, a standby | waited for |

use pgconn::hosts::Suits;
use walproto::{SegmentSize, SystemId, TimelineId};

use super::{Course, Held, Refusal, Upstream, resume};

/// A server that answered.
pub(crate) struct Candidate<'a> {
    pub(crate) system_id: SystemId,
    pub(crate) upstream: &'a Upstream,
    pub(crate) suits: Suits,
    pub(crate) kin: Kin,
}

/// What a server is to the archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kin {
    /// Of its cluster, or the archive is still of none.
    Ours,
    /// Of its cluster, but with another history of a timeline that the archive knows.
    Contradicts,
    /// Of another cluster.
    Foreign,
}

/// What is decided about the servers.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Choice {
    /// The one to stream from, by its place among the candidates.
    pub(crate) chosen: Option<usize>,
    /// Those that are passed over.
    pub(crate) refused: Vec<(usize, Refusal)>,
}

/// Why no server is followed whatever others have: some of them, by their places, show that the
/// history of the cluster has split.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Split {
    pub(crate) servers: Vec<usize>,
    pub(crate) refusal: Refusal,
}

/// Decides which server to follow. `held` is `None` if the archive has no WAL.
///
/// # Errors
/// When none may be, because of the newest timeline.
pub(crate) fn choose(
    held: Option<&Held>,
    candidates: &[Candidate<'_>],
    segment_size: SegmentSize,
    follow_fork: bool,
) -> Result<Choice, Split> {
    let ours = || {
        let candidates = candidates.iter().enumerate();
        candidates.filter(|(_, candidate)| candidate.kin == Kin::Ours)
    };
    let timeline = |candidate: &Candidate<'_>| candidate.upstream.history.timeline();
    if let Some(held) = held {
        not_contradicted(held, candidates)?;
    }
    let Some(newest) = ours().map(|(_, candidate)| timeline(candidate)).max() else {
        return Ok(Choice {
            chosen: None,
            refused: Vec::new(),
        });
    };
    same_cluster(ours())?;
    let on_newest = || ours().filter(|(_, candidate)| timeline(candidate) == newest);
    if held.is_none_or(|held| newest > held.timeline) {
        same_history(newest, on_newest())?;
    }
    if let (Some(held), Some((index, candidate))) = (held, on_newest().next())
        && newest > held.timeline
        && let Err(refusal) = resume(held, candidate.upstream, segment_size, follow_fork)
    {
        let servers = vec![index];
        return Err(Split { servers, refusal });
    }
    let mut best = None;
    let mut refused = Vec::new();
    for (index, candidate) in ours() {
        let is_behind = timeline(candidate) < newest;
        let course = match held {
            Some(held) if !is_behind || newest <= held.timeline => {
                resume(held, candidate.upstream, segment_size, follow_fork)
            }
            _ if is_behind && !candidate.upstream.is_standby => Err(Refusal::Superseded {
                server: timeline(candidate),
                newest,
            }),
            _ if is_behind => Ok(Course::Wait {
                flush: candidate.upstream.flush,
            }),
            _ => Ok(Course::Stream {
                timeline: newest,
                start: candidate.upstream.flush,
            }),
        };
        match course {
            Err(refusal) => refused.push((index, refusal)),
            Ok(_) if candidate.suits < Suits::Fallback => {}
            Ok(course) => {
                let streams = !matches!(course, Course::Wait { .. });
                let rank = (streams, timeline(candidate), candidate.suits);
                if best.is_none_or(|(best, _)| rank > best) {
                    best = Some((rank, index));
                }
            }
        }
    }
    Ok(Choice {
        chosen: best.map(|(_, index)| index),
        refused,
    })
}

/// Whether no server contradicts the archive by the newest timeline of all. One alone is not
/// decided about here.
fn not_contradicted(held: &Held, candidates: &[Candidate<'_>]) -> Result<(), Split> {
    let of_cluster = candidates.iter().enumerate();
    let newest = of_cluster
        .filter(|(_, candidate)| candidate.kin != Kin::Foreign)
        // Of several the one that contradicts.
        .max_by_key(|(_, candidate)| {
            let timeline = candidate.upstream.history.timeline();
            (timeline, candidate.kin == Kin::Contradicts)
        });
    match newest {
        Some((index, candidate))
            if candidates.len() > 1
                && candidate.kin == Kin::Contradicts
                && candidate.upstream.history.timeline() > held.timeline =>
        {
            Err(Split {
                servers: vec![index],
                refusal: Refusal::ForeignTimeline {
                    server: candidate.upstream.history.timeline(),
                    archive: held.timeline,
                    record_end: held.record_end,
                },
            })
        }
        _ => Ok(()),
    }
}

/// Whether all are of one cluster, as they are unless the archive is still of none.
fn same_cluster<'a>(
    mut ours: impl Iterator<Item = (usize, &'a Candidate<'a>)>,
) -> Result<(), Split> {
    let Some((first, one)) = ours.next() else {
        return Ok(());
    };
    match ours.find(|(_, other)| other.system_id != one.system_id) {
        None => Ok(()),
        Some((second, other)) => Err(Split {
            servers: vec![first, second],
            refusal: Refusal::TwoClusters {
                one: one.system_id,
                other: other.system_id,
            },
        }),
    }
}

/// Whether all have one history of their timeline.
fn same_history<'a>(
    timeline: TimelineId,
    mut servers: impl Iterator<Item = (usize, &'a Candidate<'a>)>,
) -> Result<(), Split> {
    let Some((first, one)) = servers.next() else {
        return Ok(());
    };
    match servers.find(|(_, other)| other.upstream.history != one.upstream.history) {
        None => Ok(()),
        Some((second, _)) => Err(Split {
            servers: vec![first, second],
            refusal: Refusal::SplitTimeline { timeline },
        }),
    }
}

#[cfg(test)]
mod tests;
