//! Which standbys have to have WAL before the upstream is told that it is safe: the grammar and the
//! rules of `synchronous_standby_names`.
//!
//! ```
//! use walproto::{Lsn, StandbyProgress, TimelineId};
//! use walsender::policy::{Standby, SyncPolicy};
//!
//! let policy: SyncPolicy = "ANY 1 (s1, s2)".parse()?;
//! let at = |lsn| StandbyProgress {
//!     write: Some(Lsn(lsn)),
//!     flush: Some(Lsn(lsn)),
//!     apply: Some(Lsn(lsn)),
//! };
//! let standby = |name, connected, lsn| Standby {
//!     application_name: name,
//!     connected,
//!     streaming: Some(TimelineId::FIRST),
//!     progress: at(lsn),
//! };
//! let standbys = [standby("s1", 1, 0x500), standby("S2", 2, 0x700)];
//! let confirmed = policy.evaluate(TimelineId::FIRST, &standbys);
//! assert_eq!(confirmed.progress, Some(at(0x700)));
//! # Ok::<(), walsender::policy::PolicyError>(())
//! ```
//!
//! Source: the PostgreSQL manual, `synchronous_standby_names`;
//! src/backend/replication/syncrep.c (PG 15).

mod parser;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use walproto::{Confirmed, Lsn, StandbyProgress, TimelineId};

pub use parser::PolicyError;

/// How the standbys are chosen whose positions count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// `FIRST`: those that are named first, of which the slowest decides.
    First,
    /// `ANY`: all that are named, of which so many have to have the WAL.
    Any,
}

/// A name in a policy.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Name {
    /// `*`: every standby.
    Every,
    /// The standbys of one `application_name`, in whatever case.
    Is(String),
}

/// A parsed `synchronous_standby_names`.
///
/// Two rules differ from PostgreSQL's. Of several connections with one name only the newest
/// counts, so that a standby that came back is not taken for two. And a policy that needs more
/// standbys than it names is refused, since nothing could ever meet it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncPolicy {
    method: Method,
    /// At least 1, and at most the number of names unless one of them is `*`.
    needed: usize,
    names: Vec<Name>,
}

/// What a policy wants to know of a connected standby.
#[derive(Clone, Copy, Debug)]
pub struct Standby<'a> {
    /// The name that it gave itself.
    pub application_name: &'a str,
    /// A number that is greater for who connected later.
    pub connected: u64,
    /// The timeline that it streams; `None` while it does not.
    pub streaming: Option<TimelineId>,
    /// What it reported of that timeline.
    pub progress: StandbyProgress,
}

/// What a standby is to the policy, as `sync_state` of `pg_stat_replication` names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncState {
    /// The policy does not name it, or it has no flush position.
    Async,
    /// It would count if others were not there.
    Potential,
    /// It is one of those whose positions count.
    Sync,
    /// It is one of those of which some have to have the WAL.
    Quorum,
}

impl SyncState {
    /// The word that `pg_stat_replication` has for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::Potential => "potential",
            Self::Sync => "sync",
            Self::Quorum => "quorum",
        }
    }
}

/// One of several standbys that counts, and its place among them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    priority: usize,
    connected: u64,
    /// Where it is in the given slice.
    index: usize,
}

impl SyncPolicy {
    /// How standbys are chosen.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }

    /// How many standbys it takes.
    #[must_use]
    pub const fn needed(&self) -> usize {
        self.needed
    }

    /// The place of a standby's name, from 1 on, or 0 if it is not named. With `ANY` all have
    /// place 1 (`sync_priority` of `pg_stat_replication`).
    ///
    /// Source: syncrep.c, `SyncRepGetStandbyPriority` (PG 15).
    #[must_use]
    pub fn priority(&self, application_name: &str) -> usize {
        let place = self.names.iter().position(|name| match name {
            Name::Every => true,
            Name::Is(name) => name.eq_ignore_ascii_case(application_name),
        });
        match (place, self.method) {
            (None, _) => 0,
            (Some(_), Method::Any) => 1,
            (Some(index), Method::First) => index + 1,
        }
    }

