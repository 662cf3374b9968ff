//! Golden texts are those that PostgreSQL's own clients send: streamutil.c, receivelog.c,
//! pg_basebackup.c and pg_recvlogical.c in src/bin/pg_basebackup, and libpqwalreceiver.c.

use proptest::prelude::*;

use super::*;
use crate::{ServerVersion, SlotName};

fn parse(text: &str) -> Command {
    Command::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn fault(text: &str) -> (usize, CommandFault) {
    let error = Command::parse(text).expect_err(text);
    (error.position, error.reason)
}

fn name(name: &str) -> Identifier {
    Identifier::new(name).unwrap()
}

fn literal(text: &str) -> Literal {
    Literal::new(text).unwrap()
}

fn unexpected(expected: &'static str, found: Found) -> CommandFault {
    CommandFault::Unexpected { expected, found }
}

fn found(text: &str) -> Found {
    Found::Text(text.to_owned())
}

const V14: ServerVersion = ServerVersion(140_023);
const V18: ServerVersion = ServerVersion(180_004);

#[test]
fn what_pg_receivewal_and_a_standby_send_is_printed_back_as_it_came() {
    for text in [
        "IDENTIFY_SYSTEM",
        "SHOW wal_segment_size",
        "SHOW data_directory_mode",
        "TIMELINE_HISTORY 2",
        "READ_REPLICATION_SLOT standby_1",
        "DROP_REPLICATION_SLOT \"standby_1\"",
        "START_REPLICATION 0/3000000 TIMELINE 1",
        "START_REPLICATION SLOT \"standby_1\" 16/B3000000 TIMELINE 4294967295",
        "CREATE_REPLICATION_SLOT \"pg_walreceiver_1\" TEMPORARY PHYSICAL (RESERVE_WAL)",
        "CREATE_REPLICATION_SLOT \"standby_1\" PHYSICAL",
        "CREATE_REPLICATION_SLOT \"sub\" LOGICAL pgoutput (SNAPSHOT 'nothing')",
        "UPLOAD_MANIFEST",
    ] {
        assert_eq!(parse(text).to_string(), text);
    }
}

#[test]
fn both_syntaxes_of_a_new_slot_are_the_same_command_and_14_gets_the_old_one() {
    let physical = |temporary, reserve_wal| {
        Command::CreateReplicationSlot(CreateReplicationSlot {
            slot: name("s"),
            temporary,
            kind: NewSlot::Physical { reserve_wal },
        })
    };
    let logical = |snapshot, two_phase| {
        Command::CreateReplicationSlot(CreateReplicationSlot {
            slot: name("s"),
            temporary: false,
            kind: NewSlot::Logical {
                plugin: name("pgoutput"),
                snapshot,
                two_phase,
                failover: false,
            },
        })
    };
    for (command, old, new) in [
        (physical(false, false), "PHYSICAL", "PHYSICAL"),
        (
            physical(true, true),
            "TEMPORARY PHYSICAL RESERVE_WAL",
            "TEMPORARY PHYSICAL (RESERVE_WAL)",
        ),
        (
            logical(SnapshotAction::Export, false),
            "LOGICAL pgoutput EXPORT_SNAPSHOT",
            "LOGICAL pgoutput (SNAPSHOT 'export')",
        ),
        (
            logical(SnapshotAction::Nothing, false),
            "LOGICAL pgoutput NOEXPORT_SNAPSHOT",
            "LOGICAL pgoutput (SNAPSHOT 'nothing')",
        ),
        (
            logical(SnapshotAction::Use, false),
            "LOGICAL pgoutput USE_SNAPSHOT",
            "LOGICAL pgoutput (SNAPSHOT 'use')",
        ),
    ] {
        let (old, new) = (
            format!("CREATE_REPLICATION_SLOT \"s\" {old}"),
            format!("CREATE_REPLICATION_SLOT \"s\" {new}"),
        );
        assert_eq!(parse(&old), command);
        assert_eq!(parse(&new), command);
        assert_eq!(command.for_server(V14).as_ref(), Ok(&old));
        assert_eq!(command.for_server(ServerVersion::V15).as_ref(), Ok(&new));
    }
    let two_phase = logical(SnapshotAction::Nothing, true);
    for text in [
        "CREATE_REPLICATION_SLOT \"s\" LOGICAL pgoutput ( TWO_PHASE,  SNAPSHOT 'nothing')",
        "CREATE_REPLICATION_SLOT s LOGICAL pgoutput (snapshot nothing, two_phase on, failover 0)",
        "CREATE_REPLICATION_SLOT S LOGICAL \"pgoutput\" NOEXPORT_SNAPSHOT TWO_PHASE ;",
    ] {
        assert_eq!(parse(text), two_phase, "{text}");
    }
}

#[test]
fn both_syntaxes_of_a_base_backup_are_the_same_command_and_14_gets_the_old_one() {
    let backup = Command::BaseBackup(Box::new(BaseBackup {
        label: literal("it's \\ a label"),
        progress: true,
        checkpoint: Checkpoint::Fast,
        wal: true,
        wait: false,
        max_rate: Some(MaxRate::new(32).unwrap()),
        tablespace_map: true,
        verify_checksums: false,
        manifest: Some(BackupManifest {
            force_encode: true,
            checksums: ManifestChecksums::Sha256,
        }),
        ..BaseBackup::default()
    }));
    // As pg_basebackup 14 and 15 send it.
    let old = "BASE_BACKUP LABEL 'it''s \\ a label' PROGRESS WAL FAST NOWAIT MAX_RATE 32 \
               TABLESPACE_MAP NOVERIFY_CHECKSUMS MANIFEST 'force-encode' \
               MANIFEST_CHECKSUMS 'SHA256'";
    let new = "BASE_BACKUP ( LABEL 'it''s \\ a label',  PROGRESS,  WAL,  CHECKPOINT 'fast',  \
               WAIT 0,  MAX_RATE 32,  TABLESPACE_MAP,  VERIFY_CHECKSUMS 0,  \
               MANIFEST 'force-encode',  MANIFEST_CHECKSUMS 'sha256')";
    assert_eq!(parse(old), backup);
    assert_eq!(parse(new), backup);
    assert_eq!(backup.for_server(V14).as_deref(), Ok(old));
    let printed = new.replace("  ", " ").replace("( ", "(");
    let printed = printed.replace("sha256", "SHA256");
    assert_eq!(backup.for_server(V18), Ok(printed));
}

#[test]
fn a_base_backup_of_15_and_later_has_targets_compression_and_increments() {
    let text = "BASE_BACKUP ( LABEL 'pg_basebackup base backup',  MANIFEST 'yes',  \
                TARGET 'server',  TARGET_DETAIL '/backups',  COMPRESSION 'gzip',  \
                COMPRESSION_DETAIL 'level=9',  INCREMENTAL)";
    let expected = BaseBackup {
        label: literal("pg_basebackup base backup"),
        manifest: Some(BackupManifest {
            force_encode: false,
            checksums: ManifestChecksums::Crc32c,
        }),
        target: Some(BackupTarget {
            name: literal("server"),
            detail: Some(literal("/backups")),
        }),
        compression: Some(BackupCompression {
            algorithm: CompressionAlgorithm::Gzip,
            detail: Some(literal("level=9")),
        }),
        incremental: true,
        ..BaseBackup::default()
    };
    assert_eq!(parse(text), Command::BaseBackup(Box::new(expected)));
    assert_eq!(
        parse("BASE_BACKUP"),
        Command::BaseBackup(Box::default()),
        "no option at all"
    );
}

#[test]
fn options_take_the_values_that_postgresql_takes() {
    let backup = |options: &str| match parse(&format!("BASE_BACKUP ({options})")) {
        Command::BaseBackup(backup) => *backup,
        other => panic!("{other}"),
    };
    for yes in ["", "1", "true", "'ON'", "on"] {
        assert!(backup(&format!("PROGRESS {yes}")).progress, "{yes}");
    }
    for no in ["0", "false", "'Off'", "OFF"] {
        assert!(!backup(&format!("wait {no}")).wait, "{no}");
    }
    for yes in ["1", "'y'", "tru", "on", "YES"] {
        assert!(
            backup(&format!("MANIFEST {yes}")).manifest.is_some(),
            "{yes}"
        );
    }
    for no in ["0", "'n'", "fa", "of", "NO"] {
        assert!(backup(&format!("MANIFEST {no}")).manifest.is_none(), "{no}");
    }
    for neither in ["o", "''", "yess", "2"] {
        assert!(Command::parse(format!("BASE_BACKUP (MANIFEST '{neither}')")).is_err());
    }
    assert_eq!(backup("LABEL 42").label, literal("42"));
    assert_eq!(backup("\"label\" Name").label, literal("name"));
    for (options, option) in [
        ("MAX_RATE 31", "max_rate"),
        ("MAX_RATE 1048577", "max_rate"),
        ("MAX_RATE '64'", "max_rate"),
        ("LABEL", "label"),
        ("COMPRESSION 'GZIP'", "compression"),
        ("CHECKPOINT 'slow'", "checkpoint"),
        ("MANIFEST yes, MANIFEST_CHECKSUMS md5", "manifest_checksums"),
        ("WAIT 2", "wait"),
        ("PROGRESS '1'", "progress"),
    ] {
        assert!(
            matches!(
                fault(&format!("BASE_BACKUP ({options})")).1,
                CommandFault::InvalidValue { option: o, .. } if o == option
            ),
            "{options}"
        );
    }
}

#[test]
fn options_that_contradict_the_command_are_refused_where_they_stand() {
    let needs = |option, needed| CommandFault::OptionNeedsOther { option, needed };
    let other_kind = |option, kind| CommandFault::OptionOfOtherKind { option, kind };
    for (text, position, reason) in [
        (
            "BASE_BACKUP (PROGRESS, progress)",
            23,
            CommandFault::DuplicateOption { option: "progress" },
        ),
        (
            "BASE_BACKUP (WAL, FLY)",
            18,
            CommandFault::UnknownOption {
                command: "BASE_BACKUP",
                option: "fly".to_owned(),
            },
        ),
        (
            "BASE_BACKUP (MANIFEST_CHECKSUMS none)",
            13,
            needs("manifest_checksums", "manifest"),
        ),
        (
            "BASE_BACKUP (TARGET_DETAIL 'x')",
            13,
            needs("target_detail", "target"),
        ),
        (
            "BASE_BACKUP (COMPRESSION_DETAIL 'x')",
            13,
            needs("compression_detail", "compression"),
        ),
        (
            "CREATE_REPLICATION_SLOT s PHYSICAL (TWO_PHASE)",
            36,
            other_kind("two_phase", "physical"),
        ),
        (
            "CREATE_REPLICATION_SLOT s LOGICAL p RESERVE_WAL",
            36,
            other_kind("reserve_wal", "logical"),
        ),
        (
            "CREATE_REPLICATION_SLOT s PHYSICAL RESERVE_WAL RESERVE_WAL",
            47,
            CommandFault::DuplicateOption {
                option: "reserve_wal",
            },
        ),
        (
            "ALTER_REPLICATION_SLOT s (RESERVE_WAL)",
            26,
            CommandFault::UnknownOption {
                command: "ALTER_REPLICATION_SLOT",
                option: "reserve_wal".to_owned(),
            },
        ),
        (
            "START_REPLICATION LOGICAL 0/0",
            25,
            needs("LOGICAL", "SLOT"),
        ),
    ] {
        assert_eq!(fault(text), (position, reason), "{text}");
    }
}

#[test]
fn an_altered_slot_changes_failover_two_phase_or_both() {
    for (text, change) in [
        ("(FAILOVER)", SlotChange::Failover(true)),
        ("( TWO_PHASE 'false' )", SlotChange::TwoPhase(false)),
        (
            "(TWO_PHASE, FAILOVER 0)",
            SlotChange::FailoverAndTwoPhase {
                failover: false,
                two_phase: true,
            },
        ),
    ] {
        let command = parse(&format!("ALTER_REPLICATION_SLOT s {text}"));
        let slot = name("s");
        assert_eq!(command, Command::AlterReplicationSlot { slot, change });
    }
}

#[test]
fn a_logical_stream_has_a_slot_and_options_for_the_plugin() {
    // As libpqwalreceiver.c (PG 15) sends it for a subscription of two publications.
    let text = "START_REPLICATION SLOT \"sub\" LOGICAL 0/0 (proto_version '3', \
                publication_names '\"p''1\",\"p2\"')";
    let option = |n: &str, value: &str| PluginOption {
        name: name(n),
        value: Some(literal(value)),
    };
    assert_eq!(
        parse(text),
        Command::StartLogicalReplication {
            slot: name("sub"),
            start: Lsn(0),
            options: vec![
                option("proto_version", "3"),
                option("publication_names", "\"p'1\",\"p2\""),
            ],
        }
    );
    // As pg_recvlogical sends it.
    let text = "START_REPLICATION SLOT \"s\" LOGICAL 16/0 (\"include-xids\" '0', \"skip\")";
    assert_eq!(parse(text).to_string(), text);
}

#[test]
fn keywords_are_in_capitals_and_names_are_folded_and_cut_off() {
    for no_command in [
        "",
        " ;",
        "identify_system",
        "\"SHOW\" x",
        "SELECT 'unterminated",
        "'unterminated",
        "1",
        "VALUES (1)",
    ] {
        assert_eq!(
            fault(no_command).1,
            CommandFault::NotReplicationCommand,
            "{no_command}"
        );
    }
    let dropped = |slot: &str| Command::DropReplicationSlot {
        slot: name(slot),
        wait: false,
    };
    assert_eq!(
        parse("DROP_REPLICATION_SLOT\x0B\x0C\t\r\nAb_$9É"),
        dropped("ab_$9É")
    );
    assert_eq!(parse("DROP_REPLICATION_SLOT \"A b;\""), dropped("A b;"));
    assert_eq!(parse("DROP_REPLICATION_SLOT \"SLOT\""), dropped("SLOT"));
    assert_eq!(parse("DROP_REPLICATION_SLOT slot"), dropped("slot"));
    assert_eq!(
        fault("DROP_REPLICATION_SLOT SLOT"),
        (22, unexpected("the name of a slot", found("SLOT")))
    );
    let long = "é".repeat(40);
    assert_eq!(
        parse(&format!("DROP_REPLICATION_SLOT \"{long}\"")),
        dropped(&"é".repeat(31)),
        "62 bytes: half a character does not stay"
    );
    let long = "x".repeat(64);
    assert_eq!(
        parse(&format!("DROP_REPLICATION_SLOT {long} WAIT")),
        Command::DropReplicationSlot {
            slot: name(&"x".repeat(63)),
            wait: true
        }
    );
}

#[test]
fn the_name_of_a_setting_can_have_dots() {
    let show = |text: &str| match parse(text) {
        Command::Show(name) => name.as_str().to_owned(),
        other => panic!("{other}"),
    };
    assert_eq!(show("SHOW my.Parameter"), "my.parameter");
    assert_eq!(show("SHOW \"My\" . \"a.b\".c;"), "My.a.b.c");
    assert_eq!(parse("SHOW \"My\".x").to_string(), "SHOW \"My\".x");
    assert_eq!(
        fault("SHOW x."),
        (7, unexpected("a name", Found::End)),
        "nothing after the dot"
    );
    let part = "x".repeat(40);
    let text = format!("READ_REPLICATION_SLOT {part}.{part}");
    assert_eq!(fault(&text), (22, CommandFault::NameTooLong));
    let slot = name("a.b");
    assert_eq!(
        parse("READ_REPLICATION_SLOT a.b"),
        Command::ReadReplicationSlot(slot)
    );
}

#[test]
fn an_lsn_wins_over_a_number_and_a_name() {
    let start = |text: &str| match parse(text) {
        Command::StartReplication { start, .. } => start,
        other => panic!("{other}"),
    };
    assert_eq!(start("START_REPLICATION 16/b374D848"), Lsn(0x16_B374_D848));
    assert_eq!(start("START_REPLICATION PHYSICAL abc/0"), Lsn(0xABC << 32));
    assert_eq!(
        start("START_REPLICATION 12/34TIMELINE 1"),
        Lsn(0x12 << 32 | 0x34)
    );
    assert_eq!(
        fault("START_REPLICATION SLOT s PHYSICAL 0/123456789"),
        (34, CommandFault::InvalidLsn)
    );
    let expected = "a position like 16/B374D848";
    for (lsn, position, what) in [("12", 18, "12"), ("x/1", 18, "x"), ("0/ 1", 18, "0")] {
        assert_eq!(
            fault(&format!("START_REPLICATION {lsn}")),
            (position, unexpected(expected, found(what)))
        );
    }
}

#[test]
fn a_malformed_command_says_where_and_what_was_expected() {
    let end = Found::End;
    let slot = "the name of a slot";
    for (text, position, reason) in [
        (
            "IDENTIFY_SYSTEM;;",
            16,
            unexpected("the end of the command", found(";")),
        ),
        (
            "IDENTIFY_SYSTEM -- no comments",
            16,
            unexpected("the end of the command", found("-")),
        ),
        ("TIMELINE_HISTORY 0", 17, CommandFault::InvalidTimeline),
        (
            "TIMELINE_HISTORY 4294967296",
            17,
            CommandFault::NumberTooLarge,
        ),
        (
            "START_REPLICATION 0/0 TIMELINE 0",
            31,
            CommandFault::InvalidTimeline,
        ),
        (
            "TIMELINE_HISTORY -1",
            17,
            unexpected("a timeline", found("-")),
        ),
        ("DROP_REPLICATION_SLOT", 21, unexpected(slot, end.clone())),
        (
            "DROP_REPLICATION_SLOT 's'",
            22,
            unexpected(slot, found("s")),
        ),
        (
            "DROP_REPLICATION_SLOT \"s",
            22,
            CommandFault::UnterminatedQuote,
        ),
        (
            "BASE_BACKUP LABEL 'it''s",
            18,
            CommandFault::UnterminatedQuote,
        ),
        (
            "DROP_REPLICATION_SLOT \"a\"\"b\"",
            25,
            unexpected("the end of the command", found("b")),
        ),
        (
            "CREATE_REPLICATION_SLOT s",
            25,
            unexpected("TEMPORARY, PHYSICAL or LOGICAL", end.clone()),
        ),
        (
            "CREATE_REPLICATION_SLOT s TEMPORARY physical",
            36,
            unexpected("PHYSICAL or LOGICAL", found("physical")),
        ),
        (
            "CREATE_REPLICATION_SLOT s PHYSICAL ()",
            36,
            unexpected("the name of an option", found(")")),
        ),
        (
            "BASE_BACKUP (WAL FAST PROGRESS)",
            22,
            unexpected("a value, a comma or )", found("PROGRESS")),
        ),
        (
            "START_REPLICATION SLOT s LOGICAL 0/0 (SLOT)",
            38,
            unexpected("the name of an option", found("SLOT")),
        ),
        ("SHOW \0", 5, CommandFault::Nul),
    ] {
        assert_eq!(fault(text), (position, reason), "{text}");
    }
    let error = Command::parse("SHOW 1").unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid replication command at byte 5: expected a name, found \"1\""
    );
    let error = Command::parse(b"SHOW \xFF").unwrap_err();
    assert_eq!((error.position, error.reason), (5, CommandFault::NotUtf8));
    let long = format!("SHOW {}", "x".repeat(Command::MAX_LENGTH));
    assert_eq!(fault(&long), (Command::MAX_LENGTH, CommandFault::TooLong));
}

