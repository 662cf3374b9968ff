//! TLS on the serving side: who we are, whose certificates are trusted, who the client is.
//!
//! Source: the PostgreSQL manual, "Secure TCP/IP Connections with SSL" and "SSL Session
//! Encryption"; src/backend/libpq/be-secure-openssl.c (PG 15), and of 17 for direct TLS.

mod files;
#[cfg(test)]
mod tests;
mod verify;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use walproto::channel_binding::server_end_point;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::{ObjectIdentifier, PrintableStringRef, TeletexStringRef, Utf8StringRef};

pub use files::TlsFile;
use verify::ClientVerifier;

/// The protocol inside TLS, as the two sides name it to each other (ALPN).
const ALPN_PROTOCOL: &[u8] = b"postgresql";

/// `id-at-commonName`
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The files that a server with TLS has, all in PEM format.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// Our certificate, and those of the authorities between it and a root
    /// (`ssl_cert_file`).
    pub certificate: PathBuf,
    /// The key of our certificate, not encrypted (`ssl_key_file`).
    pub key: PathBuf,
    /// Who is trusted to sign the certificates of clients; without it no client is asked for one
    /// (`ssl_ca_file`).
    pub client_authorities: Option<PathBuf>,
    /// Which certificates of clients are not to be trusted any more (`ssl_crl_file`).
    pub revocation_list: Option<PathBuf>,
}

/// TLS that could not be set up, or not with this client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file that cannot be read.
    #[error("reading {file} file \"{}\"", path.display())]
    Read {
        /// What for.
        file: TlsFile,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file without anything of use.
    #[error("{file} file \"{}\" holds no valid {file} in PEM format", path.display())]
    Content {
        /// What for.
        file: TlsFile,
        /// The file.
        path: PathBuf,
    },
    /// A key that is a directory, pipe or device.
    #[error("private key file \"{}\" is not a regular file", path.display())]
    KeyNotAFile {
        /// The file.
        path: PathBuf,
    },
    /// A key of somebody else's.
    #[error("private key file \"{}\" must be owned by the user of this process or root",
            path.display())]
    KeyOwner {
        /// The file.
        path: PathBuf,
    },
    /// A key that others than its owner may read.
    #[error(
        "private key file \"{}\" has group or world access; file must have permissions u=rw \
         (0600) or less if owned by the user of this process, or permissions u=rw,g=r (0640) or \
         less if owned by root",
        path.display()
    )]
    KeyAccess {
        /// The file.
        path: PathBuf,
    },
    /// A key that needs a password.
    #[error(
        "private key file \"{}\" is encrypted, which is not supported: decrypt it with openssl \
         pkey",
        path.display()
    )]
    KeyEncrypted {
        /// The file.
        path: PathBuf,
    },
    /// A key that does not belong to the certificate, or of an unknown kind.
    #[error("private key file \"{}\" does not fit certificate file \"{}\"", key.display(),
            certificate.display())]
    Key {
        /// The key.
        key: PathBuf,
        /// The certificate.
        certificate: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// Nothing can be done with the trusted certificates or the revocation list.
    #[error("client certificate authorities of \"{}\" are not usable", path.display())]
    Authorities {
        /// The file of the authorities.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::server::VerifierBuilderError,
    },
    /// rustls refuses its own defaults.
    #[error("TLS settings are not usable")]
    Settings {
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The handshake failed: the client's certificate is not trusted, or the two sides have no
    /// version or cipher in common, or the connection broke.
    #[error("TLS handshake")]
    Handshake {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// TLS without being asked, and without the agreement that PostgreSQL is spoken inside.
    #[error("direct TLS connection without the ALPN protocol \"postgresql\"")]
    NoAlpn,
}

/// How a client came to begin a handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Negotiation {
    /// It sent `SSLRequest` and was told to go ahead.
    Requested,
    /// It began at once (`sslnegotiation=direct`, 17 and later); such a client has to say that it
    /// speaks PostgreSQL, so that no other protocol's client can be led here.
    Direct,
}

/// What a client showed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientIdentity {
    /// No certificate.
    Unknown,
    /// A certificate that a trusted authority signed.
    Verified {
        /// The common name of its subject, if it has one that is text.
        common_name: Option<String>,
    },
}

