//! The channel binding of type `tls-server-end-point`: what both sides of a SCRAM exchange say of
//! the TLS connection that it runs in.
//!
//! Source: RFC 5929, section 4.1; src/interfaces/libpq/fe-secure-openssl.c,
//! `pgtls_get_peer_certificate_hash` (PG 15).

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Reader, TagMode, TagNumber};
use x509_cert::spki::AlgorithmIdentifierOwned;

/// A hash function of a signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// `id-RSASSA-PSS`, whose hash function is in its parameters.
const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");

/// Signature algorithms and hash functions. MD5 and SHA-1 are replaced by SHA-256.
const HASHES: [(&str, Hash); 16] = [
    ("1.2.840.113549.1.1.4", Hash::Sha256), // md5WithRSAEncryption
    ("1.2.840.113549.1.1.5", Hash::Sha256), // sha1WithRSAEncryption
    ("1.2.840.10040.4.3", Hash::Sha256),    // id-dsa-with-sha1
    ("1.2.840.10045.4.1", Hash::Sha256),    // ecdsa-with-SHA1
    ("1.3.14.3.2.26", Hash::Sha256),        // id-sha1
    ("1.2.840.113549.1.1.14", Hash::Sha224), // sha224WithRSAEncryption
    ("1.2.840.10045.4.3.1", Hash::Sha224),  // ecdsa-with-SHA224
    ("2.16.840.1.101.3.4.2.4", Hash::Sha224),
    ("1.2.840.113549.1.1.11", Hash::Sha256), // sha256WithRSAEncryption
    ("1.2.840.10045.4.3.2", Hash::Sha256),   // ecdsa-with-SHA256
    ("2.16.840.1.101.3.4.2.1", Hash::Sha256),
    ("1.2.840.113549.1.1.12", Hash::Sha384), // sha384WithRSAEncryption
    ("1.2.840.10045.4.3.3", Hash::Sha384),   // ecdsa-with-SHA384
    ("2.16.840.1.101.3.4.2.2", Hash::Sha384),
    ("1.2.840.113549.1.1.13", Hash::Sha512), // sha512WithRSAEncryption
    ("1.2.840.10045.4.3.4", Hash::Sha512),   // ecdsa-with-SHA512
];

/// `id-sha512`, which only the parameters of RSASSA-PSS name.
const SHA512: &str = "2.16.840.1.101.3.4.2.3";

/// The hash of the server's certificate in DER, `None` where RFC 5929 defines none because the
/// signature has no hash function of its own (Ed25519).
#[must_use]
pub fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    Some(match signature_hash(&parsed.signature_algorithm)? {
        Hash::Sha224 => Sha224::digest(certificate).to_vec(),
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

fn signature_hash(algorithm: &AlgorithmIdentifierOwned) -> Option<Hash> {
    if algorithm.oid != RSASSA_PSS {
        return by_identifier(algorithm.oid);
    }
    let parameters = algorithm.parameters.as_ref()?;
    let hash = parameters.sequence(|reader| {
        let hash = reader
            .context_specific::<AlgorithmIdentifierOwned>(TagNumber::N0, TagMode::Explicit)?;
        // The mask function and the salt's length follow.
        reader.read_slice(reader.remaining_len())?;
        Ok(hash)
    });
    match hash.ok()? {
        Some(hash) => by_identifier(hash.oid),
        // Left out, it is SHA-1.
        None => Some(Hash::Sha256),
    }
}

fn by_identifier(identifier: ObjectIdentifier) -> Option<Hash> {
    let identifier = identifier.to_string();
    if identifier == SHA512 {
        return Some(Hash::Sha512);
    }
    let found = HASHES.iter().find(|(text, _)| *text == identifier);
    found.map(|(_, hash)| *hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_cert::der::Any;

    fn algorithm(oid: &str, parameters: Option<&[u8]>) -> AlgorithmIdentifierOwned {
        AlgorithmIdentifierOwned {
            oid: ObjectIdentifier::new_unwrap(oid),
            parameters: parameters.map(|der| Any::from_der(der).unwrap()),
        }
    }

    #[test]
    fn the_hash_is_that_of_the_signature_and_never_weaker_than_sha_256() {
        for (oid, hash) in [
            ("1.2.840.113549.1.1.4", Some(Hash::Sha256)),
            ("1.2.840.113549.1.1.5", Some(Hash::Sha256)),
            ("1.2.840.113549.1.1.11", Some(Hash::Sha256)),
            ("1.2.840.10045.4.3.3", Some(Hash::Sha384)),
            ("1.2.840.113549.1.1.13", Some(Hash::Sha512)),
            ("1.3.101.112", None),
        ] {
            assert_eq!(signature_hash(&algorithm(oid, None)), hash, "{oid}");
        }
    }

    #[test]
    fn the_hash_of_rsassa_pss_is_in_its_parameters() {
        let pss = "1.2.840.113549.1.1.10";
        // SEQUENCE { [0] { SEQUENCE { id-sha384 } }, [2] { INTEGER 48 } }
        let sha384 = b"\x30\x14\xa0\x0d\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\
                       \xa2\x03\x02\x01\x30";
        let signature = algorithm(pss, Some(sha384));
        assert_eq!(signature_hash(&signature), Some(Hash::Sha384));
        let defaults = algorithm(pss, Some(b"\x30\x00"));
        assert_eq!(signature_hash(&defaults), Some(Hash::Sha256));
        assert_eq!(signature_hash(&algorithm(pss, Some(b"\x05\x00"))), None);
    }

    #[test]
    fn what_is_hashed_is_the_whole_certificate() {
        for (algorithm, length) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(32)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Some(48)),
            (&rcgen::PKCS_ED25519, None),
        ] {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let parameters = rcgen::CertificateParams::new(vec!["h".to_owned()]).unwrap();
            let certificate = parameters.self_signed(&key).unwrap();
            let binding = server_end_point(certificate.der());
            assert_eq!(binding.as_ref().map(Vec::len), length);
            if length == Some(32) {
                assert_eq!(binding, Some(Sha256::digest(certificate.der()).to_vec()));
            }
        }
        assert_eq!(server_end_point(b"no certificate"), None);
    }
}