#[test]
fn names_that_could_end_their_quotes_do_not_exist() {
    for bad in ["a\"b", "\"", "a\0"] {
        assert!(Identifier::new(bad).is_err() && SettingName::new(bad).is_err());
    }
    assert!(Literal::new("a\0").is_err());
    assert!(matches!(
        Identifier::new("x".repeat(64)),
        Err(InvalidText::TooLong { .. })
    ));
    assert!(SettingName::new(format!("a.{}", "x".repeat(64))).is_err());
    let slot = name("x'; DROP_REPLICATION_SLOT y;--");
    let command = Command::DropReplicationSlot { slot, wait: false };
    assert_eq!(
        command.to_string(),
        "DROP_REPLICATION_SLOT \"x'; DROP_REPLICATION_SLOT y;--\""
    );
    let standby = SlotName::new("standby_1").unwrap();
    assert_eq!(Identifier::from(&standby), name("standby_1"));
}

#[test]
fn a_command_that_the_server_does_not_know_is_not_sent() {
    for (text, first) in [
        ("READ_REPLICATION_SLOT s", ServerVersion::V15),
        ("UPLOAD_MANIFEST", ServerVersion::V17),
        ("ALTER_REPLICATION_SLOT s (FAILOVER)", ServerVersion::V17),
        ("ALTER_REPLICATION_SLOT s (TWO_PHASE)", ServerVersion::V18),
        ("BASE_BACKUP (TARGET 'client')", ServerVersion::V15),
        ("BASE_BACKUP (COMPRESSION 'lz4')", ServerVersion::V15),
        ("BASE_BACKUP (INCREMENTAL)", ServerVersion::V17),
        (
            "CREATE_REPLICATION_SLOT s LOGICAL p (TWO_PHASE)",
            ServerVersion::V15,
        ),
        (
            "CREATE_REPLICATION_SLOT s LOGICAL p (FAILOVER)",
            ServerVersion::V17,
        ),
    ] {
        let command = parse(text);
        assert!(command.for_server(first).is_ok(), "{text}");
        let server = ServerVersion(first.0 - 1);
        assert!(
            matches!(
                command.for_server(server),
                Err(CommandNotSent::ServerTooOld { since, .. }) if since == first
            ),
            "{text}"
        );
    }
    let error = parse("READ_REPLICATION_SLOT s")
        .for_server(V14)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "READ_REPLICATION_SLOT needs PostgreSQL 15 or later, the server is 14.23"
    );
    let label = literal(&"x".repeat(Command::MAX_LENGTH));
    let backup = BaseBackup {
        label,
        ..BaseBackup::default()
    };
    assert!(matches!(
        Command::BaseBackup(Box::new(backup)).for_server(V18),
        Err(CommandNotSent::TooLong { .. })
    ));
}

