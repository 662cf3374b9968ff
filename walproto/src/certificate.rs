//! Certificates of X.509 version 1, which `openssl x509 -req` makes unless it is given extensions,
//! as in PostgreSQL's manual. OpenSSL, and so PostgreSQL, takes them; webpki takes none of them.
//!
//! Here is what can be said of a certificate without a TLS library; signatures are checked by the
//! caller.
//!
//! Source: RFC 5280, section 4.1; the PostgreSQL manual, "Creating Certificates".

use std::time::Duration;

use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::BasicConstraints;
use x509_cert::spki::AlgorithmIdentifierOwned;

/// The public key of a certificate in DER format (`SubjectPublicKeyInfo`); `None` for what is no
/// certificate.
#[must_use]
pub fn public_key(der: &[u8]) -> Option<Vec<u8>> {
    let certificate = Certificate::from_der(der).ok()?;
    let key = certificate.tbs_certificate.subject_public_key_info;
    key.to_der().ok()
}

/// Whether a certificate is of version 1 or 2, which have no extensions.
#[must_use]
pub fn is_old(certificate: &Certificate) -> bool {
    certificate.tbs_certificate.version != Version::V3
}

/// Why a certificate is not trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Distrust {
    /// It, or its issuer, is not valid yet.
    NotValidYet,
    /// It, or its issuer, has expired.
    Expired,
    /// No root that may sign others has the issuer's name.
    UnknownIssuer,
    /// A root has the issuer's name, and another key.
    BadSignature,
}

/// A key and what it is said to have signed. Algorithms are in DER format without the tag and
/// length of the sequence, as webpki compares them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signed<'a> {
    /// The algorithm of the key.
    pub key_algorithm: Vec<u8>,
    /// The key.
    pub key: &'a [u8],
    /// The algorithm of the signature.
    pub signature_algorithm: Vec<u8>,
    /// What is signed.
    pub message: Vec<u8>,
    /// The signature.
    pub signature: &'a [u8],
}

/// Checks a certificate of version 1 or 2, which must be signed by a root itself.
///
/// `now` is the time since 1970, `is_valid` says whether a signature is.
///
/// # Errors
/// When it is not to be trusted.
pub fn verify_old<'a>(
    certificate: &Certificate,
    roots: impl Iterator<Item = &'a Certificate>,
    now: Duration,
    is_valid: impl Fn(&Signed<'_>) -> bool,
) -> Result<(), Distrust> {
    check_time(certificate, now)?;
    let issuer = &certificate.tbs_certificate.issuer;
    let mut issuers = roots
        .filter(|root| root.tbs_certificate.subject == *issuer && is_authority(root))
        .peekable();
    if issuers.peek().is_none() {
        return Err(Distrust::UnknownIssuer);
    }
    let signer =
        issuers.find(|root| signed(certificate, root).is_some_and(|signed| is_valid(&signed)));
    check_time(signer.ok_or(Distrust::BadSignature)?, now)
}

/// Checks that a certificate is valid at `now`, the time since 1970.
///
/// # Errors
/// When it is not.
pub fn check_time(certificate: &Certificate, now: Duration) -> Result<(), Distrust> {
    let validity = &certificate.tbs_certificate.validity;
    if now < validity.not_before.to_unix_duration() {
        Err(Distrust::NotValidYet)
    } else if now > validity.not_after.to_unix_duration() {
        Err(Distrust::Expired)
    } else {
        Ok(())
    }
}

/// The key of a certificate with its algorithm, as in [`Signed`].
#[must_use]
pub fn key(certificate: &Certificate) -> Option<(Vec<u8>, &[u8])> {
    let key = &certificate.tbs_certificate.subject_public_key_info;
    Some((
        identifier(&key.algorithm)?,
        key.subject_public_key.raw_bytes(),
    ))
}

/// Whether a root may sign others. Version 1 cannot say so; being named as trusted does.
fn is_authority(root: &Certificate) -> bool {
    is_old(root)
        || matches!(
            root.tbs_certificate.get::<BasicConstraints>(),
            Ok(Some((_, BasicConstraints { ca: true, .. })))
        )
}

fn signed<'a>(certificate: &'a Certificate, signer: &'a Certificate) -> Option<Signed<'a>> {
    let (key_algorithm, key) = key(signer)?;
    Some(Signed {
        key_algorithm,
        key,
        signature_algorithm: identifier(&certificate.signature_algorithm)?,
        message: certificate.tbs_certificate.to_der().ok()?,
        signature: certificate.signature.raw_bytes(),
    })
}

/// An algorithm as webpki compares it.
fn identifier(algorithm: &AlgorithmIdentifierOwned) -> Option<Vec<u8>> {
    let der = algorithm.to_der().ok()?;
    match der.split_at_checked(2)? {
        ([_, length], content) if usize::from(*length) == content.len() => Some(content.to_vec()),
        // A longer length takes more bytes; no known algorithm is that long.
        _ => None,
    }
}
