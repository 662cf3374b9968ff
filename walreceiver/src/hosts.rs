//! Several hosts: which of them is connected to.
//!
//! Source: the PostgreSQL manual, "Specifying Multiple Hosts" and `target_session_attrs`.

//! A name may stand for several servers, as that of a service that lists its pods. So every address
//! of the family of the first one is a server of its own: each is asked. The addresses of the other
//! family are taken for other ways to the same servers, and are tried if none of the first suits.
//! libpq asks only the first address that answers whether it suits (src/interfaces/libpq/fe-connect.c,
//! `PQconnectPoll`, PG 15).

use std::future::{Future, poll_fn};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use walproto::client::SessionTimes;

use crate::connection::{
    Address, Attempt, ConnectError, ConnectFailure, Connection, ConnectionError, addresses,
};
use crate::conninfo::{ConnectionConfig, HostCandidate, LoadBalanceHosts, TargetSessionAttrs};

/// How long the other hosts may still take once one of them has answered. Long enough for whoever
/// is there, and short enough that commits which wait for us are not kept waiting by a host that
/// is down.
const PATIENCE: Duration = Duration::from_secs(5);

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
            let addresses = match addresses(config, host).await {
                Ok(addresses) => addresses,
                Err(failed) => {
                    attempts.push(failed);
                    continue;
                }
            };
            match connect_first(config, &addresses, times, *wanted).await {
                Ok(connection) => return Ok(connection),
                Err(mut failed) => attempts.append(&mut failed),
            }
        }
    }
    Err(ConnectError { attempts })
}

/// Connects to the first of a host's addresses that works and is in the state asked for.
async fn connect_first(
    config: &ConnectionConfig,
    addresses: &[Address<'_>],
    times: SessionTimes,
    wanted: TargetSessionAttrs,
) -> Result<Connection, Vec<Attempt>> {
    let mut attempts = Vec::new();
    for address in addresses {
        match connect_suitable(config, address, times, wanted).await {
            Ok(connection) => return Ok(connection),
            Err(mut failed) => attempts.append(&mut failed),
        }
    }
    Err(attempts)
}

/// How well a server suits `target_session_attrs`, from worst to best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Suits {
    /// Not at all: it is asked for what it knows, and not streamed from.
    No {
        /// The state that was asked for.
        wanted: &'static str,
        /// What is wrong about the server.
        found: &'static str,
    },
    /// If no other server suits better.
    Fallback,
    /// As was asked for.
    Well,
}

/// A server that answered.
pub(crate) struct Answer<'a, T> {
    /// Where it is.
    pub(crate) address: Address<'a>,
    pub(crate) connection: Connection,
    pub(crate) suits: Suits,
    /// What it answered.
    pub(crate) said: T,
}

/// What became of the servers that were asked, in the order of the hosts.
pub(crate) struct Answered<'a, T, E> {
    /// Those that answered, also if they do not suit.
    pub(crate) answers: Vec<Answer<'a, T>>,
    /// Those whose answer makes no sense, by name.
    pub(crate) refused: Vec<(String, E)>,
    /// The tries to connect that failed.
    pub(crate) failed: Vec<Attempt>,
}

/// Connects to all servers at the same time and asks each one, at once, what `ask` asks. Those that
/// do not suit `target_session_attrs` are asked too: one of them may know of a newer timeline.
///
/// Once one that suits has answered, the others have five seconds more: a host that is down must
/// not keep us from the one that is not.
///
/// # Cancel safety
/// Dropped half way, all connections are given up.
pub(crate) async fn ask_all<'a, T, E, F>(
    config: &'a ConnectionConfig,
    times: SessionTimes,
    ask: impl Fn(Connection) -> F,
) -> Answered<'a, T, E>
where
    F: Future<Output = (Connection, Result<T, E>)>,
{
    let round = Round {
        config,
        times,
        ask,
        places: Mutex::default(),
        answered: Notify::new(),
    };
    let patience = async {
        round.answered.notified().await;
        sleep(PATIENCE).await;
    };
    let hosts = order(config)
        .into_iter()
        .enumerate()
        .map(|(index, host)| round.ask_host(index, host));
    tokio::select! {
        biased;
        () = all(hosts) => {}
        () = patience => {}
    }
    round.finish()
}

/// What became of one try.
enum Outcome<'a, T, E> {
    Answered(Box<Answer<'a, T>>),
    Refused(E),
    Failed(Vec<Attempt>),
    /// The name was resolved; its addresses have places of their own.
    Resolved,
}

