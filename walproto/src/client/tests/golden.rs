//! What PostgreSQL 15.18 said on a real connection, byte by byte.

use super::*;

/// After a startup packet under `trust`: AuthenticationOk, parameters, key, ready.
const STARTUP: &[u8] = b"R\x00\x00\x00\x08\x00\x00\x00\x00S\x00\x00\x00\"application_name\x00\
    wal_receiver\x00S\x00\x00\x00\x1eclient_encoding\x00SQL_ASCII\x00S\x00\x00\x00\x17DateStyle\
    \x00ISO, MDY\x00S\x00\x00\x00&default_transaction_read_only\x00off\x00S\x00\x00\x00\x17\
    in_hot_standby\x00off\x00S\x00\x00\x00\x19integer_datetimes\x00on\x00S\x00\x00\x00\x1b\
    IntervalStyle\x00postgres\x00S\x00\x00\x00\x14is_superuser\x00on\x00S\x00\x00\x00\x1e\
    server_encoding\x00SQL_ASCII\x00S\x00\x00\x002server_version\x0015.18 (Debian \
    15.18-0+deb12u1)\x00S\x00\x00\x00#session_authorization\x00postgres\x00S\x00\x00\x00#\
    standard_conforming_strings\x00on\x00S\x00\x00\x00\x15TimeZone\x00Etc/UTC\x00K\x00\x00\x00\x0c\
    \x00\x001\xc2\xb5\xa9?\x9aZ\x00\x00\x00\x05I";

/// The packet that this was the answer to, which the server understood.
const STARTUP_PACKET: &[u8] = b"\x00\x00\x00F\x00\x03\x00\x00user\x00postgres\x00application_name\
    \x00wal_receiver\x00replication\x00true\x00\x00";

const IDENTIFY_SYSTEM: &[u8] = b"T\x00\x00\x00o\x00\x04systemid\x00\x00\x00\x00\x00\x00\x00\x00\
    \x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00timeline\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\
    \x17\x00\x04\xff\xff\xff\xff\x00\x00xlogpos\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\
    \xff\xff\xff\xff\xff\x00\x00dbname\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\
    \xff\xff\x00\x00D\x00\x00\x002\x00\x04\x00\x00\x00\x137711459320158903699\x00\x00\x00\x011\x00\
    \x00\x00\x080/601860\xff\xff\xff\xffC\x00\x00\x00\x14IDENTIFY_SYSTEM\x00Z\x00\x00\x00\x05I";

const NO_HISTORY: &[u8] = b"T\x00\x00\x00;\x00\x02filename\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\
    \x19\xff\xff\x00\x00\x00\x00\x00\x00content\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\
    \xff\x00\x00\x00\x00\x00\x00E\x00\x00\x00\x8bSERROR\x00VERROR\x00C58P01\x00Mcould not open \
    file \"pg_wal/00000009.history\": No such file or directory\x00Fwalsender.c\x00L643\x00\
    RSendTimeLineHistory\x00\x00Z\x00\x00\x00\x05I";

/// START_REPLICATION 0/F000000, ahead of the server: CopyBothResponse, then the error.
const AHEAD: &[u8] = b"W\x00\x00\x00\x07\x00\x00\x00E\x00\x00\x00\x9dSERROR\x00VERROR\x00CXX000\
    \x00Mrequested starting point 0/F000000 is ahead of the WAL flush position of this server \
    0/640A48\x00Fwalsender.c\x00L845\x00RStartReplication\x00\x00Z\x00\x00\x00\x05I";

/// START_REPLICATION 0/640AC0: CopyBothResponse, a keepalive, the record of the checkpoint at
/// shutdown, and the end of the connection.
const SHUTDOWN: &[u8] = b"W\x00\x00\x00\x07\x00\x00\x00d\x00\x00\x00\x16k\x00\x00\x00\x00\x00d\n\
    \xc0\x00\x03\x03\xf5\xfb\x080\xbe\x00d\x00\x00\x00\x95w\x00\x00\x00\x00\x00d\n\xc0\x00\x00\x00\
    \x00\x00d\x0b8\x00\x03\x03\xf5\xfb\x1c\xabpr\x00\x00\x00\x00\x00\x00\x00H\nd\x00\x00\x00\x00\
    \x00\x00\x00\x00\x00\xe8\x88\xec\x85\xffX\xc0\nd\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\
    \x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xe3\x02\x00\x00\x00\x00\x00\x00\x08@\x00\x00\x01\x00\
    \x00\x00\x00\x00\x00\x00\xcc\x02\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\
    \x00\x00\x00(\x9e\x04k\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\
    \x00\x00\x00\x00\x00\x00\x00\x00C\x00\x00\x00\x0bCOPY 0\x00";

/// The end of timeline 1 after a promotion: the same with and without a stream before it.
const TIMELINE_END: &[u8] = b"T\x00\x00\x00E\x00\x02next_tli\x00\x00\x00\x00\x00\x00\x00\x00\x00\
    \x00\x14\x00\x08\xff\xff\xff\xff\x00\x00next_tli_startpos\x00\x00\x00\x00\x00\x00\x00\x00\x00\
    \x00\x19\xff\xff\xff\xff\xff\xff\x00\x00D\x00\x00\x00\x17\x00\x02\x00\x00\x00\x012\x00\x00\x00\
    \x080/640B38C\x00\x00\x00\x14START_STREAMING\x00C\x00\x00\x00\x16START_REPLICATION\x00Z\x00\
    \x00\x00\x05I";

