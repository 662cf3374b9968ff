use super::*;
use crate::frame::Frame;
use proptest::prelude::*;

fn body(encode: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    encode(&mut out);
    let frame = Frame::take(&mut out, |_| usize::MAX).unwrap().unwrap();
    assert_eq!(frame.tag.0, b'd');
    assert!(out.is_empty());
    frame.body
}

#[test]
fn a_payload_cut_anywhere_names_message_and_field() {
    let keepalive = body(|out| {
        PrimaryKeepalive {
            wal_end: Lsn(1),
            sent_at: PgTimestamp(2),
            reply_requested: true,
        }
        .encode(out);
    });
    let cut = |end| SenderMessage::decode(keepalive.slice(..end)).unwrap_err();
    for (end, field) in [
        (0, "kind"),
        (1, "end of WAL"),
        (9, "sending time"),
        (17, "reply request"),
    ] {
        let error = cut(end);
        assert_eq!(
            (error.field, error.reason),
            (field, MessageFault::Truncated)
        );
    }
    let longer = Bytes::from([&keepalive[..], b"x"].concat());
    assert_eq!(
        SenderMessage::decode(longer).unwrap_err().to_string(),
        "malformed primary keepalive message, field reply request: 1 bytes follow the last field"
    );
}

#[test]
fn each_side_refuses_what_only_the_other_may_send() {
    let unknown = |error: MalformedMessage| match error.reason {
        MessageFault::UnknownValue { value } => value,
        other => panic!("{other}"),
    };
    let status = Bytes::from_static(b"r");
    let wal = Bytes::from_static(b"w");
    assert_eq!(unknown(SenderMessage::decode(status).unwrap_err()), 0x72);
    assert_eq!(unknown(ReceiverMessage::decode(wal).unwrap_err()), 0x77);
}

#[test]
fn wal_that_no_message_can_hold_is_refused_before_anything_is_written() {
    let header = |length| XLogData::header(Lsn(0), Lsn(0), PgTimestamp(0), length);
    let longest = 0x7FFF_FFFF - 4 - XLogData::HEADER_LENGTH;
    assert_eq!(header(longest).unwrap()[..6], *b"d\x7F\xFF\xFF\xFFw");
    for length in [longest + 1, usize::MAX] {
        assert_eq!(header(length), Err(XLogDataTooLong { length }));
    }
}

proptest! {
    #[test]
    fn what_a_sender_sends_is_read_back(start: u64, wal_end: u64, time: i64, data: Vec<u8>) {
        let message = XLogData {
            start: Lsn(start),
            wal_end: Lsn(wal_end),
            sent_at: PgTimestamp(time),
            data: data.into(),
        };
        let read = SenderMessage::decode(body(|out| message.encode(out).unwrap()));
        prop_assert_eq!(read, Ok(SenderMessage::XLogData(message)));
    }

    #[test]
    fn a_keepalive_is_read_back(wal_end: u64, time: i64, reply_requested: bool) {
        let message = PrimaryKeepalive {
            wal_end: Lsn(wal_end),
            sent_at: PgTimestamp(time),
            reply_requested,
        };
        let read = SenderMessage::decode(body(|out| message.encode(out)));
        prop_assert_eq!(read, Ok(SenderMessage::Keepalive(message)));
    }

    #[test]
    fn a_status_update_is_read_back(
        positions: [u64; 3], time: i64, reply_requested: bool,
    ) {
        let [write, flush, apply] = positions.map(Lsn);
        let sent_at = PgTimestamp(time);
        let message = StandbyStatusUpdate { write, flush, apply, sent_at, reply_requested };
        let read = ReceiverMessage::decode(body(|out| message.encode(out)));
        prop_assert_eq!(read, Ok(ReceiverMessage::StatusUpdate(message)));
    }

    #[test]
    fn hot_standby_feedback_is_read_back(xids: [u32; 4], time: i64) {
        let message = HotStandbyFeedback {
            sent_at: PgTimestamp(time),
            xmin: EpochXid { epoch: xids[0], xid: xids[1] },
            catalog_xmin: EpochXid { epoch: xids[2], xid: xids[3] },
        };
        let read = ReceiverMessage::decode(body(|out| message.encode(out)));
        prop_assert_eq!(read, Ok(ReceiverMessage::HotStandbyFeedback(message)));
    }

    #[test]
    fn what_is_decoded_is_encoded_to_the_same_bytes(
        mut bytes: Vec<u8>, kind in prop::sample::select(b"wkrh".to_vec()),
    ) {
        bytes.insert(0, kind);
        let bytes = Bytes::from(bytes);
        let again = match (SenderMessage::decode(bytes.clone()), ReceiverMessage::decode(bytes.clone())) {
            (Ok(SenderMessage::XLogData(m)), Err(_)) => body(|out| m.encode(out).unwrap()),
            (Ok(SenderMessage::Keepalive(m)), Err(_)) => body(|out| m.encode(out)),
            (Err(_), Ok(ReceiverMessage::StatusUpdate(m))) => body(|out| m.encode(out)),
            (Err(_), Ok(ReceiverMessage::HotStandbyFeedback(m))) => body(|out| m.encode(out)),
            (Err(_), Err(_)) => return Ok(()),
            both => panic!("{both:?}"),
        };
        // Any byte but 0 asks for a reply, and is written as 1.
        let normal = |b: &Bytes| {
            let mut v = b.to_vec();
            if matches!(kind, b'k' | b'r') {
                let last = v.last_mut().unwrap();
                *last = u8::from(*last != 0);
            }
            v
        };
        prop_assert_eq!(normal(&bytes), normal(&again));
    }
}
