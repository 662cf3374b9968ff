use super::*;
use crate::SystemId;
use crate::client::{self, ClientError, ClientSession, Credentials, Positions};
use crate::command::Command;
use crate::result::{IdentifySystem, TimelineEnd};
use crate::startup::StartupParameters;
use bytes::Bytes;

mod authentication;
mod commands;
mod hostile;
mod opening;
mod pair;
mod shutdown;
mod silence;
mod simulation;
mod streaming;

pub(super) const TIMES: SessionTimes = SessionTimes {
    authentication_timeout: Duration::from_secs(60),
    wal_sender_timeout: Some(Duration::from_secs(60)),
};

pub(super) const V15: ServerVersion = ServerVersion(150_018);

/// The versions that are supported.
pub(super) const VERSIONS: [ServerVersion; 6] = [
    ServerVersion(130_023),
    ServerVersion(140_023),
    V15,
    ServerVersion(160_014),
    ServerVersion(170_010),
    ServerVersion(180_004),
];

/// A server's session and a client's, on a link without delay.
pub(super) struct Pair {
    pub(super) server: ServerSession,
    pub(super) client: ClientSession,
    pub(super) now: Instant,
    version: ServerVersion,
    to_server: BytesMut,
    to_client: BytesMut,
}

impl Pair {
    pub(super) fn new(version: ServerVersion, credentials: Credentials) -> Self {
        let now = Instant::now();
        let startup = StartupParameters {
            user: "rep".to_owned(),
            application_name: Some("wal_receiver".to_owned()),
            ..StartupParameters::default()
        };
        let times = client::SessionTimes {
            receive_timeout: Some(Duration::from_secs(60)),
            status_interval: Some(Duration::from_secs(10)),
        };
        let client = ClientSession::new(now, PgTimestamp(0), &startup, credentials, times);
        Self {
            server: ServerSession::new(now, PgTimestamp(0), version, TIMES),
            client: client.unwrap(),
            now,
            version,
            to_server: BytesMut::new(),
            to_client: BytesMut::new(),
        }
    }

    /// What the server has to say goes to the client, which goes on no more.
    pub(super) fn client_error(&mut self) -> ClientError {
        self.server.poll_transmit(&mut self.to_client);
        let now = self.now;
        let error = self.client.handle_input(now, &mut self.to_client);
        error.unwrap_err()
    }

    /// Both sides get what the other one sent, until nobody sends anything.
    pub(super) fn exchange(&mut self) {
        loop {
            self.client.poll_transmit(&mut self.to_server);
            self.server.poll_transmit(&mut self.to_client);
            if self.to_server.is_empty() && self.to_client.is_empty() {
                break;
            }
            let now = self.now;
            self.server.handle_input(now, &mut self.to_server).unwrap();
            self.client.handle_input(now, &mut self.to_client).unwrap();
            assert!(self.to_client.is_empty());
            if !self.to_server.is_empty() {
                break;
            }
        }
    }

    pub(super) fn server_events(&mut self) -> Vec<Event> {
        self.exchange();
        std::iter::from_fn(|| self.server.poll_event()).collect()
    }

    pub(super) fn client_events(&mut self) -> Vec<client::Event> {
        self.exchange();
        std::iter::from_fn(|| self.client.poll_event()).collect()
    }

    pub(super) fn welcome(&mut self) {
        let version = self.version.to_string();
        let parameters = [("server_version", version.as_str())];
        let key = Bytes::from_static(b"1234");
        self.server.welcome(parameters, 4711, key).unwrap();
    }

    /// A pair whose client waits for its first command to send.
    pub(super) fn ready(version: ServerVersion) -> Self {
        let mut pair = Self::new(version, Credentials::default());
        let events = pair.server_events();
        assert!(matches!(&events[..], [Event::Startup(_)]), "{events:?}");
        pair.server.authenticate_trust().unwrap();
        assert_eq!(pair.server_events(), [Event::Authenticated]);
        pair.welcome();
        assert_eq!(pair.client_events(), [client::Event::Ready]);
        pair
    }

    /// Sends a command, of which the server is told.
    pub(super) fn execute(&mut self, command: &Command) {
        self.client.execute(self.now, command).unwrap();
        assert_eq!(self.server_events(), [Event::Command(command.clone())]);
    }

    /// A pair that streams timeline 1 from `start`.
    pub(super) fn streaming(version: ServerVersion, start: u64) -> Self {
        let mut pair = Self::ready(version);
        pair.execute(&start_replication(start));
        pair.server
            .start_streaming(pair.now, TimelineId::FIRST, Lsn(start), None)
            .unwrap();
        assert_eq!(pair.client_events(), [client::Event::CopyStarted]);
        pair
    }

    /// Sends `length` bytes of WAL.
    pub(super) fn send(&mut self, length: usize) {
        self.server.poll_transmit(&mut self.to_client);
        let start = self.server.sent().unwrap();
        let wal_end = Lsn(start.0 + 0x1000);
        let header = self.server.wal_header(self.now, start, length, wal_end);
        self.to_client.extend_from_slice(&header.unwrap());
        self.to_client.extend_from_slice(&vec![0xAB; length]);
    }
}

pub(super) fn start_replication(start: u64) -> Command {
    Command::StartReplication {
        slot: None,
        start: Lsn(start),
        timeline: Some(TimelineId::FIRST),
    }
}

pub(super) fn durable(position: u64) -> Positions<Lsn> {
    Positions {
        write: Lsn(position),
        flush: Some(Lsn(position)),
        apply: Some(Lsn(position)),
        byte_end: Lsn(position),
    }
}

pub(super) fn end() -> TimelineEnd {
    TimelineEnd {
        next_timeline: TimelineId::new(3).unwrap(),
        switch_point: Lsn(0x300_0060),
    }
}

pub(super) fn identity() -> IdentifySystem {
    IdentifySystem {
        system_id: SystemId(7_711_459_320_158_903_699),
        timeline: TimelineId::FIRST,
        xlogpos: Lsn(0x300_0060),
        dbname: None,
    }
}
