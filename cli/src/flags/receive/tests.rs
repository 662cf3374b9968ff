use std::path::PathBuf;

use walproto::{Lsn, SlotName};
use walreceiver::{Acknowledge, Compression, FirstStart, OnLostSlot, Reconnect, ReportedApply};

use super::*;
use crate::flags::Invocation;

fn parse(
    face: Face,
    words: impl IntoIterator<Item = OsString>,
) -> Result<Invocation<Arguments>, UsageError> {
    command(face).parse(words, |given| given.receiving(face))
}

pub(in crate::flags) fn parse_words(
    face: Face,
    words: &[&str],
) -> Result<Invocation<Arguments>, UsageError> {
    parse(face, words.iter().map(OsString::from))
}

pub(in crate::flags) fn run(face: Face, words: &[&str]) -> Arguments {
    match parse_words(face, words) {
        Ok(Invocation::Run(arguments)) => arguments,
        other => panic!("{words:?} gave {other:?}"),
    }
}

fn receive(face: Face, words: &[&str]) -> ReceiverConfig {
    match run(face, words).action {
        Action::Receive(config) => config,
        other => panic!("{words:?} gave {other:?}"),
    }
}

fn slot(name: &str) -> SlotName {
    SlotName::new(name).unwrap()
}

#[test]
fn defaults_of_pg_receivewal() {
    assert_eq!(
        receive(Face::PgReceivewal, &["-D", "wal"]),
        ReceiverConfig {
            directory: "wal".into(),
            compression: Compression::NONE,
            sync: true,
            slot: None,
            start: None,
            end: None,
            status_interval: Some(Duration::from_secs(10)),
            short_syncs: ShortSyncs::OnTask,
            receive_timeout: Some(Duration::from_secs(60)),
            reconnect: Reconnect::Fixed(Duration::from_secs(5)),
            first_connection_must_succeed: true,
            acknowledge: Acknowledge::Never,
            apply: ReportedApply::Never,
            fork: OnFork::Stop,
            first_start: FirstStart::ServerFlush,
            lost_slot: OnLostSlot::Warn,
            segments_are_moved: true,
            compress_growing: true,
        }
    );
}

