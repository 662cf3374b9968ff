//! What a server stores of a password.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::Mac;

use super::{KEY_LENGTH, Key, hash, hmac, signature};

/// What a server stores of a password (`pg_authid.rolpassword`): enough to check it, and to show
/// that the server knows it, but not to know it.
///
/// As text it is `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, the last three in
/// base64. It is to be kept secret: who has it can pretend to be the server, and guess passwords.
///
/// ```
/// use walproto::scram::ScramVerifier;
/// let verifier = ScramVerifier::from_password(b"pencil", b"0123456789abcdef", 4096);
/// let text = verifier.to_string();
/// assert!(text.starts_with("SCRAM-SHA-256$4096:MDEyMzQ1Njc4OWFiY2RlZg==$"));
/// assert_eq!(text.parse(), Ok(verifier));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ScramVerifier {
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: Key,
    pub(super) server_key: Key,
}

impl ScramVerifier {
    /// How often PostgreSQL hashes a password, unless `scram_iterations` says otherwise.
    pub const DEFAULT_ITERATIONS: u32 = 4096;

    /// The length in bytes of the salt that PostgreSQL makes.
    pub const DEFAULT_SALT_LENGTH: usize = 16;

    /// What is stored of `password`: `salt` has to be random and of this password alone. It is
    /// hashed `iterations` times (0 counts as 1), which takes that long.
    ///
    /// The password is normalised by SASLprep, or taken as it is where that is not possible, as
    /// PostgreSQL does on both sides.
    #[must_use]
    pub fn from_password(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let salted = salted_password(&normalized(password), salt, iterations);
        Self {
            iterations: iterations.clamp(1, MAX_ITERATIONS),
            salt: salt.to_vec(),
            stored_key: hash(&[&signature(&salted, &[b"Client Key"])]),
            server_key: signature(&salted, &[b"Server Key"]),
        }
    }

    /// How often the password was hashed.
    #[must_use]
    pub const fn iterations(&self) -> u32 {
        self.iterations
    }
}

/// The greatest number of iterations: PostgreSQL's are signed.
const MAX_ITERATIONS: u32 = i32::MAX.cast_unsigned();

fn normalized(password: &[u8]) -> Vec<u8> {
    let prepared = std::str::from_utf8(password)
        .ok()
        .and_then(|text| stringprep::saslprep(text).ok());
    prepared.map_or_else(|| password.to_vec(), |text| text.into_owned().into_bytes())
}

/// PBKDF2 with HMAC-SHA-256, for one block (RFC 5802, `Hi`).
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> Key {
    let keyed = hmac(password);
    let next = |parts: &[&[u8]]| -> Key {
        let mut mac = keyed.clone();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    };
    let mut block = next(&[salt, &1u32.to_be_bytes()]);
    let mut salted = block;
    for _ in 1..iterations {
        block = next(&[&block]);
        salted.iter_mut().zip(block).for_each(|(s, b)| *s ^= b);
    }
    salted
}

impl fmt::Display for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{SCHEME}${}:{}${}:{}",
            self.iterations,
            STANDARD.encode(&self.salt),
            STANDARD.encode(self.stored_key),
            STANDARD.encode(self.server_key),
        )
    }
}

/// Without what is secret.
impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramVerifier")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

const SCHEME: &str = "SCRAM-SHA-256";

/// A text that is no verifier. It is not repeated, being secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid SCRAM verifier, expected SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>: \
     {reason}"
)]
pub struct ParseVerifierError {
    /// What is wrong with it.
    pub reason: VerifierFault,
}

/// What is wrong with the text of a verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifierFault {
    /// It may be a password, or a verifier for MD5.
    #[error("it does not begin with SCRAM-SHA-256")]
    Scheme,
    /// A separator is missing.
    #[error("the {field} is missing")]
    Missing {
        /// The field after the separator.
        field: &'static str,
    },
    /// No number, or one that is not between 1 and 2147483647.
    #[error("the number of iterations is none")]
    Iterations,
    /// Not base64, or of another length than it has to have.
    #[error("the {field} is not base64 of its length")]
    Base64 {
        /// The field.
        field: &'static str,
    },
}

