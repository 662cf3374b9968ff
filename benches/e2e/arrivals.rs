//! When WAL arrives at clients, and how long after it was sent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::time::Timespec;
use walproto::{Lsn, PgTimestamp};

use crate::client::{Client, now};

/// How long the last WAL may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much is read of a client at a time; what one commit has is far less.
const BUFFER_SIZE: usize = 128 << 10;

/// WAL that a client has got by one read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Arrival {
    /// Up to where.
    pub(crate) end: Lsn,
    /// When the client's server had sent the last of it.
    pub(crate) sent_at: PgTimestamp,
    /// When it was read.
    pub(crate) at: PgTimestamp,
}

/// Takes what comes for any of the clients until all have all up to `end`, which is 0 while it is
/// not known yet. One thread does it for all clients.
pub(crate) fn follow(clients: &mut [Client], end: &AtomicU64) -> Vec<Vec<Arrival>> {
    let ready = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    for (index, client) in clients.iter().enumerate() {
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&ready, client.socket(), data, epoll::EventFlags::IN).unwrap();
    }
    let pause = Timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    let mut arrivals = vec![Vec::new(); clients.len()];
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut events = Vec::with_capacity(clients.len());
    let mut deadline = None;
    loop {
        events.clear();
        epoll::wait(&ready, spare_capacity(&mut events), Some(&pause)).unwrap();
        for event in &events {
            let index = usize::try_from(event.data.u64()).unwrap();
            let client = &mut clients[index];
            client.read(&mut buffer, |_, _| {});
            arrivals[index].push(Arrival {
                end: client.end(),
                sent_at: client.sent_at(),
                at: now(),
            });
        }
        let end = Lsn(end.load(Ordering::Relaxed));
        if end.is_invalid() {
            continue;
        }
        if clients.iter().all(|client| client.end() >= end) {
            return arrivals;
        }
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
        assert!(
            Instant::now() < deadline,
            "not all clients have got all up to {end}"
        );
    }
}

/// The delay in us of each piece of WAL at each client: from when the first of the `origins` has
/// sent it to when the client has read all of it. The pieces are those of the first origin.
pub(crate) fn delays(origins: &[&[Arrival]], clients: &[Vec<Arrival>]) -> Vec<f64> {
    let pieces = origins.first().copied().unwrap_or_default();
    let mut ends: Vec<Lsn> = pieces.iter().map(|piece| piece.end).collect();
    // A keepalive alone brings nothing.
    ends.dedup();
    let mut sent: Vec<i64> = vec![i64::MAX; ends.len()];
    for origin in origins {
        for (first, arrival) in sent.iter_mut().zip(first_with(origin, &ends)) {
            *first = arrival.map_or(*first, |arrival| arrival.sent_at.0.min(*first));
        }
    }
    let of_client = |client| {
        let arrivals = first_with(client, &ends).zip(&sent);
        arrivals.filter_map(|(arrival, sent)| Some((arrival?.at.0 - sent) as f64))
    };
    clients
        .iter()
        .flat_map(|client| of_client(client))
        .collect()
}

/// For each of the ascending positions the first arrival by which all up to it was there.
fn first_with<'a>(
    arrivals: &'a [Arrival],
    ends: &'a [Lsn],
) -> impl Iterator<Item = Option<&'a Arrival>> {
    let mut from = 0;
    ends.iter().map(move |end| {
        let rest = &arrivals[from..];
        from += rest.iter().take_while(|arrival| arrival.end < *end).count();
        arrivals.get(from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(end: u64, sent_at: i64, at: i64) -> Arrival {
        Arrival {
            end: Lsn(end),
            sent_at: PgTimestamp(sent_at),
            at: PgTimestamp(at),
        }
    }

    #[test]
    fn a_delay_ends_when_a_client_has_the_whole_piece() {
        let probe = [
            arrival(10, 100, 101),
            arrival(20, 200, 205),
            arrival(20, 200, 300),
        ];
        let other = [arrival(10, 90, 95), arrival(20, 210, 215)];
        // It gets the first piece in two parts, and the second with something that follows.
        let client = vec![
            arrival(5, 120, 130),
            arrival(10, 140, 150),
            arrival(30, 220, 240),
        ];
        let clients = [client];
        assert_eq!(delays(&[&probe], &clients), [50.0, 40.0]);
        assert_eq!(delays(&[&probe, &other], &clients), [60.0, 40.0]);
    }
}
