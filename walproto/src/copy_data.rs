//! What the two sides of a replication connection tell each other while WAL is streamed: the
//! payloads of `CopyData` messages.
//!
//! Every `encode` appends a whole `CopyData` message, every `decode` takes the body of one.
//! All numbers are big-endian.
//!
//! Source: the PostgreSQL manual, "Streaming Replication Protocol"; src/backend/replication,
//! walsender.c and walreceiver.c (PG 15).

use bytes::{BufMut, Bytes, BytesMut};

use crate::frame;
use crate::reader::{MalformedMessage, MessageFault, Reader};
use crate::{Lsn, PgTimestamp};

/// The tag of a `CopyData` message.
const COPY_DATA: u8 = b'd';

/// Appends the header of a `CopyData` message whose payload has `length` bytes.
fn put_header(length: u32, out: &mut BytesMut) {
    out.put_u8(COPY_DATA);
    out.put_u32(4 + length);
}

/// A piece of WAL (`XLogData`), from the sender.
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 1 | `w` |
/// | 1 | 8 | `start` |
/// | 9 | 8 | `wal_end` |
/// | 17 | 8 | `sent_at` |
/// | 25 | . | `data` |
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct XLogData {
    /// The position of the first byte of `data`.
    pub start: Lsn,
    /// How far the sender's WAL reaches; it may lie after the end of `data`.
    pub wal_end: Lsn,
    /// The sender's clock when it sent this.
    pub sent_at: PgTimestamp,
    /// The WAL; it may begin and end at any byte.
    pub data: Bytes,
}

/// More WAL than fits into one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{length} bytes of WAL are too many for one message")]
pub struct XLogDataTooLong {
    /// The length of the WAL in bytes.
    pub length: usize,
}

impl XLogData {
    /// The bytes of the payload before the WAL.
    pub const HEADER_LENGTH: usize = 25;

    /// The bytes of the `CopyData` message before the WAL.
    pub const FRAMED_HEADER_LENGTH: usize = frame::HEADER_LENGTH + Self::HEADER_LENGTH;

    /// All of a `CopyData` message that comes before its `length` bytes of WAL, for a sender that
    /// gets the WAL onto the wire in some other way.
    ///
    /// # Errors
    /// When a message cannot be that long.
    pub fn header(
        start: Lsn,
        wal_end: Lsn,
        sent_at: PgTimestamp,
        length: usize,
    ) -> Result<[u8; Self::FRAMED_HEADER_LENGTH], XLogDataTooLong> {
        // The length on the wire is signed and counts itself.
        let framed = length
            .checked_add(4 + Self::HEADER_LENGTH)
            .and_then(|framed| i32::try_from(framed).ok())
            .ok_or(XLogDataTooLong { length })?;
        let mut header = [0; Self::FRAMED_HEADER_LENGTH];
        let mut out = &mut header[..];
        out.put_u8(COPY_DATA);
        out.put_i32(framed);
        out.put_u8(b'w');
        out.put_u64(start.0);
        out.put_u64(wal_end.0);
        out.put_i64(sent_at.0);
        Ok(header)
    }

    /// Appends the `CopyData` message.
    ///
    /// # Errors
    /// When `data` is too long for one message.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), XLogDataTooLong> {
        let header = Self::header(self.start, self.wal_end, self.sent_at, self.data.len())?;
        out.put_slice(&header);
        out.put_slice(&self.data);
        Ok(())
    }
}

/// A sign of life (`Primary keepalive message`), from the sender.
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 1 | `k` |
/// | 1 | 8 | `wal_end` |
/// | 9 | 8 | `sent_at` |
/// | 17 | 1 | `reply_requested`: 0 or 1 |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrimaryKeepalive {
    /// How far the sender has sent WAL.
    pub wal_end: Lsn,
    /// The sender's clock when it sent this.
    pub sent_at: PgTimestamp,
    /// Whether the sender wants a status update at once, or it may take the connection for dead.
    pub reply_requested: bool,
}

impl PrimaryKeepalive {
    /// Appends the `CopyData` message.
    pub fn encode(&self, out: &mut BytesMut) {
        put_header(18, out);
        out.put_u8(b'k');
        out.put_u64(self.wal_end.0);
        out.put_i64(self.sent_at.0);
        out.put_u8(u8::from(self.reply_requested));
    }
}

/// How far the receiver is (`Standby status update`). A position is the first byte that it does
/// *not* have; `0/0` means that the receiver does not report it.
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 1 | `r` |
/// | 1 | 8 | `write` |
/// | 9 | 8 | `flush` |
/// | 17 | 8 | `apply` |
/// | 25 | 8 | `sent_at` |
/// | 33 | 1 | `reply_requested`: 0 or 1 |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StandbyStatusUpdate {
    /// Up to where WAL was written.
    pub write: Lsn,
    /// Up to where WAL is durable.
    pub flush: Lsn,
    /// Up to where WAL was applied.
    pub apply: Lsn,
    /// The receiver's clock when it sent this.
    pub sent_at: PgTimestamp,
    /// Whether the receiver wants a keepalive at once.
    pub reply_requested: bool,
}

impl StandbyStatusUpdate {
    /// Appends the `CopyData` message.
    pub fn encode(&self, out: &mut BytesMut) {
        put_header(34, out);
        out.put_u8(b'r');
        out.put_u64(self.write.0);
        out.put_u64(self.flush.0);
        out.put_u64(self.apply.0);
        out.put_i64(self.sent_at.0);
        out.put_u8(u8::from(self.reply_requested));
    }
}