/// Source: src/backend/libpq/auth-scram.c, `parse_scram_secret` (PG 15), which takes doubled
/// separators too.
impl FromStr for ScramVerifier {
    type Err = ParseVerifierError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = |reason| ParseVerifierError { reason };
        let missing = |field| fault(VerifierFault::Missing { field });
        let rest = text.strip_prefix(SCHEME);
        let rest = rest.ok_or(fault(VerifierFault::Scheme))?;
        let rest = rest.strip_prefix('$').ok_or(missing("iterations"))?;
        let (iterations, rest) = rest.split_once(':').ok_or(missing("salt"))?;
        let (salt, rest) = rest.split_once('$').ok_or(missing("StoredKey"))?;
        let (stored_key, server_key) = rest.split_once(':').ok_or(missing("ServerKey"))?;
        let digits = iterations.bytes().all(|b| b.is_ascii_digit());
        let iterations = iterations.parse().ok().filter(|_| digits);
        let iterations = iterations.filter(|number| (1..=MAX_ITERATIONS).contains(number));
        let base64 = |field, text: &str| {
            let bytes = STANDARD.decode(text).ok().filter(|bytes| !bytes.is_empty());
            bytes.ok_or(fault(VerifierFault::Base64 { field }))
        };
        let key = |field, text| {
            let bytes = base64(field, text)?;
            let key: Option<[u8; KEY_LENGTH]> = bytes.try_into().ok();
            key.ok_or(fault(VerifierFault::Base64 { field }))
        };
        Ok(Self {
            iterations: iterations.ok_or(fault(VerifierFault::Iterations))?,
            salt: base64("salt", salt)?,
            stored_key: key("StoredKey", stored_key)?,
            server_key: key("ServerKey", server_key)?,
        })
    }
}

