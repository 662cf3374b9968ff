use super::*;
use proptest::prelude::*;

fn rules(text: &str) -> HbaRules {
    HbaRules::parse(Path::new("hba"), text.as_bytes()).unwrap()
}

fn error(text: &str) -> String {
    let error = HbaRules::parse(Path::new("hba"), text.as_bytes()).unwrap_err();
    error.to_string()
}

fn tcp(address: &str, encrypted: bool) -> ClientOrigin {
    ClientOrigin::Tcp {
        address: address.parse().unwrap(),
        encrypted,
    }
}

/// The line of the rule that fits.
fn line(rules: &HbaRules, origin: ClientOrigin, user: &str) -> Option<usize> {
    rules.find(origin, user).map(|rule| rule.line)
}

#[test]
fn the_first_line_that_fits_decides() {
    let rules = rules(
        "# a comment\n\
         local   replication  archiver,\"all\"            peer\n\
         local   replication  all                        scram-sha-256\n\
         hostssl replication  relay    2001:db8::/32     cert\n\
         host    replication  standby  10.1.0.0/16       scram-sha-256 # and more\n\
         hostnossl replication all     10.1.2.3/32       reject\n\
         host    replication  all      10.1.0.0 255.255.0.255  trust\n",
    );
    let cases = [
        (ClientOrigin::Local, "archiver", Some(2)),
        (ClientOrigin::Local, "all", Some(2)),
        (ClientOrigin::Local, "other", Some(3)),
        (tcp("2001:db8:1::1", true), "relay", Some(4)),
        (tcp("2001:db8:1::1", false), "relay", None),
        (tcp("2001:db9::1", true), "relay", None),
        (tcp("10.1.255.1", false), "standby", Some(5)),
        (tcp("::ffff:10.1.255.1", false), "standby", Some(5)),
        (tcp("10.2.0.1", false), "standby", None),
        (tcp("10.1.2.3", false), "other", Some(6)),
        (tcp("10.1.2.3", true), "other", None),
        (tcp("10.1.9.0", true), "other", Some(7)),
    ];
    for (origin, user, expected) in cases {
        assert_eq!(line(&rules, origin, user), expected, "{origin:?} {user}");
    }
    assert!(rules.need_tls() && rules.need_client_certificates() && rules.need_passwords());
}

#[test]
fn only_lines_for_replication_are_for_us() {
    let rules = rules(
        "local  all                     postgres          peer\n\
         host   all                     all  samenet      ldap ldapserver=x\n\
         host   \"replication\"         all  0.0.0.0/0    trust\n\
         host   postgres,replication    a    all          md5\n\
         hostgssenc all                 +dba db.internal  gss map=m\n",
    );
    assert_eq!(rules.unused(), [1, 2, 3, 5]);
    assert_eq!(line(&rules, tcp("10.0.0.1", false), "a"), Some(4));
    assert_eq!(line(&rules, tcp("10.0.0.1", false), "b"), None);
    assert_eq!(line(&rules, ClientOrigin::Local, "postgres"), None);
}

#[test]
fn without_a_file_only_the_same_user_may_connect_through_a_unix_socket() {
    let none = HbaRules::same_user();
    let method = |rules: &HbaRules, origin| rules.find(origin, "any").map(|rule| rule.method);
    assert_eq!(
        method(&none, ClientOrigin::Local),
        Some(HbaMethod::SameUser)
    );
    for address in ["127.0.0.1", "::1"] {
        assert_eq!(method(&none, tcp(address, true)), None);
        let open = none.clone().and_trust_loopback();
        assert_eq!(method(&open, tcp(address, false)), Some(HbaMethod::Trust));
        assert_eq!(method(&open, tcp("127.0.0.2", false)), None);
    }
}

#[test]
fn quotes_commas_and_continued_lines_are_read_as_postgresql_does() {
    let rules = rules(
        "local replication , \"a,\"\"b c\"x,d,\\\n  e trust\r\n\
         local ,replication f trust\n\
         local \"x\"replication z trust\n\
         local replication g trust\\\n\\\n\n",
    );
    for user in ["a,\"b cx", "d", "e"] {
        assert_eq!(line(&rules, ClientOrigin::Local, user), Some(1), "{user}");
    }
    for (user, expected) in [("f", Some(3)), ("z", None), ("g", Some(5))] {
        assert_eq!(line(&rules, ClientOrigin::Local, user), expected, "{user}");
    }
}

#[test]
fn a_certificate_can_be_asked_for_beside_a_method() {
    let certificate = |options: &str| {
        let text = format!("hostssl replication all all {options}");
        let rules = rules(&text);
        rules
            .find(tcp("::1", true), "u")
            .unwrap()
            .client_certificate
    };
    for (options, expected) in [
        ("scram-sha-256", ClientCertificate::NotNeeded),
        ("trust clientcert=verify-ca", ClientCertificate::Trusted),
        (
            "trust clientname=CN clientcert=verify-full",
            ClientCertificate::InTheUsersName,
        ),
        ("cert", ClientCertificate::InTheUsersName),
        (
            "cert clientcert=verify-full",
            ClientCertificate::InTheUsersName,
        ),
    ] {
        assert_eq!(certificate(options), expected, "{options}");
    }
}

