//! `wal-receiver verify`: every file of an archive is checked, beside its receiver or without one.

mod args;
mod output;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use segstore::{ArchiveError, OsDisk, Verification};
use tracing::{Level, error};

use self::args::{Arguments, Invocation};
use crate::args::LogFormat;
use crate::error::MainError;
use crate::face::Face;
use crate::logging::{self, chain};
use crate::run::check_directory;
use crate::screen::Screen;

/// Something is wrong with the archive.
const BAD: u8 = 1;
/// It could not be found out, as with `cmp` and `grep`.
const TROUBLE: u8 = 2;

/// Does what the arguments after `verify` ask for.
pub(crate) fn main(program: &str, words: &mut dyn Iterator<Item = OsString>) -> ExitCode {
    match args::parse(words) {
        Ok(Invocation::Help) => crate::print(&help(program)),
        Ok(Invocation::Version) => crate::print(&Face::WalReceiver.version()),
        Ok(Invocation::Verify(arguments)) => {
            let screen = Arc::new(Screen::stderr());
            logging::init(program, LogFormat::Text, Level::INFO, screen);
            run(&arguments)
        }
        Err(error) => {
            crate::refuse(&format!("{program} verify"), &error);
            ExitCode::from(TROUBLE)
        }
    }
}

fn run(arguments: &Arguments) -> ExitCode {
    let verification = match verify(arguments) {
        Ok(verification) => verification,
        Err(error) => {
            error!(event = "failed", "{}", chain(&error));
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
    Ok(segstore::verify(
        disk,
        &arguments.directory,
        arguments.jobs,
    )?)
}

/// The help text, without the last line's end.
fn help(program: &str) -> String {
    format!(
        "{program} verify checks every file of an archive of WAL: each page and record, its checksum
and its link to the one before, across segments and timelines, and that no segment is missing.
Nothing is changed; a receiver may be filling the archive meanwhile.

Usage:
  {program} verify -D DIR [OPTION]...

Options (never abbreviated):
  -D, --directory=DIR    the archive
  -j, --jobs=N           threads that check at the same time (default: 1)
      --json             write one JSON object in place of text
  -V, --version          print the version and exit
  -?, --help             print this help and exit

The exit code is 0 if all is good, 1 if something is wrong, 2 if it could not be found out."
    )
}
