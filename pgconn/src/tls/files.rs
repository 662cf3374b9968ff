//! The files that TLS needs: whom to trust, who is revoked, who we are.
//!
//! Source: src/interfaces/libpq/fe-secure-openssl.c, `initialize_SSL` (PG 15).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pkcs8::der::Decode;
use pkcs8::{EncryptedPrivateKeyInfo, SecretDocument};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer,
};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, InconsistentKeys};
use walproto::certificate::public_key;

use super::{TlsError, TlsFile};
use crate::conninfo::{SslCertMode, SslMode, TlsSettings};

/// Who is trusted to sign the server's certificate.
pub(super) struct Roots {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) revocation_lists: Vec<CertificateRevocationListDer<'static>>,
    /// The file, for messages.
    pub(super) origin: String,
}

/// The roots, `None` if there is no file and none is needed.
pub(super) fn roots(settings: &TlsSettings) -> Result<Option<Roots>, TlsError> {
    if settings.root_certificates.as_deref() == Some("system") {
        return system_roots().map(Some);
    }
    let must_verify = settings.mode >= SslMode::VerifyCa;
    let path = match (&settings.root_certificates, &settings.home) {
        (Some(path), _) => PathBuf::from(path),
        (None, Some(home)) => home.join(".postgresql/root.crt"),
        (None, None) if must_verify => return Err(TlsError::NoHome),
        (None, None) => return Ok(None),
    };
    let Some(text) = read_if_exists(TlsFile::RootCertificates, &path)? else {
        if must_verify {
            return Err(TlsError::NoRootFile { path });
        }
        return Ok(None);
    };
    Ok(Some(Roots {
        certificates: certificates(TlsFile::RootCertificates, &path, &text)?,
        revocation_lists: revocation_lists(settings)?,
        origin: format!("file \"{}\"", path.display()),
    }))
}

fn system_roots() -> Result<Roots, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(TlsError::NoSystemRoots);
    }
    Ok(Roots {
        certificates: found.certs,
        revocation_lists: Vec::new(),
        origin: "the system's certificates".to_owned(),
    })
}

/// Unlike libpq, which then checks nothing, a list that is named and cannot be read is an error.
fn revocation_lists(
    settings: &TlsSettings,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let mut lists = Vec::new();
    if let Some(path) = &settings.revocation_list {
        let text = read(TlsFile::RevocationList, path)?;
        lists.extend(revocation_list(path, &text)?);
    }
    if let Some(directory) = &settings.revocation_directory {
        let failed = |source| TlsError::Read {
            file: TlsFile::RevocationList,
            path: directory.clone(),
            source,
        };
        for entry in fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_file() {
                let text = read(TlsFile::RevocationList, &path)?;
                lists.extend(revocation_list(&path, &text)?);
            }
        }
    }
    if settings.revocation_list.is_none()
        && settings.revocation_directory.is_none()
        && let Some(home) = &settings.home
    {
        let path = home.join(".postgresql/root.crl");
        if let Some(text) = read_if_exists(TlsFile::RevocationList, &path)? {
            lists.extend(revocation_list(&path, &text)?);
        }
    }
    Ok(lists)
}

fn revocation_list(
    path: &Path,
    text: &[u8],
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(text).collect();
    match lists {
        Ok(lists) if !lists.is_empty() => Ok(lists),
        Ok(_) | Err(_) => Err(TlsError::Content {
            file: TlsFile::RevocationList,
            path: path.to_owned(),
        }),
    }
}

fn certificates(
    file: TlsFile,
    path: &Path,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(TlsError::Content {
            file,
            path: path.to_owned(),
        }),
    }
}

/// The client's certificate and key, `None` if there is no certificate and none is needed.
pub(super) fn client_certificate(
    settings: &TlsSettings,
    provider: &CryptoProvider,
) -> Result<Option<CertifiedKey>, TlsError> {
    if settings.certificate_mode == SslCertMode::Disable {
        return Ok(None);
    }
    let in_home = |name: &str| settings.home.as_ref().map(|home| home.join(name));
    let certificate_path = settings
        .certificate
        .clone()
        .or_else(|| in_home(".postgresql/postgresql.crt"));
    let Some(certificate_path) = certificate_path else {
        return Ok(None);
    };
    let Some(text) = read_if_exists(TlsFile::Certificate, &certificate_path)? else {
        if settings.certificate_mode == SslCertMode::Require {
            return Err(TlsError::NoCertificate {
                path: certificate_path,
            });
        }
        return Ok(None);
    };
    let chain = certificates(TlsFile::Certificate, &certificate_path, &text)?;
    let key_path = settings
        .key
        .clone()
        .or_else(|| in_home(".postgresql/postgresql.key"))
        .unwrap_or_default();
    let key = private_key(settings, &key_path)?;
    certified_key(chain, key, provider)
        .map(Some)
        .map_err(|source| TlsError::Key {
            key: key_path,
            certificate: certificate_path,
            source,
        })
}

/// A key with its certificate, which is of any version of X.509: rustls would parse it only to
/// compare the keys, and takes version 3 alone.
fn certified_key(
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

fn private_key(settings: &TlsSettings, path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let owned = || path.to_owned();
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(TlsError::NoKeyFile { path: owned() });
        }
        Err(source) => {
            return Err(TlsError::Read {
                file: TlsFile::PrivateKey,
                path: owned(),
                source,
            });
        }
    };
    if !metadata.is_file() {
        return Err(TlsError::KeyNotAFile { path: owned() });
    }
    // A key that belongs to root may be shared with a group.
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & forbidden != 0 {
        return Err(TlsError::KeyAccess { path: owned() });
    }
    let content = read(TlsFile::PrivateKey, path)?;
    let text = String::from_utf8_lossy(&content);
    if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
        return decrypted(settings, path, &text);
    }
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(TlsError::KeyTraditional { path: owned() });
    }
    if let Ok(key) = PrivateKeyDer::from_pem_slice(&content) {
        return Ok(key);
    }
    // libpq takes a key in DER format too.
    PrivateKeyDer::try_from(content).map_err(|_not_a_key: &str| TlsError::Content {
        file: TlsFile::PrivateKey,
        path: owned(),
    })
}

fn decrypted(
    settings: &TlsSettings,
    path: &Path,
    text: &str,
) -> Result<PrivateKeyDer<'static>, TlsError> {
    let Some(password) = &settings.key_password else {
        return Err(TlsError::KeyEncrypted {
            path: path.to_owned(),
        });
    };
    let failed = |source| TlsError::KeyDecrypt {
        path: path.to_owned(),
        source,
    };
    let (_, document) = SecretDocument::from_pem(text).map_err(|error| failed(error.into()))?;
    let encrypted = EncryptedPrivateKeyInfo::from_der(document.as_bytes())
        .map_err(|error| failed(error.into()))?;
    let key = encrypted.decrypt(password.as_bytes()).map_err(failed)?;
    Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
}

fn read(file: TlsFile, path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read {
        file,
        path: path.to_owned(),
        source,
    })
}

fn read_if_exists(file: TlsFile, path: &Path) -> Result<Option<Vec<u8>>, TlsError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(source) => Err(TlsError::Read {
            file,
            path: path.to_owned(),
            source,
        }),
    }
}