/// A host whose name is being resolved, or an address that is being asked.
struct Place<'a, T, E> {
    /// Which host, in the order in which they are asked.
    host: usize,
    server: String,
    /// `None` as long as it is not known.
    outcome: Option<Outcome<'a, T, E>>,
}

/// All hosts that are being asked.
struct Round<'a, T, E, A> {
    config: &'a ConnectionConfig,
    times: SessionTimes,
    ask: A,
    places: Mutex<Vec<Place<'a, T, E>>>,
    /// That one has answered which suits.
    answered: Notify,
}

impl<'a, T, E, A, F> Round<'a, T, E, A>
where
    A: Fn(Connection) -> F,
    F: Future<Output = (Connection, Result<T, E>)>,
{
    async fn ask_host(&self, host: usize, candidate: &'a HostCandidate) {
        let place = self.begin(host, candidate.to_string());
        let addresses = match addresses(self.config, candidate).await {
            Ok(addresses) => addresses,
            Err(attempt) => return self.end(place, Outcome::Failed(vec![attempt])),
        };
        self.end(place, Outcome::Resolved);
        self.ask_addresses(host, addresses).await;
    }

    async fn ask_addresses(&self, host: usize, addresses: Vec<Address<'a>>) {
        for family in families(addresses) {
            let tries = family.into_iter();
            all(tries.map(|address| self.ask_address(host, address))).await;
            if self.is_answered_by(host) {
                return;
            }
        }
    }

    async fn ask_address(&self, host: usize, address: Address<'a>) {
        let place = self.begin(host, address.to_string());
        let connected = connect_checked(self.config, &address, self.times).await;
        let outcome = match connected {
            Err(failed) => Outcome::Failed(failed),
            Ok((connection, suits)) => match (self.ask)(connection).await {
                (connection, Ok(said)) => Outcome::Answered(Box::new(Answer {
                    address,
                    connection,
                    suits,
                    said,
                })),
                (_, Err(error)) => Outcome::Refused(error),
            },
        };
        self.end(place, outcome);
    }

    fn begin(&self, host: usize, server: String) -> usize {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.push(Place {
            host,
            server,
            outcome: None,
        });
        places.len() - 1
    }

    fn end(&self, place: usize, outcome: Outcome<'a, T, E>) {
        if outcome.suits() {
            self.answered.notify_one();
        }
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get_mut(place) {
            place.outcome = Some(outcome);
        }
    }

    fn is_answered_by(&self, host: usize) -> bool {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let mut of_host = places.iter().filter(|place| place.host == host);
        of_host.any(|place| place.outcome.as_ref().is_some_and(Outcome::suits))
    }

    fn finish(self) -> Answered<'a, T, E> {
        let places = self.places.into_inner();
        let mut places = places.unwrap_or_else(PoisonError::into_inner);
        // Of one host they stay in the order in which they were begun.
        places.sort_by_key(|place| place.host);
        let mut answered = Answered {
            answers: Vec::new(),
            refused: Vec::new(),
            failed: Vec::new(),
        };
        for place in places {
            match place.outcome {
                Some(Outcome::Answered(answer)) => answered.answers.push(*answer),
                Some(Outcome::Refused(error)) => answered.refused.push((place.server, error)),
                Some(Outcome::Failed(mut failed)) => answered.failed.append(&mut failed),
                Some(Outcome::Resolved) => {}
                None => answered.failed.push(Attempt {
                    server: place.server,
                    failure: ConnectFailure::Timeout {
                        after: PATIENCE,
                        limit: "since another host answered",
                    },
                }),
            }
        }
        answered
    }
}

impl<T, E> Outcome<'_, T, E> {
    fn suits(&self) -> bool {
        matches!(self, Self::Answered(answer) if answer.suits >= Suits::Fallback)
    }
}

/// The addresses of the family of the first one, and the others.
fn families(addresses: Vec<Address<'_>>) -> [Vec<Address<'_>>; 2] {
    let Some(first) = addresses.first().cloned() else {
        return [Vec::new(), Vec::new()];
    };
    let is_of_first = |address: &Address<'_>| address.is_of_the_family_of(&first);
    let (same, other) = addresses.into_iter().partition(is_of_first);
    [same, other]
}

