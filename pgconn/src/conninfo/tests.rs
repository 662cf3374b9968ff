use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;

use proptest::prelude::*;

use super::*;

/// What a string says, in `key='value'` form, or its error message.
fn read(text: &str) -> Result<String, String> {
    match Conninfo::parse(text) {
        Ok(conninfo) => Ok(conninfo.to_text()),
        Err(error) => Err(error.to_string()),
    }
}

/// The expected values are those of src/interfaces/libpq/t/001_uri.pl (PG 15 and 18).
#[test]
fn uris_mean_what_they_mean_to_libpq() {
    let full = "user='u' password='secret' dbname='db' host='host' port='12345'";
    for (uri, expected) in [
        ("postgresql://u:secret@host:12345/db", full),
        ("postgres://u@host/db", "user='u' dbname='db' host='host'"),
        (
            "postgresql://host:12345/db",
            "dbname='db' host='host' port='12345'",
        ),
        (
            "postgresql://u@host:12345/",
            "user='u' host='host' port='12345'",
        ),
        ("postgresql://u@", "user='u'"),
        ("postgresql://host", "host='host'"),
        ("postgresql://", ""),
        ("postgres:///", ""),
        ("postgres:///db", "dbname='db'"),
        ("postgresql://?hostaddr=127.0.0.1", "hostaddr='127.0.0.1'"),
        (
            "postgresql://h.com?hostaddr=63.1.2.4",
            "host='h.com' hostaddr='63.1.2.4'",
        ),
        ("postgresql://%68ost/", "host='host'"),
        (
            "postgresql://host/db?u%73er=x&port=12345",
            "user='x' dbname='db' host='host' port='12345'",
        ),
        (
            "postgresql://host:12345?user=u",
            "user='u' host='host' port='12345'",
        ),
        ("postgresql://host?", "host='host'"),
        (
            "postgresql://[::1]:12345/db",
            "dbname='db' host='::1' port='12345'",
        ),
        ("postgresql://[2001:db8::1234]/", "host='2001:db8::1234'"),
        ("postgresql://[::1]", "host='::1'"),
        ("postgres://u@/db", "user='u' dbname='db'"),
        ("postgres://?host=/path/to/dir", "host='/path/to/dir'"),
        ("postgres://@host", "host='host'"),
        ("postgres://host:/", "host='host'"),
        ("postgres://:12345/", "port='12345'"),
        ("postgres://u@?host=/no/such", "user='u' host='/no/such'"),
        (
            "postgres://u@:12345/db?host=/path",
            "user='u' dbname='db' host='/path' port='12345'",
        ),
        (
            "postgres://%2Fvar%2Flib/dbname",
            "dbname='dbname' host='/var/lib'",
        ),
        (
            "postgres://a:1,b,[::2]:3/x",
            "dbname='x' host='a,b,::2' port='1,,3'",
        ),
        ("postgres://a,b", "host='a,b' port=','"),
        (
            "postgres://h?ssl=true&requiressl=0",
            "host='h' sslmode='prefer'",
        ),
        (
            "postgres://h? user = u & port = 12 ",
            "user='u' host='h' port='12'",
        ),
        ("postgres://u:p%40%3a@h", "user='u' password='p@:' host='h'"),
        ("postgres://%C3%A9", "host='\u{e9}'"),
    ] {
        assert_eq!(read(uri).as_deref(), Ok(expected), "{uri}");
    }
}