/// TLS made ready: files read, trust decided.
#[derive(Clone)]
pub struct ServerTls {
    acceptor: TlsAcceptor,
    end_point: Option<Vec<u8>>,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Reads the files. Not for a thread that does network input and output.
    ///
    /// # Errors
    /// When a file cannot be read, is not what it should be, or may be read by others.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .map_err(|source| TlsError::Settings { source })?;
        let builder = match &files.client_authorities {
            Some(path) => {
                let (roots, parsed) = files::authorities(path)?;
                let lists = files::revocation_lists(files.revocation_list.as_deref())?;
                let revocation = !lists.is_empty();
                let webpki = WebPkiClientVerifier::builder_with_provider(
                    Arc::new(roots),
                    Arc::clone(&provider),
                )
                .with_crls(lists)
                // Only some rules demand a certificate; those refuse a client that has none.
                .allow_unauthenticated()
                .build()
                .map_err(|source| TlsError::Authorities {
                    path: path.clone(),
                    source,
                })?;
                let verifier = ClientVerifier::new(webpki, parsed, revocation, &provider);
                builder.with_client_cert_verifier(Arc::new(verifier))
            }
            None => builder.with_no_client_auth(),
        };
        let own = files::certified_key(&files.certificate, &files.key, &provider)?;
        let end_point = own
            .end_entity_cert()
            .ok()
            .and_then(|der| server_end_point(der));
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
        config.alpn_protocols = vec![ALPN_PROTOCOL.to_vec()];
        // Each connection proves anew who is at its other end.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            end_point,
        })
    }

    /// Does the handshake. Nothing may have been read from `stream` that belongs to it.
    ///
    /// # Errors
    /// When there is no agreement with the client.
    pub async fn accept<S>(
        &self,
        stream: S,
        negotiation: Negotiation,
    ) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let accepting = self.acceptor.accept(stream);
        let stream = accepting
            .await
            .map_err(|source| TlsError::Handshake { source })?;
        let (_, session) = stream.get_ref();
        // rustls itself refuses a client that offers only other protocols.
        if negotiation == Negotiation::Direct && session.alpn_protocol() != Some(ALPN_PROTOCOL) {
            return Err(TlsError::NoAlpn);
        }
        Ok(stream)
    }

    /// The channel binding data of type `tls-server-end-point`; `None` for a certificate that it
    /// is not defined for.
    #[must_use]
    pub fn channel_binding(&self) -> Option<&[u8]> {
        self.end_point.as_deref()
    }
}

/// Who is at the other end.
#[must_use]
pub fn client_identity<S>(stream: &TlsStream<S>) -> ClientIdentity {
    let (_, session) = stream.get_ref();
    match session.peer_certificates().and_then(<[_]>::first) {
        Some(der) => ClientIdentity::Verified {
            common_name: common_name(der),
        },
        None => ClientIdentity::Unknown,
    }
}

/// The first common name of the subject, as PostgreSQL takes it. One with a NUL inside is none.
fn common_name(der: &[u8]) -> Option<String> {
    let certificate = Certificate::from_der(der).ok()?;
    let names = certificate.tbs_certificate.subject.0.iter();
    let value = names
        .flat_map(|relative| relative.0.iter())
        .find(|attribute| attribute.oid == COMMON_NAME)
        .map(|attribute| &attribute.value)?;
    let text = Utf8StringRef::try_from(value)
        .map(|text| text.as_str().to_owned())
        .or_else(|_| PrintableStringRef::try_from(value).map(|text| text.as_str().to_owned()))
        .or_else(|_| TeletexStringRef::try_from(value).map(|text| text.as_str().to_owned()))
        .ok()?;
    (!text.contains('\0')).then_some(text)
}
