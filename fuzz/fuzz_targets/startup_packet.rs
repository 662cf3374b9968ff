//! A first packet is the same however its bytes arrive, and takes no more of them than it says.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use walproto::startup::{InitialPacket, MAX_STARTUP_PACKET_LENGTH};

fuzz_target!(|data: &[u8]| {
    let Some((&step, data)) = data.split_first() else {
        return;
    };
    let mut whole = BytesMut::from(data);
    let taken = InitialPacket::take(&mut whole);
    let mut part = BytesMut::new();
    let mut chunks = data.chunks(usize::from(step) + 1);
    let arrived = loop {
        match InitialPacket::take(&mut part) {
            Ok(None) => match chunks.next() {
                Some(chunk) => part.extend_from_slice(chunk),
                None => break Ok(None),
            },
            other => break other,
        }
    };
    assert_eq!(arrived, taken);
    if let Ok(Some(packet)) = taken {
        let length = u32::from_be_bytes(*data.first_chunk().unwrap());
        assert_eq!(whole.len() + usize::try_from(length).unwrap(), data.len());
        if let InitialPacket::Startup(startup) = packet {
            let texts = startup
                .parameters
                .iter()
                .flat_map(|(name, value)| [name, value]);
            let bytes: usize = texts
                .chain(&startup.unknown_options)
                .map(|text| text.len())
                .sum();
            assert!(bytes <= MAX_STARTUP_PACKET_LENGTH);
            assert!(startup.parameters.iter().all(|(name, _)| !name.is_empty()));
        }
    }
});
