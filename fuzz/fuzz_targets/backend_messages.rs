//! Messages are the same however their bytes arrive, and after they were sent on.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use walproto::backend::BackendMessage;
use walproto::frame::Frame;

fuzz_target!(|data: &[u8]| {
    let Some((&step, data)) = data.split_first() else {
        return;
    };
    let (mut whole, mut part) = (BytesMut::from(data), BytesMut::new());
    let mut chunks = data.chunks(usize::from(step) + 1);
    while let Ok(Some(frame)) = Frame::take(&mut whole, |_| 4096) {
        let arrived = loop {
            match Frame::take(&mut part, |_| 4096).unwrap() {
                Some(frame) => break frame,
                None => part.extend_from_slice(chunks.next().unwrap()),
            }
        };
        assert_eq!(arrived, frame);
        if let Ok(message) = BackendMessage::decode(frame) {
            let mut out = BytesMut::new();
            message.encode(&mut out).unwrap();
            let again = Frame::take(&mut out, |_| 8192).unwrap().unwrap();
            assert_eq!(BackendMessage::decode(again), Ok(message));
        }
    }
});
