//! Checks of a client's certificate: webpki's, and for X.509 version 1, which webpki refuses and
//! PostgreSQL accepts, our own.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use walproto::certificate::{self, Distrust, Signed};
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// A certificate of version 1 where revoked ones are listed.
#[derive(Debug, thiserror::Error)]
#[error(
    "client certificate is of X.509 version 1, for which a revocation list cannot be checked: \
     make one of version 3 (openssl x509 -req with -extfile)"
)]
struct OldWithRevocation;

/// What is asked of a client's certificate.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    webpki: Arc<dyn ClientCertVerifier>,
    roots: Vec<Certificate>,
    revocation: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientVerifier {
    /// Trusts what `webpki` does, and certificates of version 1 that a root signed.
    pub(super) fn new(
        webpki: Arc<dyn ClientCertVerifier>,
        roots: Vec<Certificate>,
        revocation: bool,
        provider: &CryptoProvider,
    ) -> Self {
        Self {
            webpki,
            roots,
            revocation,
            algorithms: provider.signature_verification_algorithms,
        }
    }

    fn is_valid(&self, signed: &Signed<'_>) -> bool {
        self.algorithms.all.iter().any(|algorithm| {
            algorithm.public_key_alg_id().as_ref() == signed.key_algorithm
                && algorithm.signature_alg_id().as_ref() == signed.signature_algorithm
                && algorithm
                    .verify_signature(signed.key, &signed.message, signed.signature)
                    .is_ok()
        })
    }
}

/// The certificate if it is one that webpki does not take apart.
fn old(der: &CertificateDer<'_>) -> Option<Certificate> {
    let parsed = Certificate::from_der(der).ok()?;
    certificate::is_old(&parsed).then_some(parsed)
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.webpki.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.webpki.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let Some(old) = old(end_entity) else {
            return self
                .webpki
                .verify_client_cert(end_entity, intermediates, now);
        };
        let verified = if self.revocation {
            Err(CertificateError::Other(OtherError(Arc::new(
                OldWithRevocation,
            ))))
        } else {
            let now = Duration::from_secs(now.as_secs());
            certificate::verify_old(&old, self.roots.iter(), now, |signed| self.is_valid(signed))
                .map_err(|distrust| match distrust {
                    Distrust::NotValidYet => CertificateError::NotValidYet,
                    Distrust::Expired => CertificateError::Expired,
                    Distrust::UnknownIssuer => CertificateError::UnknownIssuer,
                    Distrust::BadSignature => CertificateError::BadSignature,
                })
        };
        verified
            .map(|()| ClientCertVerified::assertion())
            .map_err(Error::InvalidCertificate)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let Some(old) = old(cert) else {
            return self.webpki.verify_tls12_signature(message, cert, dss);
        };
        let schemes = self.algorithms.mapping.iter();
        let found = certificate::key(&old).is_some_and(|(key_algorithm, key)| {
            schemes
                .filter(|(scheme, _)| *scheme == dss.scheme)
                .flat_map(|(_, algorithms)| algorithms.iter())
                .filter(|algorithm| algorithm.public_key_alg_id().as_ref() == key_algorithm)
                .any(|algorithm| {
                    algorithm
                        .verify_signature(key, message, dss.signature())
                        .is_ok()
                })
        });
        if found {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::BadSignature))
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = old(cert).and_then(|_| certificate::public_key(cert));
        let Some(key) = key else {
            return self.webpki.verify_tls13_signature(message, cert, dss);
        };
        let key = SubjectPublicKeyInfoDer::from(key);
        verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}
