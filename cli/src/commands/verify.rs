//! `wal-receiver verify`: every file of an archive is checked, beside its receiver or without one.

pub(crate) mod args;
mod output;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use segstore::{ArchiveError, OsDisk, Verification};
use tracing::{Level, error};

use self::args::{Arguments, COMMAND, TROUBLE};
use crate::error::MainError;
use crate::exit::{self, Ended};
use crate::flags::LogFormat;
use crate::logging::{self, chain};
use crate::owner::check_directory;
use crate::screen::Screen;

/// Something is wrong with the archive.
const BAD: u8 = 1;

/// Does what the arguments after `verify` ask for.
pub(crate) fn main(program: &str, words: &mut dyn Iterator<Item = OsString>) -> Ended {
    let arguments = exit::arguments(&COMMAND, program, words, args::finish)?;
    let screen = Arc::new(Screen::stderr());
    logging::init(program, LogFormat::Text, Level::INFO, screen);
    Ok(run(&arguments))
}

fn run(arguments: &Arguments) -> ExitCode {
    let verification = match verify(arguments) {
        Ok(verification) => verification,
        Err(error) => {
            error!(event = "failed", hint = error.hint(), "{}", chain(&error));
            return ExitCode::from(match error {
                MainError::Archive(
                    ArchiveError::Damaged { .. }
                    | ArchiveError::MixedClusters { .. }
                    | ArchiveError::OtherBlockSize { .. },
                ) => BAD,
                _ => TROUBLE,
            });
        }
    };
    let text = match arguments.json {
        true => output::json(&verification).map_err(io::Error::from),
        false => Ok(output::text(&verification)),
    };
    match text.and_then(|text| io::stdout().write_all(text.as_bytes())) {
        Ok(()) if verification.problems.is_empty() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(BAD),
        Err(error) => {
            error!(event = "failed", "could not write what was found: {error}");
            ExitCode::from(TROUBLE)
        }
    }
}

fn verify(arguments: &Arguments) -> Result<Verification, MainError> {
    check_directory(&arguments.directory)?;
    let disk = Arc::new(OsDisk::new());
    segstore::verify(disk, &arguments.directory, arguments.jobs).map_err(|error| match error {
        ArchiveError::NoIdentity { directory } => nothing_found(directory),
        error => error.into(),
    })
}

/// Why nothing was found: the segments may be one directory below, as in barman's `wals`, in
/// directories whose names are the first 16 digits of theirs.
fn nothing_found(directory: PathBuf) -> MainError {
    let is_part = |name: &OsStr| {
        name.len() == 16 && name.as_encoded_bytes().iter().all(u8::is_ascii_hexdigit)
    };
    let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
    let below = entries.filter(|entry| is_part(&entry.file_name()) && entry.path().is_dir());
    match below.map(|entry| entry.file_name()).min() {
        Some(first) => MainError::SegmentsBelow {
            hint: format!(
                "Check each of these directories, for example with -D {}.",
                directory.join(&first).display()
            ),
            first: first.into(),
            directory,
        },
        None => ArchiveError::NoIdentity { directory }.into(),
    }
}
