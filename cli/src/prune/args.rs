//! The command line of `wal-receiver prune`.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::Parser;
use segstore::{SegmentFile, SegmentName};

use crate::args::options::{Spec, flag, value};
use crate::args::{LogFormat, UsageError, next_exact, refuse_stray, text};
use crate::serve::options::size;

/// What a command line asks for.
#[derive(Debug)]
pub(super) enum Invocation {
    Help,
    Version,
    Prune(Arguments),
}

/// What is to be removed from where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arguments {
    pub(super) directory: PathBuf,
    /// The first segment that is kept; its timeline does not matter.
    pub(super) oldest_kept: SegmentName,
    pub(super) dry_run: bool,
    pub(super) max_slot_keep_bytes: Option<u64>,
    pub(super) log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Help,
    Version,
    Directory,
    DryRun,
    MaxSlotKeepSize,
    LogFormat,
}

static OPTIONS: [Spec<Meaning>; 6] = [
    flag("help", Some('?'), Meaning::Help),
    flag("version", Some('V'), Meaning::Version),
    value("directory", Some('D'), Meaning::Directory),
    flag("dry-run", Some('n'), Meaning::DryRun),
    value("max-slot-keep-size", None, Meaning::MaxSlotKeepSize),
    value("log-format", None, Meaning::LogFormat),
];

/// Reads the arguments that follow `prune`. Options are not abbreviated.
///
/// # Errors
/// When they make no sense.
pub(super) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Invocation, UsageError> {
    let mut parser = Parser::from_args(arguments);
    parser.set_short_equals(false);
    let mut directory = None;
    let mut dry_run = false;
    let mut max_slot_keep_bytes = None;
    let mut log_format = LogFormat::Text;
    let mut names = Vec::new();
    while let Some((spec, value)) = next_exact(&mut parser, &mut names, &OPTIONS)? {
        match spec.meaning {
            Meaning::Help => return Ok(Invocation::Help),
            Meaning::Version => return Ok(Invocation::Version),
            Meaning::Directory => directory = Some(value.into()),
            Meaning::DryRun => dry_run = true,
            Meaning::MaxSlotKeepSize => {
                let size = size("--max-slot-keep-size", text(spec.long, value)?)?;
                max_slot_keep_bytes = Some(size);
            }
            Meaning::LogFormat => log_format = LogFormat::from_option(text(spec.long, value)?)?,
        }
    }
    let mut names = names.into_iter();
    let name = names.next();
    refuse_stray(names.collect())?;
    Ok(Invocation::Prune(Arguments {
        directory: directory.ok_or(UsageError::NoDirectory)?,
        oldest_kept: oldest_kept(name)?,
        dry_run,
        max_slot_keep_bytes,
        log_format,
    }))
}

/// The segment that a file is of, or that a backup began in.
///
/// Source: src/bin/pg_archivecleanup/pg_archivecleanup.c, `SetWALFileNameForCleanup` (PG 15).
fn oldest_kept(name: Option<OsString>) -> Result<SegmentName, UsageError> {
    let name = name.ok_or(UsageError::NoOldestKept)?;
    let of_segment = SegmentFile::from_name(&name).map(|file| file.name);
    let of_backup = || {
        let (segment, rest) = name.to_str()?.split_once('.')?;
        let offset = rest.strip_suffix(".backup")?;
        let digits = offset.bytes().all(|byte| byte.is_ascii_hexdigit());
        (digits && offset.len() == 8).then(|| SegmentName::parse(segment))?
    };
    of_segment
        .or_else(of_backup)
        .ok_or_else(|| UsageError::OldestKept {
            name: name.to_string_lossy().into_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &[&str]) -> Result<Invocation, UsageError> {
        parse(words.iter().map(OsString::from))
    }

    fn arguments(words: &[&str]) -> Arguments {
        match parse_words(words) {
            Ok(Invocation::Prune(arguments)) => arguments,
            other => panic!("{words:?} gave {other:?}"),
        }
    }

    const NAME: &str = "0000000A000000010000002F";

    #[test]
    fn every_option_reaches_what_it_is_for() {
        let mut expected = Arguments {
            directory: "wal".into(),
            oldest_kept: SegmentName::parse(NAME).unwrap(),
            dry_run: false,
            max_slot_keep_bytes: None,
            log_format: LogFormat::Text,
        };
        assert_eq!(arguments(&["-D", "wal", NAME]), expected);
        expected.dry_run = true;
        assert_eq!(arguments(&["-nD", "wal", NAME]), expected);
        expected.max_slot_keep_bytes = Some(5 << 30);
        expected.log_format = LogFormat::Json;
        let all = [
            "--directory=wal",
            NAME,
            "--dry-run",
            "--max-slot-keep-size=5GB",
            "--log-format=json",
        ];
        assert_eq!(arguments(&all), expected);
        assert!(matches!(parse_words(&["--help"]), Ok(Invocation::Help)));
        assert!(matches!(parse_words(&["-V"]), Ok(Invocation::Version)));
    }

    #[test]
    fn the_names_that_pg_archivecleanup_takes_are_taken() {
        for suffix in ["", ".partial", ".gz", ".00000028.backup"] {
            let name = format!("{NAME}{suffix}");
            let expected = SegmentName::parse(NAME).unwrap();
            assert_eq!(arguments(&["-D", "w", &name]).oldest_kept, expected);
        }
        for name in [
            "",
            "0000000B.history",
            "00000001.backup",
            "x.00000028.backup",
        ] {
            let error = parse_words(&["-D", "w", name]).unwrap_err().to_string();
            assert!(error.starts_with("invalid file name argument"), "{error}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_one_line() {
        for (words, expected) in [
            (&["-D", "w"][..], "must specify oldest kept WAL file"),
            (&[NAME], "no target directory specified"),
            (
                &["-D", "w", NAME, "b", "c"],
                "too many command-line arguments (first is \"b\")",
            ),
            (&["-D", "w", NAME, "-x"], "invalid option -- 'x'"),
            (&["--dry", NAME], "unrecognized option '--dry'"),
        ] {
            let error = parse_words(words).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}
