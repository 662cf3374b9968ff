//! A client of physical replication that does the least there is to do: it takes WAL off the
//! socket, looks at the messages' headers, and gives the WAL to whoever wants it. What it reaches
//! is what a receiver can reach at most.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::SystemTime;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use walproto::backend::BackendMessage;
use walproto::copy_data::{StandbyStatusUpdate, XLogData};
use walproto::frame::Frame;
use walproto::startup::StartupParameters;
use walproto::{Lsn, PgTimestamp, TimelineId};

/// How much is read at a time, as our receiver does.
pub(crate) const BUFFER_SIZE: usize = 1 << 20;

/// A connection of such a client.
#[derive(Debug)]
pub(crate) struct Client {
    socket: TcpStream,
    messages: Messages,
}

impl Client {
    /// Connects as the superuser of a server that believes it.
    pub(crate) fn connect(address: SocketAddr, application_name: &str) -> Self {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        let startup = StartupParameters {
            user: "postgres".to_owned(),
            application_name: Some(application_name.to_owned()),
            ..StartupParameters::default()
        };
        let mut out = BytesMut::new();
        startup.encode(&mut out).unwrap();
        socket.write_all(&out).unwrap();
        expect(&mut socket, |message| {
            matches!(message, BackendMessage::ReadyForQuery { .. })
        });
        Self::begun(socket, Lsn::INVALID)
    }

    /// The client of a sender that needs neither startup nor command: from its first byte on the
    /// connection carries messages, with the WAL from `start` on.
    pub(crate) fn begun(socket: TcpStream, start: Lsn) -> Self {
        let messages = Messages {
            end: start,
            ..Messages::default()
        };
        Self { socket, messages }
    }

    /// Asks for the WAL from `start` on.
    pub(crate) fn start(&mut self, timeline: TimelineId, start: Lsn) {
        let mut out = BytesMut::new();
        let command = format!("START_REPLICATION PHYSICAL {start} TIMELINE {timeline}");
        frontend::query(&command, &mut out).unwrap();
        self.socket.write_all(&out).unwrap();
        expect(&mut self.socket, |message| {
            matches!(message, BackendMessage::CopyBothResponse { .. })
        });
        self.messages.end = start;
    }

    /// The socket, to wait for.
    pub(crate) const fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Up to where WAL was received.
    pub(crate) const fn end(&self) -> Lsn {
        self.messages.end
    }

    /// Reads once, and gives each piece of WAL with its position to `take`; several may be of one
    /// message. A server that asks is told that all is flushed.
    pub(crate) fn read(&mut self, buffer: &mut [u8], take: impl FnMut(Lsn, &[u8])) {
        let length = self.try_read(buffer, take);
        assert!(length > 0, "the server has closed the connection");
    }

    /// Does what [`read`](Self::read) does, and gives how many bytes at the beginning of the buffer
    /// are the messages as they came, headers and all: 0 once the connection has ended.
    pub(crate) fn try_read(&mut self, buffer: &mut [u8], take: impl FnMut(Lsn, &[u8])) -> usize {
        let length = match self.socket.read(buffer) {
            // So ends one that had bytes on the way when it was closed.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
            length => length.unwrap(),
        };
        self.messages.take(&buffer[..length], take);
        if std::mem::take(&mut self.messages.reply_requested) {
            self.report();
        }
        length
    }

    /// When the sender has sent what was read last.
    pub(crate) const fn sent_at(&self) -> PgTimestamp {
        self.messages.sent_at
    }

    /// Tells the server that all that was received is flushed.
    pub(crate) fn report(&mut self) {
        let update = StandbyStatusUpdate {
            write: self.messages.end,
            flush: self.messages.end,
            apply: Lsn::INVALID,
            sent_at: now(),
            reply_requested: false,
        };
        let mut out = BytesMut::new();
        update.encode(&mut out);
        self.socket.write_all(&out).unwrap();
    }
}

/// The time, as senders put it into their messages.
pub(crate) fn now() -> PgTimestamp {
    PgTimestamp::from_system_time(SystemTime::now())
}

