//! TLS with real servers.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SanType, SignatureAlgorithm,
};
use tempfile::TempDir;
use tests::{Cluster, Link, Version, unprivileged_user};
use walproto::Lsn;

use crate::for_each_version;

/// An authority, what it signed, and a home directory for the client.
pub(crate) struct Certificates {
    directory: TempDir,
    home: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    pub(crate) fn new(algorithm: &'static SignatureAlgorithm) -> Self {
        let mut parameters = CertificateParams::default();
        parameters
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(algorithm).unwrap();
        let directory = TempDir::new().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let certificates = Self {
            directory,
            home: TempDir::new().unwrap(),
            authority: CertifiedIssuer::self_signed(parameters, key).unwrap(),
        };
        fs::write(certificates.path("root.crt"), certificates.authority.pem()).unwrap();
        certificates
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes `NAME.crt` and `NAME.key`, the latter for the server's user or for us.
    pub(crate) fn sign(
        &self,
        name: &str,
        common_name: &str,
        names: Vec<SanType>,
        for_server: bool,
    ) {
        let mut parameters = CertificateParams::default();
        parameters
            .distinguished_name
            .push(DnType::CommonName, common_name);
        parameters.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.authority).unwrap();
        fs::write(self.path(&format!("{name}.crt")), certificate.pem()).unwrap();
        let path = self.path(&format!("{name}.key"));
        fs::write(&path, key.serialize_pem()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if for_server {
            let (user, group) = unprivileged_user().unzip();
            chown(&path, user, group).unwrap();
        }
    }

    /// A server for `localhost` and 127.0.0.1 where TLS is a must.
    pub(crate) fn cluster(&self, version: Version) -> Cluster {
        let names = vec![
            SanType::DnsName("localhost".try_into().unwrap()),
            SanType::IpAddress([127, 0, 0, 1].into()),
        ];
        self.sign("server", "localhost", names, true);
        self.sign("client", "certified", Vec::new(), false);
        let file = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let cluster = Cluster::builder(version)
            .listen_on_tcp()
            .conf("ssl", "on")
            .conf("ssl_cert_file", &file("server.crt"))
            .conf("ssl_key_file", &file("server.key"))
            .conf("ssl_ca_file", &file("root.crt"))
            .hba(
                "local all postgres trust\n\
                 hostssl replication scram 127.0.0.1/32 scram-sha-256\n\
                 hostssl replication certified 127.0.0.1/32 cert\n\
                 hostnossl replication open 127.0.0.1/32 scram-sha-256",
            )
            .start();
        cluster.sql(
            "SET password_encryption = 'scram-sha-256';
             CREATE ROLE scram LOGIN REPLICATION PASSWORD 'secret';
             CREATE ROLE open LOGIN REPLICATION PASSWORD 'secret';
             CREATE ROLE certified LOGIN REPLICATION;",
        );
        cluster
    }

    fn connect(&self, cluster: &Cluster, host: &str, more: &str) -> Result<Link, String> {
        let port = cluster.tcp_port().unwrap();
        let conninfo = format!("host={host} port={port} password=secret {more}");
        Link::new(&conninfo, self.home.path()).map_err(|error| error.to_string())
    }

    fn verify_full(&self) -> String {
        format!(
            "sslmode=verify-full sslrootcert={}",
            self.path("root.crt").display()
        )
    }
}

/// Whether the server sees TLS on a connection, and its version.
fn tls_version(cluster: &Cluster, link: &mut Link) -> Option<String> {
    let pid = link.process_id();
    cluster.text(&format!(
        "SELECT version FROM pg_stat_ssl WHERE pid = {pid}"
    ))
}

for_each_version!(scram_is_bound_to_a_verified_connection);

fn scram_is_bound_to_a_verified_connection(version: Version) {
    let certificates = Certificates::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    let cluster = certificates.cluster(version);
    let bound = format!(
        "user=scram channel_binding=require {}",
        certificates.verify_full()
    );
    for (host, more, expected) in [
        ("localhost hostaddr=127.0.0.1", "", "TLSv1.3"),
        ("127.0.0.1", "ssl_max_protocol_version=TLSv1.2", "TLSv1.2"),
    ] {
        let mut link = certificates
            .connect(&cluster, host, &format!("{bound} {more}"))
            .unwrap();
        assert_eq!(tls_version(&cluster, &mut link).as_deref(), Some(expected));
        assert_eq!(link.identify_system().system_id, cluster.system_id());
    }
    let text = certificates
        .connect(&cluster, "wrong hostaddr=127.0.0.1", &bound)
        .err()
        .unwrap();
    let expected = "server certificate for \"localhost\" (and 1 other name) does not match host \
                    name \"wrong\"";
    assert!(text.contains(expected), "{text}");
}

for_each_version!(wal_comes_whole_through_tls);

fn wal_comes_whole_through_tls(version: Version) {
    let certificates = Certificates::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    let cluster = certificates.cluster(version);
    let length = 3 << 20;
    cluster.write_wal(4);
    let end = cluster.flush_lsn();
    let start = Lsn((end.0 - (4 << 20)) & !0x1fff);
    let more = format!("user=scram {}", certificates.verify_full());
    let mut encrypted = certificates.connect(&cluster, "127.0.0.1", &more).unwrap();
    let more = "user=open sslmode=disable";
    let mut plain = certificates.connect(&cluster, "127.0.0.1", more).unwrap();
    let expected = plain.stream(start, length);
    assert!(encrypted.stream(start, length) == expected);
}

#[test]
fn the_binding_follows_the_hash_of_the_certificates_signature() {
    let certificates = Certificates::new(&rcgen::PKCS_ECDSA_P384_SHA384);
    let cluster = certificates.cluster(Version::V15);
    let bound = format!(
        "user=scram channel_binding=require {}",
        certificates.verify_full()
    );
    certificates.connect(&cluster, "127.0.0.1", &bound).unwrap();
}

for_each_version!(a_client_certificate_may_stand_for_a_password);

fn a_client_certificate_may_stand_for_a_password(version: Version) {
    let certificates = Certificates::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    let cluster = certificates.cluster(version);
    let own = format!(
        "{} sslcert={} sslkey={}",
        certificates.verify_full(),
        certificates.path("client.crt").display(),
        certificates.path("client.key").display()
    );
    let connect = |more: &str| certificates.connect(&cluster, "127.0.0.1", more);
    let mut link = connect(&format!("user=certified {own} sslcertmode=require")).unwrap();
    assert_eq!(link.identify_system().system_id, cluster.system_id());
    // Another role's certificate, and none at all.
    for more in [
        format!("user=scram password='' {own} require_auth=none"),
        format!("user=certified {own} sslcertmode=disable"),
    ] {
        assert!(connect(&more).is_err(), "{more}");
    }
}

#[test]
fn who_is_not_trusted_gets_no_password() {
    let certificates = Certificates::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    let cluster = certificates.cluster(Version::V15);
    let other = Certificates::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    let root = other.path("root.crt");
    for mode in ["require", "verify-ca", "verify-full"] {
        let more = format!("user=scram sslmode={mode} sslrootcert={}", root.display());
        let text = certificates
            .connect(&cluster, "127.0.0.1", &more)
            .err()
            .unwrap();
        assert!(
            text.contains("server certificate ") && text.contains("root.crt"),
            "{text}"
        );
    }
}

#[test]
fn sslmode_finds_the_way_in() {
    let certificates = Certificates::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    let cluster = certificates.cluster(Version::V15);
    for (user, mode, encrypted) in [
        ("scram", "disable", None),
        ("scram", "allow", Some(true)),
        ("scram", "prefer", Some(true)),
        ("scram", "require", Some(true)),
        ("open", "disable", Some(false)),
        ("open", "allow", Some(false)),
        ("open", "prefer", Some(false)),
        ("open", "require", None),
    ] {
        let more = format!("user={user} sslmode={mode}");
        let link = certificates.connect(&cluster, "127.0.0.1", &more).ok();
        let found = link.map(|mut link| tls_version(&cluster, &mut link).is_some());
        assert_eq!(found, encrypted, "{more}");
    }
    let plain = Cluster::builder(Version::V15).listen_on_tcp().start();
    let require = certificates.connect(&plain, "127.0.0.1", "user=postgres sslmode=require");
    let text = require.err().unwrap();
    assert!(
        text.contains("server does not support SSL, but SSL was required"),
        "{text}"
    );
    certificates
        .connect(&plain, "127.0.0.1", "user=postgres sslmode=prefer")
        .unwrap();
}

for_each_version!(direct_negotiation_is_for_17_and_later);

fn direct_negotiation_is_for_17_and_later(version: Version) {
    let certificates = Certificates::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    let cluster = certificates.cluster(version);
    let more = format!(
        "user=scram sslnegotiation=direct {}",
        certificates.verify_full()
    );
    let result = certificates.connect(&cluster, "127.0.0.1", &more);
    if version < Version::V17 {
        let text = result.err().unwrap();
        assert!(
            text.contains("needs a server of version 17 or later"),
            "{text}"
        );
    } else {
        let mut link = result.unwrap();
        assert_eq!(tls_version(&cluster, &mut link).as_deref(), Some("TLSv1.3"));
    }
}
