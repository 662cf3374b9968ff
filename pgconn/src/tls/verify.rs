//! Checks of the server's certificate, as strict as libpq's and no stricter.
//!
//! webpki, which rustls comes with, refuses certificates that OpenSSL takes and that many
//! PostgreSQL servers have: self-signed ones that are named as trusted themselves, and those of
//! X.509 version 1, which older OpenSSL makes unless told otherwise. Both are handled here; all
//! others are webpki's.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use walproto::certificate::{self, Distrust, Signed};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use super::files::Roots;
use super::{CertificateFault, TlsError, name};

/// What is asked of a certificate.
#[derive(Debug)]
pub(super) struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    chain: Option<Chain>,
    host: Option<String>,
}

/// Whom to trust.
#[derive(Debug)]
struct Chain {
    webpki: Arc<WebPkiServerVerifier>,
    roots: Vec<(CertificateDer<'static>, Certificate)>,
    revocation: bool,
}

impl Verifier {
    /// Trusts what `roots` signed, or everyone when there are none; `host` is the name that the
    /// certificate must have, if it matters.
    pub(super) fn new(
        provider: &Arc<CryptoProvider>,
        roots: Option<Roots>,
        host: Option<String>,
    ) -> Result<Self, TlsError> {
        let chain = roots.map(|roots| Chain::new(provider, roots)).transpose()?;
        Ok(Self {
            algorithms: provider.signature_verification_algorithms,
            chain,
            host,
        })
    }
}

impl Chain {
    fn new(provider: &Arc<CryptoProvider>, roots: Roots) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        // One unusable certificate among many, as the system may have, is no harm.
        store.add_parsable_certificates(roots.certificates.iter().cloned());
        let revocation = !roots.revocation_lists.is_empty();
        let builder =
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
                .with_crls(roots.revocation_lists)
                .enforce_revocation_expiration();
        let webpki = builder.build().map_err(|source| TlsError::Verifier {
            roots: roots.origin,
            source,
        })?;
        let parsed = roots.certificates.into_iter().filter_map(|der| {
            let parsed = Certificate::from_der(&der).ok()?;
            Some((der, parsed))
        });
        Ok(Self {
            webpki,
            roots: parsed.collect(),
            revocation,
        })
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        parsed: &Certificate,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), CertificateError> {
        // Whether one of these two is revoked cannot be told, so lists leave them to webpki,
        // which refuses them.
        if !self.revocation {
            if self.roots.iter().any(|(der, _)| der == end_entity) {
                let now = Duration::from_secs(now.as_secs());
                return certificate::check_time(parsed, now).map_err(reason);
            }
            if certificate::is_old(parsed) {
                return self.verify_old(parsed, now, algorithms);
            }
        }
        let verified =
            self.webpki
                .verify_server_cert(end_entity, intermediates, server_name, &[], now);
        match verified {
            Ok(_) => Ok(()),
            // webpki looks at the name last; libpq's rules for it are applied elsewhere.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(()),
            Err(Error::InvalidCertificate(reason)) => Err(reason),
            Err(other) => Err(CertificateError::Other(OtherError(Arc::new(other)))),
        }
    }

    /// A certificate of version 1 or 2 must be signed by a root itself.
    fn verify_old(
        &self,
        parsed: &Certificate,
        now: UnixTime,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), CertificateError> {
        let roots = self.roots.iter().map(|(_, root)| root);
        let now = Duration::from_secs(now.as_secs());
        certificate::verify_old(parsed, roots, now, |signed| is_valid(signed, algorithms))
            .map_err(reason)
    }
}

fn is_valid(signed: &Signed<'_>, algorithms: &WebPkiSupportedAlgorithms) -> bool {
    algorithms.all.iter().any(|algorithm| {
        algorithm.public_key_alg_id().as_ref() == signed.key_algorithm
            && algorithm.signature_alg_id().as_ref() == signed.signature_algorithm
            && algorithm
                .verify_signature(signed.key, &signed.message, signed.signature)
                .is_ok()
    })
}

const fn reason(distrust: Distrust) -> CertificateError {
    match distrust {
        Distrust::NotValidYet => CertificateError::NotValidYet,
        Distrust::Expired => CertificateError::Expired,
        Distrust::UnknownIssuer => CertificateError::UnknownIssuer,
        Distrust::BadSignature => CertificateError::BadSignature,
    }
}

fn refused(fault: CertificateFault) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(fault))))
}

fn parse(certificate: &CertificateDer<'_>) -> Result<Certificate, Error> {
    Certificate::from_der(certificate)
        .map_err(|error| refused(CertificateFault::Encoding { error }))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = parse(end_entity)?;
        if let Some(chain) = &self.chain {
            chain
                .verify(
                    end_entity,
                    &parsed,
                    intermediates,
                    server_name,
                    now,
                    &self.algorithms,
                )
                .map_err(|reason| refused(CertificateFault::Untrusted { reason }))?;
        }
        if let Some(host) = &self.host {
            name::check(&parsed, host).map_err(refused)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let parsed = parse(cert)?;
        let Some((key_algorithm, key)) = certificate::key(&parsed) else {
            return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
        };
        let found = self
            .algorithms
            .mapping
            .iter()
            .filter(|(scheme, _)| *scheme == dss.scheme)
            .flat_map(|(_, algorithms)| algorithms.iter())
            .filter(|algorithm| algorithm.public_key_alg_id().as_ref() == key_algorithm)
            .any(|algorithm| {
                algorithm
                    .verify_signature(key, message, dss.signature())
                    .is_ok()
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
        // By the key alone, since webpki does not take every certificate apart.
        let key = parse(cert)?.tbs_certificate.subject_public_key_info;
        let key = key
            .to_der()
            .map_err(|error| refused(CertificateFault::Encoding { error }))?;
        let key = SubjectPublicKeyInfoDer::from(key);
        verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
