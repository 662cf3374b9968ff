//! A sender's session and a receiver's, joined without a network.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tests::Claimed;
use walproto::client::{self, ClientSession, Credentials, Positions};
use walproto::command::Command;
use walproto::server::{self, ServerSession};
use walproto::startup::StartupParameters;
use walproto::{Lsn, PgTimestamp, ServerVersion, TimelineId};

/// Two sessions that stream, and what is on the way between them.
pub struct Pair {
    server: ServerSession,
    client: ClientSession,
    now: Instant,
    to_server: BytesMut,
    to_client: BytesMut,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair")
            .field("sent", &self.sent())
            .finish_non_exhaustive()
    }
}

impl Pair {
    /// Sessions that have come to stream timeline 1 from `start`.
    #[must_use]
    pub fn streaming(start: Lsn) -> Self {
        let now = Instant::now();
        let startup = StartupParameters {
            user: "bench".to_owned(),
            ..StartupParameters::default()
        };
        let client_times = client::SessionTimes {
            receive_timeout: Some(Duration::from_secs(60)),
            status_interval: Some(Duration::from_secs(10)),
        };
        let server_times = server::SessionTimes {
            authentication_timeout: Duration::from_secs(60),
            wal_sender_timeout: Some(Duration::from_secs(60)),
        };
        let zero = PgTimestamp(0);
        let client = ClientSession::new(now, zero, &startup, Credentials::default(), client_times);
        let version = ServerVersion(150_018);
        let mut pair = Self {
            server: ServerSession::new(now, zero, version, server_times),
            client: client.expect("a startup packet"),
            now,
            to_server: BytesMut::new(),
            to_client: BytesMut::new(),
        };
        pair.exchange();
        pair.server
            .authenticate_trust()
            .expect("a client that waits");
        let parameters = [("server_version", "15.18")];
        let key = Bytes::from_static(b"1234");
        pair.server
            .welcome(parameters, 4711, key)
            .expect("an authenticated client");
        pair.exchange();
        let command = Command::StartReplication {
            slot: None,
            start,
            timeline: Some(TimelineId::FIRST),
        };
        pair.client
            .execute(now, &command)
            .expect("a client that is ready");
        pair.exchange();
        let started = pair
            .server
            .start_streaming(now, TimelineId::FIRST, start, None);
        started.expect("a client that asked for it");
        pair.exchange();
        pair
    }

    /// Both sides take what the other one sent, until nobody says anything; events are dropped.
    fn exchange(&mut self) {
        loop {
            self.client.poll_transmit(&mut self.to_server);
            self.server.poll_transmit(&mut self.to_client);
            if self.to_server.is_empty() && self.to_client.is_empty() {
                return;
            }
            let server = self.server.handle_input(self.now, &mut self.to_server);
            server.expect("a well-behaved client");
            let client = self.client.handle_input(self.now, &mut self.to_client);
            client.expect("a well-behaved server");
            while self.server.poll_event().is_some() {}
            while self.client.poll_event().is_some() {}
        }
    }

    /// Where the next byte of WAL goes.
    #[must_use]
    pub fn sent(&self) -> Lsn {
        self.server.sent().unwrap_or_default()
    }

    /// Frames a message as a sender does that gets the WAL onto the wire past the session.
    pub fn frame(&mut self, length: usize) -> [u8; server::WAL_HEADER_LENGTH] {
        let start = self.sent();
        let end = Lsn(start.0 + length as u64);
        let header = self.server.wal_header(self.now, start, length, end);
        header.expect("a stream")
    }

    /// Puts a message on its way to the receiver.
    pub fn send(&mut self, wal: &[u8]) {
        let header = self.frame(wal.len());
        self.to_client.extend_from_slice(&header);
        self.to_client.extend_from_slice(wal);
    }

    /// Takes what is on its way to the receiver and returns how much WAL it was in bytes.
    pub fn receive(&mut self) -> u64 {
        let taken = self.client.handle_input(self.now, &mut self.to_client);
        taken.expect("a well-behaved server");
        let mut length = 0;
        while let Some(event) = self.client.poll_event() {
            if let client::Event::WalData { data, .. } = event {
                length += data.len() as u64;
            }
        }
        length
    }

    /// Acknowledges all that was sent, and takes the status on the other side.
    pub fn acknowledge(&mut self) {
        let end = self.sent();
        let positions = Positions {
            write: end,
            flush: Some(Claimed(end)),
            apply: Some(end),
            byte_end: end,
        };
        self.client.report(self.now, positions);
        self.client.poll_transmit(&mut self.to_server);
        let taken = self.server.handle_input(self.now, &mut self.to_server);
        taken.expect("a well-behaved client");
        while self.server.poll_event().is_some() {}
    }

    /// What the receiver said last, in full.
    #[must_use]
    pub fn acknowledged(&self) -> Option<Lsn> {
        self.server.reported()?.flush
    }
}
