//! Nobody is let in without the password, or learns whether there is one.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use walproto::scram::{ScramError, ScramSecret, ScramServer, ScramVerifier};

/// How an exchange goes: the error of the first or of the last message.
fn exchange(secret: ScramSecret, plus: bool, tls: bool, first: &[u8], last: &[u8]) -> ScramError {
    let binding = tls.then(|| Bytes::from_static(b"hash"));
    let mechanism: &[u8] = if plus {
        b"SCRAM-SHA-256-PLUS"
    } else {
        b"SCRAM-SHA-256"
    };
    match ScramServer::new(secret, [7; 18], binding).challenge(mechanism, first) {
        Err(error) => error,
        Ok((challenged, challenge)) => {
            assert!(challenge.starts_with("r="));
            challenged.finish(last).unwrap_err()
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&[kind, split], data)) = data.split_first_chunk() else {
        return;
    };
    let (first, last) = data.split_at(usize::from(split).min(data.len()));
    let verifier = ScramVerifier::from_password(b"secret", b"salt of sixteen.", 1);
    let (plus, tls) = (kind & 1 == 1, kind & 2 == 2);
    let real = exchange(verifier.into(), plus, tls, first, last);
    let mock = exchange(ScramSecret::mock("u", b"key", 1), plus, tls, first, last);
    assert_eq!(real, mock);
    assert_eq!(real.for_client("u"), mock.for_client("u"));
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(verifier) = text.parse::<ScramVerifier>()
    {
        assert_eq!(verifier.to_string().parse(), Ok(verifier));
    }
});