/// A transaction identifier with its epoch, on the wire two numbers of 32 bits. Ordered as
/// PostgreSQL assigns them (`FullTransactionId`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct EpochXid {
    /// How often the 32 bits have run over.
    pub epoch: u32,
    /// The identifier; 0 is no transaction.
    pub xid: u32,
}

/// The oldest transactions whose rows the receiver still needs (`Hot Standby feedback message`).
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 1 | `h` |
/// | 1 | 8 | `sent_at` |
/// | 9 | 4 | `xmin.xid` |
/// | 13 | 4 | `xmin.epoch` |
/// | 17 | 4 | `catalog_xmin.xid` |
/// | 21 | 4 | `catalog_xmin.epoch` |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HotStandbyFeedback {
    /// The receiver's clock when it sent this.
    pub sent_at: PgTimestamp,
    /// The oldest transaction, without those that only replication slots need. Both `xid`s being
    /// 0 tells the sender to forget what it was told before.
    pub xmin: EpochXid,
    /// The oldest transaction that replication slots need for the catalogue.
    pub catalog_xmin: EpochXid,
}

impl HotStandbyFeedback {
    /// Appends the `CopyData` message.
    pub fn encode(&self, out: &mut BytesMut) {
        put_header(25, out);
        out.put_u8(b'h');
        out.put_i64(self.sent_at.0);
        out.put_u32(self.xmin.xid);
        out.put_u32(self.xmin.epoch);
        out.put_u32(self.catalog_xmin.xid);
        out.put_u32(self.catalog_xmin.epoch);
    }
}

/// A payload that a sender of WAL sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SenderMessage {
    /// A piece of WAL.
    XLogData(XLogData),
    /// A sign of life.
    Keepalive(PrimaryKeepalive),
}

impl SenderMessage {
    /// Reads the body of a `CopyData` message; the WAL in it is not copied.
    ///
    /// # Errors
    /// When it is no such payload.
    pub fn decode(body: Bytes) -> Result<Self, MalformedMessage> {
        match body.first() {
            Some(b'k') => {
                let mut reader = payload("primary keepalive", body)?;
                let message = PrimaryKeepalive {
                    wal_end: Lsn(reader.u64("end of WAL")?),
                    sent_at: PgTimestamp(reader.i64("sending time")?),
                    reply_requested: flag(&mut reader, "reply request")?,
                };
                reader.finish("reply request")?;
                Ok(Self::Keepalive(message))
            }
            Some(b'w') => {
                let mut reader = payload("XLogData", body)?;
                Ok(Self::XLogData(XLogData {
                    start: Lsn(reader.u64("start of data")?),
                    wal_end: Lsn(reader.u64("end of WAL")?),
                    sent_at: PgTimestamp(reader.i64("sending time")?),
                    data: reader.rest(),
                }))
            }
            _ => Err(unknown_payload(body)),
        }
    }
}

/// A payload that a receiver of WAL sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReceiverMessage {
    /// How far the receiver is.
    StatusUpdate(StandbyStatusUpdate),
    /// Which transactions it still needs.
    HotStandbyFeedback(HotStandbyFeedback),
}

impl ReceiverMessage {
    /// Reads the body of a `CopyData` message.
    ///
    /// # Errors
    /// When it is no such payload.
    pub fn decode(body: Bytes) -> Result<Self, MalformedMessage> {
        match body.first() {
            Some(b'r') => {
                let mut reader = payload("standby status update", body)?;
                let message = StandbyStatusUpdate {
                    write: Lsn(reader.u64("written position")?),
                    flush: Lsn(reader.u64("flushed position")?),
                    apply: Lsn(reader.u64("applied position")?),
                    sent_at: PgTimestamp(reader.i64("sending time")?),
                    reply_requested: flag(&mut reader, "reply request")?,
                };
                reader.finish("reply request")?;
                Ok(Self::StatusUpdate(message))
            }
            Some(b'h') => {
                let mut reader = payload("hot standby feedback", body)?;
                let message = HotStandbyFeedback {
                    sent_at: PgTimestamp(reader.i64("sending time")?),
                    xmin: epoch_xid(&mut reader, "xmin")?,
                    catalog_xmin: epoch_xid(&mut reader, "catalog xmin")?,
                };
                reader.finish("catalog xmin")?;
                Ok(Self::HotStandbyFeedback(message))
            }
            _ => Err(unknown_payload(body)),
        }
    }
}

/// A reader that stands after the byte that tells the payload's kind.
fn payload(message: &'static str, body: Bytes) -> Result<Reader, MalformedMessage> {
    let mut reader = Reader::new(message, body);
    reader.u8("kind")?;
    Ok(reader)
}

fn unknown_payload(body: Bytes) -> MalformedMessage {
    let mut reader = Reader::new("CopyData", body);
    match reader.u8("kind") {
        Ok(kind) => reader.fault(
            "kind",
            MessageFault::UnknownValue {
                value: i64::from(kind),
            },
        ),
        Err(truncated) => truncated,
    }
}

/// A byte that is true unless it is 0, as PostgreSQL reads it.
fn flag(reader: &mut Reader, field: &'static str) -> Result<bool, MalformedMessage> {
    Ok(reader.u8(field)? != 0)
}

fn epoch_xid(reader: &mut Reader, field: &'static str) -> Result<EpochXid, MalformedMessage> {
    let xid = reader.u32(field)?;
    let epoch = reader.u32(field)?;
    Ok(EpochXid { epoch, xid })
}

#[cfg(test)]
mod tests;
