//! TLS with a PostgreSQL server: who is asked, who is trusted, and what follows from `sslmode`.
//!
//! Source: the PostgreSQL manual, "SSL Support" of libpq and "SSL Session Encryption" of the
//! protocol; src/interfaces/libpq/fe-secure-openssl.c and fe-connect.c, `PQconnectPoll` (PG 15).

mod error;
mod files;
mod name;
mod verify;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConfig, SignatureScheme, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use walproto::channel_binding::server_end_point;
use walproto::http::status_line;
use walproto::startup::{TlsAnswer, encode_tls_request};

pub use error::{CertificateFault, TlsError, TlsFile};

use crate::conninfo::{SslCertMode, SslMode, SslNegotiation, TlsSettings, TlsVersion};

/// The protocol inside TLS, as the two sides name it to each other (ALPN).
const ALPN_PROTOCOL: &[u8] = b"postgresql";

/// What a server says to `SSLRequest`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// The handshake may begin.
    Willing,
    /// There is no TLS; the connection may go on without.
    Unwilling,
}

/// TLS made ready for one server: files read, trust decided.
pub(crate) struct ClientTls {
    connector: TlsConnector,
    server_name: ServerName<'static>,
    client_certificate: Arc<ClientCertificate>,
    certificate_mode: SslCertMode,
    negotiation: SslNegotiation,
    mode: SslMode,
    roots: String,
}

impl ClientTls {
    /// Reads the files and decides what is checked. `host` is the name that was asked for,
    /// `address` where it was found.
    ///
    /// Reads from disk: not for the thread that does network input and output.
    pub(crate) fn load(
        settings: &TlsSettings,
        host: Option<&str>,
        address: IpAddr,
    ) -> Result<Self, TlsError> {
        if settings.mode == SslMode::VerifyFull && host.is_none() {
            return Err(TlsError::NoHostName);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = files::roots(settings)?;
        let origin = match &roots {
            Some(roots) => roots.origin.clone(),
            None => "any certificate".to_owned(),
        };
        let certificate = files::client_certificate(settings, &provider)?;
        let client_certificate = Arc::new(ClientCertificate {
            key: certificate.map(Arc::new),
            requested: AtomicBool::new(false),
        });
        let checked_host = host.filter(|_| settings.mode == SslMode::VerifyFull);
        let verifier = verify::Verifier::new(&provider, roots, checked_host.map(str::to_owned))?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions(settings))
            .map_err(|source| TlsError::Settings { source })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::clone(&client_certificate) as _);
        config.alpn_protocols = vec![ALPN_PROTOCOL.to_vec()];
        config.enable_sni = settings.server_name_indication;
        // Each connection proves anew who is at its other end.
        config.resumption = Resumption::disabled();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            server_name: server_name(host, address),
            client_certificate,
            certificate_mode: settings.certificate_mode,
            negotiation: settings.negotiation,
            mode: settings.mode,
            roots: origin,
        })
    }

    /// Asks the server for TLS, unless the handshake is to begin at once.
    pub(crate) async fn request<S>(&self, stream: &mut S) -> Result<Answer, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if self.negotiation == SslNegotiation::Direct {
            return Ok(Answer::Willing);
        }
        let failed = |source| TlsError::Io { source };
        let mut packet = BytesMut::new();
        encode_tls_request(&mut packet);
        stream.write_all(&packet).await.map_err(failed)?;
        // Room for one byte too many: the server waits for our part of the handshake now, so
        // what comes with its answer was put there by somebody else.
        let mut buffer = [0; 2];
        let count = stream.read(&mut buffer).await.map_err(failed)?;
        let [answer, _] = buffer;
        match (count, TlsAnswer::new(answer)) {
            (0, _) => Err(failed(io::ErrorKind::UnexpectedEof.into())),
            (_, None) => Err(invalid_response(stream, buffer.get(..count).unwrap_or(&[])).await),
            (_, Some(TlsAnswer::Error)) => Err(TlsError::ErrorResponse),
            (1, Some(TlsAnswer::Accepted)) => Ok(Answer::Willing),
            (1, Some(TlsAnswer::Refused)) if self.mode < SslMode::Require => Ok(Answer::Unwilling),
            (1, Some(TlsAnswer::Refused)) => Err(TlsError::NotSupported {
                mode: self.mode.name(),
            }),
            (_, Some(TlsAnswer::Accepted | TlsAnswer::Refused)) => Err(TlsError::UnencryptedData),
        }
    }

    /// Does the handshake and checks what it agreed on.
    pub(crate) async fn handshake<S>(&self, stream: S) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connecting = self.connector.connect(self.server_name.clone(), stream);
        let stream = connecting.await.map_err(|error| self.explain(error))?;
        let (_, session) = stream.get_ref();
        // rustls itself refuses a protocol that was not offered.
        if self.negotiation == SslNegotiation::Direct && session.alpn_protocol().is_none() {
            return Err(TlsError::NoAlpn);
        }
        if self.certificate_mode == SslCertMode::Require
            && !self.client_certificate.requested.load(Ordering::Relaxed)
        {
            return Err(TlsError::CertificateNotRequested);
        }
        Ok(stream)
    }

    /// Finds the fault of the certificate in what the handshake failed with.
    fn explain(&self, error: io::Error) -> TlsError {
        let fault = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .and_then(|inner| match inner {
                rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
                    other.0.downcast_ref::<CertificateFault>().cloned()
                }
                rustls::Error::InvalidCertificate(reason) => Some(CertificateFault::Untrusted {
                    reason: reason.clone(),
                }),
                _ => None,
            });
        match fault {
            Some(fault) => TlsError::Certificate {
                fault,
                roots: self.roots.clone(),
            },
            None if self.negotiation == SslNegotiation::Direct => {
                TlsError::DirectHandshake { source: error }
            }
            None => TlsError::Handshake { source: error },
        }
    }
}

