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

pub(super) fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(TlsFile::ClientAuthorities, path)? {
        // One that rustls cannot use signs nothing that it could verify.
        roots
            .add(certificate)
            .map_err(|_unusable| content(TlsFile::ClientAuthorities, path))?;
    }
    Ok(roots)
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
    CertifiedKey::from_der(chain, private_key(key)?, provider).map_err(|source| TlsError::Key {
        key: key.to_owned(),
        certificate: certificate.to_owned(),
        source,
    })
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
