//! All hosts, which are asked at the same time.
//!
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

use super::order;
use super::suits::{Suits, connect_checked};
use crate::connection::{Address, Attempt, ConnectFailure, Connection, addresses};
use crate::conninfo::{ConnectionConfig, HostCandidate};

/// How long the other hosts may still take once one of them has answered. Long enough for whoever
/// is there, and short enough that commits which wait for us are not kept waiting by a host that
/// is down.
const PATIENCE: Duration = Duration::from_secs(5);

/// A server that answered.
pub struct Answer<'a, T> {
    /// Where it is.
    pub address: Address<'a>,
    /// The connection that it answered on.
    pub connection: Connection,
    /// How well it suits `target_session_attrs`.
    pub suits: Suits,
    /// What it answered.
    pub said: T,
}

/// What became of the servers that were asked, in the order of the hosts.
pub struct Answered<'a, T, E> {
    /// Those that answered, also if they do not suit.
    pub answers: Vec<Answer<'a, T>>,
    /// Those whose answer makes no sense, by name.
    pub refused: Vec<(String, E)>,
    /// The tries to connect that failed.
    pub failed: Vec<Attempt>,
}

/// Connects to all servers at the same time and asks each one, at once, what `ask` asks. Those that
/// do not suit `target_session_attrs` are asked too: one of them may know of a newer timeline.
///
/// Once one that suits has answered, the others have five seconds more: a host that is down must
/// not keep us from the one that is not.
///
/// # Cancel safety
/// Dropped half way, all connections are given up.
pub async fn ask_all<'a, T, E, F>(
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::connect_first;
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
}