/// How long the rest of an answer that is no PostgreSQL's is waited for, and how many bytes of it.
const REST_OF_ANSWER: (Duration, usize) = (Duration::from_secs(1), 256);

/// What an answer is that does not begin as one to a request for TLS.
async fn invalid_response<S: AsyncRead + Unpin>(stream: &mut S, begin: &[u8]) -> TlsError {
    let (patience, length) = REST_OF_ANSWER;
    let mut answer = BytesMut::with_capacity(length);
    answer.extend_from_slice(begin);
    let rest = async {
        while answer.len() < length && !answer.contains(&b'\n') {
            match stream.read_buf(&mut answer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };
    if begin.starts_with(b"H") {
        // What has come by then is shown.
        let _late = timeout(patience, rest).await;
    }
    match status_line(&answer) {
        Some(status_line) => TlsError::Http { status_line },
        None => TlsError::InvalidResponse {
            answer: begin.first().copied().unwrap_or_default(),
        },
    }
}

/// The channel binding data of an established connection, `tls-server-end-point`.
pub(crate) fn channel_binding<S>(stream: &TlsStream<S>) -> Option<Vec<u8>> {
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates()?.first()?;
    server_end_point(certificate)
}

/// The name to send, which is no address; a name that cannot be sent is not, as an address.
fn server_name(host: Option<&str>, address: IpAddr) -> ServerName<'static> {
    let name = host.and_then(|host| ServerName::try_from(host.to_owned()).ok());
    name.unwrap_or_else(|| ServerName::from(address))
}

static ONLY_12: [&SupportedProtocolVersion; 1] = [&TLS12];
static ONLY_13: [&SupportedProtocolVersion; 1] = [&TLS13];

fn versions(settings: &TlsSettings) -> &'static [&'static SupportedProtocolVersion] {
    match (settings.minimum_version, settings.maximum_version) {
        (TlsVersion::V13, _) => &ONLY_13,
        (TlsVersion::V12, TlsVersion::V12) => &ONLY_12,
        (TlsVersion::V12, TlsVersion::V13) => rustls::ALL_VERSIONS,
    }
}

/// Our certificate, and whether the server asked for one.
#[derive(Debug)]
struct ClientCertificate {
    key: Option<Arc<CertifiedKey>>,
    requested: AtomicBool,
}

impl ResolvesClientCert for ClientCertificate {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.requested.store(true, Ordering::Relaxed);
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        self.key.is_some()
    }
}

#[cfg(test)]
mod tests;
