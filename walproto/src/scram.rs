//! The server's side of SCRAM-SHA-256: a password is checked without ever being sent or stored.
//!
//! The client's side is postgres-protocol's.
//!
//! Source: RFC 5802 and RFC 7677; src/backend/libpq/auth-scram.c (PG 15).

mod error;
mod exchange;
mod verifier;

pub use error::ScramError;
pub use exchange::{Challenged, RAW_NONCE_LENGTH, ScramServer};
pub use verifier::{ParseVerifierError, ScramSecret, ScramVerifier, VerifierFault};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// The bytes of a key, a hash and a signature.
const KEY_LENGTH: usize = 32;

type Key = [u8; KEY_LENGTH];

fn hmac(key: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC is defined for keys of any length")]
    Hmac::new_from_slice(key).expect("a key of any length")
}

/// The HMAC of `parts`, one after the other.
fn signature(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac = hmac(key);
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn hash(parts: &[&[u8]]) -> Key {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}