/// What a client's proof is checked against.
#[derive(Clone, Debug)]
pub struct ScramSecret {
    pub(super) verifier: ScramVerifier,
    pub(super) kind: SecretKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SecretKind {
    Real,
    /// No proof is right.
    Mock,
}

impl From<ScramVerifier> for ScramSecret {
    fn from(verifier: ScramVerifier) -> Self {
        Self {
            verifier,
            kind: SecretKind::Real,
        }
    }
}

impl ScramSecret {
    /// For a role that does not exist, or has no password: the exchange goes as for any other,
    /// and fails as if the password were wrong, so that nobody learns which roles there are.
    ///
    /// For that, `key` has to be the same for all connections and unknown to others, and
    /// `iterations` what the passwords of other roles have.
    ///
    /// Source: src/backend/libpq/auth-scram.c, `scram_mock_salt` (PG 15).
    #[must_use]
    pub fn mock(user: &str, key: &[u8], iterations: u32) -> Self {
        let salt = hash(&[user.as_bytes(), key]);
        let (salt, _) = salt.split_at(ScramVerifier::DEFAULT_SALT_LENGTH);
        Self {
            verifier: ScramVerifier {
                iterations: iterations.clamp(1, MAX_ITERATIONS),
                salt: salt.to_vec(),
                stored_key: [0; KEY_LENGTH],
                server_key: [0; KEY_LENGTH],
            },
            kind: SecretKind::Mock,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What PostgreSQL 15.18 stored for the password "pencil\u{ad}\u{a0}2", which SASLprep makes
    /// "pencil 2".
    const STORED: &str = "SCRAM-SHA-256$4096:eF4C8mcCmpVABiZtB25lXA==$\
        rY8F6M+1699UlBQmBnsnUCxKYXPabOx0OrUvRYSUWc0=:YSWp6Sp2A1eYXNrvHoaF4iUj9KL904rriKOGCKOltBI=";

    #[test]
    fn what_postgresql_stores_is_what_we_store() {
        let stored: ScramVerifier = STORED.parse().unwrap();
        assert_eq!(stored.to_string(), STORED);
        for password in ["pencil\u{ad}\u{a0}2", "pencil 2"] {
            let ours = ScramVerifier::from_password(password.as_bytes(), &stored.salt, 4096);
            assert_eq!(ours.to_string(), STORED);
        }
        let other = ScramVerifier::from_password(b"pencil2", &stored.salt, 4096);
        assert_ne!(other, stored);
    }

    #[test]
    fn a_password_that_cannot_be_prepared_is_taken_as_it_is() {
        // Not UTF-8, and a control character.
        for password in [&b"\xFF\xFE"[..], b"a\x07"] {
            assert_eq!(normalized(password), password);
        }
        let none = ScramVerifier::from_password(b"x", b"salt", 0);
        assert_eq!(none, ScramVerifier::from_password(b"x", b"salt", 1));
    }

    #[test]
    fn a_text_that_is_no_verifier_is_refused_for_its_reason() {
        use VerifierFault as F;
        let missing = |field| F::Missing { field };
        let base64 = |field| F::Base64 { field };
        let (key, short) = (STANDARD.encode([7; 32]), STANDARD.encode([7; 31]));
        for (text, reason) in [
            ("secret".to_owned(), F::Scheme),
            ("md5e8a48653851e28c69d0506508fb27fc5".to_owned(), F::Scheme),
            ("SCRAM-SHA-256".to_owned(), missing("iterations")),
            (
                "SCRAM-SHA-256-PLUS$1:eA==$x:x".to_owned(),
                missing("iterations"),
            ),
            ("SCRAM-SHA-256$4096".to_owned(), missing("salt")),
            ("SCRAM-SHA-256$4096:eA==".to_owned(), missing("StoredKey")),
            (
                format!("SCRAM-SHA-256$4096:eA==${key}"),
                missing("ServerKey"),
            ),
            (format!("SCRAM-SHA-256$:eA==${key}:{key}"), F::Iterations),
            (format!("SCRAM-SHA-256$+1:eA==${key}:{key}"), F::Iterations),
            (format!("SCRAM-SHA-256$0:eA==${key}:{key}"), F::Iterations),
            (
                format!("SCRAM-SHA-256$2147483648:eA==${key}:{key}"),
                F::Iterations,
            ),
            (format!("SCRAM-SHA-256$1:${key}:{key}"), base64("salt")),
            (format!("SCRAM-SHA-256$1:eA${key}:{key}"), base64("salt")),
            (
                format!("SCRAM-SHA-256$1:eA==${short}:{key}"),
                base64("StoredKey"),
            ),
            (
                format!("SCRAM-SHA-256$1:eA==${key}:{key}\n"),
                base64("ServerKey"),
            ),
        ] {
            let error = text.parse::<ScramVerifier>().unwrap_err();
            assert_eq!(error.reason, reason, "{text}");
        }
    }

    #[test]
    fn nothing_secret_is_shown_by_debug() {
        let verifier: ScramVerifier = STORED.parse().unwrap();
        let shown = format!("{:?}", ScramSecret::from(verifier));
        assert_eq!(
            shown,
            "ScramSecret { verifier: ScramVerifier { iterations: 4096, .. }, kind: Real }"
        );
    }

    #[test]
    fn a_mock_has_a_salt_of_its_role_alone() {
        let salt = |user, key: &[u8]| ScramSecret::mock(user, key, 4096).verifier.salt;
        assert_eq!(salt("a", b"key"), salt("a", b"key"));
        assert_eq!(salt("a", b"key").len(), 16);
        assert_ne!(salt("a", b"key"), salt("b", b"key"));
        assert_ne!(salt("a", b"key"), salt("a", b"other"));
    }

    proptest! {
        #[test]
        fn a_verifier_is_read_back(
            password: Vec<u8>,
            salt in prop::collection::vec(any::<u8>(), 1..40),
            iterations in 1u32..5,
        ) {
            let verifier = ScramVerifier::from_password(&password, &salt, iterations);
            prop_assert_eq!(verifier.to_string().parse(), Ok(verifier));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(SCRAM-SHA-256)?[$:A-Za-z0-9=]{0,60}|\\PC*") {
            if let Ok(verifier) = text.parse::<ScramVerifier>() {
                prop_assert_eq!(verifier.to_string().parse(), Ok(verifier));
            }
        }
    }
}
