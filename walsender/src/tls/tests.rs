use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::task::{Context, Waker};

use bytes::BytesMut;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::*;
use crate::socket::Writer;

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Issuer {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for the host `db.example`, whose subject has the given common name.
fn certificate(issuer: &Issuer, common_name: &str) -> (CertificateDer<'static>, KeyPair) {
    let mut parameters = CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    if !common_name.is_empty() {
        parameters
            .distinguished_name
            .push(DnType::CommonName, common_name);
    }
    parameters.serial_number = Some(SerialNumber::from(7));
    let key = KeyPair::generate().unwrap();
    let certificate = parameters.signed_by(&key, issuer).unwrap();
    (certificate.der().clone(), key)
}

fn pem(der: &CertificateDer<'_>) -> String {
    let pem = pem_of("CERTIFICATE", der);
    assert_eq!(
        &CertificateDer::from_pem_slice(pem.as_bytes()).unwrap(),
        der
    );
    pem
}

fn pem_of(label: &str, der: &[u8]) -> String {
    use x509_cert::der::pem::{LineEnding, encode_string};
    encode_string(label, LineEnding::LF, der).unwrap()
}

/// A server's files, and the authority that signed its certificate.
struct Setup {
    directory: TempDir,
    issuer: Issuer,
    own: CertificateDer<'static>,
}

impl Setup {
    fn new() -> Self {
        let issuer = authority("servers");
        let (own, key) = certificate(&issuer, "db.example");
        let setup = Self {
            directory: tempfile::tempdir().unwrap(),
            issuer,
            own,
        };
        setup.write("server.crt", &pem(&setup.own));
        setup.write("server.key", &key.serialize_pem());
        setup
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        set_mode(&path, 0o600);
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn files(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.path("server.crt"),
            key: self.path("server.key"),
            client_authorities: None,
            revocation_list: None,
        }
    }

    fn client(&self, own: Option<(CertificateDer<'static>, KeyPair)>, alpn: &[&[u8]]) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            Some((certificate, key)) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder
                    .with_client_auth_cert(vec![certificate], key)
                    .unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Client(TlsConnector::from(Arc::new(config)))
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

struct Client(TlsConnector);

impl Client {
    /// What the server makes of this client, to which it sends a byte.
    async fn meet(
        &self,
        tls: &ServerTls,
        negotiation: Negotiation,
    ) -> Result<ClientIdentity, TlsError> {
        let (here, there) = tokio::io::duplex(16 << 10);
        let serve = async {
            let mut stream = tls.accept(here, negotiation).await?;
            stream.write_all(b"x").await.unwrap();
            stream.flush().await.unwrap();
            Ok(client_identity(&stream))
        };
        let connect = async {
            let name = ServerName::try_from("db.example").unwrap();
            // What is wrong on this side shows on the other.
            if let Ok(mut stream) = self.0.connect(name, there).await {
                let _closed_by_server = stream.read_u8().await;
            }
        };
        tokio::join!(serve, connect).0
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_encrypted_and_unknown() {
    let setup = Setup::new();
    let tls = ServerTls::load(&setup.files()).unwrap();
    let client = setup.client(None, &[]);
    let met = client.meet(&tls, Negotiation::Requested).await.unwrap();
    assert_eq!(met, ClientIdentity::Unknown);
    let binding = server_end_point(&setup.own);
    assert!(binding.is_some());
    assert_eq!(tls.channel_binding().map(<[u8]>::to_vec), binding);
}

/// The client says something while the last of what it is sent waits for it to take more: then
/// that is written later, though nothing follows.
#[tokio::test]
async fn what_is_encrypted_is_not_left_behind() {
    let setup = Setup::new();
    let tls = ServerTls::load(&setup.files()).unwrap();
    let client = setup.client(None, &[]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let there = TcpStream::connect(address).await.unwrap();
    let (here, _) = listener.accept().await.unwrap();
    let name = ServerName::try_from("db.example").unwrap();
    let (ours, theirs) = tokio::join!(
        tls.accept(here, Negotiation::Requested),
        client.0.connect(name, there)
    );
    let mut theirs = theirs.unwrap();
    let (_reader, writer) = tokio::io::split(ours.unwrap());
    let mut writer = Writer::tls(writer);
    let mut out = BytesMut::zeroed(64 << 20);
    let mut left = usize::MAX;
    while out.len() < left {
        left = out.len();
        let progress = std::pin::pin!(writer.progress(&mut out));
        assert!(
            progress
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        // Or the runtime would have it wait for others.
        tokio::task::yield_now().await;
    }
    let taken = (64 << 20) - left;
    out.clear();
    assert!(writer.is_unflushed());
    let write = async {
        while writer.is_unflushed() {
            writer.progress(&mut out).await.unwrap();
        }
    };
    let mut read = vec![1; taken];
    let read = theirs.read_exact(&mut read);
    let ((), read) = tokio::join!(write, read);
    assert_eq!(read.unwrap(), taken);
}

#[tokio::test]
async fn a_clients_certificate_is_verified_and_its_common_name_taken() {
    let setup = Setup::new();
    let clients = authority("clients");
    let mut files = setup.files();
    files.client_authorities = Some(setup.write("clients.crt", &pem(clients.der())));
    let tls = ServerTls::load(&files).unwrap();
    for (name, common_name) in [
        ("relay", Some("relay")),
        ("Jos\u{e9}", Some("Jos\u{e9}")),
        ("", None),
    ] {
        let client = setup.client(Some(certificate(&clients, name)), &[]);
        let met = client.meet(&tls, Negotiation::Requested).await.unwrap();
        let common_name = common_name.map(str::to_owned);
        assert_eq!(met, ClientIdentity::Verified { common_name });
    }
    let without = setup.client(None, &[]);
    let met = without.meet(&tls, Negotiation::Requested).await.unwrap();
    assert_eq!(met, ClientIdentity::Unknown);
    let stranger = setup.client(Some(certificate(&setup.issuer, "relay")), &[]);
    let refused = stranger.meet(&tls, Negotiation::Requested).await;
    assert!(
        matches!(refused, Err(TlsError::Handshake { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_revoked_certificate_is_refused() {
    let setup = Setup::new();
    let clients = authority("clients");
    let mut files = setup.files();
    files.client_authorities = Some(setup.write("clients.crt", &pem(clients.der())));
    let list = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2024, 1, 1),
        next_update: rcgen::date_time_ymd(2999, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(7),
            revocation_time: rcgen::date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&clients).unwrap();
    files.revocation_list = Some(setup.write("clients.crl", &list.pem().unwrap()));
    let tls = ServerTls::load(&files).unwrap();
    let client = setup.client(Some(certificate(&clients, "relay")), &[]);
    let refused = client.meet(&tls, Negotiation::Requested).await;
    assert!(
        matches!(refused, Err(TlsError::Handshake { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn direct_tls_needs_the_protocols_name() {
    let setup = Setup::new();
    let tls = ServerTls::load(&setup.files()).unwrap();
    let speaks = setup.client(None, &[b"h2", b"postgresql"]);
    assert!(speaks.meet(&tls, Negotiation::Direct).await.is_ok());
    let silent = setup.client(None, &[]);
    let refused = silent.meet(&tls, Negotiation::Direct).await;
    assert!(matches!(refused, Err(TlsError::NoAlpn)), "{refused:?}");
    let other = setup.client(None, &[b"h2"]);
    for negotiation in [Negotiation::Direct, Negotiation::Requested] {
        let refused = other.meet(&tls, negotiation).await;
        assert!(
            matches!(refused, Err(TlsError::Handshake { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn files_that_are_not_what_they_should_be_are_named() {
    let setup = Setup::new();
    let failed = |files: TlsFiles| ServerTls::load(&files).unwrap_err().to_string();
    let missing = setup.path("missing");
    let junk = setup.write("junk", "nothing in PEM format");
    let (_, other_key) = certificate(&setup.issuer, "other");
    let other_key = setup.write("other.key", &other_key.serialize_pem());
    let encrypted = setup.write("encrypted.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n");
    let open = setup.write("open.key", "");
    set_mode(&open, 0o644);
    let files = setup.files();
    let with_key = |key: &PathBuf| TlsFiles {
        key: key.clone(),
        ..setup.files()
    };
    for (files, message) in [
        (
            TlsFiles {
                certificate: missing.clone(),
                ..files.clone()
            },
            "reading certificate file",
        ),
        (
            TlsFiles {
                certificate: junk.clone(),
                ..files.clone()
            },
            "holds no valid certificate in",
        ),
        (with_key(&missing), "reading private key file"),
        (with_key(&junk), "holds no valid private key in PEM format"),
        (with_key(&other_key), "does not fit certificate file"),
        (with_key(&encrypted), "is encrypted, which is not supported"),
        (with_key(&open), "has group or world access"),
        (
            with_key(&setup.directory.path().to_owned()),
            "is not a regular file",
        ),
        (
            TlsFiles {
                client_authorities: Some(junk.clone()),
                ..files.clone()
            },
            "holds no valid certificate authority in PEM format",
        ),
        (
            TlsFiles {
                client_authorities: Some(files.certificate.clone()),
                revocation_list: Some(junk.clone()),
                ..files.clone()
            },
            "holds no valid certificate revocation list in PEM format",
        ),
    ] {
        let found = failed(files);
        assert!(found.contains(message), "{message}: {found}");
    }
}
