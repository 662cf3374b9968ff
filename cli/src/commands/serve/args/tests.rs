use std::time::Duration;

use segstore::SlotLimits;
use walsender::ServeConfig;
use walsender::tls::TlsFiles;

use super::*;
use crate::flags::Invocation;

fn parse_words(words: &[&str]) -> Result<Invocation<Arguments>, UsageError> {
    COMMAND.parse(words.iter().map(OsString::from), finish)
}

fn serve(words: &[&str]) -> Arguments {
    match parse_words(words) {
        Ok(Invocation::Run(arguments)) => arguments,
        other => panic!("{words:?} gave {other:?}"),
    }
}

fn refused(words: &[&str]) -> String {
    match parse_words(words) {
        Err(error) => error.to_string(),
        other => panic!("{words:?} gave {other:?}"),
    }
}

#[test]
fn without_options_only_the_same_user_is_served() {
    let arguments = serve(&["-D", "wal", "--listen", "/run/wal:5433"]);
    assert_eq!(arguments.directory, PathBuf::from("wal"));
    let expected = ServeConfig::new(vec!["/run/wal:5433".parse().unwrap()]);
    assert_eq!(arguments.serving.config, expected);
    let slots = SlotLimits {
        max_slots: 10,
        max_keep_bytes: None,
    };
    assert_eq!(arguments.serving.slots, slots);
    assert!(!arguments.verbose);
    assert_eq!(arguments.log_format, LogFormat::Text);
}

#[test]
fn every_option_reaches_what_it_is_for() {
    let arguments = serve(&[
        "--directory=wal",
        "--listen=127.0.0.1",
        "--listen",
        "*:5433",
        "--hba-file=h",
        "--users-file=u",
        "--trust-loopback",
        "--tls-cert=c",
        "--tls-key=k",
        "--tls-client-ca=a",
        "--tls-crl=r",
        "--max-connections=3",
        "--max-connections-per-user=2",
        "--authentication-timeout=2min",
        "--wal-sender-timeout=1500",
        "--max-slots=4",
        "--max-slot-keep-size=5GB",
        "--log-format=json",
        "-v",
    ]);
    let config = arguments.serving.config;
    let addresses = ["127.0.0.1:5432", "*:5433"].map(|text| text.parse().unwrap());
    assert_eq!(config.listen, addresses);
    assert_eq!(config.access.hba, Some("h".into()));
    assert_eq!(config.access.users, Some("u".into()));
    assert!(config.access.trust_loopback);
    let tls = TlsFiles {
        certificate: "c".into(),
        key: "k".into(),
        client_authorities: Some("a".into()),
        revocation_list: Some("r".into()),
    };
    assert_eq!(config.access.tls, Some(tls));
    assert_eq!(config.limits.connections, 3);
    assert_eq!(config.limits.connections_per_user, 2);
    assert_eq!(
        config.limits.authentication_timeout,
        Duration::from_secs(120)
    );
    assert_eq!(
        config.limits.wal_sender_timeout,
        Some(Duration::from_millis(1500))
    );
    assert_eq!(arguments.serving.slots.max_slots, 4);
    assert_eq!(arguments.serving.slots.max_keep_bytes, Some(5 << 30));
    assert_eq!(arguments.log_format, LogFormat::Json);
    assert!(arguments.verbose);
}

#[test]
fn limits_that_are_not_given_follow_from_those_that_are() {
    let at = ["-D", "wal", "--listen", "*"];
    let limits = |words: &[&'static str]| serve(&[&at, words].concat()).serving.config.limits;
    assert_eq!(limits(&["--max-connections=3"]).connections_per_user, 3);
    let per_user = limits(&["--max-connections-per-user=3"]);
    assert_eq!(
        (per_user.connections, per_user.connections_per_user),
        (512, 3)
    );
    assert_eq!(limits(&["--wal-sender-timeout=0"]).wal_sender_timeout, None);
}

#[test]
fn help_and_version_come_before_what_is_missing() {
    assert!(matches!(parse_words(&["--help"]), Ok(Invocation::Help)));
    assert!(matches!(parse_words(&["-?"]), Ok(Invocation::Help)));
    assert!(matches!(parse_words(&["-V"]), Ok(Invocation::Version)));
}

#[test]
fn what_makes_no_sense_is_refused_in_one_line() {
    let at = ["-D", "wal", "--listen", "*"];
    let with = |words: &[&'static str]| refused(&[&at, words].concat());
    assert_eq!(refused(&["--listen", "*"]), "no target directory specified");
    assert_eq!(
        refused(&["-D", "wal"]),
        "no address to listen at specified using --listen"
    );
    assert!(refused(&["--listen", "db:1"]).starts_with("invalid listen address \"db:1\""));
    assert_eq!(with(&["--tls-cert=c"]), "--tls-cert needs --tls-key");
    assert_eq!(with(&["--tls-key=k"]), "--tls-key needs --tls-cert");
    assert_eq!(
        with(&["--tls-client-ca=a"]),
        "--tls-client-ca needs --tls-cert and --tls-key"
    );
    assert_eq!(
        with(&["--tls-crl=r"]),
        "--tls-crl needs --tls-client-ca, --tls-cert and --tls-key"
    );
    assert_eq!(
        with(&["--tls-cert=c", "--tls-key=k", "--tls-crl=r"]),
        "--tls-crl needs --tls-client-ca"
    );
    assert_eq!(
        with(&["--max-slots=-1"]),
        "invalid value \"-1\" for option --max-slots, expected a whole number"
    );
    assert_eq!(
        with(&["--max-slot-keep-size=1gb"]),
        "invalid value \"1gb\" for option --max-slot-keep-size, expected a number with kB, MB, GB \
         or TB, or without a unit for MB"
    );
    assert_eq!(
        with(&["--authentication-timeout=0"]),
        "invalid value \"0\" for option --authentication-timeout, expected a time of more than 0, \
         in ms, s, min or h, or without a unit for s"
    );
    assert_eq!(
        with(&["--wal-sender-timeout=1m"]),
        "invalid value \"1m\" for option --wal-sender-timeout, expected a time in ms, s, min or h, \
         or without a unit for ms"
    );
    assert_eq!(
        with(&["--log-format=xml"]),
        "invalid value \"xml\" for option --log-format, expected text or json"
    );
    // Neither what belongs to receiving nor abbreviations.
    for word in ["--slot=s", "--max-slot=1"] {
        assert_eq!(with(&[word]), format!("unrecognized option '{word}'"));
    }
    assert_eq!(with(&["-S", "s"]), "invalid option -- 'S'");
    assert_eq!(
        with(&["--trust-loopback=yes"]),
        "option '--trust-loopback' doesn't allow an argument"
    );
    assert_eq!(
        with(&["more"]),
        "too many command-line arguments (first is \"more\")"
    );
}