fn any_identifier() -> impl Strategy<Value = Identifier> {
    prop_oneof![
        "[a-zA-Z0-9_$. ;'(),/-]{0,63}",
        "\\PC{0,15}",
        Just("SLOT".to_owned()),
        Just("0/0".to_owned()),
    ]
    .prop_filter_map("a name with a quote", |name| Identifier::new(name).ok())
}

fn any_literal() -> impl Strategy<Value = Literal> {
    prop_oneof!["[a-z' \\\\\"\n;]{0,40}", "\\PC{0,40}"]
        .prop_filter_map("a text with NUL", |text| Literal::new(text).ok())
}

fn any_new_slot() -> impl Strategy<Value = NewSlot> {
    let snapshot = prop_oneof![
        Just(SnapshotAction::Export),
        Just(SnapshotAction::Nothing),
        Just(SnapshotAction::Use),
    ];
    prop_oneof![
        any::<bool>().prop_map(|reserve_wal| NewSlot::Physical { reserve_wal }),
        (any_identifier(), snapshot, any::<bool>(), any::<bool>()).prop_map(
            |(plugin, snapshot, two_phase, failover)| NewSlot::Logical {
                plugin,
                snapshot,
                two_phase,
                failover,
            }
        ),
    ]
}

fn any_base_backup() -> impl Strategy<Value = BaseBackup> {
    let flags = any::<[bool; 8]>();
    let rate = prop::option::of((32u32..=1 << 20).prop_map(|rate| MaxRate::new(rate).unwrap()));
    let checksums = prop::sample::select(&ManifestChecksums::ALL[..]);
    let manifest = prop::option::of((any::<bool>(), checksums));
    let target = prop::option::of((any_literal(), prop::option::of(any_literal())));
    let algorithm = prop::sample::select(&CompressionAlgorithm::ALL[..]);
    let compression = prop::option::of((algorithm, prop::option::of(any_literal())));
    (any_literal(), flags, rate, manifest, target, compression).prop_map(
        |(label, flags, max_rate, manifest, target, compression)| BaseBackup {
            label,
            progress: flags[0],
            checkpoint: if flags[1] {
                Checkpoint::Fast
            } else {
                Checkpoint::Spread
            },
            wal: flags[2],
            wait: flags[3],
            max_rate,
            tablespace_map: flags[4],
            verify_checksums: flags[5],
            manifest: manifest.map(|(force_encode, checksums)| BackupManifest {
                force_encode,
                checksums,
            }),
            target: target.map(|(name, detail)| BackupTarget { name, detail }),
            compression: compression
                .map(|(algorithm, detail)| BackupCompression { algorithm, detail }),
            incremental: flags[6],
        },
    )
}

