//! How often a client is sent something: once for what was made durable together.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};
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

const START: Lsn = Lsn(16 << 20);
const FORMAT: WalFormat = WalFormat {
    system_id: SystemId(7_000_000_000_000_000_001),
    segment_size: SegmentSize::DEFAULT,
    page_magic: None,
    server_version_num: Some(150_018),
};

/// A pump and its client, between whom a call of the one is a packet for the other.
struct Client {
    pump: Pump,
    socket: OwnedFd,
}

impl Client {
    /// One that is to be streamed to from `start` on.
    async fn streaming(view: &ArchiveView, start: Lsn) -> Self {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (here, there) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let here = UnixStream::from_std(here.into()).unwrap();
        here.writable().await.unwrap();
        let now = Instant::now();
        let times = SessionTimes {
            authentication_timeout: Duration::from_secs(1),
            wal_sender_timeout: None,
        };
        let session = ServerSession::new(now, PgTimestamp(0), ServerVersion(150_018), times);
        let mut pump = Pump::new(session, Some(Plain::Unix(Arc::new(here))));
        let mut input = BytesMut::from(&b"\0\0\0\x21\0\x03\0\0user\0any\0replication\0on\0\0"[..]);
        pump.session.handle_input(now, &mut input).unwrap();
        pump.session.authenticate_trust().unwrap();
        pump.session
            .welcome([], 1, Bytes::from_static(b"key!"))
            .unwrap();
        let query = format!("START_REPLICATION {start} TIMELINE 1\0");
        let length = u32::try_from(query.len() + 4).unwrap();
        input.extend_from_slice(b"Q");
        input.extend_from_slice(&length.to_be_bytes());
        input.extend_from_slice(query.as_bytes());
        pump.session.handle_input(now, &mut input).unwrap();
        while pump.session.poll_event().is_some() {}
        pump.session
            .start_streaming(now, TimelineId::FIRST, start, None)
            .unwrap();
        pump.start(view.feed(None, start).unwrap());
        let mut client = Self {
            pump,
            socket: there,
        };
        client.pushed(view);
        client
    }

    /// What it gets by one push, packet by packet.
    fn pushed(&mut self, view: &ArchiveView) -> Vec<Vec<u8>> {
        let pushed = self.pump.push(view, None, Place::Here).unwrap();
        assert_eq!(pushed, Pushed::Idle);
        let mut packets = Vec::new();
        let mut buffer = vec![0; 256 << 10];
        while let Ok((count, _)) = recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
            packets.push(buffer[..count].to_vec());
        }
        packets
    }
}

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

/// So many small records, as a receiver gets them, made durable together.
fn commit(writer: &mut Writer, wal: &mut Generator, records: usize) {
    wal.forget();
    let at = wal.start();
    for _ in 0..records {
        wal.record(150);
    }
    let mut from = 0;
    let mut pieces = Vec::new();
    for record in wal.records() {
        let end = usize::try_from(record.end.bytes_since(at)).unwrap();
        pieces.push(Bytes::copy_from_slice(&wal.bytes()[from..end]));
        from = end;
    }
    writer.append(at, &pieces).unwrap();
    writer.sync().unwrap();
}

#[tokio::test]
async fn what_was_synced_together_costs_each_client_one_send() {
    let directory = tempfile::tempdir().unwrap();
    let history = TimelineHistory::without_ancestors(TimelineId::FIRST);
    let mut wal = Generator::new(FORMAT, history, START, 1).unwrap();
    let (archive, mut writer) = archive(directory.path(), &wal);
    let view = archive.view().unwrap();
    commit(&mut writer, &mut wal, 1);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Client::streaming(&view, wal.end()).await);
    }
    for records in [1, 2, 10, 500] {
        commit(&mut writer, &mut wal, records);
        for client in &mut clients {
            let packets = client.pushed(&view);
            let [message] = &packets[..] else {
                panic!("{records} records took {} sends", packets.len());
            };
            assert!(message[WAL_HEADER_LENGTH..] == *wal.bytes(), "{records}");
            assert_eq!(client.pushed(&view).len(), 0);
        }
    }
}