/// Waits until all of them have ended.
async fn all(tries: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut running: Vec<_> = tries.map(Box::pin).collect();
    poll_fn(|cx| {
        running.retain_mut(|one| one.as_mut().poll(cx).is_pending());
        if running.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
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
    address: &Address<'_>,
    times: SessionTimes,
    wanted: TargetSessionAttrs,
) -> Result<Connection, Vec<Attempt>> {
    let (connection, suits) = connect_as(config, address, times, wanted).await?;
    let Suits::No { wanted, found } = suits else {
        return Ok(connection);
    };
    let server = connection.server().to_owned();
    connection.close().await;
    let failure = ConnectFailure::Target { found, wanted };
    Err(vec![Attempt { server, failure }])
}

/// Connects, and finds out how well the server suits `target_session_attrs`.
pub(crate) async fn connect_checked(
    config: &ConnectionConfig,
    address: &Address<'_>,
    times: SessionTimes,
) -> Result<(Connection, Suits), Vec<Attempt>> {
    connect_as(config, address, times, config.target_session_attrs).await
}

async fn connect_as(
    config: &ConnectionConfig,
    address: &Address<'_>,
    times: SessionTimes,
    wanted: TargetSessionAttrs,
) -> Result<(Connection, Suits), Vec<Attempt>> {
    let connected = address.connect(config, times).await;
    let mut connection = connected.map_err(|error| error.attempts)?;
    let checked = check(&mut connection, wanted);
    let checked = match config.connect_timeout {
        Some(after) => {
            tokio::time::timeout(after, checked)
                .await
                .unwrap_or(Err(ConnectFailure::Timeout {
                    after,
                    limit: "connect_timeout",
                }))
        }
        None => checked.await,
    };
    match checked {
        Ok(suits) => Ok((connection, suits)),
        Err(failure) => {
            let server = connection.server().to_owned();
            connection.close().await;
            Err(vec![Attempt { server, failure }])
        }
    }
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
) -> Result<Suits, ConnectFailure> {
    if wanted == TargetSessionAttrs::Any {
        return Ok(Suits::Well);
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
    Ok(match mismatch(state, wanted) {
        Some((wanted, found)) => Suits::No { wanted, found },
        None if wanted == TargetSessionAttrs::PreferStandby && !state.hot_standby => {
            Suits::Fallback
        }
        None => Suits::Well,
    })
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
    use std::net::IpAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::scripted::{V15, config, read_startup, welcome};

    const TIMES: SessionTimes = SessionTimes {
        receive_timeout: None,
        status_interval: None,
    };

    /// Two servers at two addresses of one name, a standby and then a primary, and their port.
    async fn standby_and_primary() -> u16 {
        let mut port = 0;
        for (address, in_hot_standby) in [("127.0.0.1", "on"), ("127.0.0.2", "off")] {
            let listener = TcpListener::bind((address, port)).await.unwrap();
            port = listener.local_addr().unwrap().port();
            tokio::spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    read_startup(&mut stream).await;
                    let hello = welcome(&[
                        V15,
                        ("in_hot_standby", in_hot_standby),
                        ("default_transaction_read_only", "off"),
                    ]);
                    stream.write_all(&hello).await.unwrap();
                    tokio::spawn(async move { stream.read(&mut [0; 64]).await });
                }
            });
        }
        port
    }

    fn of_name<'a>(config: &'a ConnectionConfig, addresses: &[&str]) -> Vec<Address<'a>> {
        let host = &config.hosts[0];
        let parsed = addresses.iter().map(|text| text.parse::<IpAddr>().unwrap());
        parsed
            .map(|address| Address::of_test(host, (address, host.port).into()))
            .collect()
    }

    #[tokio::test]
    async fn each_address_of_a_name_is_asked_for_the_state_of_its_server() {
        let port = standby_and_primary().await;
        let conninfo = format!("host=db port={port} sslmode=disable target_session_attrs");
        let both = ["127.0.0.1", "127.0.0.2"];
        for (wanted, expected) in [("primary", both[1]), ("standby", both[0])] {
            let config = config(&format!("{conninfo}={wanted}"));
            let addresses = of_name(&config, &both);
            let connected =
                connect_first(&config, &addresses, TIMES, config.target_session_attrs).await;
            assert!(connected.unwrap().server().contains(expected));

            let round = Round {
                config: &config,
                times: TIMES,
                ask: |connection| async { (connection, Ok::<_, ()>(())) },
                places: Mutex::default(),
                answered: Notify::new(),
            };
            round.ask_addresses(0, addresses).await;
            let answers = round.finish().answers;
            assert_eq!(answers.len(), 2);
            let suitable = answers.iter().find(|answer| answer.suits == Suits::Well);
            assert!(suitable.unwrap().connection.server().contains(expected));
        }
    }

    #[test]
    fn addresses_of_another_family_are_asked_after_those_of_the_first() {
        let config = config("host=db port=5432");
        let addresses = of_name(&config, &["::1", "192.0.2.1", "2001:db8::1"]);
        let [first, then] = families(addresses).map(|family| family.len());
        assert_eq!((first, then), (2, 1));
    }

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