fn any_change() -> impl Strategy<Value = SlotChange> {
    any::<(u8, bool, bool)>().prop_map(|(which, failover, two_phase)| match which % 3 {
        0 => SlotChange::Failover(failover),
        1 => SlotChange::TwoPhase(two_phase),
        _ => SlotChange::FailoverAndTwoPhase {
            failover,
            two_phase,
        },
    })
}

fn any_command() -> impl Strategy<Value = Command> {
    let timeline = || (1u32..).prop_map(|number| TimelineId::new(number).unwrap());
    let lsn = || any::<u64>().prop_map(Lsn);
    let option = (any_identifier(), prop::option::of(any_literal()))
        .prop_map(|(name, value)| PluginOption { name, value });
    prop_oneof![
        Just(Command::IdentifySystem),
        Just(Command::UploadManifest),
        prop::collection::vec(any_identifier(), 1..4).prop_map(|parts| {
            let parts: Vec<_> = parts.iter().map(Identifier::as_str).collect();
            Command::Show(SettingName::new(parts.join(".")).unwrap())
        }),
        timeline().prop_map(Command::TimelineHistory),
        (any_identifier(), any::<bool>(), any_new_slot()).prop_map(|(slot, temporary, kind)| {
            Command::CreateReplicationSlot(CreateReplicationSlot {
                slot,
                temporary,
                kind,
            })
        }),
        any_identifier().prop_map(Command::ReadReplicationSlot),
        (any_identifier(), any_change())
            .prop_map(|(slot, change)| Command::AlterReplicationSlot { slot, change }),
        (any_identifier(), any::<bool>())
            .prop_map(|(slot, wait)| Command::DropReplicationSlot { slot, wait }),
        (
            prop::option::of(any_identifier()),
            lsn(),
            prop::option::of(timeline())
        )
            .prop_map(|(slot, start, timeline)| Command::StartReplication {
                slot,
                start,
                timeline
            }),
        (any_identifier(), lsn(), prop::collection::vec(option, 0..4)).prop_map(
            |(slot, start, options)| Command::StartLogicalReplication {
                slot,
                start,
                options
            }
        ),
        any_base_backup().prop_map(|backup| Command::BaseBackup(Box::new(backup))),
    ]
}

