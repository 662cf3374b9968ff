//! Certificates of X.509 version 1, as PostgreSQL's manual has `openssl` make them ("Creating
//! Certificates"): both sides take them from us, and we from them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;
use tests::{
    Cluster, EmbeddedServer, GeneratedArchive, Link, Receiver, Version, unprivileged_user,
};
use walsender::tls::TlsFiles;

/// A directory with `root.crt`, and `server` and `client` certificates of version 1 for the host
/// `localhost` and the user `certified`.
struct Certificates {
    directory: TempDir,
}

impl Certificates {
    /// Keys of a kind, by options of `openssl req`.
    fn new(key: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let this = Self { directory };
        for (name, common_name) in [
            ("root", "authority"),
            ("server", "localhost"),
            ("client", "certified"),
        ] {
            let mut request = vec!["req", "-new", "-nodes", "-newkey"];
            request.extend(key);
            let subject = format!("/CN={common_name}");
            request.extend(["-subj", &subject, "-text", "-out"]);
            let (csr, key) = (format!("{name}.csr"), format!("{name}.key"));
            request.extend([&csr, "-keyout", &key]);
            this.openssl(&request);
        }
        this.openssl(&[
            "x509",
            "-req",
            "-in",
            "root.csr",
            "-days",
            "2",
            "-extfile",
            "/etc/ssl/openssl.cnf",
            "-extensions",
            "v3_ca",
            "-signkey",
            "root.key",
            "-out",
            "root.crt",
        ]);
        for name in ["server", "client"] {
            let (csr, crt) = (format!("{name}.csr"), format!("{name}.crt"));
            this.openssl(&[
                "x509",
                "-req",
                "-in",
                &csr,
                "-days",
                "2",
                "-CA",
                "root.crt",
                "-CAkey",
                "root.key",
                "-CAcreateserial",
                "-out",
                &crt,
            ]);
            let shown = this.openssl(&["x509", "-in", &crt, "-noout", "-text"]);
            assert!(shown.contains("Version: 1 (0x0)"), "{shown}");
        }
        this
    }

    fn openssl(&self, arguments: &[&str]) -> String {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(self.directory.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// How a client shows its certificate.
    fn client(&self) -> String {
        format!(
            "user=certified sslmode=verify-full sslrootcert={} sslcert={} sslkey={}",
            self.path("root.crt").display(),
            self.path("client.crt").display(),
            self.path("client.key").display()
        )
    }
}

const KINDS: [&[&str]; 2] = [
    &["rsa:2048"],
    &["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
];

#[test]
fn a_client_certificate_of_version_1_is_shown_to_postgresql() {
    for kind in KINDS {
        let certificates = Certificates::new(kind);
        let (user, group) = unprivileged_user().unzip();
        chown(certificates.path("server.key"), user, group).unwrap();
        let file = |name: &str| certificates.path(name).to_str().unwrap().to_owned();
        let cluster = Cluster::builder(Version::V15)
            .listen_on_tcp()
            .conf("ssl", "on")
            .conf("ssl_cert_file", &file("server.crt"))
            .conf("ssl_key_file", &file("server.key"))
            .conf("ssl_ca_file", &file("root.crt"))
            .hba("local all postgres trust\nhostssl replication certified 127.0.0.1/32 cert")
            .start();
        cluster.sql("CREATE ROLE certified LOGIN REPLICATION");
        for versions in ["TLSv1.2", "TLSv1.3"] {
            let conninfo = format!(
                "host=localhost hostaddr=127.0.0.1 port={} ssl_max_protocol_version={versions} {}",
                cluster.tcp_port().unwrap(),
                certificates.client()
            );
            let mut link = Link::new(&conninfo, certificates.directory.path()).unwrap();
            assert_eq!(link.identify_system().system_id, cluster.system_id());
        }
    }
}

#[test]
fn our_server_shows_and_takes_certificates_of_version_1() {
    let archive = GeneratedArchive::new(100_000, 150_018);
    for kind in KINDS {
        let (certificates, others) = (Certificates::new(kind), Certificates::new(kind));
        let rules = certificates.path("hba");
        fs::write(&rules, "hostssl replication certified all cert\n").unwrap();
        let mut config = EmbeddedServer::config();
        config.access.trust_loopback = false;
        config.access.hba = Some(rules);
        config.access.tls = Some(TlsFiles {
            certificate: certificates.path("server.crt"),
            key: certificates.path("server.key"),
            client_authorities: Some(certificates.path("root.crt")),
            revocation_list: None,
        });
        let server = EmbeddedServer::start(config, archive.path());
        let port = server.conninfo();
        let (_, port) = port.split_once("port=").unwrap();
        let (port, _) = port.split_once(' ').unwrap_or((port, ""));
        let address = format!("host=localhost hostaddr=127.0.0.1 port={port}");
        for versions in ["TLSv1.2", "TLSv1.3"] {
            let at = format!("{address} ssl_max_protocol_version={versions}");
            let conninfo = format!("{at} {}", certificates.client());
            let mut link = Link::new(&conninfo, certificates.directory.path()).unwrap();
            let system_id = link.identify_system().system_id;
            assert_eq!(system_id, GeneratedArchive::SYSTEM_ID);
            let (status, said) = Receiver::psql(Version::V15, &conninfo, "SHOW ssl").run();
            assert!(status.success(), "{said}");
            // Signed by another authority of the same name.
            let stranger = format!(
                "{at} user=certified sslmode=require sslcert={} sslkey={}",
                others.path("client.crt").display(),
                others.path("client.key").display()
            );
            assert!(Link::new(&stranger, certificates.directory.path()).is_err());
        }
        // A key that does not fit is refused before anybody connects.
        let fault = walsender::tls::ServerTls::load(&TlsFiles {
            certificate: certificates.path("server.crt"),
            key: certificates.path("client.key"),
            client_authorities: None,
            revocation_list: None,
        });
        let fault = fault.unwrap_err().to_string();
        assert!(fault.contains("does not fit certificate file"), "{fault}");
    }
}
