//! The messages of an exchange.
//!
//! ```text
//! client                                        server
//!   n,,n=,r=<nonce>                        -->
//!                                          <--  r=<nonce><more>,s=<salt>,i=<iterations>
//!   c=biws,r=<nonce><more>,p=<proof>       -->
//!                                          <--  v=<signature>
//! ```

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use postgres_protocol::authentication::sasl::{SCRAM_SHA_256, SCRAM_SHA_256_PLUS};

use super::error::ScramError;
use super::verifier::{ScramSecret, SecretKind};
use super::{Key, hash, signature};

/// The random bytes that the server adds to the client's nonce (`SCRAM_RAW_NONCE_LEN`).
pub const RAW_NONCE_LENGTH: usize = 18;

/// What a client puts before the hash of the certificate that it is bound to.
const BINDING_HEADER: &[u8] = b"p=tls-server-end-point,,";

/// A server's side of an exchange, at its beginning.
#[derive(Debug)]
pub struct ScramServer {
    secret: ScramSecret,
    nonce: String,
    channel_binding: Option<Bytes>,
}

/// The same, after the client's first message.
#[derive(Debug)]
pub struct Challenged {
    secret: ScramSecret,
    /// `client-first-message-bare,server-first-message,`
    transcript: Vec<u8>,
    /// The nonces of both sides.
    nonce: Vec<u8>,
    /// What the client has to say about the channel, in base64.
    binding: String,
    bound: bool,
}

fn malformed(detail: &'static str) -> ScramError {
    ScramError::Malformed { detail }
}

impl ScramServer {
    /// An exchange about `secret`. `nonce` has to be random, and of this exchange alone.
    ///
    /// `channel_binding` is the hash of the server's certificate (`tls-server-end-point`, RFC
    /// 5929) if the connection uses TLS: then the client may bind the exchange to it, and has to
    /// if it can.
    #[must_use]
    pub fn new(
        secret: ScramSecret,
        nonce: [u8; RAW_NONCE_LENGTH],
        channel_binding: Option<Bytes>,
    ) -> Self {
        Self {
            secret,
            nonce: STANDARD.encode(nonce),
            channel_binding,
        }
    }

    /// The mechanisms that the client may choose from, the better one first.
    #[must_use]
    pub const fn mechanisms(&self) -> &'static [&'static str] {
        match self.channel_binding {
            Some(_) => &[SCRAM_SHA_256_PLUS, SCRAM_SHA_256],
            None => &[SCRAM_SHA_256],
        }
    }

    /// The answer to the client's first message, for which it has chosen a mechanism.
    ///
    /// # Errors
    /// When the message is none, or the two sides do not agree about channel binding.
    pub fn challenge(
        self,
        mechanism: &[u8],
        message: &[u8],
    ) -> Result<(Challenged, String), ScramError> {
        let offered = |name: &&str| name.as_bytes() == mechanism;
        if !self.mechanisms().iter().any(offered) {
            return Err(ScramError::Mechanism);
        }
        let plus = mechanism == SCRAM_SHA_256_PLUS.as_bytes();
        let mut reader = Attributes::new(message)?;
        let binding = self.client_binding(&mut reader, plus)?;
        let bare = reader.rest;
        let client_nonce = client_nonce(reader)?;
        let nonce = [client_nonce, self.nonce.as_bytes()].concat();
        let verifier = &self.secret.verifier;
        let challenge = format!(
            "r={}{},s={},i={}",
            String::from_utf8_lossy(client_nonce),
            self.nonce,
            STANDARD.encode(&verifier.salt),
            verifier.iterations,
        );
        let transcript = [bare, b",", challenge.as_bytes(), b","].concat();
        let challenged = Challenged {
            secret: self.secret,
            transcript,
            nonce,
            binding: STANDARD.encode(binding),
            bound: plus,
        };
        Ok((challenged, challenge))
    }

    /// Reads the header, and returns what the client has to repeat of it in its last message.
    fn client_binding(
        &self,
        reader: &mut Attributes<'_>,
        plus: bool,
    ) -> Result<Vec<u8>, ScramError> {
        let binding = match (reader.first(), &self.channel_binding) {
            (Some(b'n' | b'y'), _) if plus => {
                return Err(malformed(
                    "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not \
                     include channel binding data.",
                ));
            }
            (Some(b'y'), Some(_)) => return Err(ScramError::BindingNegotiation),
            (Some(b'n'), _) => {
                reader.skip(1);
                b"n,,".to_vec()
            }
            (Some(b'y'), None) => {
                reader.skip(1);
                b"y,,".to_vec()
            }
            (Some(b'p'), Some(hash)) if plus => {
                if reader.value(b'p')? != b"tls-server-end-point" {
                    return Err(ScramError::BindingType);
                }
                [BINDING_HEADER, hash].concat()
            }
            (Some(b'p'), _) => {
                return Err(malformed(
                    "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM \
                     message includes channel binding data.",
                ));
            }
            _ => return Err(malformed("Unexpected channel-binding flag.")),
        };
        reader.comma()?;
        match reader.first() {
            Some(b'a') => return Err(ScramError::AuthorizationIdentity),
            Some(b',') => reader.skip(1),
            _ => return Err(malformed("Unexpected attribute in client-first-message.")),
        }
        Ok(binding)
    }
}

