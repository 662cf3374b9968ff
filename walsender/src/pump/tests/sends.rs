//! How often a client is sent something: once for what was made durable together.

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};

use super::*;

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
        let pump = streaming(here, view, start);
        let mut client = Self {
            pump,
            socket: there,
        };
        client.pushed(view);
        client
    }

    /// What it gets by one push, packet by packet.
    fn pushed(&mut self, view: &ArchiveView) -> Vec<Vec<u8>> {
        let pushed = self.pump.push(view, None, None).unwrap();
        assert_eq!(pushed, Pushed::Idle);
        let mut packets = Vec::new();
        let mut buffer = vec![0; 256 << 10];
        while let Ok((count, _)) = recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
            packets.push(buffer[..count].to_vec());
        }
        packets
    }
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
    let mut wal = generator();
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