/// The end of the current timeline's stream, which the receiver wanted.
const STREAM_END: &[u8] = b"c\x00\x00\x00\x04C\x00\x00\x00\x14START_STREAMING\x00C\x00\x00\x00\x16\
    START_REPLICATION\x00Z\x00\x00\x00\x05I";

fn connected() -> Script {
    let mut script = Script::ready();
    script.say_bytes(b"").unwrap();
    script
}

#[test]
fn a_session_begins() {
    let startup = StartupParameters {
        user: "postgres".to_owned(),
        ..startup()
    };
    let mut script = Script::new(Credentials::default());
    let session = ClientSession::new(
        script.now,
        PgTimestamp(0),
        &startup,
        Credentials::default(),
        TIMES,
    );
    script.session = session.unwrap();
    assert_eq!(&script.sent()[..], STARTUP_PACKET);
    script.say_bytes(STARTUP).unwrap();
    assert_eq!(script.events(), [Event::Ready]);
    assert_eq!(
        script.session.server_version(),
        Some(ServerVersion(150_018))
    );
    assert_eq!(script.session.parameter("in_hot_standby"), Some("off"));
    assert_eq!(script.session.process_id(), Some(12738));
}

#[test]
fn a_table_is_the_answer_to_a_command() {
    let mut script = connected();
    script
        .session
        .execute(script.now, &Command::IdentifySystem)
        .unwrap();
    assert_eq!(&script.sent()[..], b"Q\0\0\0\x14IDENTIFY_SYSTEM\0");
    script.say_bytes(IDENTIFY_SYSTEM).unwrap();
    let events = script.events();
    let [Event::Result(table), Event::Ready] = &events[..] else {
        panic!("{events:?}");
    };
    let names: Vec<&str> = table.columns().iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["systemid", "timeline", "xlogpos", "dbname"]);
    assert_eq!(table.columns()[1].data_type, DataType::INT4);
    let identity = crate::result::IdentifySystem::decode(table).unwrap();
    assert_eq!(identity.system_id.0, 7_711_459_320_158_903_699);
}

#[test]
fn an_error_in_the_middle_of_a_table_fails_the_command() {
    let mut script = connected();
    script.execute(&Command::TimelineHistory(TimelineId::new(9).unwrap()));
    script.say_bytes(NO_HISTORY).unwrap();
    let events = script.events();
    let [Event::Failed(error), Event::Ready] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(error.sqlstate, SqlState::UNDEFINED_FILE);
    assert_eq!(error.severity, Severity::Error);
}

#[test]
fn a_start_ahead_of_the_server_fails_inside_the_stream() {
    let mut script = connected();
    script.execute(&start_replication(0xF00_0000));
    script.say_bytes(AHEAD).unwrap();
    let events = script.events();
    let [Event::CopyStarted, Event::Failed(error), Event::Ready] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(error.sqlstate, SqlState::INTERNAL_ERROR);
    assert_eq!(&script.sent()[..], b"");
}

#[test]
fn a_server_shuts_down() {
    let mut script = connected();
    script.execute(&start_replication(0x64_0AC0));
    script.say_bytes(SHUTDOWN).unwrap();
    script.session.handle_eof(script.now).unwrap();
    let events = script.events();
    let [
        Event::CopyStarted,
        Event::Keepalive {
            wal_end: Lsn(0x64_0AC0),
            reply_requested: false,
            ..
        },
        Event::WalData {
            start: Lsn(0x64_0AC0),
            wal_end: Lsn(0x64_0B38),
            sent_at: PgTimestamp(848_779_944_962_928),
            data,
        },
        Event::ServerStopping,
        Event::Closed,
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!(data.len(), 0x78);
}

#[test]
fn a_timeline_ends() {
    let mut script = connected();
    script.execute(&start_replication(0x64_0B38));
    script.say_bytes(TIMELINE_END).unwrap();
    script.execute(&start_replication(0x64_0B38));
    script.say_bytes(b"W\0\0\0\x07\0\0\0c\0\0\0\x04").unwrap();
    script.session.finish_copy(script.now);
    script.say_bytes(TIMELINE_END).unwrap();
    let events = script.events();
    let [
        Event::StreamEnded(Some(without)),
        Event::Ready,
        Event::CopyStarted,
        Event::ServerCopyDone,
        Event::StreamEnded(Some(with)),
        Event::Ready,
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!(with, without);
    let end = crate::result::TimelineEnd::decode(with).unwrap();
    assert_eq!(
        (end.next_timeline.number(), end.switch_point),
        (2, Lsn(0x64_0B38))
    );
}

#[test]
fn a_receiver_ends_the_stream() {
    let mut script = Script::streaming(0x64_0AC0);
    script.session.finish_copy(script.now);
    script.say_bytes(STREAM_END).unwrap();
    assert_eq!(script.events(), [Event::StreamEnded(None), Event::Ready]);
}