/// Reads messages up to one that is waited for, and not a byte more.
fn expect(socket: &mut TcpStream, wanted: impl Fn(&BackendMessage) -> bool) {
    loop {
        let mut header = [0; 5];
        socket.read_exact(&mut header).unwrap();
        let length = u32::from_be_bytes(header[1..].try_into().unwrap());
        let mut buffer = BytesMut::from(&header[..]);
        buffer.resize(1 + usize::try_from(length).unwrap(), 0);
        socket.read_exact(&mut buffer[5..]).unwrap();
        let frame = Frame::take(&mut buffer, |_| usize::MAX).unwrap().unwrap();
        match BackendMessage::decode(frame).unwrap() {
            BackendMessage::ErrorResponse(message) => panic!("{message}"),
            message if wanted(&message) => return,
            _ => {}
        }
    }
}

/// The messages of a stream of WAL, as they come in pieces of any length.
#[derive(Debug, Default)]
struct Messages {
    header: [u8; XLogData::FRAMED_HEADER_LENGTH],
    /// How much of the header is there.
    have: usize,
    /// How much of the message's WAL is still to come.
    rest: usize,
    end: Lsn,
    sent_at: PgTimestamp,
    reply_requested: bool,
}

/// The length of a `CopyData` message with a keepalive.
const KEEPALIVE_LENGTH: usize = 23;

impl Messages {
    fn take(&mut self, mut input: &[u8], mut take: impl FnMut(Lsn, &[u8])) {
        while !input.is_empty() {
            if self.rest > 0 {
                let (wal, after) = input.split_at(self.rest.min(input.len()));
                take(self.end, wal);
                self.end = Lsn(self.end.0 + wal.len() as u64);
                self.rest -= wal.len();
                input = after;
                continue;
            }
            let wanted = match self.header[..self.have] {
                [b'd', _, _, _, _, b'k', ..] => KEEPALIVE_LENGTH,
                [b'd', _, _, _, _, b'w', ..] => self.header.len(),
                _ => 6,
            };
            let (more, after) = input.split_at((wanted - self.have).min(input.len()));
            self.header[self.have..][..more.len()].copy_from_slice(more);
            self.have += more.len();
            input = after;
            if self.have == wanted && wanted > 6 {
                self.finish_header();
            } else if self.have == 6 && !matches!(self.header, [b'd', _, _, _, _, b'k' | b'w', ..])
            {
                let [tag, .., kind] = self.header.first_chunk::<6>().unwrap();
                panic!(
                    "the stream has ended with message {:?} {:?}: {}",
                    char::from(*tag),
                    char::from(*kind),
                    input.escape_ascii()
                );
            }
        }
    }

    fn finish_header(&mut self) {
        let number = |from: usize| u64::from_be_bytes(self.header[from..][..8].try_into().unwrap());
        if self.header[5] == b'k' {
            self.reply_requested |= self.header[KEEPALIVE_LENGTH - 1] == 1;
        } else {
            let length = u32::from_be_bytes(self.header[1..5].try_into().unwrap());
            self.rest = usize::try_from(length).unwrap() - 4 - XLogData::HEADER_LENGTH;
            let start = Lsn(number(6));
            assert_eq!(start, self.end, "the WAL has a gap");
            self.sent_at = PgTimestamp(i64::from_be_bytes(self.header[22..30].try_into().unwrap()));
        }
        self.have = 0;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use walproto::copy_data::PrimaryKeepalive;

    use super::*;

    #[test]
    fn wal_is_found_in_messages_however_they_are_cut() {
        let mut stream = BytesMut::new();
        let mut at = Lsn(0x100_0000);
        let wal: Vec<u8> = (0..=255).collect();
        for length in [1, 200, 0, 255] {
            let data = XLogData {
                start: at,
                wal_end: at,
                sent_at: PgTimestamp(7),
                data: Bytes::copy_from_slice(&wal[..length]),
            };
            data.encode(&mut stream).unwrap();
            at = Lsn(at.0 + length as u64);
            let keepalive = PrimaryKeepalive {
                wal_end: at,
                sent_at: PgTimestamp(8),
                reply_requested: length == 200,
            };
            keepalive.encode(&mut stream);
        }
        let expected = [&wal[..1], &wal[..200], &wal[..255]].concat();
        for piece in 1..stream.len() {
            let mut messages = Messages {
                end: Lsn(0x100_0000),
                ..Messages::default()
            };
            let mut found = Vec::new();
            for piece in stream.chunks(piece) {
                messages.take(piece, |lsn, wal| {
                    assert_eq!(lsn.0, 0x100_0000 + found.len() as u64);
                    found.extend_from_slice(wal);
                });
            }
            assert_eq!(found, expected);
            assert_eq!(
                (messages.end, messages.sent_at, messages.reply_requested),
                (at, PgTimestamp(7), true)
            );
        }
    }
}
