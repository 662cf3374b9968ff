//! What a client may say when no WAL is streamed, and how its commands end.

use bytes::Bytes;

use super::ServerSession;
use super::event::Event;
use super::state::State;
use crate::Major;
use crate::backend::{BackendMessage, encode_result_set};
use crate::command::{Command, CommandError, CommandFault};
use crate::error::{ServerMessage, SqlState};
use crate::frontend::FrontendMessage;
use crate::result::{ResultSet, TimelineEnd};

/// The command that the driver is asked to answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Running {
    /// START_REPLICATION ... PHYSICAL, which may become a stream.
    StartReplication,
    /// Any other command, by the word that it begins with.
    Other(&'static str),
    /// What may be SQL.
    Sql,
}

impl Running {
    const fn new(command: &Command) -> Self {
        match command {
            Command::StartReplication { .. } => Self::StartReplication,
            Command::IdentifySystem => Self::Other("IDENTIFY_SYSTEM"),
            Command::Show(_) => Self::Other("SHOW"),
            Command::TimelineHistory(_) => Self::Other("TIMELINE_HISTORY"),
            Command::CreateReplicationSlot(_) => Self::Other("CREATE_REPLICATION_SLOT"),
            Command::ReadReplicationSlot(_) => Self::Other("READ_REPLICATION_SLOT"),
            Command::AlterReplicationSlot { .. } => Self::Other("ALTER_REPLICATION_SLOT"),
            Command::DropReplicationSlot { .. } => Self::Other("DROP_REPLICATION_SLOT"),
            Command::StartLogicalReplication { .. } => Self::Other("START_REPLICATION"),
            Command::BaseBackup(_) => Self::Other("BASE_BACKUP"),
            Command::UploadManifest => Self::Other("UPLOAD_MANIFEST"),
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::StartReplication => "START_REPLICATION",
            Self::Other(name) => name,
            Self::Sql => "an SQL command",
        }
    }
}

impl ServerSession {
    pub(super) fn handle_idle_message(&mut self, message: FrontendMessage) {
        use FrontendMessage as M;
        let refuse = |what: &str| {
            let text = format!("{what} not supported in a replication connection");
            ServerMessage::error(SqlState::PROTOCOL_VIOLATION, text)
        };
        match message {
            M::Query(text) => self.handle_query(&text),
            M::FunctionCall => {
                self.put_error(refuse("fastpath function calls"));
                self.ready();
            }
            M::Bind | M::Close | M::Describe | M::Execute | M::Parse => {
                self.put_error(refuse("extended query protocol"));
                self.state = State::Skipping;
            }
            M::Sync => self.ready(),
            // A client goes on sending after an error has ended its stream, which it does not
            // know yet.
            M::CopyData(_) | M::CopyDone | M::CopyFail { .. } | M::Flush => {}
            // Neither comes here: the one ends the session, the other is not taken.
            M::Terminate | M::Password(_) => {}
        }
    }

    fn handle_query(&mut self, text: &Bytes) {
        match Command::parse(text) {
            // Whatever follows it.
            _ if !self.knows(first_word(text)) => self.sql(text),
            Ok(command) => {
                self.state = State::Executing(Running::new(&command));
                self.events.push_back(Event::Command(command));
            }
            Err(error) if error.reason == CommandFault::NotReplicationCommand => self.sql(text),
            Err(error) => {
                self.put_error(syntax_error(&error));
                self.ready();
            }
        }
    }

    fn sql(&mut self, text: &Bytes) {
        self.state = State::Executing(Running::Sql);
        let text = String::from_utf8_lossy(text).into_owned();
        self.events.push_back(Event::Sql(text));
    }

    /// Whether a server of our version takes a first word for that of a replication command, if
    /// any version does.
    fn knows(&self, word: &[u8]) -> bool {
        let since = Major::since_command(word);
        since.is_none_or(|since| self.version >= since.first_release())
    }

    pub(super) fn put(&mut self, message: &BackendMessage) {
        // None of the messages that the session makes itself is too long.
        let _ = message.encode(&mut self.output);
    }

    pub(super) fn put_error(&mut self, message: ServerMessage) {
        self.put(&BackendMessage::ErrorResponse(Box::new(message)));
    }

    pub(super) fn put_complete(&mut self, tag: &'static str) {
        let tag = Bytes::from_static(tag.as_bytes());
        self.put(&BackendMessage::CommandComplete { tag });
    }

    pub(super) fn put_copy_done(&mut self) {
        self.put(&BackendMessage::CopyDone);
    }

    pub(super) fn ready(&mut self) {
        self.put(&BackendMessage::ReadyForQuery {
            transaction_status: b'I',
        });
        self.state = State::Idle;
    }

    pub(super) fn complete_running(&mut self, running: Running) {
        self.put_complete(running.name());
        self.ready();
    }

    /// Sends what comes after CopyDone of both sides.
    pub(super) fn finish_copy(&mut self, end: Option<TimelineEnd>) {
        self.put_stream_end(end);
        self.events.push_back(Event::CopyFinished);
    }

    /// Ends START_REPLICATION, in which a stream ends by a command tag of its own.
    pub(super) fn put_stream_end(&mut self, end: Option<TimelineEnd>) {
        if let Some(end) = end {
            self.put_table(&end.encode());
        }
        self.put_complete("START_STREAMING");
        self.complete_running(Running::StartReplication);
    }

    fn put_table(&mut self, table: &ResultSet) {
        // A row of a number and a position.
        let _ = encode_result_set(table, &mut self.output);
    }
}

fn first_word(text: &[u8]) -> &[u8] {
    let text = text.trim_ascii_start();
    let is_part = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let end = text.iter().position(|b| !is_part(b));
    text.get(..end.unwrap_or(text.len())).unwrap_or_default()
}

fn syntax_error(error: &CommandError) -> ServerMessage {
    let sqlstate = match error.reason {
        CommandFault::NotUtf8 => SqlState::CHARACTER_NOT_IN_REPERTOIRE,
        _ => SqlState::SYNTAX_ERROR,
    };
    ServerMessage::error(sqlstate, error.to_string())
}
