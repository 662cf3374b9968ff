use super::*;
use crate::backend::AuthenticationRequest;
use crate::command::Command;
use crate::copy_data::{
    EpochXid, HotStandbyFeedback, PrimaryKeepalive, ReceiverMessage, StandbyStatusUpdate, XLogData,
};
use crate::error::{ServerMessage, Severity, SqlState};
use crate::result::{Column, DataType, ResultSet};
use crate::{Lsn, TimelineId};

mod auth;
mod golden;
mod hostile;
mod simulation;
mod stream;

/// A session whose server is written by the test, message by message.
pub(super) struct Script {
    pub(super) session: ClientSession,
    pub(super) now: Instant,
    input: BytesMut,
}

pub(super) const TIMES: SessionTimes = SessionTimes {
    receive_timeout: Some(Duration::from_secs(60)),
    status_interval: Some(Duration::from_secs(10)),
};

pub(super) fn startup() -> StartupParameters {
    StartupParameters {
        user: "rep".to_owned(),
        application_name: Some("wal_receiver".to_owned()),
        ..StartupParameters::default()
    }
}

impl Script {
    pub(super) fn new(credentials: Credentials) -> Self {
        let now = Instant::now();
        let session =
            ClientSession::new(now, PgTimestamp(1_000_000), &startup(), credentials, TIMES);
        Self {
            session: session.unwrap(),
            now,
            input: BytesMut::new(),
        }
    }

    /// A session that waits for its first command.
    pub(super) fn ready() -> Self {
        let mut script = Self::new(Credentials::default());
        script.sent();
        script.say(BackendMessage::Authentication(AuthenticationRequest::Ok));
        script.say(parameter(
            "server_version",
            "15.18 (Debian 15.18-0+deb12u1)",
        ));
        script.say(BackendMessage::BackendKeyData {
            process_id: 42,
            secret_key: Bytes::from_static(b"1234"),
        });
        script.say(ready());
        assert_eq!(script.events(), [Event::Ready]);
        script
    }

    /// A session that streams timeline 1 from `start`, all of it reported as durable.
    pub(super) fn streaming(start: u64) -> Self {
        let mut script = Self::ready();
        script.execute(&start_replication(start));
        script.session.report(script.now, durable(start));
        script.say(copy_both());
        assert_eq!(script.events(), [Event::CopyStarted]);
        assert_eq!(script.statuses(), [[start, start, start]]);
        script
    }

    pub(super) fn try_say(&mut self, message: BackendMessage) -> Result<(), ClientError> {
        message.encode(&mut self.input).unwrap();
        self.session.handle_input(self.now, &mut self.input)
    }

    pub(super) fn say(&mut self, message: BackendMessage) {
        self.try_say(message).unwrap();
        assert!(self.input.is_empty());
    }

    /// The bytes of several messages at once.
    pub(super) fn say_bytes(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.input.extend_from_slice(bytes);
        self.session.handle_input(self.now, &mut self.input)
    }

    pub(super) fn wal(&mut self, start: u64, length: usize) {
        let data = vec![0xAB; length];
        self.say_bytes(&wal(start, &data)).unwrap();
    }

    pub(super) fn keepalive(&mut self, wal_end: u64, reply_requested: bool) {
        self.say_bytes(&keepalive(wal_end, reply_requested))
            .unwrap();
    }

    pub(super) fn execute(&mut self, command: &Command) {
        self.session.execute(self.now, command).unwrap();
        self.sent();
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    /// What the session sends.
    pub(super) fn sent(&mut self) -> BytesMut {
        let mut out = BytesMut::new();
        self.session.poll_transmit(&mut out);
        out
    }

    /// The status updates that the session sends, and nothing else.
    pub(super) fn updates(&mut self) -> Vec<StandbyStatusUpdate> {
        let mut out = self.sent();
        std::iter::from_fn(|| Frame::take(&mut out, |_| 100).unwrap())
            .map(
                |frame| match (frame.tag.0, ReceiverMessage::decode(frame.body)) {
                    (b'd', Ok(ReceiverMessage::StatusUpdate(update))) => update,
                    other => panic!("{other:?}"),
                },
            )
            .collect()
    }

    /// Their write, flush and apply positions.
    pub(super) fn statuses(&mut self) -> Vec<[u64; 3]> {
        let updates = self.updates();
        updates
            .iter()
            .map(|u| [u.write.0, u.flush.0, u.apply.0])
            .collect()
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

pub(super) fn start_replication(start: u64) -> Command {
    Command::StartReplication {
        slot: None,
        start: Lsn(start),
        timeline: Some(TimelineId::FIRST),
    }
}

pub(super) fn parameter(name: &str, value: &str) -> BackendMessage {
    BackendMessage::ParameterStatus {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

pub(super) fn ready() -> BackendMessage {
    BackendMessage::ReadyForQuery {
        transaction_status: b'I',
    }
}

pub(super) fn complete(tag: &'static str) -> BackendMessage {
    BackendMessage::CommandComplete { tag: tag.into() }
}

pub(super) fn copy_both() -> BackendMessage {
    BackendMessage::CopyBothResponse {
        format: 0,
        columns: vec![],
    }
}

pub(super) fn error(severity: Severity, sqlstate: SqlState) -> Box<ServerMessage> {
    Box::new(ServerMessage {
        severity,
        sqlstate,
        message: "so it is".to_owned(),
        detail: None,
        hint: None,
        context: None,
    })
}

/// The table at the end of a timeline.
pub(super) fn timeline_end() -> ResultSet {
    let column = |name: &str, data_type| Column {
        name: name.to_owned(),
        data_type,
    };
    let mut table = ResultSet::new(vec![
        column("next_tli", DataType::INT8),
        column("next_tli_startpos", DataType::TEXT),
    ]);
    let row = vec![
        Some(Bytes::from_static(b"3")),
        Some(Bytes::from_static(b"0/3000060")),
    ];
    table.push_row(row).unwrap();
    table
}

pub(super) fn wal(start: u64, data: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    let data = Bytes::copy_from_slice(data);
    let wal_end = Lsn(start + 1_000_000);
    let (start, sent_at) = (Lsn(start), PgTimestamp(7));
    XLogData {
        start,
        wal_end,
        sent_at,
        data,
    }
    .encode(&mut out)
    .unwrap();
    out
}

pub(super) fn keepalive(wal_end: u64, reply_requested: bool) -> BytesMut {
    let mut out = BytesMut::new();
    PrimaryKeepalive {
        wal_end: Lsn(wal_end),
        sent_at: PgTimestamp(7),
        reply_requested,
    }
    .encode(&mut out);
    out
}
