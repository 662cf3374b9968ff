//! The command line of `wal-receiver prune`.

use std::ffi::OsString;
use std::path::PathBuf;

use segstore::{SegmentFile, SegmentName};

use crate::face::Face;
use crate::flags::rows::{DIRECTORY, DRY_RUN, HELP, LOG_FORMAT, MAX_SLOT_KEEP_SIZE, VERSION};
use crate::flags::{Command, Given, LogFormat, Section, UsageError};

pub(crate) static COMMAND: Command = Command {
    face: Face::WalReceiver,
    name: Some("prune"),
    about: "\
removes WAL segments from an archive that are older than one that is to be
kept, also while it is being filled and served.",
    usage: "-D DIR [OPTION]... OLDESTKEPTWALFILE",
    sections: &[
        Section::text(
            "\
OLDESTKEPTWALFILE is the name of a segment or of a backup's history file (.backup), as
pg_archivecleanup takes it. Segments of all timelines go that lie before it, but none that a
replication slot needs, nor the last ones, nor unfinished ones (.partial); histories stay.",
        ),
        Section {
            text: "Options (never abbreviated):",
            flags: &[&[
                DIRECTORY,
                DRY_RUN,
                MAX_SLOT_KEEP_SIZE.help(
                    "the most WAL that a slot keeps, in kB, MB, GB or TB (default: any); a\n\
                     slot that needs more is lost",
                ),
                LOG_FORMAT,
                VERSION,
                HELP,
            ]],
        },
    ],
    refused: 1,
};

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

/// Looks at the options together.
pub(super) fn finish(mut given: Given) -> Result<Arguments, UsageError> {
    let name = given.operand()?;
    Ok(Arguments {
        directory: given.directory.ok_or(UsageError::NoDirectory)?,
        oldest_kept: oldest_kept(name)?,
        dry_run: given.dry_run,
        max_slot_keep_bytes: given.max_slot_keep_bytes,
        log_format: given.log_format,
    })
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
    use crate::flags::Invocation;

    fn parse_words(words: &[&str]) -> Result<Invocation<Arguments>, UsageError> {
        COMMAND.parse(words.iter().map(OsString::from), finish)
    }

    fn arguments(words: &[&str]) -> Arguments {
        match parse_words(words) {
            Ok(Invocation::Run(arguments)) => arguments,
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
