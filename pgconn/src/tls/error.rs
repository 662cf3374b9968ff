//! Why a connection is not encrypted, or not trusted.

use std::io;
use std::path::PathBuf;

use rustls::CertificateError;
use walproto::ForeignText;
use x509_cert::der;

/// Fault of a server's certificate.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateFault {
    /// It is not trusted, not valid now, or revoked.
    #[error("{}", plain(.reason))]
    Untrusted {
        /// Why.
        reason: CertificateError,
    },
    /// It was made for other hosts.
    #[error(
        "server certificate for \"{}\"{} does not match host name \"{host}\"",
        ForeignText::new(first),
        and_others(*.others)
    )]
    OtherHost {
        /// The first name of the certificate.
        first: String,
        /// How many more it has.
        others: usize,
        /// The host asked for.
        host: String,
    },
    /// It has neither alternative names nor a common name.
    #[error("server certificate has no host name")]
    NoName,
    /// A name with a NUL byte inside.
    #[error("server certificate's name contains embedded null")]
    NulInName,
    /// An address that is neither IPv4 nor IPv6.
    #[error("server certificate contains an IP address of invalid length {length}")]
    AddressLength {
        /// In bytes.
        length: usize,
    },
    /// It cannot be parsed.
    #[error("server certificate is malformed: {error}")]
    Encoding {
        /// Where.
        error: der::Error,
    },
}

fn and_others(others: usize) -> String {
    match others {
        0 => String::new(),
        1 => " (and 1 other name)".to_owned(),
        others => format!(" (and {others} other names)"),
    }
}

/// What an administrator has to know, in words.
fn plain(reason: &CertificateError) -> String {
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "server certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "server certificate is not valid yet".to_owned()
        }
        CertificateError::Revoked => "server certificate is revoked".to_owned(),
        CertificateError::UnknownIssuer => {
            "server certificate is not signed by a trusted authority".to_owned()
        }
        CertificateError::UnknownRevocationStatus => {
            "no revocation list covers the server certificate".to_owned()
        }
        CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => {
            "the revocation list has expired".to_owned()
        }
        CertificateError::BadSignature => {
            "server certificate has a bad signature: its authority is another one of the same name"
                .to_owned()
        }
        other => format!(
            "server certificate is not accepted: {}",
            ForeignText::new(other)
        ),
    }
}

/// What a file is read for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsFile {
    /// `sslrootcert`
    RootCertificates,
    /// `sslcert`
    Certificate,
    /// `sslkey`
    PrivateKey,
    /// `sslcrl` or `sslcrldir`
    RevocationList,
}

impl std::fmt::Display for TlsFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::RootCertificates => "root certificate",
            Self::Certificate => "certificate",
            Self::PrivateKey => "private key",
            Self::RevocationList => "certificate revocation list",
        })
    }
}

/// TLS that could not be set up, or not with this server.
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
    /// `verify-ca` and `verify-full` need something to trust.
    #[error(
        "root certificate file \"{}\" does not exist: provide the file, use the system's trusted \
         roots with sslrootcert=system, or change sslmode to disable server certificate \
         verification",
        path.display()
    )]
    NoRootFile {
        /// The file.
        path: PathBuf,
    },
    /// As before, and there is no home directory to look in.
    #[error(
        "no home directory to look for the root certificate file in: give sslrootcert, or change \
         sslmode to disable server certificate verification"
    )]
    NoHome,
    /// `sslrootcert=system`, and the system trusts nobody.
    #[error("no trusted certificate was found for sslrootcert=system")]
    NoSystemRoots,
    /// A client certificate without its key.
    #[error("certificate present, but not private key file \"{}\"", path.display())]
    NoKeyFile {
        /// The file.
        path: PathBuf,
    },
    /// A key that is a directory, pipe or device.
    #[error("private key file \"{}\" is not a regular file", path.display())]
    KeyNotAFile {
        /// The file.
        path: PathBuf,
    },
    /// A key that others than its owner may read.
    #[error(
        "private key file \"{}\" has group or world access; file must have permissions u=rw \
         (0600) or less if owned by the current user, or permissions u=rw,g=r (0640) or less if \
         owned by root",
        path.display()
    )]
    KeyAccess {
        /// The file.
        path: PathBuf,
    },
    /// An encrypted key and no password.
    #[error("private key file \"{}\" is encrypted: give sslpassword", path.display())]
    KeyEncrypted {
        /// The file.
        path: PathBuf,
    },
    /// An encrypted key in OpenSSL's own old format.
    #[error(
        "private key file \"{}\" is encrypted in the traditional format, which is not supported: \
         convert it with openssl pkcs8 -topk8",
        path.display()
    )]
    KeyTraditional {
        /// The file.
        path: PathBuf,
    },
    /// An encrypted key that the password does not open.
    #[error("private key file \"{}\" cannot be decrypted with sslpassword", path.display())]
    KeyDecrypt {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: pkcs8::Error,
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
    /// `sslcertmode=require` and no certificate.
    #[error("sslcertmode=require, and there is no certificate file \"{}\"", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// `sslcertmode=require`, and the server did not ask.
    #[error("server did not request an SSL certificate (sslcertmode=require)")]
    CertificateNotRequested,
    /// `verify-full` without a name to verify.
    #[error("host name must be specified for a verified SSL connection")]
    NoHostName,
    /// The settings exclude each other.
    #[error("TLS settings are not usable")]
    Settings {
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The certificates to trust, or the revocation lists, are not usable.
    #[error("certificates of {roots} are not usable")]
    Verifier {
        /// Where they come from.
        roots: String,
        /// Why.
        #[source]
        source: rustls::client::VerifierBuilderError,
    },
    /// The server has no TLS.
    #[error("server does not support SSL, but SSL was required (sslmode={mode})")]
    NotSupported {
        /// The mode.
        mode: &'static str,
    },
    /// The server answered `SSLRequest` with an error, which is not shown since nobody knows yet
    /// who sent it.
    #[error("server sent an error response during SSL exchange")]
    ErrorResponse,
    /// A proxy or a web server answered.
    #[error("server answered in HTTP (\"{status_line}\"), not in the PostgreSQL protocol")]
    Http {
        /// The first line of the answer, in printable ASCII and shortened.
        status_line: String,
    },
    /// The server answered `SSLRequest` with something else.
    #[error("received invalid response to SSL negotiation: {answer:#04x}")]
    InvalidResponse {
        /// The byte.
        answer: u8,
    },
    /// Bytes between the answer and the handshake: someone in the middle sent them.
    #[error("received unencrypted data after SSL response")]
    UnencryptedData,
    /// TLS without the agreement that PostgreSQL is spoken inside.
    #[error(
        "direct SSL connection was established without ALPN protocol negotiation extension: \
         sslnegotiation=direct needs a server of version 17 or later"
    )]
    NoAlpn,
    /// The connection broke.
    #[error("SSL negotiation")]
    Io {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// As [`TlsError::Handshake`], where the server was not asked whether it is ready for one.
    #[error("direct SSL handshake: sslnegotiation=direct needs a server of version 17 or later")]
    DirectHandshake {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The handshake failed for another reason than the server's certificate.
    #[error("SSL handshake")]
    Handshake {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server's certificate was refused.
    #[error("{fault} (trusted: {roots})")]
    Certificate {
        /// Why.
        fault: CertificateFault,
        /// The file that says who is trusted.
        roots: String,
    },
}
