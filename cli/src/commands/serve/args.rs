//! The command line of `wal-receiver serve`.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;

use crate::face::Face;
use crate::flags::rows::{DIRECTORY, HELP, LOG_FORMAT, ON_EVENT, SERVING, VERBOSE, VERSION};
use crate::flags::serving::{ACCESS_SECTION, Serving};
use crate::flags::{Command, Given, LogFormat, Section, UsageError};

pub(crate) static COMMAND: Command = Command {
    face: Face::WalReceiver,
    name: Some("serve"),
    about: "serves an archive of WAL to standbys, pg_receivewal and other receivers,\n\
            also while another process fills it.",
    usage: "-D DIR --listen=ADDRESS [OPTION]...",
    sections: &[
        Section {
            text: "Options (never abbreviated):",
            flags: &[
                &[DIRECTORY],
                SERVING,
                &[
                    LOG_FORMAT,
                    ON_EVENT.help(
                        "run this by sh when a slot is lost, or WAL in the\n\
                         archive is damaged or missing",
                    ),
                    VERBOSE.help("tell about clients that connect and leave"),
                    VERSION,
                    HELP,
                ],
            ],
        },
        ACCESS_SECTION,
        Section::text(
            "SIGHUP reads these files anew; SIGINT and SIGTERM stop it cleanly, a second one at \
             once.",
        ),
    ],
    refused: 1,
};

/// What is to be served, and how.
#[derive(Debug)]
pub(super) struct Arguments {
    pub(super) directory: PathBuf,
    pub(super) serving: Serving,
    /// Whether clients that come and go are told of.
    pub(super) verbose: bool,
    pub(super) log_format: LogFormat,
    /// The command to run when something has happened.
    pub(super) on_event: Option<OsString>,
}

/// Looks at the options together.
pub(super) fn finish(mut given: Given) -> Result<Arguments, UsageError> {
    given.no_operand()?;
    let directory = given.directory.take().ok_or(UsageError::NoDirectory)?;
    Ok(Arguments {
        directory,
        serving: given.serving()?,
        verbose: given.verbose,
        log_format: given.log_format,
        on_event: given.on_event,
    })
}