#[test]
fn the_longest_wait_between_two_tries_is_an_option() {
    let words = ["-D", "wal", "--retry-interval=30"];
    let longest = Duration::from_secs(30);
    let ours = receive(Face::WalReceiver, &words).reconnect;
    assert!(matches!(ours, Reconnect::Backoff { max, .. } if max == longest));
    let theirs = receive(Face::PgReceivewal, &words).reconnect;
    assert_eq!(theirs, Reconnect::Fixed(longest));
    for (words, expected) in [
        (
            &["-D", "wal", "--retry-interval=0"][..],
            "invalid value \"0\" for option --retry-interval, expected a number of seconds from 1 on",
        ),
        (
            &["-D", "wal", "--retry-interval=5", "--no-loop"],
            "cannot use --retry-interval together with --no-loop",
        ),
        (
            &["--retry-interval=5", "--create-slot", "--slot=s"],
            "cannot use --retry-interval together with --create-slot",
        ),
    ] {
        let error = parse_words(Face::WalReceiver, words).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn wal_receiver_acknowledges_unless_nothing_is_synced() {
    let config = receive(Face::WalReceiver, &["-D", "wal"]);
    let expected = ReceiverConfig {
        short_syncs: ShortSyncs::OnTask,
        ..ReceiverConfig::new("wal")
    };
    assert_eq!(config, expected);
    assert_eq!(config.acknowledge, Acknowledge::Always);
    assert_eq!(config.apply, ReportedApply::Progress);
    assert!(!config.first_connection_must_succeed);
    assert!(matches!(config.reconnect, Reconnect::Backoff { .. }));
    let config = receive(Face::WalReceiver, &["-D", "wal", "--no-sync"]);
    assert_eq!(
        (config.acknowledge, config.sync),
        (Acknowledge::Never, false)
    );
}

#[test]
fn options_come_in_any_order_form_and_abbreviation() {
    let expected = run(
        Face::PgReceivewal,
        &[
            "--directory=wal",
            "--no-loop",
            "--verbose",
            "--slot=s_1",
            "--compress=gzip:9",
            "--synchronous",
            "--status-interval=3",
            "--endpos=1/2A",
            "--host=/tmp",
            "--port=5433",
            "--username=me",
            "--dbname=host=x",
            "--no-password",
        ],
    );
    for words in [
        &[
            "-nvw", "-Z9", "-Ss_1", "-s3", "-E1/2A", "-h/tmp", "-p5433", "-Ume", "-dhost=x",
            "--sync", "-D", "wal",
        ][..],
        &[
            "--sy",
            "--no-l",
            "--verb",
            "--sl",
            "s_1",
            "--comp",
            "9",
            "--sta",
            " 3 ",
            "--e",
            "1/2a",
            "--ho",
            "/tmp",
            "--po=5433",
            "--us=me",
            "--db",
            "host=x",
            "--no-p",
            "--dir",
            "wal",
        ],
        &[
            "-W",
            "-nvvwDwal",
            "-Z",
            "gzip:level=9",
            "-S",
            "s_1",
            "-s",
            "3",
            "-E",
            "1/2A",
            "-h",
            "/tmp",
            "-p",
            "5433",
            "-U",
            "me",
            "-d",
            "host=x",
            "--synchronous",
            "--",
        ],
    ] {
        assert_eq!(run(Face::PgReceivewal, words), expected, "{words:?}");
    }
    let Action::Receive(config) = &expected.action else {
        panic!("{expected:?}");
    };
    assert_eq!(config.reconnect, Reconnect::Never);
    assert_eq!(config.acknowledge, Acknowledge::Always);
    assert_eq!(config.end, Some(Lsn(0x1_0000_002A)));
    assert_eq!(config.slot, Some(slot("s_1")));
    assert_eq!(expected.connection.prompt, Prompt::Never);
}

#[test]
fn values_are_taken_as_they_are() {
    let with = |words: &[&str]| receive(Face::PgReceivewal, words);
    assert_eq!(with(&["-D=x"]).directory, PathBuf::from("=x"));
    assert_eq!(
        with(&["-D", "--verbose"]).directory,
        PathBuf::from("--verbose")
    );
    assert_eq!(with(&["-D", "a", "-D", "b"]).directory, PathBuf::from("b"));
    assert_eq!(with(&["--directory="]).directory, PathBuf::new());
    assert_eq!(with(&["-Dx", "-s0"]).status_interval, None);
    assert_eq!(with(&["-Dx", "-s", ""]).status_interval, None);
    assert_eq!(with(&["-Dx", "-E0/0"]).end, None);
    assert_eq!(
        with(&["-Dx", "-Ssome"]).acknowledge,
        Acknowledge::SegmentEnd
    );
    assert_eq!(
        run(Face::PgReceivewal, &["-Dx", "-w", "-W"])
            .connection
            .prompt,
        Prompt::Always
    );
}

#[test]
fn own_options_are_read_under_both_names_and_not_abbreviated() {
    for face in [Face::PgReceivewal, Face::WalReceiver] {
        let arguments = run(
            face,
            &[
                "-Dx",
                "--start",
                "0/5000000",
                "--receive-timeout=0",
                "--follow-fork",
                "--log-format=json",
                "--compress=zstd:5",
            ],
        );
        assert_eq!(arguments.log_format, LogFormat::Json);
        let Action::Receive(config) = arguments.action else {
            panic!();
        };
        assert_eq!(config.start, Some(Lsn(0x500_0000)));
        assert_eq!(config.receive_timeout, None);
        assert_eq!(config.fork, OnFork::Follow);
        assert_eq!(config.compression, Compression::zstd(Some(5)).unwrap());
        // With `--start` in the table this would be ambiguous, and `--st 5` with pg_receivewal is not.
        assert!(parse_words(face, &["-Dx", "--st", "5"]).is_ok());
        assert_eq!(
            parse_words(face, &["-Dx", "--receive", "5"]),
            Err(UsageError::UnrecognizedOption {
                argument: "receive".into()
            })
        );
    }
}

#[test]
fn slot_actions_need_no_directory() {
    assert_eq!(
        run(
            Face::PgReceivewal,
            &["--create-slot", "-S", "a", "--if-not-exists"]
        )
        .action,
        Action::CreateSlot {
            slot: slot("a"),
            if_not_exists: true
        }
    );
    assert_eq!(
        run(Face::WalReceiver, &["--drop", "-Sa", "-D", "wal"]).action,
        Action::DropSlot(slot("a"))
    );
}

#[test]
fn help_and_version_are_found_anywhere_before_a_mistake() {
    for (words, expected) in [
        (&["--help"][..], Invocation::Help),
        (&["-?"], Invocation::Help),
        (&["-nv?"], Invocation::Help),
        (&["x", "--he"], Invocation::Help),
        (&["-V", "--foo"], Invocation::Version),
        (&["-v", "--version"], Invocation::Version),
    ] {
        assert_eq!(
            parse_words(Face::PgReceivewal, words),
            Ok(expected),
            "{words:?}"
        );
    }
}

/// What PostgreSQL 15.18's program prints for the same words is compared in the `tests` package;
/// these are what it prints nothing like.
#[test]
fn mistakes_in_own_options_are_named() {
    for (words, expected) in [
        (&["--start=1"][..], "could not parse start position \"1\""),
        (
            &["--receive-timeout=x"],
            "invalid value \"x\" for option --receive-timeout",
        ),
        (
            &["--receive-timeout=-1"],
            "--receive-timeout must be in range 0..2147483",
        ),
        (
            &["--log-format=xml"],
            "invalid value \"xml\" for option --log-format, expected text or json",
        ),
        (&["-E", "0/1 "], "could not parse end position \"0/1 \""),
        (
            &["-Dx", "-Sa-b"],
            "replication slot name \"a-b\" contains invalid character '-', only lower case \
             letters, numbers and the underscore are allowed",
        ),
    ] {
        let error = parse_words(Face::WalReceiver, words).unwrap_err();
        assert_eq!(error.to_string(), expected, "{words:?}");
        assert!(!error.is_from_getopt() && !error.hints_at_help());
    }
}

#[test]
fn a_value_that_is_no_text_is_refused_where_text_is_needed() {
    use std::os::unix::ffi::OsStringExt;
    let bytes = |prefix: &str| OsString::from_vec([prefix.as_bytes(), b"\xFF"].concat());
    assert_eq!(
        parse(Face::WalReceiver, [bytes("--host=")]),
        Err(UsageError::NotUtf8 { option: "host" })
    );
    assert_eq!(
        receive_os(bytes("-D")).directory,
        PathBuf::from(OsString::from_vec(vec![0xFF]))
    );
}

fn receive_os(argument: OsString) -> ReceiverConfig {
    match parse(Face::WalReceiver, [argument]) {
        Ok(Invocation::Run(arguments)) => match arguments.action {
            Action::Receive(config) => config,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

proptest::proptest! {
    #[test]
    fn no_command_line_panics(words: Vec<String>, dashed: Vec<bool>) {
        let words = words.into_iter().zip(dashed).map(|(word, dashed)| {
            OsString::from(if dashed { format!("-{word}") } else { word })
        });
        let _ = parse(Face::WalReceiver, words);
    }
}
