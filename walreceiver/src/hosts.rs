//! Several hosts: which of them is connected to.
//!
//! Source: the PostgreSQL manual, "Specifying Multiple Hosts" and `target_session_attrs`.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};
use walproto::client::SessionTimes;

use crate::connection::{Attempt, ConnectError, ConnectFailure, Connection, ConnectionError};
use crate::conninfo::{ConnectionConfig, HostCandidate, LoadBalanceHosts, TargetSessionAttrs};

/// How long the other hosts may still take once one of them has answered. Long enough for whoever
/// is there, and short enough that commits which wait for us are not kept waiting by a host that
/// is down.
const PATIENCE: Duration = Duration::from_secs(5);

/// Every server that answered and is in the state asked for, and what became of the others.
pub struct Answered {
    /// The connections, in the order in which the hosts were tried.
    pub connections: Vec<Connection>,
    /// The tries that failed.
    pub failed: Vec<Attempt>,
}

/// Connects to the first host that works and is in the state that `target_session_attrs` asks
/// for.
///
/// libpq gives up when a server answers and refuses the password; here the other hosts are tried
/// too.
///
/// # Cancel safety
/// Dropped half way, the attempt is given up.
///
/// # Errors
/// When there is none; each try is named.
pub async fn connect_any(
    config: &ConnectionConfig,
    times: SessionTimes,
) -> Result<Connection, ConnectError> {
    let mut attempts = Vec::new();
    for wanted in passes(config.target_session_attrs) {
        attempts.clear();
        for host in order(config) {
            match connect_suitable(config, host, times, *wanted).await {
                Ok(connection) => return Ok(connection),
                Err(mut failed) => attempts.append(&mut failed),
            }
        }
    }
    Err(ConnectError { attempts })
}

/// Connects to all hosts that work and are in the state that `target_session_attrs` asks for, all
/// at the same time. For whoever must compare them, as to take the one with the newest timeline.
///
/// Once one has answered, the others have five seconds more: a host that is down must not keep us
/// from the one that is not.
///
/// # Cancel safety
/// Dropped half way, all connections are given up.
///
/// # Errors
/// When there is none; each try is named.
pub async fn connect_all(
    config: &ConnectionConfig,
    times: SessionTimes,
) -> Result<Answered, ConnectError> {
    let mut failed = Vec::new();
    for wanted in passes(config.target_session_attrs) {
        let tries = order(config).into_iter().map(|host| Try {
            host,
            running: Box::pin(connect_suitable(config, host, times, *wanted)),
            outcome: None,
        });
        let answered = all_that_answer(tries.collect()).await;
        if !answered.connections.is_empty() {
            return Ok(answered);
        }
        failed = answered.failed;
    }
    Err(ConnectError { attempts: failed })
}

/// One host that is being connected to.
struct Try<'a, F> {
    host: &'a HostCandidate,
    running: Pin<Box<F>>,
    /// `None` as long as it runs.
    outcome: Option<Result<Connection, Vec<Attempt>>>,
}

impl<F: Future<Output = Result<Connection, Vec<Attempt>>>> Try<'_, F> {
    fn poll(&mut self, cx: &mut Context<'_>) {
        if self.outcome.is_none()
            && let Poll::Ready(outcome) = self.running.as_mut().poll(cx)
        {
            self.outcome = Some(outcome);
        }
    }

    const fn has_connected(&self) -> bool {
        matches!(self.outcome, Some(Ok(_)))
    }

    fn end(self) -> Result<Connection, Vec<Attempt>> {
        self.outcome.unwrap_or_else(|| {
            Err(vec![Attempt {
                server: self.host.to_string(),
                failure: ConnectFailure::Timeout {
                    after: PATIENCE,
                    limit: "since another host answered",
                },
            }])
        })
    }
}

/// Waits until all tries have ended, or for the time that the others have once one has connected.
async fn all_that_answer<F>(mut tries: Vec<Try<'_, F>>) -> Answered
where
    F: Future<Output = Result<Connection, Vec<Attempt>>>,
{
    let mut patience: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        for one in &mut tries {
            one.poll(cx);
        }
        if tries.iter().all(|one| one.outcome.is_some()) {
            return Poll::Ready(());
        }
        if tries.iter().any(Try::has_connected) {
            let patience = patience.get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
            return patience.as_mut().poll(cx);
        }
        Poll::Pending
    })
    .await;
    let mut answered = Answered {
        connections: Vec::new(),
        failed: Vec::new(),
    };
    for one in tries {
        match one.end() {
            Ok(connection) => answered.connections.push(connection),
            Err(mut failed) => answered.failed.append(&mut failed),
        }
    }
    answered
}

/// What to look for, and what to look for when that is not found.
const fn passes(wanted: TargetSessionAttrs) -> &'static [TargetSessionAttrs] {
    match wanted {
        TargetSessionAttrs::Any => &[TargetSessionAttrs::Any],
        TargetSessionAttrs::ReadWrite => &[TargetSessionAttrs::ReadWrite],
        TargetSessionAttrs::ReadOnly => &[TargetSessionAttrs::ReadOnly],
        TargetSessionAttrs::Primary => &[TargetSessionAttrs::Primary],
        TargetSessionAttrs::Standby => &[TargetSessionAttrs::Standby],
        TargetSessionAttrs::PreferStandby => {
            &[TargetSessionAttrs::Standby, TargetSessionAttrs::Any]
        }
    }
}

