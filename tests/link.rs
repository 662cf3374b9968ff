//! A connection made by the receiver's library itself, for tests that are about connecting.

use std::ffi::OsString;
use std::path::Path;

use pgconn::connection::{ConnectError, Connection, ConnectionError};
use pgconn::conninfo::{ConnectionConfig, Overrides};
use pgconn::hosts::connect_any;
use tokio::runtime::{Builder, Runtime};
use walproto::Lsn;
use walproto::client::{Event, FlushPosition, Positions, SessionTimes};
use walproto::command::Command;
use walproto::error::ServerMessage;
use walproto::result::{IdentifySystem, ResultSet};

/// What a receiver without a disk claims to be flushed.
#[derive(Clone, Copy, Debug)]
pub struct Claimed(pub Lsn);

impl FlushPosition for Claimed {
    fn lsn(self) -> Lsn {
        self.0
    }

    fn at_most(self, limit: Lsn) -> Self {
        Self(self.0.min(limit))
    }
}

/// A replication connection to a real server, without an archive.
pub struct Link {
    connection: Connection,
    runtime: Runtime,
}

impl Link {
    /// Connects as the connection string says. `home` is where `.pgpass` and `.postgresql` are
    /// looked for; no environment variable counts but `HOME`.
    ///
    /// # Errors
    /// When no connection can be made.
    pub fn new(conninfo: &str, home: &Path) -> Result<Self, ConnectError> {
        let environment = |name: &str| (name == "HOME").then(|| OsString::from(home));
        let overrides = Overrides {
            fallback_application_name: "link".to_owned(),
            ..Overrides::default()
        };
        let config =
            ConnectionConfig::from_sources(Some(conninfo), &overrides, &environment).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let times = SessionTimes {
            receive_timeout: Some(crate::DEADLINE),
            status_interval: None,
        };
        let connection = runtime.block_on(connect_any(&config, times))?;
        Ok(Self {
            connection,
            runtime,
        })
    }

    /// What the server says to IDENTIFY_SYSTEM.
    pub fn identify_system(&mut self) -> IdentifySystem {
        let command = self.connection.execute(&Command::IdentifySystem);
        let table = self.runtime.block_on(command).unwrap();
        IdentifySystem::decode(&table).unwrap()
    }

    /// The server's process for this connection.
    pub fn process_id(&mut self) -> i32 {
        self.connection.process_id().unwrap()
    }

    /// The value of a setting.
    pub fn show(&mut self, name: &str) -> String {
        let shown = self.connection.show(name);
        self.runtime.block_on(shown).unwrap().value
    }

    /// Has the server execute a command that is no START_REPLICATION, and gives what it says if it
    /// refuses.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn execute(&mut self, command: &str) -> Result<ResultSet, ServerMessage> {
        let command = Command::parse(command).unwrap();
        match self.runtime.block_on(self.connection.execute(&command)) {
            Ok(table) => Ok(table),
            Err(ConnectionError::Failed { message, .. }) => Err(*message),
            Err(error) => panic!("{error}"),
        }
    }

    /// What the server says when it refuses to stream, or to go on with it.
    pub fn refused_stream(&mut self, command: &str) -> ServerMessage {
        let command = Command::parse(command).unwrap();
        self.connection.send(&command).unwrap();
        loop {
            if let Event::Failed(message) = self.runtime.block_on(self.connection.event()).unwrap()
            {
                return *message;
            }
        }
    }

    /// What the server says follows a timeline when there is nothing of it to stream.
    pub fn end_of_stream(&mut self, command: &str) -> ResultSet {
        self.begin(command);
        match self.runtime.block_on(self.connection.event()).unwrap() {
            Event::StreamEnded(Some(end)) => end,
            other => panic!("{other:?}"),
        }
    }

    /// So many bytes of the WAL of timeline 1.
    pub fn stream(&mut self, start: Lsn, length: usize) -> Vec<u8> {
        self.stream_command(&format!("START_REPLICATION {start} TIMELINE 1"), length)
    }

    /// So many bytes of the WAL that a command asks for.
    pub fn stream_command(&mut self, command: &str, length: usize) -> Vec<u8> {
        self.begin(command);
        let mut wal = self.receive(length);
        wal.truncate(length);
        wal
    }

    /// Asks for the WAL of timeline 1, without taking any yet.
    pub fn begin_stream(&mut self, start: Lsn) {
        self.begin(&format!("START_REPLICATION {start} TIMELINE 1"));
    }

    fn begin(&mut self, command: &str) {
        let command = Command::parse(command).unwrap();
        self.connection.send(&command).unwrap();
        self.runtime.block_on(self.connection.flush()).unwrap();
    }

    /// Ends a stream, of which all up to `end` was received, and says at the same time that it is
    /// durable.
    pub fn finish(&mut self, end: Lsn) {
        self.connection.report(Positions {
            write: end,
            flush: Some(Claimed(end)),
            apply: None,
            byte_end: end,
        });
        self.connection.finish_copy();
        while !matches!(
            self.runtime.block_on(self.connection.event()).unwrap(),
            Event::Ready
        ) {}
    }

    /// What a stream brings, at least so many bytes.
    pub fn receive(&mut self, length: usize) -> Vec<u8> {
        let mut wal = Vec::new();
        while wal.len() < length {
            match self.runtime.block_on(self.connection.event()).unwrap() {
                Event::WalData { data, .. } => wal.extend_from_slice(&data),
                Event::Failed(message) => panic!("{message}"),
                _ => {}
            }
        }
        wal
    }
}