#[test]
fn what_is_wrong_is_named_by_file_line_and_field() {
    assert_eq!(
        error("# fine\nhost replication all 10.0.0.0/33 trust\n"),
        "access rules \"hba\", line 2: invalid address \"10.0.0.0/33\""
    );
    for (text, message) in [
        ("host", "the line ends before the database"),
        ("host replication", "the line ends before the user"),
        ("host replication all", "the line ends before the address"),
        (
            "host replication all 10.0.0.1",
            "the line ends before the mask",
        ),
        (
            "host replication all all",
            "the line ends before the method",
        ),
        ("local replication all", "the line ends before the method"),
        (
            "local,host replication all trust",
            "several values for the connection type",
        ),
        (
            "local replication all trust,peer",
            "several values for the method",
        ),
        (
            "socket replication all trust",
            "invalid connection type \"socket\"",
        ),
        (
            "host replication all 10.0.0.0/+8 trust",
            "invalid address \"10.0.0.0/+8\"",
        ),
        (
            "host replication all 10.0.0/8 trust",
            "invalid address \"10.0.0/8\"",
        ),
        (
            "host replication all 10.0.0 trust",
            "invalid address \"10.0.0\"",
        ),
        (
            "host replication all db/8 trust",
            "invalid address \"db/8\"",
        ),
        (
            "host replication all ::1 255.0.0.0 trust",
            "invalid mask \"255.0.0.0\"",
        ),
        ("local replication all trust x", "invalid options \"x\""),
        ("local replication all trust x=y", "invalid options \"x=y\""),
        ("local replication all mad5", "invalid method \"mad5\""),
        (
            "host replication all all peer",
            "method \"peer\" works on local connections only",
        ),
        (
            "host replication all all cert",
            "method \"cert\" works on hostssl connections only",
        ),
        (
            "host replication all all trust clientcert=verify-ca",
            "method \"clientcert\" works on hostssl connections only",
        ),
        ("local \"replication", "unterminated quote"),
        (
            "host all all 10.0.0.0/33 trust",
            "invalid address \"10.0.0.0/33\"",
        ),
    ] {
        let found = error(text);
        assert!(found.ends_with(message), "{text}: {found}");
    }
    let long = format!("local replication {} trust", "u".repeat(256));
    assert!(error(&long).ends_with("a value is longer than 255 bytes"));
    let not_text = HbaRules::parse(Path::new("hba"), b"local \xff").unwrap_err();
    assert!(not_text.to_string().ends_with("line 1: not UTF-8 text"));
}

#[test]
fn what_postgresql_has_and_we_do_not_is_refused_by_name() {
    for (text, message) in [
        (
            "include other.conf",
            "connection type \"include\" is not supported",
        ),
        (
            "include_dir d",
            "connection type \"include_dir\" is not supported",
        ),
        (
            "local replication @users trust",
            "user \"@users\" is not supported",
        ),
        (
            "local @databases all trust",
            "database \"@databases\" is not supported",
        ),
        (
            "local replication +group trust",
            "user \"+group\" is not supported",
        ),
        (
            "local replication /^a trust",
            "user \"/^a\" is not supported",
        ),
        (
            "host replication all samenet trust",
            "address \"samenet\" is not supported",
        ),
        (
            "host replication all .example.org trust",
            "address \".example.org\" is not supported",
        ),
        (
            "host replication all all ldap",
            "method \"ldap\" is not supported",
        ),
        (
            "hostgssenc replication all all trust",
            "\"hostgssenc\" is not supported",
        ),
        (
            "local replication all peer map=m",
            "options \"map=m\" is not supported",
        ),
        (
            "hostssl replication all all cert clientname=DN",
            "options \"clientname=DN\" is not supported",
        ),
    ] {
        let found = error(text);
        assert!(found.contains(message), "{text}: {found}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = HbaRules::load(Path::new("/nowhere/hba")).unwrap_err();
    assert!(matches!(error, HbaError::Read { .. }));
    assert_eq!(error.to_string(), "reading access rules \"/nowhere/hba\"");
}

proptest! {
    #[test]
    fn any_file_is_read_or_refused(content: Vec<u8>) {
        let _ = HbaRules::parse(Path::new("hba"), &content);
    }

    #[test]
    fn any_words_are_read_or_refused(
        words in proptest::collection::vec(
            prop_oneof![
                Just("local"), Just("host"), Just("hostssl"), Just("replication"), Just("all"),
                Just("10.0.0.0/8"), Just("::1"), Just("trust"), Just("cert"), Just("\""),
                Just("\n"), Just("\\\n"), Just(","), Just("#"), Just("clientcert=verify-ca"),
            ],
            0..24,
        ),
        separator in prop_oneof![Just(""), Just(" ")],
    ) {
        let _ = HbaRules::parse(Path::new("hba"), words.join(separator).as_bytes());
    }

    #[test]
    fn any_name_in_quotes_is_that_user(name in "[ -~é]{1,40}", other in "[ -~]{0,8}") {
        let text = format!("local replication \"{}\" trust", name.replace('"', "\"\""));
        let rules = rules(&text);
        prop_assert!(rules.find(ClientOrigin::Local, &name).is_some());
        prop_assert_eq!(rules.find(ClientOrigin::Local, &other).is_some(), other == name);
    }

    #[test]
    fn an_address_fits_when_the_first_bits_are_the_same(
        address: u32, client: u32, bits in 0u32..=32,
    ) {
        let dotted = |address: u32| std::net::Ipv4Addr::from_bits(address).to_string();
        let rules = rules(&format!("host replication all {}/{bits} trust", dotted(address)));
        let same = bits == 0 || (address ^ client) >> (32 - bits) == 0;
        prop_assert_eq!(rules.find(tcp(&dotted(client), false), "u").is_some(), same);
    }
}