/// The hosts in the order in which they are to be tried.
fn order(config: &ConnectionConfig) -> Vec<&HostCandidate> {
    let mut hosts: Vec<_> = config.hosts.iter().collect();
    if config.load_balance_hosts == LoadBalanceHosts::Random {
        fastrand::shuffle(&mut hosts);
    }
    hosts
}

async fn connect_suitable(
    config: &ConnectionConfig,
    host: &HostCandidate,
    times: SessionTimes,
    wanted: TargetSessionAttrs,
) -> Result<Connection, Vec<Attempt>> {
    let mut connection = match Connection::connect(config, host, times).await {
        Ok(connection) => connection,
        Err(error) => return Err(error.attempts),
    };
    let checked = check(&mut connection, wanted);
    let failure = match config.connect_timeout {
        Some(after) => match tokio::time::timeout(after, checked).await {
            Ok(checked) => checked.err(),
            Err(tokio::time::error::Elapsed { .. }) => Some(ConnectFailure::Timeout {
                after,
                limit: "connect_timeout",
            }),
        },
        None => checked.await.err(),
    };
    let Some(failure) = failure else {
        return Ok(connection);
    };
    let server = connection.server().to_owned();
    connection.close().await;
    Err(vec![Attempt { server, failure }])
}

/// What a server is, as far as `target_session_attrs` goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct ServerState {
    hot_standby: bool,
    read_only: bool,
}

async fn check(
    connection: &mut Connection,
    wanted: TargetSessionAttrs,
) -> Result<(), ConnectFailure> {
    if wanted == TargetSessionAttrs::Any {
        return Ok(());
    }
    let state = match reported(
        connection.parameter("in_hot_standby"),
        connection.parameter("default_transaction_read_only"),
    ) {
        Some(state) => state,
        None => asked(connection)
            .await
            .map_err(|error| ConnectFailure::Connection(Box::new(error)))?,
    };
    match mismatch(state, wanted) {
        Some((wanted, found)) => Err(ConnectFailure::Target { found, wanted }),
        None => Ok(()),
    }
}

/// What the server has said about itself when the session began, which it does from 14 on.
fn reported(in_hot_standby: Option<&str>, read_only: Option<&str>) -> Option<ServerState> {
    let hot_standby = in_hot_standby? == "on";
    Some(ServerState {
        hot_standby,
        read_only: hot_standby || read_only? == "on",
    })
}

/// Asks the server by SHOW, the only question of this kind that a physical walsender answers. A
/// primary of version 13 with `default_transaction_read_only = on` looks like a standby so.
async fn asked(connection: &mut Connection) -> Result<ServerState, ConnectionError> {
    let on = connection.show("transaction_read_only").await?.value == "on";
    Ok(ServerState {
        hot_standby: on,
        read_only: on,
    })
}

/// What is wrong with a server, in libpq's words, and what was asked for.
fn mismatch(
    state: ServerState,
    wanted: TargetSessionAttrs,
) -> Option<(&'static str, &'static str)> {
    match wanted {
        TargetSessionAttrs::ReadWrite if state.read_only => {
            Some(("read-write", "session is read-only"))
        }
        TargetSessionAttrs::ReadOnly if !state.read_only => {
            Some(("read-only", "session is not read-only"))
        }
        TargetSessionAttrs::Primary if state.hot_standby => {
            Some(("primary", "server is in hot standby mode"))
        }
        TargetSessionAttrs::Standby if !state.hot_standby => {
            Some(("standby", "server is not in hot standby mode"))
        }
        TargetSessionAttrs::Any
        | TargetSessionAttrs::ReadWrite
        | TargetSessionAttrs::ReadOnly
        | TargetSessionAttrs::Primary
        | TargetSessionAttrs::Standby
        | TargetSessionAttrs::PreferStandby => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_told_apart_by_what_they_report() {
        use TargetSessionAttrs::{Any, Primary, ReadOnly, ReadWrite, Standby};
        for (in_hot_standby, read_only, fits) in [
            ("off", "off", &[Any, ReadWrite, Primary][..]),
            ("off", "on", &[Any, ReadOnly, Primary]),
            ("on", "off", &[Any, ReadOnly, Standby]),
            ("on", "on", &[Any, ReadOnly, Standby]),
        ] {
            let state = reported(Some(in_hot_standby), Some(read_only)).unwrap();
            for wanted in [Any, ReadWrite, ReadOnly, Primary, Standby] {
                let found = mismatch(state, wanted);
                assert_eq!(
                    found.is_none(),
                    fits.contains(&wanted),
                    "{state:?} {wanted:?}"
                );
            }
        }
        assert_eq!(reported(None, Some("off")), None);
        assert_eq!(reported(Some("off"), None), None);
    }
}