/// The client's nonce, from its first message without the header. The name of the user before it
/// is ignored: the startup packet has it.
fn client_nonce(mut reader: Attributes<'_>) -> Result<&[u8], ScramError> {
    if reader.first() == Some(b'm') {
        return Err(ScramError::Extension);
    }
    reader.value(b'n')?;
    reader.comma()?;
    let nonce = reader.value(b'r')?;
    if !nonce.iter().all(|b| matches!(b, 0x21..=0x7E)) {
        return Err(ScramError::NonceNotPrintable);
    }
    while !reader.rest.is_empty() {
        reader.comma()?;
        reader.any()?;
    }
    Ok(nonce)
}

impl Challenged {
    /// The answer to the client's last message, which proves to the client that the server knows
    /// the password too.
    ///
    /// # Errors
    /// When the message is none, or the client is not let in.
    pub fn finish(self, message: &[u8]) -> Result<String, ScramError> {
        let mut reader = Attributes::new(message)?;
        if reader.value(b'c')? != self.binding.as_bytes() {
            return Err(if self.bound {
                ScramError::BindingMismatch
            } else {
                ScramError::BindingChanged
            });
        }
        reader.comma()?;
        let nonce = reader.value(b'r')?;
        let (without_proof, proof) = loop {
            let before = reader.rest.len();
            reader.comma()?;
            if let (b'p', value) = reader.any()? {
                let length = message.len().saturating_sub(before);
                break (message.get(..length).unwrap_or_default(), value);
            }
        };
        let proof: Option<Key> = STANDARD.decode(proof).ok().and_then(|p| p.try_into().ok());
        let proof = proof.ok_or_else(|| malformed("Malformed proof in client-final-message."))?;
        if !reader.rest.is_empty() {
            return Err(malformed(
                "Garbage found at the end of client-final-message.",
            ));
        }
        if nonce != self.nonce {
            return Err(ScramError::NonceMismatch);
        }
        let verifier = &self.secret.verifier;
        let authenticated = [&self.transcript[..], without_proof];
        let mut client_key = signature(&verifier.stored_key, &authenticated);
        client_key.iter_mut().zip(proof).for_each(|(k, p)| *k ^= p);
        // Both are looked at for a mock too, so that it takes as long.
        let right = is_equal(&hash(&[&client_key]), &verifier.stored_key);
        if !right || self.secret.kind == SecretKind::Mock {
            return Err(ScramError::WrongProof);
        }
        let signature = signature(&verifier.server_key, &authenticated);
        Ok(format!("v={}", STANDARD.encode(signature)))
    }
}

/// Compares in a time that does not depend on where they differ.
fn is_equal(a: &Key, b: &Key) -> bool {
    a.iter()
        .zip(b)
        .fold(0, |difference, (a, b)| difference | (a ^ b))
        == 0
}

/// Reads `x=value` after `x=value`, with a comma between them.
struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    fn new(message: &'a [u8]) -> Result<Self, ScramError> {
        match message {
            [] => Err(malformed("The message is empty.")),
            _ if message.contains(&0) => {
                Err(malformed("Message length does not match input length."))
            }
            rest => Ok(Self { rest }),
        }
    }

    fn first(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn comma(&mut self) -> Result<(), ScramError> {
        if self.first() != Some(b',') {
            return Err(malformed("Comma expected, but found something else."));
        }
        self.skip(1);
        Ok(())
    }

    /// The next attribute and its value, up to the comma.
    fn any(&mut self) -> Result<(u8, &'a [u8]), ScramError> {
        let &[name, b'=', ref after @ ..] = self.rest else {
            return Err(malformed("Attribute expected, but found something else."));
        };
        if !name.is_ascii_alphabetic() {
            return Err(malformed(
                "Attribute expected, but found invalid character.",
            ));
        }
        let end = after.iter().position(|&b| b == b',');
        let (value, rest) = after.split_at(end.unwrap_or(after.len()));
        self.rest = rest;
        Ok((name, value))
    }

    /// The value of the next attribute, which has to be `name`.
    fn value(&mut self, name: u8) -> Result<&'a [u8], ScramError> {
        match self.any()? {
            (found, value) if found == name => Ok(value),
            _ => Err(malformed("Expected another attribute.")),
        }
    }
}

#[cfg(test)]
mod tests;
