use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::net::sockopt::set_socket_send_buffer_size;
use segstore::generator::Generator;
use segstore::{
    Archive, ArchiveOptions, Compression, OsDisk, Preparation, ServerFacts, WalFormat, Writer,
};
use tokio::net::UnixStream;
use walproto::server::SessionTimes;
use walproto::{
    Lsn, PgTimestamp, SegmentSize, ServerVersion, SystemId, TimelineHistory, TimelineId,
};

use super::*;
use crate::chain::chain;
use crate::may_block::IN_TEST;

mod sends;

const START: Lsn = Lsn(16 << 20);
const FORMAT: WalFormat = WalFormat {
    system_id: SystemId(7_000_000_000_000_000_001),
    segment_size: SegmentSize::DEFAULT,
    page_magic: None,
    server_version_num: Some(150_018),
};

/// What is to be written into an archive.
fn generator() -> Generator {
    let history = TimelineHistory::without_ancestors(TimelineId::FIRST);
    Generator::new(FORMAT, history, START, 1).unwrap()
}

/// A new archive, and who writes `wal` into it.
fn archive(directory: &Path, wal: &Generator) -> (Archive, Writer) {
    let options = ArchiveOptions {
        directory: directory.to_owned(),
        sync: true,
        compression: Compression::NONE,
    };
    let mut archive = Archive::open(Arc::new(OsDisk::new()), options).unwrap();
    archive
        .bind(&ServerFacts {
            system_id: FORMAT.system_id,
            segment_size: FORMAT.segment_size,
            block_size: 8192,
            server_version_num: 150_018,
            data_directory_mode: 0o700,
        })
        .unwrap();
    let recovery = archive.recover().unwrap();
    let writer = archive
        .writer(recovery, wal.history(), wal.start(), Preparation::Inline)
        .unwrap();
    (archive, writer)
}

/// A pump whose client has been let in.
fn welcomed(socket: UnixStream) -> Pump {
    let now = Instant::now();
    let times = SessionTimes {
        authentication_timeout: Duration::from_secs(1),
        wal_sender_timeout: None,
    };
    let session = ServerSession::new(now, PgTimestamp(0), ServerVersion(150_018), times);
    let mut pump = Pump::new(session, Some(Plain::Unix(Arc::new(socket))));
    let mut input = BytesMut::from(&b"\0\0\0\x21\0\x03\0\0user\0any\0replication\0on\0\0"[..]);
    pump.session.handle_input(now, &mut input).unwrap();
    pump.session.authenticate_trust().unwrap();
    pump.session
        .welcome([], 1, Bytes::from_static(b"key!"))
        .unwrap();
    pump
}

/// One that is to stream from `start` on.
fn streaming(socket: UnixStream, view: &ArchiveView, start: Lsn) -> Pump {
    let mut pump = welcomed(socket);
    let query = format!("START_REPLICATION {start} TIMELINE 1\0");
    let length = u32::try_from(query.len() + 4).unwrap();
    let mut input = BytesMut::from(&b"Q"[..]);
    input.extend_from_slice(&length.to_be_bytes());
    input.extend_from_slice(query.as_bytes());
    let now = Instant::now();
    pump.session.handle_input(now, &mut input).unwrap();
    while pump.session.poll_event().is_some() {}
    pump.session
        .start_streaming(now, TimelineId::FIRST, start, None)
        .unwrap();
    pump.start(view.feed(None, start).unwrap());
    pump
}

#[tokio::test]
async fn answers_that_a_client_does_not_take_are_not_heaped_up() {
    let directory = tempfile::tempdir().unwrap();
    let (archive, _writer) = archive(directory.path(), &generator());
    let view = archive.view().unwrap();
    let (here, _there) = UnixStream::pair().unwrap();
    let mut pump = welcomed(here);
    let mut input = BytesMut::new();
    let (mut most, mut said) = (0, 0);
    for _ in 0..1000 {
        // What cannot be answered yet is not read any more.
        if input.len() < 4096 {
            let wrong = b"Q\0\0\0\x16IDENTIFY_SYSTEM 1\0".repeat(100);
            input.extend_from_slice(&wrong);
            said += wrong.len();
        }
        pump.session
            .handle_input(Instant::now(), &mut input)
            .unwrap();
        pump.push(&view, None, None).unwrap();
        most = most.max(pump.out.len());
    }
    assert!(most < 64 << 10, "{most} bytes wait after {said} were said");
}

#[tokio::test]
async fn a_failure_in_the_middle_of_a_message_is_told_to_be_at_its_start() {
    let directory = tempfile::tempdir().unwrap();
    let mut wal = generator();
    let (archive, mut writer) = archive(directory.path(), &wal);
    wal.fill(2 * Chunk::MAX_LENGTH as u64);
    let bytes = Bytes::copy_from_slice(wal.bytes());
    writer.append(START, &[bytes]).unwrap();
    writer.sync().unwrap();
    let view = archive.view().unwrap();
    let (here, there) = UnixStream::pair().unwrap();
    set_socket_send_buffer_size(&here, 4 << 10).unwrap();
    let mut pump = streaming(here, &view, START);
    let pushed = pump.push(&view, None, Some(&IN_TEST)).unwrap();
    assert_eq!(pushed, Pushed::Blocked);
    assert!(pump.unsent.as_ref().unwrap().sent > WAL_HEADER_LENGTH);
    let name = "000000010000000000000001.partial";
    let path = directory.path().join(name);
    let file = File::options().write(true).open(path);
    file.unwrap().set_len(1).unwrap();
    let mut buffer = vec![0; Chunk::MAX_LENGTH];
    there.readable().await.unwrap();
    while there.try_read(&mut buffer).is_ok() {}
    let Sink::Plain(Plain::Unix(here)) = &pump.sink else {
        panic!("{:?}", pump.sink);
    };
    here.writable().await.unwrap();
    let error = pump.push(&view, None, Some(&IN_TEST)).unwrap_err();
    assert!(matches!(error, PushError::CutOff), "{error}");
    let failure = pump.take_failure().unwrap();
    assert_eq!(failure.position, Some((TimelineId::FIRST, START)));
    let reason = chain(&failure.error);
    let end = format!("{name}\": unexpected end of file");
    assert!(reason.ends_with(&end), "{reason}");
}
