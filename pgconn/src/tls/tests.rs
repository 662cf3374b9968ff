use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pkcs8::EncodePrivateKey;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::io::DuplexStream;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::conninfo::{ConnectionConfig, Overrides};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Issuer {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for `db.example` and 192.0.2.1.
fn server_parameters() -> CertificateParams {
    let mut parameters = CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
    let address = SanType::IpAddress(Ipv4Addr::new(192, 0, 2, 1).into());
    parameters.subject_alt_names.push(address);
    parameters.serial_number = Some(SerialNumber::from(7));
    parameters
}

struct Server {
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    client_authority: Option<CertificateDer<'static>>,
    alpn: Vec<Vec<u8>>,
    versions: &'static [&'static SupportedProtocolVersion],
}

impl Server {
    fn new(issuer: &Issuer, parameters: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, issuer).unwrap();
        Self::with(certificate.der().clone(), &key)
    }

    fn with(certificate: CertificateDer<'static>, key: &KeyPair) -> Self {
        Self {
            certificates: vec![certificate],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            client_authority: None,
            alpn: Vec::new(),
            versions: rustls::ALL_VERSIONS,
        }
    }

    fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.versions)
            .unwrap();
        let builder = match &self.client_authority {
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.clone()).unwrap();
                let roots = Arc::new(roots);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
            None => builder.with_no_client_auth(),
        };
        let key = rustls::crypto::ring::sign::any_supported_type(&self.key).unwrap();
        let own = CertifiedKey::new(self.certificates.clone(), key);
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
        config.alpn_protocols.clone_from(&self.alpn);
        TlsAcceptor::from(Arc::new(config))
    }

    /// Answers `SSLRequest` unless `direct`, does its half of the handshake and echoes a byte.
    async fn serve(&self, mut stream: DuplexStream, direct: bool) {
        if !direct {
            let mut request = [0; 8];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"\0\0\0\x08\x04\xd2\x16\x2f");
            stream.write_all(b"S").await.unwrap();
        }
        // When the client refuses, this side fails too: what counts is what the client says.
        if let Ok(mut stream) = self.acceptor().accept(stream).await
            && let Ok(byte) = stream.read_u8().await
        {
            stream.write_all(&[byte]).await.unwrap();
            let _closed_by_client = stream.read(&mut [0]).await;
        }
    }
}

