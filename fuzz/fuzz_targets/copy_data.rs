//! A payload that is taken is the same after it was sent on.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use walproto::copy_data::{ReceiverMessage, SenderMessage};
use walproto::frame::HEADER_LENGTH;

fuzz_target!(|payload: &[u8]| {
    let (payload, mut out) = (Bytes::copy_from_slice(payload), BytesMut::new());
    if let Ok(message) = SenderMessage::decode(payload.clone()) {
        match &message {
            SenderMessage::XLogData(data) => data.encode(&mut out).unwrap(),
            SenderMessage::Keepalive(keepalive) => keepalive.encode(&mut out),
        }
        let again = SenderMessage::decode(out.split_off(HEADER_LENGTH).freeze());
        assert_eq!(again, Ok(message));
    } else if let Ok(message) = ReceiverMessage::decode(payload) {
        match &message {
            ReceiverMessage::StatusUpdate(update) => update.encode(&mut out),
            ReceiverMessage::HotStandbyFeedback(feedback) => feedback.encode(&mut out),
        }
        let again = ReceiverMessage::decode(out.split_off(HEADER_LENGTH).freeze());
        assert_eq!(again, Ok(message));
    }
});