#[test]
fn faults_in_uris_are_told_as_libpq_tells_them() {
    for (uri, message) in [
        (
            "postgresql://host/db?u%7aer=x",
            "invalid URI query parameter: \"uzer\"",
        ),
        (
            "postgre://",
            "missing \"=\" after \"postgre://\" in connection info string",
        ),
        (
            "postgres://[::1",
            "end of string reached when looking for matching \"]\" in IPv6 host \
                             address in URI: \"postgres://[::1\"",
        ),
        (
            "postgres://[]",
            "IPv6 host address may not be empty in URI: \"postgres://[]\"",
        ),
        (
            "postgres://[::1]z",
            "unexpected character \"z\" at position 17 in URI (expected \":\" \
                               or \"/\"): \"postgres://[::1]z\"",
        ),
        (
            "postgresql://host?zzz",
            "missing key/value separator \"=\" in URI query parameter: \"zzz\"",
        ),
        (
            "postgresql://host?value1&value2",
            "missing key/value separator \"=\" in URI query parameter: \"value1\"",
        ),
        (
            "postgresql://host?key=key=value",
            "extra key/value separator \"=\" in URI query parameter: \"key\"",
        ),
        (
            "postgres://host?dbname=%XXfoo",
            "invalid percent-encoded token: \"%XXfoo\"",
        ),
        (
            "postgresql://a%00b",
            "forbidden value %00 in percent-encoded value: \"a%00b\"",
        ),
        ("postgresql://%zz", "invalid percent-encoded token: \"%zz\""),
        ("postgresql://%1", "invalid percent-encoded token: \"%1\""),
        ("postgresql://%", "invalid percent-encoded token: \"%\""),
        (
            "postgres://h?user=a b",
            "unexpected spaces found in \"a b\", use percent-encoded \
                                   spaces (%20) instead",
        ),
        (
            "postgres://%ff",
            "percent-encoded value is not valid UTF-8: \"%ff\"",
        ),
    ] {
        assert_eq!(read(uri), Err(message.to_owned()), "{uri}");
    }
}

#[test]
fn a_password_in_a_faulty_uri_is_not_printed() {
    for uri in [
        "postgres://u:se%xxcret@h",
        "postgres://u:secret@[::1",
        "postgres://h?password=secret%",
    ] {
        let message = read(uri).unwrap_err();
        assert!(!message.contains("cret"), "{message}");
    }
}

#[test]
fn keyword_value_pairs_are_quoted_and_escaped_as_in_libpq() {
    for (text, expected) in [
        ("", ""),
        (" \t\n", ""),
        ("host=a port=1", "host='a' port='1'"),
        ("host = a\n port\t=\r1 ", "host='a' port='1'"),
        ("host='a b' user='it\\'s'", "user='it\\'s' host='a b'"),
        ("user=it\\'s\\ me host=''", "user='it\\'s me' host=''"),
        ("user=a'b", "user='a\\'b'"),
        ("user=x\\", "user='x'"),
        ("host='a'port=1", "host='a' port='1'"),
        ("user=a user=b", "user='b'"),
        ("requiressl=1", "sslmode='require'"),
        ("host=", "host=''"),
    ] {
        assert_eq!(read(text).as_deref(), Ok(expected), "{text:?}");
    }
    for (text, message) in [
        (
            "host",
            "missing \"=\" after \"host\" in connection info string",
        ),
        (
            "host a=b",
            "missing \"=\" after \"host\" in connection info string",
        ),
        (
            "user='a",
            "unterminated quoted string in connection info string",
        ),
        (
            "user='a\\",
            "unterminated quoted string in connection info string",
        ),
        ("hots=a", "invalid connection option \"hots\""),
        ("=a", "invalid connection option \"\""),
        (
            "user=a\0b",
            "connection option \"user\" contains a NUL byte",
        ),
    ] {
        assert_eq!(read(text), Err(message.to_owned()), "{text:?}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text: String) {
        let _ = read(&text);
        let _ = read(&format!("postgres://{text}"));
    }

    #[test]
    fn any_text_of_the_characters_that_matter_is_read_or_refused(
        text in "(postgres://)?[a-c=&?/:@,%0 '\\\\\\[\\]]{0,24}",
    ) {
        let _ = read(&text);
    }

    #[test]
    fn what_is_printed_is_read_back(
        values in proptest::collection::btree_map(
            proptest::sample::select(Keyword::all().collect::<Vec<_>>()), "[^\0]{0,12}", 0..8),
    ) {
        let mut conninfo = Conninfo::default();
        for (keyword, value) in values {
            conninfo.set(keyword, value).unwrap();
        }
        prop_assert_eq!(Conninfo::parse(&conninfo.to_text()).unwrap(), conninfo);
    }
}

fn config(conninfo: &str, environment: &[(&str, &str)]) -> Result<ConnectionConfig, ConninfoError> {
    let table: HashMap<_, _> = environment.iter().copied().collect();
    let overrides = Overrides {
        fallback_application_name: "wal_receiver".to_owned(),
        ..Overrides::default()
    };
    ConnectionConfig::from_sources(Some(conninfo), &overrides, &|name| {
        table.get(name).map(OsString::from)
    })
}

#[test]
fn the_string_goes_before_the_service_before_the_environment_before_the_default() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("services");
    fs::write(&file, "[s]\nuser=service\nhost=service\nport=1\n").unwrap();
    let environment = [
        ("PGSERVICEFILE", file.to_str().unwrap()),
        ("PGSERVICE", "s"),
        ("PGHOST", "environment"),
        ("PGAPPNAME", "environment"),
        ("PGCONNECT_TIMEOUT", "7"),
    ];
    let found = config("user=string host='' dbname=x", &environment).unwrap();
    assert_eq!((found.user.as_str(), found.hosts[0].port), ("string", 1));
    assert_eq!(found.hosts[0].host.as_deref(), Some("service"));
    assert_eq!(found.application_name, "environment");
    assert_eq!(
        found.connect_timeout,
        Some(std::time::Duration::from_secs(7))
    );
    assert_eq!(found.tls.mode, SslMode::Prefer);

    let error = config("service=other", &environment).unwrap_err();
    assert_eq!(
        error.to_string(),
        "definition of service \"other\" not found"
    );
}

