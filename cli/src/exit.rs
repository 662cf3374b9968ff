//! How the program ends: what it prints at once, and its exit codes.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use tracing::error;
use walproto::TimelineId;

use crate::error::MainError;
use crate::flags::{Command, Given, Invocation, UsageError};
use crate::logging::{self, chain};

/// What a command ends with: `Err` if it had nothing to do besides its command line.
pub(crate) type Ended = Result<ExitCode, ExitCode>;

/// Reads a command's arguments.
///
/// # Errors
/// The exit code, if there is nothing more to do: the help text or the version is printed, or the
/// arguments are refused.
pub(crate) fn arguments<A>(
    command: &Command,
    program: &str,
    words: &mut dyn Iterator<Item = OsString>,
    finish: impl FnOnce(Given) -> Result<A, UsageError>,
) -> Result<A, ExitCode> {
    match command.parse(words, finish) {
        Ok(Invocation::Run(arguments)) => Ok(arguments),
        Ok(Invocation::Help) => Err(print(&command.help(program))),
        Ok(Invocation::Version) => Err(print(&command.face.version())),
        Err(error) => {
            let message = logging::usage_error(&command.called(program), &error);
            // Nobody to tell if that fails, and the exit code says the same.
            drop(io::stderr().write_all(message.as_bytes()));
            Err(ExitCode::from(command.refused))
        }
    }
}

/// Writes what was asked for to standard output.
pub(crate) fn print(text: &str) -> ExitCode {
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Tells why the work has ended otherwise than asked, and with what exit code the program ends.
pub(crate) fn conclude(ended: Result<(), MainError>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(MainError::Told(_)) => ExitCode::FAILURE,
        Err(error) => {
            tell(&error);
            ExitCode::FAILURE
        }
    }
}

/// Logs why the work has ended otherwise than asked.
pub(crate) fn tell(error: &MainError) {
    let (timeline, lsn) = error.position().unzip();
    error!(
        event = "failed",
        timeline = timeline.map(TimelineId::number),
        lsn = lsn.map(display),
        hint = error.hint(),
        "{}",
        chain(error)
    );
}
