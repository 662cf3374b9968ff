//! Who may stream from our server, and how both sides make sure.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use pgconn::connection::ConnectError;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use tempfile::TempDir;
use tests::{
    ArchiveDirectory, EmbeddedServer, GeneratedArchive, Link, Receiver, Serving, Version,
    unprivileged_user, wait_until,
};
use walproto::scram::ScramVerifier;
use walsender::tls::TlsFiles;
use walsender::{ListenAddress, ServeConfig};

use crate::serve::Archived;
use crate::serve_standbys::wait_rows;

/// An archive, and the files that say who may connect to its server.
struct Setup {
    files: TempDir,
    archive: GeneratedArchive,
    config: ServeConfig,
}

impl Setup {
    /// Users `standby`, whose password is `secret`, and others without one.
    fn new(rules: &str) -> Self {
        let files = TempDir::new().unwrap();
        // PostgreSQL's own programs may run as another user.
        fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut setup = Self {
            files,
            archive: GeneratedArchive::new(100_000, 150_018),
            config: EmbeddedServer::config(),
        };
        let verifier = ScramVerifier::from_password(b"secret", b"0123456789abcdef", 4096);
        let users = format!("\"standby\" \"{verifier}\"\n");
        setup.config.access.trust_loopback = false;
        setup.config.access.users = Some(setup.write("users", &users));
        setup.config.access.hba = Some(setup.write("hba", rules));
        setup
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.files.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn start(&self) -> EmbeddedServer {
        EmbeddedServer::start(self.config.clone(), self.archive.path())
    }

    fn connect(&self, server: &EmbeddedServer, more: &str) -> Result<Link, ConnectError> {
        let conninfo = format!("{} {more}", server.conninfo());
        Link::new(&conninfo, self.files.path())
    }

    /// The SQLSTATE of the refusal, and its text.
    fn refusal(&self, server: &EmbeddedServer, more: &str) -> (Option<String>, String) {
        let error = self.connect(server, more).err().unwrap();
        let state = error.attempts.first().unwrap().failure.sqlstate();
        (state.map(|state| state.to_string()), error.to_string())
    }

    #[track_caller]
    fn assert_lets_in(&self, server: &EmbeddedServer, more: &str) {
        let mut link = self.connect(server, more).unwrap();
        let system_id = link.identify_system().system_id;
        assert_eq!(system_id, GeneratedArchive::SYSTEM_ID);
    }

    /// What `psql` says when it asks for something.
    fn psql(server: &EmbeddedServer, more: &str, command: &str) -> (bool, String) {
        let conninfo = format!("{} {more}", server.conninfo());
        let (status, said) = Receiver::psql(Version::V15, &conninfo, command).run();
        (status.success(), said)
    }
}

#[test]
fn who_knows_the_password_is_let_in() {
    let setup = Setup::new("host replication all 127.0.0.1/32 scram-sha-256\n");
    let server = setup.start();
    setup.assert_lets_in(&server, "user=standby password=secret");
    let (success, said) = Setup::psql(
        &server,
        "user=standby password=secret",
        "SHOW wal_segment_size",
    );
    assert!(success && said == "1MB\n", "{said}");
    for wrong in ["user=standby password=wrong", "user=nobody password=secret"] {
        let (state, text) = setup.refusal(&server, wrong);
        assert_eq!(state.as_deref(), Some("28P01"), "{text}");
        let (success, said) = Setup::psql(&server, wrong, "IDENTIFY_SYSTEM");
        assert!(
            !success && said.contains("password authentication failed"),
            "{said}"
        );
    }
}

#[test]
fn whom_no_rule_fits_or_one_rejects_is_told_so() {
    let setup = Setup::new(
        "host replication outcast 127.0.0.1/32 reject\n\
         host replication standby 10.0.0.0/8 trust\n\
         host all all all trust\n",
    );
    let server = setup.start();
    for (user, words) in [
        (
            "outcast",
            "pg_hba.conf rejects replication connection for host \"127.0.0.1\"",
        ),
        (
            "standby",
            "no pg_hba.conf entry for replication connection from host \"127.0.0.1\"",
        ),
    ] {
        let (state, text) = setup.refusal(&server, &format!("user={user}"));
        assert_eq!(state.as_deref(), Some("28000"), "{text}");
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn rules_are_read_anew_and_a_wrong_file_changes_nothing() {
    let setup = Setup::new("host replication all all reject\n");
    let server = setup.start();
    assert!(setup.connect(&server, "user=standby").is_err());
    setup.write("hba", "host replication all all trust\n");
    assert!(setup.connect(&server, "user=standby").is_err());
    server.handle().reload().unwrap();
    setup.assert_lets_in(&server, "user=standby");
    setup.write("hba", "host replication all all nonsense\n");
    let error = server.handle().reload().unwrap_err().to_string();
    assert!(
        error.contains("line 1: invalid method \"nonsense\""),
        "{error}"
    );
    setup.assert_lets_in(&server, "user=standby");
}

#[test]
fn without_rules_only_the_same_user_may_connect_through_a_unix_socket() {
    let mut setup = Setup::new("");
    setup.config.access.hba = None;
    let socket = ListenAddress::Unix {
        directory: setup.files.path().to_owned(),
        port: 5432,
    };
    let tcp = setup.config.listen.clone();
    setup.config.listen = vec![socket];
    let server = setup.start();
    setup.assert_lets_in(&server, "user=standby");
    drop(server);
    setup.config.listen = tcp;
    let archive = GeneratedArchive::new(100_000, 150_018);
    let server = EmbeddedServer::start(setup.config.clone(), archive.path());
    let (state, text) = setup.refusal(&server, "user=standby");
    assert_eq!(state.as_deref(), Some("28000"), "{text}");
}

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Issuer {
    let mut parameters = CertificateParams::default();
    parameters
        .distinguished_name
        .push(DnType::CommonName, "authority");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap()
}

impl Setup {
    /// Files of a certificate, for 127.0.0.1 and in the name of a user, and of its key.
    fn certificate(&self, issuer: &Issuer, common_name: &str) -> (PathBuf, PathBuf) {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters
            .distinguished_name
            .push(DnType::CommonName, common_name);
        let address = SanType::IpAddress(Ipv4Addr::LOCALHOST.into());
        parameters.subject_alt_names.push(address);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, issuer).unwrap();
        (
            self.write(&format!("{common_name}.crt"), &certificate.pem()),
            self.write(&format!("{common_name}.key"), &key.serialize_pem()),
        )
    }

    /// Gives the server a certificate, and gives the file of who signed it.
    fn with_tls(&mut self) -> (Issuer, PathBuf) {
        let issuer = authority();
        let root = self.write("root.crt", &issuer.pem());
        let (certificate, key) = self.certificate(&issuer, "server");
        self.config.access.tls = Some(TlsFiles {
            certificate,
            key,
            client_authorities: Some(root.clone()),
            revocation_list: None,
        });
        (issuer, root)
    }
}

#[test]
fn tls_can_be_demanded_and_binds_the_password_to_the_connection() {
    let mut setup = Setup::new("hostssl replication all all scram-sha-256\n");
    let (_, root) = setup.with_tls();
    let server = setup.start();
    let plain = "user=standby password=secret sslmode=disable";
    let (state, text) = setup.refusal(&server, plain);
    assert_eq!(state.as_deref(), Some("28000"), "{text}");
    assert!(text.contains("user \"standby\", no encryption"), "{text}");
    let verified = format!(
        "user=standby password=secret sslmode=verify-full channel_binding=require sslrootcert={}",
        root.display()
    );
    setup.assert_lets_in(&server, &verified);
    setup.assert_lets_in(&server, &format!("{verified} sslnegotiation=direct"));
    fs::set_permissions(&root, fs::Permissions::from_mode(0o644)).unwrap();
    let (success, said) = Setup::psql(&server, &verified, "SHOW ssl");
    assert!(success && said == "on\n", "{said}");
    let (_, text) = setup.refusal(&server, &verified.replace("secret", "wrong"));
    assert!(text.contains("password authentication failed"), "{text}");
}

#[test]
fn wal_is_streamed_through_tls() {
    let mut setup = Setup::new("hostssl replication all all trust\n");
    let _ = setup.with_tls();
    setup.archive = GeneratedArchive::new(3 << 20, 150_018);
    let server = setup.start();
    let mut link = setup
        .connect(&server, "user=standby sslmode=require")
        .unwrap();
    let wal = setup.archive.wal();
    assert!(link.stream(GeneratedArchive::START, wal.len()) == wal);
}

#[test]
fn a_certificate_in_the_users_name_is_enough_where_the_rules_say_so() {
    let mut setup = Setup::new("hostssl replication all all cert\n");
    let (issuer, _) = setup.with_tls();
    let server = setup.start();
    let (certificate, key) = setup.certificate(&issuer, "standby");
    let shown = format!(
        "sslmode=require sslcert={} sslkey={}",
        certificate.display(),
        key.display()
    );
    setup.assert_lets_in(&server, &format!("user=standby {shown}"));
    for (other, words) in [
        (
            format!("user=other {shown}"),
            "certificate authentication failed for user \"other\"",
        ),
        (
            "user=standby sslmode=require".to_owned(),
            "connection requires a valid client certificate",
        ),
    ] {
        let (state, text) = setup.refusal(&server, &other);
        assert_eq!(state.as_deref(), Some("28000"), "{text}");
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn the_program_lets_in_who_has_a_certificate_and_the_password() {
    let mut setup = Setup::new("");
    let (issuer, root) = setup.with_tls();
    let rules = "hostssl replication standby all scram-sha-256 clientcert=verify-full\n";
    let rules = setup.write("rules", rules);
    let (certificate, key) = setup.certificate(&issuer, "standby");
    // The standby's user reads its key, and so may the superuser.
    let (user, group) = unprivileged_user().unzip();
    chown(&key, user, group).unwrap();
    for file in [&root, &certificate] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let mut archived = Archived::start(Version::V15);
    archived.cluster.sql("CREATE TABLE t (i int)");
    let backup = archived.cluster.base_backup();
    archived.wait_archived();
    let path = |name: &str| setup.files.path().join(name).display().to_string();
    let options = [
        ("--hba-file", rules.display().to_string()),
        ("--users-file", path("users")),
        ("--tls-cert", path("server.crt")),
        ("--tls-key", path("server.key")),
        ("--tls-client-ca", path("root.crt")),
    ];
    let options = options.map(|(name, value)| format!("{name}={value}"));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut serving = Serving::start_with(archived.archive.path(), 0, &options);
    let address = serving.conninfo().replace("user=any", "user=standby");
    let verified = format!(
        "{address} sslmode=verify-full sslrootcert={}",
        root.display()
    );
    let shown = format!("sslcert={} sslkey={}", certificate.display(), key.display());
    for (conninfo, words) in [
        (
            format!("{verified} {shown} password=wrong"),
            "password authentication failed for user \"standby\"",
        ),
        (
            format!("{verified} sslcert=/none password=secret"),
            "connection requires a valid client certificate",
        ),
        (
            format!("{address} sslmode=disable password=secret"),
            "no pg_hba.conf entry",
        ),
    ] {
        let copy = ArchiveDirectory::new();
        let program = Receiver::pg_receivewal(Version::V15, &conninfo, copy.path());
        let (status, said) = program.arg("--no-loop").run();
        assert!(!status.success() && said.contains(words), "{said}");
    }
    let conninfo = format!("{verified} {shown} password=secret");
    let copy = ArchiveDirectory::new();
    let mut original = Receiver::pg_receivewal(Version::V15, &conninfo, copy.path())
        .arg("--synchronous")
        .start();
    let mut standby = backup.unpack(
        "standby.signal",
        &format!("primary_conninfo = '{conninfo}'\n"),
    );
    standby.start();
    archived.cluster.sql("INSERT INTO t VALUES (1)");
    wait_rows(&standby, "1");
    archived.cluster.write_wal(3);
    let end = archived.wait_archived();
    let segment = tests::segment_name(
        walproto::TimelineId::FIRST,
        walproto::Lsn(end.0 - (1 << 20)),
        archived.cluster.segment_size(),
    );
    wait_until("pg_receivewal to complete a segment", || {
        copy.path().join(&segment).exists()
    });
    assert!(serving.stop().success(), "{}", serving.log());
    assert!(original.stop().success(), "{}", original.log());
    let start = archived.cluster.segment_size().start_of(end);
    copy.assert_same_wal(&archived.cluster, walproto::TimelineId::FIRST, start, end);
}
