//! The files that TLS needs.
//!
//! Source: src/backend/libpq/be-secure-openssl.c, `be_tls_init`;
//! src/backend/libpq/be-secure-common.c, `check_ssl_key_file_permissions` (PG 15).

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, InconsistentKeys};
use walproto::certificate::public_key;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::TlsError;

/// What a file is read for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsFile {
    /// Our certificate.
    Certificate,
    /// Our key.
    PrivateKey,
    /// Who may sign the certificates of clients.
    ClientAuthorities,
    /// Which certificates of clients are revoked.
    RevocationList,
}

impl fmt::Display for TlsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate",
            Self::PrivateKey => "private key",
            Self::ClientAuthorities => "certificate authority",
            Self::RevocationList => "certificate revocation list",
        })
    }
}

/// The roots, as webpki has them and parsed.
pub(super) fn authorities(path: &Path) -> Result<(RootCertStore, Vec<Certificate>), TlsError> {
    let mut roots = RootCertStore::empty();
    let mut parsed = Vec::new();
    for certificate in certificates(TlsFile::ClientAuthorities, path)? {
        let unusable = || content(TlsFile::ClientAuthorities, path);
        parsed.push(Certificate::from_der(&certificate).map_err(|_malformed| unusable())?);
        // One that rustls cannot use signs nothing that it could verify.
        roots.add(certificate).map_err(|_unusable| unusable())?;
    }
    Ok((roots, parsed))
}

pub(super) fn revocation_lists(
    path: Option<&Path>,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let Some(path) = path else {
        return Ok(Vec::new());
    };
    let text = read(TlsFile::RevocationList, path)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&text).collect();
    match lists {
        Ok(lists) if !lists.is_empty() => Ok(lists),
        Ok(_) | Err(_) => Err(content(TlsFile::RevocationList, path)),
    }
}

pub(super) fn certified_key(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(TlsFile::Certificate, certificate)?;
    fitting(chain, private_key(key)?, provider).map_err(|source| TlsError::Key {
        key: key.to_owned(),
        certificate: certificate.to_owned(),
        source,
    })
}

/// A key with its certificate, which is of any version of X.509: rustls would parse it only to
/// compare the keys, and takes version 3 alone.
fn fitting(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, rustls::Error> {
    let key = provider.key_provider.load_private_key(key)?;
    let certified = CertifiedKey::new(chain, key);
    let of_certificate = public_key(certified.end_entity_cert()?).ok_or(
        rustls::Error::InvalidCertificate(CertificateError::BadEncoding),
    )?;
    match certified.key.public_key() {
        Some(of_key) if of_key.as_ref() != of_certificate => {
            Err(InconsistentKeys::KeyMismatch.into())
        }
        // Of some keys the public part is not known: the peer will see whether they fit.
        Some(_) | None => Ok(certified),
    }
}

fn certificates(file: TlsFile, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(file, path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(content(file, path)),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let owned = || path.to_owned();
    let metadata = fs::metadata(path).map_err(|source| TlsError::Read {
        file: TlsFile::PrivateKey,
        path: owned(),
        source,
    })?;
    if !metadata.is_file() {
        return Err(TlsError::KeyNotAFile { path: owned() });
    }
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if !ours && metadata.uid() != 0 {
        return Err(TlsError::KeyOwner { path: owned() });
    }
    // A key that belongs to root may be shared with a group.
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & forbidden != 0 {
        return Err(TlsError::KeyAccess { path: owned() });
    }
    let text = read(TlsFile::PrivateKey, path)?;
    let has = |marker: &[u8]| text.windows(marker.len()).any(|part| part == marker);
    if has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED") {
        return Err(TlsError::KeyEncrypted { path: owned() });
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|_not_a_key| content(TlsFile::PrivateKey, path))
}

fn content(file: TlsFile, path: &Path) -> TlsError {
    TlsError::Content {
        file,
        path: path.to_owned(),
    }
}

fn read(file: TlsFile, path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read {
        file,
        path: path.to_owned(),
        source,
    })
}