    /// What `standbys` together have of `timeline`.
    ///
    /// A standby that streams another timeline counts as absent: at the same position that one
    /// has other bytes.
    ///
    /// Source: syncrep.c, `SyncRepGetSyncRecPtr` (PG 15).
    #[must_use]
    pub fn evaluate(&self, timeline: TimelineId, standbys: &[Standby<'_>]) -> Confirmed {
        let chosen = self.chosen(timeline, standbys);
        let progress = || {
            let indices = chosen.iter().map(|candidate| candidate.index);
            indices.filter_map(|index| Some(standbys.get(index)?.progress))
        };
        let reached = |position: fn(StandbyProgress) -> Option<Lsn>| {
            let mut all: Vec<Option<Lsn>> = progress().map(position).collect();
            all.sort_unstable_by(|one, other| other.cmp(one));
            // With FIRST there are exactly as many as needed, so that this is the least.
            all.get(self.needed - 1).copied().flatten()
        };
        let is_met = chosen.len() >= self.needed;
        Confirmed {
            timeline: Some(timeline),
            present: chosen.len(),
            needed: self.needed,
            progress: is_met.then(|| StandbyProgress {
                write: reached(|p| p.write),
                flush: reached(|p| p.flush),
                apply: reached(|p| p.apply),
            }),
        }
    }

    /// What each of `standbys` is to the policy, in their order.
    ///
    /// Source: src/backend/replication/walsender.c, `pg_stat_get_wal_senders` (PG 15).
    #[must_use]
    pub fn states(&self, timeline: TimelineId, standbys: &[Standby<'_>]) -> Vec<SyncState> {
        let chosen = self.chosen(timeline, standbys);
        let state = |(index, standby): (usize, &Standby<'_>)| {
            if chosen.iter().any(|candidate| candidate.index == index) {
                match self.method {
                    Method::First => SyncState::Sync,
                    Method::Any => SyncState::Quorum,
                }
            } else if self.priority(standby.application_name) == 0
                || standby.progress.flush.is_none()
            {
                SyncState::Async
            } else {
                SyncState::Potential
            }
        };
        standbys.iter().enumerate().map(state).collect()
    }

    /// Those whose positions count: all candidates with `ANY`, the first ones with `FIRST`.
    ///
    /// Source: syncrep.c, `SyncRepGetCandidateStandbys` (PG 15).
    fn chosen(&self, timeline: TimelineId, standbys: &[Standby<'_>]) -> Vec<Candidate> {
        let mut newest = BTreeMap::new();
        for (index, standby) in standbys.iter().enumerate() {
            let priority = self.priority(standby.application_name);
            if priority == 0
                || standby.streaming != Some(timeline)
                || standby.progress.flush.is_none()
            {
                continue;
            }
            let candidate = Candidate {
                priority,
                connected: standby.connected,
                index,
            };
            match newest.entry(standby.application_name.to_ascii_lowercase()) {
                Entry::Vacant(entry) => {
                    entry.insert(candidate);
                }
                Entry::Occupied(mut entry) if entry.get().connected < standby.connected => {
                    entry.insert(candidate);
                }
                Entry::Occupied(_) => {}
            }
        }
        let mut chosen: Vec<Candidate> = newest.into_values().collect();
        if self.method == Method::First {
            chosen.sort_unstable();
            chosen.truncate(self.needed);
        }
        chosen
    }
}

/// The form that [`SyncPolicy::from_str`](std::str::FromStr::from_str) reads back.
impl fmt::Display for SyncPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match self.method {
            Method::First => "FIRST",
            Method::Any => "ANY",
        };
        write!(f, "{method} {} (", self.needed)?;
        for (index, name) in self.names.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            match name {
                Name::Every => f.write_str("*")?,
                Name::Is(name) => parser::write_name(f, name)?,
            }
        }
        f.write_str(")")
    }
}
