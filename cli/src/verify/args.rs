//! The command line of `wal-receiver verify`.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use lexopt::Parser;

use crate::args::options::{Spec, flag, value};
use crate::args::{UsageError, next_exact, refuse_stray, text};

/// More threads than any machine has processors would only take memory.
const MAX_JOBS: usize = 1024;

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Invocation {
    Help,
    Version,
    Verify(Arguments),
}

/// What is to be checked, and how.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arguments {
    pub(super) directory: PathBuf,
    pub(super) jobs: NonZeroUsize,
    pub(super) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Help,
    Version,
    Directory,
    Jobs,
    Json,
}

static OPTIONS: [Spec<Meaning>; 5] = [
    flag("help", Some('?'), Meaning::Help),
    flag("version", Some('V'), Meaning::Version),
    value("directory", Some('D'), Meaning::Directory),
    value("jobs", Some('j'), Meaning::Jobs),
    flag("json", None, Meaning::Json),
];

/// Reads the arguments that follow `verify`. Options are not abbreviated.
///
/// # Errors
/// When they make no sense.
pub(super) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Invocation, UsageError> {
    let mut parser = Parser::from_args(arguments);
    parser.set_short_equals(false);
    let (mut directory, mut jobs, mut json) = (None, NonZeroUsize::MIN, false);
    let mut stray = Vec::new();
    while let Some((spec, value)) = next_exact(&mut parser, &mut stray, &OPTIONS)? {
        match spec.meaning {
            Meaning::Help => return Ok(Invocation::Help),
            Meaning::Version => return Ok(Invocation::Version),
            Meaning::Directory => directory = Some(value.into()),
            Meaning::Jobs => jobs = count(text(spec.long, value)?)?,
            Meaning::Json => json = true,
        }
    }
    refuse_stray(stray)?;
    Ok(Invocation::Verify(Arguments {
        directory: directory.ok_or(UsageError::NoDirectory)?,
        jobs,
        json,
    }))
}

fn count(value: String) -> Result<NonZeroUsize, UsageError> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse::<NonZeroUsize>() {
        Ok(number) if digits && number.get() <= MAX_JOBS => Ok(number),
        _ => Err(UsageError::Unexpected {
            option: "--jobs",
            value,
            expected: "a whole number from 1 to 1024",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &[&str]) -> Result<Invocation, UsageError> {
        parse(words.iter().map(OsString::from))
    }

    #[test]
    fn options_come_in_any_order() {
        let expected = |jobs: usize, json| {
            Ok(Invocation::Verify(Arguments {
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