/// A home directory without `~/.postgresql`, and files to name.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) -> String {
        std::fs::write(self.path(name), content).unwrap();
        set_mode(&self.path(name), 0o600);
        self.path(name).to_str().unwrap().to_owned()
    }

    fn settings(&self, conninfo: &str) -> TlsSettings {
        let home = self.0.path().as_os_str().to_owned();
        let environment = move |name: &str| (name == "HOME").then(|| home.clone());
        let text = format!("user=u {conninfo}");
        ConnectionConfig::from_sources(Some(&text), &Overrides::default(), &environment)
            .unwrap()
            .tls
    }

    async fn connect(&self, conninfo: &str, host: &str, server: &Server) -> Result<(), TlsError> {
        let settings = self.settings(conninfo);
        let direct = settings.negotiation == SslNegotiation::Direct;
        let (mut client, remote) = tokio::io::duplex(16 * 1024);
        let host = (!host.is_empty()).then_some(host);
        let connect = async {
            let tls = ClientTls::load(&settings, host, Ipv4Addr::LOCALHOST.into())?;
            assert_eq!(tls.request(&mut client).await?, Answer::Willing);
            let mut stream = tls.handshake(client).await?;
            let failed = |source| TlsError::Io { source };
            stream.write_all(b"x").await.map_err(failed)?;
            stream.flush().await.map_err(failed)?;
            assert_eq!(stream.read_u8().await.map_err(failed)?, b'x');
            let expected = server_end_point(&server.certificates[0]);
            assert_eq!(channel_binding(&stream), expected);
            Ok(())
        };
        tokio::select! {
            biased;
            result = connect => result,
            () = async { server.serve(remote, direct).await; std::future::pending().await } => {
                unreachable!("the server never ends first")
            }
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn message(result: Result<(), TlsError>) -> String {
    result.unwrap_err().to_string()
}

#[tokio::test]
async fn each_sslmode_checks_what_it_promises() {
    let (files, trusted, other) = (Files::new(), authority("trusted"), authority("other"));
    let root = files.write("root.crt", &trusted.pem());
    let good = Server::new(&trusted, server_parameters());
    let foreign = Server::new(&other, server_parameters());
    let with_root = format!("sslrootcert={root}");
    for (mode, host, server, ok) in [
        ("sslmode=prefer", "db.example", &foreign, true),
        ("sslmode=require", "db.example", &foreign, true),
        (
            &format!("sslmode=require {with_root}"),
            "db.example",
            &foreign,
            false,
        ),
        (
            &format!("sslmode=require {with_root}"),
            "wrong.example",
            &good,
            true,
        ),
        (
            &format!("sslmode=verify-ca {with_root}"),
            "wrong.example",
            &good,
            true,
        ),
        (
            &format!("sslmode=verify-ca {with_root}"),
            "db.example",
            &foreign,
            false,
        ),
        (
            &format!("sslmode=verify-full {with_root}"),
            "db.example",
            &good,
            true,
        ),
        (
            &format!("sslmode=verify-full {with_root}"),
            "192.0.2.1",
            &good,
            true,
        ),
        (
            &format!("sslmode=verify-full {with_root}"),
            "192.0.2.2",
            &good,
            false,
        ),
        (
            &format!("sslmode=verify-full {with_root}"),
            "wrong.example",
            &good,
            false,
        ),
        (
            &format!("sslmode=verify-full {with_root}"),
            "",
            &good,
            false,
        ),
    ] {
        let result = files.connect(mode, host, server).await;
        assert_eq!(result.is_ok(), ok, "{mode} {host}: {result:?}");
    }
    let strict = format!("sslmode=verify-full {with_root}");
    assert_eq!(
        message(files.connect(&strict, "wrong.example", &good).await),
        format!(
            "server certificate for \"db.example\" (and 1 other name) does not match host name \
             \"wrong.example\" (trusted: file \"{root}\")"
        )
    );
    assert_eq!(
        message(files.connect(&strict, "db.example", &foreign).await),
        format!(
            "server certificate is not signed by a trusted authority (trusted: file \"{root}\")"
        )
    );
}

#[tokio::test]
async fn a_root_certificate_at_its_default_place_is_used() {
    let (files, trusted, other) = (Files::new(), authority("trusted"), authority("other"));
    std::fs::create_dir(files.path(".postgresql")).unwrap();
    files.write(".postgresql/root.crt", &other.pem());
    let server = Server::new(&trusted, server_parameters());
    assert!(matches!(
        files
            .connect("sslmode=require", "db.example", &server)
            .await,
        Err(TlsError::Certificate { .. })
    ));
    files.write(".postgresql/root.crt", &trusted.pem());
    for mode in ["require", "verify-full"] {
        let text = format!("sslmode={mode}");
        files.connect(&text, "db.example", &server).await.unwrap();
    }
}

#[tokio::test]
async fn without_a_root_certificate_there_is_nothing_to_verify_against() {
    let (files, trusted) = (Files::new(), authority("trusted"));
    let server = Server::new(&trusted, server_parameters());
    let error = files
        .connect("sslmode=verify-ca", "db.example", &server)
        .await;
    let expected = format!(
        "root certificate file \"{}",
        files.path(".postgresql/root.crt").display()
    );
    assert!(message(error).starts_with(&expected));
    let garbage = files.write("garbage", "nothing");
    let text = format!("sslmode=require sslrootcert={garbage}");
    assert!(matches!(
        files.connect(&text, "db.example", &server).await,
        Err(TlsError::Content {
            file: TlsFile::RootCertificates,
            ..
        })
    ));
}

#[tokio::test]
async fn certificates_out_of_their_time_are_refused() {
    let (files, trusted) = (Files::new(), authority("trusted"));
    let root = files.write("root.crt", &trusted.pem());
    let text = format!("sslmode=verify-ca sslrootcert={root}");
    for (from, to, reason) in [
        (2001, 2002, "has expired"),
        (2998, 2999, "is not valid yet"),
    ] {
        let mut parameters = server_parameters();
        parameters.not_before = rcgen::date_time_ymd(from, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(to, 1, 1);
        let server = Server::new(&trusted, parameters.clone());
        let found = message(files.connect(&text, "db.example", &server).await);
        assert!(
            found.starts_with(&format!("server certificate {reason}")),
            "{found}"
        );

        // The same for a certificate that is trusted itself.
        let key = KeyPair::generate().unwrap();
        let own = parameters.self_signed(&key).unwrap();
        let root = files.write("own.crt", &own.pem());
        let text = format!("sslmode=verify-ca sslrootcert={root}");
        let server = Server::with(own.der().clone(), &key);
        let found = message(files.connect(&text, "db.example", &server).await);
        assert!(
            found.starts_with(&format!("server certificate {reason}")),
            "{found}"
        );
    }
}

#[tokio::test]
async fn a_self_signed_certificate_may_be_its_own_root() {
    let files = Files::new();
    for authority in [false, true] {
        let mut parameters = server_parameters();
        if authority {
            parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let root = files.write("root.crt", &certificate.pem());
        let server = Server::with(certificate.der().clone(), &key);
        let text = format!("sslmode=verify-full sslrootcert={root}");
        files.connect(&text, "db.example", &server).await.unwrap();
    }
}

#[tokio::test]
async fn certificates_of_version_1_are_checked_as_well_as_others() {
    let (files, trusted) = (Files::new(), authority("test authority"));
    let key = KeyPair::from_pem(include_str!("testdata/server.key")).unwrap();
    let certificate = CertificateDer::from_pem_slice(include_bytes!("testdata/server.crt"));
    let mut server = Server::with(certificate.unwrap(), &key);
    let root = files.write("root.crt", include_str!("testdata/root.crt"));
    let namesake = files.write("namesake.crt", &trusted.pem());
    let other = files.write("other.crt", &authority("other").pem());
    for versions in [&ONLY_12, &ONLY_13] {
        server.versions = versions;
        for (text, host, expected) in [
            ("sslmode=require".to_owned(), "any", None),
            (
                format!("sslmode=verify-full sslrootcert={root}"),
                "db.example",
                None,
            ),
            (
                format!("sslmode=verify-full sslrootcert={root}"),
                "x",
                Some("server certificate for"),
            ),
            (
                format!("sslmode=verify-ca sslrootcert={other}"),
                "x",
                Some("server certificate is not"),
            ),
        ] {
            match (files.connect(&text, host, &server).await, expected) {
                (Ok(()), None) => {}
                (Err(error), Some(start)) => {
                    let found = error.to_string();
                    assert!(found.starts_with(start), "{found}");
                }
                (result, _) => panic!("{text} {host}: {result:?}"),
            }
        }
        let text = format!("sslmode=verify-ca sslrootcert={namesake}");
        let found = message(files.connect(&text, "x", &server).await);
        assert!(found.starts_with("server certificate "), "{found}");
    }
}

#[tokio::test]
async fn revoked_certificates_are_refused_and_lists_must_cover_the_chain() {
    let (files, trusted, other) = (Files::new(), authority("trusted"), authority("other"));
    let root = files.write("root.crt", &trusted.pem());
    let server = Server::new(&trusted, server_parameters());
    let list = |issuer: &Issuer, serial: u64, until: i32| {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: rcgen::date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let parameters = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 2),
            next_update: rcgen::date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        parameters.signed_by(issuer).unwrap().pem().unwrap()
    };
    for (content, expected) in [
        (
            list(&trusted, 7, 2999),
            Some("server certificate is revoked"),
        ),
        (list(&trusted, 8, 2999), None),
        (
            list(&trusted, 8, 2021),
            Some("the revocation list has expired"),
        ),
        (list(&other, 7, 2999), Some("no revocation list covers")),
    ] {
        let crl = files.write("root.crl", &content);
        let text = format!("sslmode=verify-ca sslrootcert={root} sslcrl={crl}");
        let result = files.connect(&text, "db.example", &server).await;
        match expected {
            Some(expected) => {
                let found = message(result);
                assert!(found.starts_with(expected), "{found}");
            }
            None => result.unwrap(),
        }
    }
    std::fs::create_dir(files.path("lists")).unwrap();
    files.write("lists/0123abcd.r0", &list(&trusted, 7, 2999));
    let directory = files.path("lists");
    let text = format!(
        "sslmode=require sslrootcert={root} sslcrldir={}",
        directory.display()
    );
    let found = message(files.connect(&text, "db.example", &server).await);
    assert!(
        found.starts_with("server certificate is revoked"),
        "{found}"
    );
    let missing = format!("sslmode=require sslrootcert={root} sslcrl=/missing");
    let found = message(files.connect(&missing, "db.example", &server).await);
    assert_eq!(
        found,
        "reading certificate revocation list file \"/missing\""
    );
}

fn client_certificate(issuer: &Issuer) -> (String, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, "u");
    let certificate = parameters.signed_by(&key, issuer).unwrap();
    (certificate.pem(), key)
}

#[tokio::test]
async fn a_client_certificate_is_sent_when_it_is_asked_for() {
    let (files, trusted) = (Files::new(), authority("trusted"));
    let (certificate, key) = client_certificate(&trusted);
    let crt = files.write("client.crt", &certificate);
    let pem = files.write("client.key", &key.serialize_pem());
    let own = format!("sslmode=require sslcert={crt} sslkey={pem}");
    let plain = Server::new(&trusted, server_parameters());
    let mut strict = Server::new(&trusted, server_parameters());
    strict.client_authority = Some(trusted.der().clone());
    for versions in [rustls::ALL_VERSIONS, &ONLY_12] {
        strict.versions = versions;
        files.connect(&own, "db.example", &strict).await.unwrap();
        let none = "sslmode=require";
        assert!(files.connect(none, "db.example", &strict).await.is_err());
        let disabled = format!("{own} sslcertmode=disable");
        assert!(
            files
                .connect(&disabled, "db.example", &strict)
                .await
                .is_err()
        );
        let required = format!("{own} sslcertmode=require");
        files
            .connect(&required, "db.example", &strict)
            .await
            .unwrap();
    }
    files.connect(&own, "db.example", &plain).await.unwrap();
    let required = format!("{own} sslcertmode=require");
    assert!(matches!(
        files.connect(&required, "db.example", &plain).await,
        Err(TlsError::CertificateNotRequested)
    ));
    assert!(matches!(
        files
            .connect("sslmode=require sslcertmode=require", "db.example", &strict)
            .await,
        Err(TlsError::NoCertificate { .. })
    ));
}

#[test]
fn a_private_key_must_be_there_be_private_and_fit() {
    let (files, trusted) = (Files::new(), authority("trusted"));
    let (certificate, key) = client_certificate(&trusted);
    let crt = files.write("client.crt", &certificate);
    let pem = files.write("client.key", &key.serialize_pem());
    let load = |extra: &str| {
        let settings = files.settings(&format!("sslmode=require sslcert={crt} {extra}"));
        ClientTls::load(&settings, Some("h"), Ipv4Addr::LOCALHOST.into()).map(|_| ())
    };
    load(&format!("sslkey={pem}")).unwrap();
    assert!(matches!(load(""), Err(TlsError::NoKeyFile { .. })));
    let directory = format!("sslkey={}", files.0.path().display());
    assert!(matches!(
        load(&directory),
        Err(TlsError::KeyNotAFile { .. })
    ));
    let (_, other) = client_certificate(&trusted);
    let foreign = files.write("other.key", &other.serialize_pem());
    assert!(matches!(
        load(&format!("sslkey={foreign}")),
        Err(TlsError::Key { .. })
    ));
    std::fs::write(files.path("der.key"), key.serialize_der()).unwrap();
    set_mode(&files.path("der.key"), 0o600);
    load(&format!("sslkey={}", files.path("der.key").display())).unwrap();
    set_mode(&files.path("client.key"), 0o604);
    assert!(matches!(
        load(&format!("sslkey={pem}")),
        Err(TlsError::KeyAccess { .. })
    ));
    let text = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n";
    let old = files.write("old.key", text);
    assert!(matches!(
        load(&format!("sslkey={old}")),
        Err(TlsError::KeyTraditional { .. })
    ));
}

#[test]
fn an_encrypted_key_is_opened_by_its_password() {
    struct Document(Vec<u8>);
    impl EncodePrivateKey for Document {
        fn to_pkcs8_der(&self) -> pkcs8::Result<pkcs8::SecretDocument> {
            Ok(pkcs8::SecretDocument::try_from(self.0.clone())?)
        }
    }
    let (files, trusted) = (Files::new(), authority("trusted"));
    let (certificate, key) = client_certificate(&trusted);
    let crt = files.write("client.crt", &certificate);
    let document = Document(key.serialize_der()).to_pkcs8_der().unwrap();
    let info = pkcs8::PrivateKeyInfo::try_from(document.as_bytes()).unwrap();
    let parameters =
        pkcs8::pkcs5::pbes2::Parameters::pbkdf2_sha256_aes256cbc(2048, b"saltsalt", &[9; 16]);
    let encrypted = info
        .encrypt_with_params(parameters.unwrap(), "secret")
        .unwrap();
    let pem = encrypted
        .to_pem("ENCRYPTED PRIVATE KEY", pkcs8::LineEnding::LF)
        .unwrap();
    let path = files.write("client.key", &pem);
    let load = |password: &str| {
        let text = format!("sslmode=require sslcert={crt} sslkey={path} sslpassword={password}");
        ClientTls::load(
            &files.settings(&text),
            Some("h"),
            Ipv4Addr::LOCALHOST.into(),
        )
        .map(|_| ())
    };
    load("secret").unwrap();
    assert!(matches!(load("''"), Err(TlsError::KeyEncrypted { .. })));
    assert!(matches!(load("wrong"), Err(TlsError::KeyDecrypt { .. })));
}

#[tokio::test]
async fn direct_negotiation_needs_the_servers_agreement_on_the_protocol() {
    let (files, trusted) = (Files::new(), authority("trusted"));
    let mut server = Server::new(&trusted, server_parameters());
    let direct = "sslmode=require sslnegotiation=direct";
    assert!(matches!(
        files.connect(direct, "db.example", &server).await,
        Err(TlsError::NoAlpn)
    ));
    server.alpn = vec![ALPN_PROTOCOL.to_vec()];
    files.connect(direct, "db.example", &server).await.unwrap();
    files
        .connect("sslmode=require", "db.example", &server)
        .await
        .unwrap();
    server.alpn = vec![b"http/1.1".to_vec()];
    assert!(matches!(
        files.connect(direct, "db.example", &server).await,
        Err(TlsError::DirectHandshake { .. })
    ));
}

#[tokio::test]
async fn the_bounds_of_the_tls_version_hold() {
    let (files, trusted) = (Files::new(), authority("trusted"));
    let mut server = Server::new(&trusted, server_parameters());
    server.versions = &ONLY_12;
    let text = "sslmode=require ssl_min_protocol_version=TLSv1.3";
    assert!(files.connect(text, "db.example", &server).await.is_err());
    let text = "sslmode=require ssl_max_protocol_version=TLSv1.2";
    files.connect(text, "db.example", &server).await.unwrap();
    server.versions = &ONLY_13;
    assert!(files.connect(text, "db.example", &server).await.is_err());
}

#[tokio::test]
async fn what_a_server_may_answer_to_the_request_for_tls() {
    let files = Files::new();
    for (mode, answer, expected) in [
        ("prefer", &b"S"[..], Ok(Answer::Willing)),
        ("prefer", b"N", Ok(Answer::Unwilling)),
        (
            "require",
            b"N",
            Err("server does not support SSL, but SSL was required (sslmode=require)"),
        ),
        (
            "require",
            b"E",
            Err("server sent an error response during SSL exchange"),
        ),
        (
            "require",
            b"EFATAL",
            Err("server sent an error response during SSL exchange"),
        ),
        (
            "require",
            b"X",
            Err("received invalid response to SSL negotiation: 0x58"),
        ),
        (
            "require",
            b"HTTP/1.1 400 Bad Request\r\n",
            Err(
                "server answered in HTTP (\"HTTP/1.1 400 Bad Request\"), not in the PostgreSQL \
                 protocol",
            ),
        ),
        (
            "require",
            b"HELLO",
            Err("received invalid response to SSL negotiation: 0x48"),
        ),
        (
            "require",
            b"S\x16",
            Err("received unencrypted data after SSL response"),
        ),
        (
            "prefer",
            b"NZ",
            Err("received unencrypted data after SSL response"),
        ),
        ("require", b"", Err("SSL negotiation")),
    ] {
        let settings = files.settings(&format!("sslmode={mode}"));
        let tls = ClientTls::load(&settings, Some("h"), Ipv4Addr::LOCALHOST.into()).unwrap();
        let (mut client, mut server) = tokio::io::duplex(64);
        server.write_all(answer).await.unwrap();
        server.shutdown().await.unwrap();
        let found = tls
            .request(&mut client)
            .await
            .map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(str::to_owned), "{mode} {answer:?}");
    }
}

#[test]
fn addresses_and_unusable_names_are_not_sent_as_names() {
    let address = Ipv4Addr::LOCALHOST.into();
    let name = |host| server_name(host, address).to_str().into_owned();
    assert_eq!(name(Some("db.example")), "db.example");
    assert_eq!(name(Some("192.0.2.1")), "192.0.2.1");
    assert_eq!(name(Some("not a name")), "127.0.0.1");
    assert_eq!(name(None), "127.0.0.1");
    assert!(matches!(
        server_name(Some("::1"), address),
        ServerName::IpAddress(_)
    ));
}
