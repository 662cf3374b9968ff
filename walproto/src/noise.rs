//! Bytes that have a chance to be messages, for tests.

use proptest::prelude::*;

/// Up to a dozen messages of these tags, with bodies of which most are one of `bodies` or short, and
/// a wrong length now and then.
pub(crate) fn noise(tags: &'static [u8], bodies: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let message = (
        prop::sample::select(tags),
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            prop::sample::select(bodies),
        ],
        prop_oneof![9 => Just(0), 1 => any::<u32>()],
    );
    prop::collection::vec(message, 0..12).prop_map(|messages| {
        let mut bytes = Vec::new();
        for (tag, body, wrong) in messages {
            let length = u32::try_from(body.len() + 4).unwrap().wrapping_add(wrong);
            bytes.push(tag);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(&body);
        }
        bytes
    })
}