#[test]
fn command_line_options_go_before_all_else() {
    let overrides = Overrides {
        host: Some("cli".to_owned()),
        port: Some("2".to_owned()),
        user: Some("me".to_owned()),
        fallback_application_name: "pg_receivewal".to_owned(),
    };
    let text = "host=a,b port=1,3 user=u fallback_application_name=x";
    let found = ConnectionConfig::from_sources(Some(text), &overrides, &|_| None).unwrap();
    assert_eq!(found.hosts.len(), 1);
    assert_eq!(found.hosts[0].to_string(), "\"cli\", port 2");
    assert_eq!(
        (found.user.as_str(), found.application_name.as_str()),
        ("me", "pg_receivewal")
    );
}

#[test]
fn lists_of_hosts_are_paired_with_addresses_and_ports() {
    let hosts = |text: &str| -> Result<Vec<String>, String> {
        let found = config(text, &[]).map_err(|error| error.to_string())?;
        Ok(found.hosts.iter().map(ToString::to_string).collect())
    };
    for (text, expected) in [
        ("host=a,b port=1", vec!["\"a\", port 1", "\"b\", port 1"]),
        (
            "host=a,b port=1,",
            vec!["\"a\", port 1", "\"b\", port 5432"],
        ),
        (
            "host=a,/s hostaddr=,",
            vec!["\"a\", port 5432", "socket \"/s/.s.PGSQL.5432\""],
        ),
        (
            "hostaddr=::1,127.0.0.1 host=a,",
            vec!["\"a\" (::1), port 5432", "\"127.0.0.1\", port 5432"],
        ),
        ("host=@x port=7", vec!["socket \"@x/.s.PGSQL.7\""]),
    ] {
        let expected: Vec<_> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(hosts(text), Ok(expected), "{text}");
    }
    let long = format!("host=/{}", "x".repeat(100));
    for (text, message) in [
        (
            "host=a,b hostaddr=::1",
            "could not match 2 host names to 1 hostaddr values",
        ),
        (
            "host=a,b port=1,2,3",
            "could not match 3 port numbers to 2 hosts",
        ),
        ("port=1,2", "could not match 2 port numbers to 1 hosts"),
        ("hostaddr=name", "could not parse network address \"name\""),
        ("port=70000", "invalid port number: \"70000\""),
        (
            "port=x",
            "invalid integer value \"x\" for connection option \"port\"",
        ),
        (&long, "Unix-domain socket path"),
    ] {
        let error = hosts(text).unwrap_err();
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn without_a_host_the_default_socket_and_its_password_entry_are_used() {
    let found = config("port=65000", &[]).unwrap();
    let host = &found.hosts[0];
    assert_eq!(
        host.endpoint(),
        Endpoint::Unix("/var/run/postgresql/.s.PGSQL.65000".into())
    );
    assert_eq!(host.password_file_host(), "localhost");
    let found = config("host=/var/run/postgresql,/other,name,", &[]).unwrap();
    let names: Vec<_> = found
        .hosts
        .iter()
        .map(HostCandidate::password_file_host)
        .collect();
    assert_eq!(names, ["localhost", "/other", "name", "localhost"]);
}

#[test]
fn what_is_not_implemented_is_refused_by_name() {
    for (text, message) in [
        (
            "gssencmode=require",
            "connection option gssencmode=require is not supported: GSSAPI",
        ),
        ("gssencmode=x", "invalid gssencmode value: \"x\""),
        (
            "min_protocol_version=3.2",
            "connection option min_protocol_version=3.2 is not supported",
        ),
        (
            "max_protocol_version=2",
            "invalid max_protocol_version value: \"2\"",
        ),
        (
            "oauth_issuer=https://x",
            "connection option oauth_issuer=https://x is not supported",
        ),
        (
            "scram_client_key=abc",
            "connection option scram_client_key=... is not supported",
        ),
        (
            "sslkeylogfile=/x",
            "connection option sslkeylogfile=/x is not supported",
        ),
        ("sslmode=maybe", "invalid sslmode value: \"maybe\""),
        ("channel_binding=x", "invalid channel_binding value: \"x\""),
        (
            "target_session_attrs=x",
            "invalid target_session_attrs value: \"x\"",
        ),
        (
            "load_balance_hosts=x",
            "invalid load_balance_hosts value: \"x\"",
        ),
        ("sslcertmode=x", "invalid sslcertmode value: \"x\""),
        ("sslnegotiation=x", "invalid sslnegotiation value: \"x\""),
        (
            "sslnegotiation=direct",
            "weak sslmode \"prefer\" may not be used with \
                                   sslnegotiation=direct",
        ),
        (
            "sslrootcert=system sslmode=require",
            "weak sslmode \"require\" may not be used with \
                                                sslrootcert=system (use \"verify-full\")",
        ),
        (
            "connect_timeout=soon",
            "invalid integer value \"soon\" for connection option",
        ),
        (
            "require_auth=md5,!none",
            "require_auth method \"none\" cannot be mixed",
        ),
        (
            "keepalives_idle=x",
            "invalid integer value \"x\" for connection option",
        ),
    ] {
        let error = config(text, &[]).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
    for text in [
        "gssencmode=prefer krbsrvname=x gsslib=gssapi gssdelegation=1 sslcompression=1",
        "max_protocol_version=latest min_protocol_version=3.0 replication=database",
    ] {
        assert!(config(text, &[]).is_ok(), "{text}");
    }
}

#[test]
fn defaults_that_depend_on_other_values() {
    let mode = |text, environment: &[_]| config(text, environment).unwrap().tls.mode;
    assert_eq!(mode("sslrootcert=system", &[]), SslMode::VerifyFull);
    assert_eq!(mode("", &[("PGREQUIRESSL", "1")]), SslMode::Require);
    assert_eq!(
        mode("", &[("PGREQUIRESSL", "1"), ("PGSSLMODE", "allow")]),
        SslMode::Allow
    );
    let found = config(
        "",
        &[
            ("HOME", "/h"),
            ("PGUSER", "u"),
            ("PGTZ", "UTC"),
            ("PGGEQO", "default"),
        ],
    );
    let found = found.unwrap();
    assert_eq!(found.password_file, Some("/h/.pgpass".into()));
    assert_eq!(found.session_settings, [("timezone", "UTC".to_owned())]);
    assert_eq!(found.application_name, "wal_receiver");
    assert_eq!(found.connect_timeout, None);
    let found = config(
        "connect_timeout=-1 keepalives=0 keepalives_count=3 tcp_user_timeout=0",
        &[],
    );
    let found = found.unwrap();
    assert_eq!(
        (found.connect_timeout, found.keepalive.user_timeout),
        (None, None)
    );
    assert_eq!(
        (found.keepalive.enabled, found.keepalive.count),
        (false, Some(3))
    );
}

#[test]
fn no_user_given_is_the_user_of_the_operating_system() {
    let found = config("", &[("HOME", "/h")]).unwrap();
    assert_eq!(Some(found.user), user_name(nix::unistd::geteuid().as_raw()));
}

#[test]
fn secrets_are_not_printed() {
    let text = "password=secret sslpassword=secret user=u";
    let parsed = Conninfo::parse(text).unwrap();
    let found = config(text, &[]).unwrap();
    let printed = format!("{parsed:?} {found:?}");
    assert!(
        !printed.contains("secret") && printed.contains("\"u\""),
        "{printed}"
    );
}
