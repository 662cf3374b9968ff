//! The command line of `wal-receiver verify`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::face::Face;
use crate::flags::rows::{DIRECTORY, HELP, JOBS, JSON, VERSION};
use crate::flags::{Command, Given, Section, UsageError};

/// The exit code when it could not be found out whether the archive is good, as with `cmp` and
/// `grep`.
pub(super) const TROUBLE: u8 = 2;

pub(crate) static COMMAND: Command = Command {
    face: Face::WalReceiver,
    name: Some("verify"),
    about: "\
checks every file of an archive of WAL: each page and record, its checksum
and its link to the one before, across segments and timelines, and that no segment is missing.
Nothing is changed; a receiver may be filling the archive meanwhile.",
    usage: "-D DIR [OPTION]...",
    sections: &[
        Section {
            text: "Options (never abbreviated):",
            flags: &[&[DIRECTORY, JOBS, JSON, VERSION, HELP]],
        },
        Section::text(
            "The exit code is 0 if all is good, 1 if something is wrong, 2 if it could not be \
             found out.",
        ),
    ],
    refused: TROUBLE,
};

/// What is to be checked, and how.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arguments {
    pub(super) directory: PathBuf,
    pub(super) jobs: NonZeroUsize,
    pub(super) json: bool,
}

/// Looks at the options together.
pub(super) fn finish(mut given: Given) -> Result<Arguments, UsageError> {
    given.no_operand()?;
    Ok(Arguments {
        directory: given.directory.ok_or(UsageError::NoDirectory)?,
        jobs: given.jobs.unwrap_or(NonZeroUsize::MIN),
        json: given.json,
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::flags::Invocation;

    fn parse_words(words: &[&str]) -> Result<Invocation<Arguments>, UsageError> {
        COMMAND.parse(words.iter().map(OsString::from), finish)
    }

    #[test]
    fn options_come_in_any_order() {
        let expected = |jobs: usize, json| {
            Ok(Invocation::Run(Arguments {
                directory: "wal".into(),
                jobs: NonZeroUsize::new(jobs).unwrap(),
                json,
            }))
        };
        assert_eq!(parse_words(&["-D", "wal"]), expected(1, false));
        assert_eq!(parse_words(&["-j2", "--json", "-Dwal"]), expected(2, true));
        let long = ["--directory=wal", "--jobs=1024"];
        assert_eq!(parse_words(&long), expected(1024, false));
        assert_eq!(parse_words(&["--help", "-x"]), Ok(Invocation::Help));
        assert_eq!(parse_words(&["-V"]), Ok(Invocation::Version));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (words, message) in [
            (&["--json"][..], "no target directory specified"),
            (
                &["-D", "wal", "archive"],
                "too many command-line arguments (first is \"archive\")",
            ),
            (
                &["-D", "wal", "--jobs=0"],
                "invalid value \"0\" for option --jobs, expected a whole number from 1 to 1024",
            ),
            (
                &["-D", "wal", "-j", "+1"],
                "invalid value \"+1\" for option --jobs, expected a whole number from 1 to 1024",
            ),
            (
                &["-D", "wal", "-j1025"],
                "invalid value \"1025\" for option --jobs, expected a whole number from 1 to 1024",
            ),
            (&["--dir=wal"], "unrecognized option '--dir=wal'"),
            (&["-D"], "option requires an argument -- 'D'"),
        ] {
            assert_eq!(parse_words(words).unwrap_err().to_string(), message);
        }
    }
}
