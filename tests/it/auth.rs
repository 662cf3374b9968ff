//! Who may connect, and how both sides make sure.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use pgconn::connection::ConnectError;
use tempfile::TempDir;
use tests::{Cluster, Link, Version};

use crate::for_each_version;

/// Roles named after the way in which `pg_hba.conf` authenticates them; their password is
/// `secret`.
fn cluster(version: Version) -> Cluster {
    let cluster = Cluster::builder(version)
        .hba(
            "local all postgres trust\nlocal replication scram scram-sha-256\n\
             local replication md5 md5\nlocal replication clear password\n\
             local replication trusted trust\nlocal replication ordinary trust\n\
             local replication ghost trust",
        )
        .start();
    cluster.sql(
        "SET password_encryption = 'scram-sha-256';
         CREATE ROLE scram LOGIN REPLICATION PASSWORD 'secret';
         CREATE ROLE clear LOGIN REPLICATION PASSWORD 'secret';
         CREATE ROLE trusted LOGIN REPLICATION;
         CREATE ROLE ordinary LOGIN;
         CREATE ROLE outsider LOGIN REPLICATION;
         SET password_encryption = 'md5';
         CREATE ROLE md5 LOGIN REPLICATION PASSWORD 'secret';",
    );
    cluster
}

fn connect(cluster: &Cluster, user: &str, more: &str) -> Result<Link, ConnectError> {
    let home = TempDir::new().unwrap();
    let socket = cluster.socket_directory();
    let conninfo = format!("host={} user={user} {more}", socket.display());
    Link::new(&conninfo, home.path())
}

/// The SQLSTATE of the refusal, and its text.
fn refusal(cluster: &Cluster, user: &str, more: &str) -> (Option<String>, String) {
    let error = connect(cluster, user, more).err().unwrap();
    let state = error.attempts.first().unwrap().failure.sqlstate();
    (state.map(|state| state.to_string()), error.to_string())
}

for_each_version!(every_method_lets_in_who_knows_the_password);

fn every_method_lets_in_who_knows_the_password(version: Version) {
    let cluster = cluster(version);
    for user in ["scram", "md5", "clear"] {
        let mut link = connect(&cluster, user, "password=secret").unwrap();
        assert_eq!(link.identify_system().system_id, cluster.system_id());
        let (state, text) = refusal(&cluster, user, "password=wrong");
        assert_eq!(state.as_deref(), Some("28P01"), "{text}");
        assert!(text.ends_with("(check user and password)"), "{text}");
        let missing = connect(&cluster, user, "").err().unwrap();
        assert!(missing.is_password_missing(), "{missing}");
    }
    connect(&cluster, "trusted", "").unwrap();
}

for_each_version!(who_may_not_replicate_is_told_what_is_missing);

fn who_may_not_replicate_is_told_what_is_missing(version: Version) {
    let cluster = cluster(version);
    let (state, text) = refusal(&cluster, "ordinary", "");
    assert_eq!(state.as_deref(), Some("42501"), "{text}");
    assert!(
        text.ends_with("(the role needs the REPLICATION attribute)"),
        "{text}"
    );
    for user in ["outsider", "ghost"] {
        let (state, text) = refusal(&cluster, user, "");
        assert_eq!(state.as_deref(), Some("28000"), "{text}");
        assert!(
            text.contains("pg_hba.conf has a line for database"),
            "{text}"
        );
    }
}

#[test]
fn require_auth_holds_against_a_real_server() {
    let cluster = cluster(Version::V15);
    let secret = "password=secret require_auth=";
    for (user, allowed, refused) in [
        ("scram", "scram-sha-256", "md5,password"),
        ("scram", "!none,!password", "!scram-sha-256"),
        ("md5", "md5", "scram-sha-256"),
        ("clear", "password", "!password"),
        ("trusted", "none", "scram-sha-256"),
        ("trusted", "!md5", "!none"),
    ] {
        connect(&cluster, user, &format!("{secret}{allowed}")).unwrap();
        let (state, text) = refusal(&cluster, user, &format!("{secret}{refused}"));
        assert_eq!(state, None, "{text}");
        assert!(text.contains("require_auth="), "{text}");
    }
}

#[test]
fn channel_binding_cannot_be_required_of_a_unix_socket() {
    let cluster = cluster(Version::V15);
    for user in ["scram", "md5", "trusted"] {
        let (_, text) = refusal(&cluster, user, "password=secret channel_binding=require");
        assert!(text.contains("channel_binding=require"), "{text}");
    }
}

#[test]
fn the_password_file_is_asked_and_named_when_it_is_wrong() {
    let cluster = cluster(Version::V15);
    let home = TempDir::new().unwrap();
    let socket = cluster.socket_directory();
    let conninfo = format!("host={} user=scram", socket.display());
    let path = home.path().join(".pgpass");
    for (password, let_in) in [("secret", true), ("wrong", false)] {
        let line = format!("{}:5432:replication:scram:{password}\n", socket.display());
        fs::write(&path, line).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        match Link::new(&conninfo, home.path()) {
            Ok(_) => assert!(let_in),
            Err(error) => {
                assert!(!let_in, "{error}");
                let text = error.to_string();
                assert!(
                    text.contains(&format!("from file \"{}\"", path.display())),
                    "{text}"
                );
            }
        }
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = Link::new(&conninfo, home.path()).err().unwrap();
    assert!(error.is_password_missing(), "{error}");
}

#[test]
fn a_server_without_a_free_walsender_says_so() {
    let cluster = Cluster::builder(Version::V15)
        .conf("max_wal_senders", "1")
        .start();
    let _first = connect(&cluster, "postgres", "").unwrap();
    let (state, text) = refusal(&cluster, "postgres", "");
    assert_eq!(state.as_deref(), Some("53300"), "{text}");
    assert!(
        text.ends_with("(raise max_wal_senders or max_connections)"),
        "{text}"
    );
}

for_each_version!(settings_of_the_connection_string_reach_the_server);

fn settings_of_the_connection_string_reach_the_server(version: Version) {
    let cluster = Cluster::start_new(version);
    let more = "application_name=its_name client_encoding=auto options='-c wal_sender_timeout=7s'";
    let mut link = connect(&cluster, "postgres", more).unwrap();
    let query = format!(
        "SELECT application_name FROM pg_stat_activity WHERE pid = {}",
        link.process_id()
    );
    assert_eq!(cluster.text(&query).as_deref(), Some("its_name"));
    assert_eq!(link.show("wal_sender_timeout"), "7s");
    assert_eq!(link.show("client_encoding"), "UTF8");
}