/// Texts made of the grammar's own pieces, which get further than arbitrary ones.
fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "IDENTIFY_SYSTEM",
            "SHOW",
            "TIMELINE_HISTORY",
            "CREATE_REPLICATION_SLOT",
            "READ_REPLICATION_SLOT",
            "ALTER_REPLICATION_SLOT",
            "DROP_REPLICATION_SLOT",
            "START_REPLICATION",
            "BASE_BACKUP",
            "SLOT",
            "PHYSICAL",
            "LOGICAL",
            "TEMPORARY",
            "TIMELINE",
            "WAIT",
            "RESERVE_WAL",
            "FAILOVER",
            "TWO_PHASE",
            "SNAPSHOT",
            "LABEL",
            "MANIFEST",
            "FAST",
            "(",
            ")",
            ",",
            ".",
            ";",
            "'",
            "''",
            "\"",
            "'x'",
            "\"y\"",
            "0/0",
            "1",
            "0",
            "on",
            "s",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,3}",
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.join(" "))
}

proptest! {
    #[test]
    fn what_is_printed_is_parsed_back(command in any_command(), version in 130_000u32..190_000) {
        prop_assert_eq!(Command::parse(command.to_string()), Ok(command.clone()));
        let server = ServerVersion(version);
        if let Ok(text) = command.for_server(server) {
            prop_assert_eq!(Command::parse(text), Ok(command));
        }
    }

    #[test]
    fn every_command_is_printed_for_the_newest_server(command in any_command()) {
        prop_assert_eq!(command.for_server(V18), Ok(command.to_string()));
    }

    #[test]
    fn any_text_is_parsed_to_what_it_prints_or_refused_inside_it(text in any_text()) {
        match Command::parse(&text) {
            Ok(command) => prop_assert_eq!(Command::parse(command.to_string()), Ok(command)),
            Err(error) => prop_assert!(error.position <= text.len()),
        }
    }

    #[test]
    fn any_bytes_are_parsed_or_refused_inside_them(
        start in prop::sample::select(vec!["", "SHOW ", "BASE_BACKUP (", "START_REPLICATION "]),
        bytes: Vec<u8>,
    ) {
        let text = [start.as_bytes(), &bytes].concat();
        if let Err(error) = Command::parse(&text) {
            prop_assert!(error.position <= text.len());
        }
    }
}
