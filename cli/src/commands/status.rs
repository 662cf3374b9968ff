//! `wal-receiver status`: how an archive and the processes that receive into it and serve it are.

mod text;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use segstore::{ArchiveView, OsDisk};
use serde::Serialize;
use tracing::Level;
use walproto::ServerVersion;

use crate::error::MainError;
use crate::exit::{self, Ended, conclude};
use crate::face::Face;
use crate::flags::rows::{DIRECTORY, HELP, JSON, VERSION};
use crate::flags::{Command, Given, LogFormat, Section, UsageError};
use crate::logging::{self, chain};
use crate::observe::control::Socket;
use crate::observe::control::client;
use crate::observe::control::document::{ReceiverDocument, ServerDocument};
use crate::observe::last_end::{self, End};
use crate::owner::check_directory;
use crate::screen::Screen;
use crate::shown;

pub(crate) static COMMAND: Command = Command {
    face: Face::WalReceiver,
    name: Some("status"),
    about: "\
shows how an archive is, and the processes that receive into it and serve
it: whom they are connected to, how far they are, what is held up and why.",
    usage: "-D DIR [OPTION]...",
    sections: &[
        Section {
            text: "Options (never abbreviated):",
            flags: &[&[
                DIRECTORY,
                JSON.help("one JSON object, for programs"),
                VERSION,
                HELP,
            ]],
        },
        Section::text(
            "\
It ends with exit code 1 if no process is running for the archive, and shows what the archive itself
says, and why the last process ended. Only the user whom the process belongs to may ask it.",
        ),
    ],
    refused: 1,
};

#[derive(Debug, PartialEq, Eq)]
struct Arguments {
    directory: PathBuf,
    json: bool,
}

/// What is shown.
#[derive(Debug, Serialize)]
struct Status {
    archive: ArchiveDocument,
    receiver: Option<ReceiverDocument>,
    server: Option<ServerDocument>,
    last_end: LastEnds,
}

/// How the last processes ended; of one that runs, the one before it.
#[derive(Debug, Default, Serialize)]
struct LastEnds {
    receiver: Option<End>,
    serve: Option<End>,
}

/// What the archive itself says.
#[derive(Debug, Default, Serialize)]
struct ArchiveDocument {
    directory: String,
    system_identifier: Option<String>,
    server_version: Option<String>,
    timeline: Option<u32>,
    durable_lsn: Option<String>,
    /// Why it says nothing.
    error: Option<String>,
}

/// Does what the arguments after `status` ask for.
pub(crate) fn main(program: &str, words: &mut dyn Iterator<Item = OsString>) -> Ended {
    let Arguments { directory, json } = exit::arguments(&COMMAND, program, words, finish)?;
    let screen = Arc::new(Screen::stderr());
    logging::init(program, LogFormat::Text, Level::INFO, screen);
    Ok(conclude(show(&directory, json)))
}

fn finish(mut given: Given) -> Result<Arguments, UsageError> {
    given.no_operand()?;
    Ok(Arguments {
        directory: given.directory.ok_or(UsageError::NoDirectory)?,
        json: given.json,
    })
}

fn show(directory: &Path, json: bool) -> Result<(), MainError> {
    check_directory(directory)?;
    let asked =
        [Socket::Receiver, Socket::Serve].map(|socket| (socket, client::status(directory, socket)));
    let mut status = Status {
        // Looked at last, so that it is not behind what the processes say.
        archive: archive(directory),
        receiver: None,
        server: None,
        last_end: LastEnds::default(),
    };
    let mut failure = None;
    for (socket, answer) in asked {
        // One that does not answer runs too.
        let runs = !matches!(answer, Ok(None));
        let end = last_end::read(directory, socket, runs);
        match socket {
            Socket::Receiver => status.last_end.receiver = end,
            Socket::Serve => status.last_end.serve = end,
        }
        match answer {
            Ok(Some(document)) => {
                status.receiver = status.receiver.or(document.receiver);
                status.server = status.server.or(document.server);
            }
            Ok(None) => {}
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    let shown = if json {
        shown::json(&status).map_err(|error| MainError::Output(error.into()))?
    } else {
        text::of(&status)
    };
    writeln!(io::stdout(), "{}", shown.trim_end()).map_err(MainError::Output)?;
    match failure {
        Some(error) => Err(error.into()),
        None if status.receiver.is_none() && status.server.is_none() => {
            Err(MainError::NotRunning {
                directory: directory.to_owned(),
            })
        }
        None => Ok(()),
    }
}

fn archive(directory: &Path) -> ArchiveDocument {
    let shown = ArchiveDocument {
        directory: directory.display().to_string(),
        ..ArchiveDocument::default()
    };
    let view = match ArchiveView::open(Arc::new(OsDisk::new()), directory) {
        Ok(view) => view,
        Err(error) => {
            return ArchiveDocument {
                error: Some(chain(&error)),
                ..shown
            };
        }
    };
    let identity = view.identity();
    let durable = view.durable();
    ArchiveDocument {
        system_identifier: Some(identity.system_id().to_string()),
        server_version: Some(ServerVersion(identity.server_version_num()).to_string()),
        timeline: durable.map(|durable| durable.timeline.number()),
        durable_lsn: durable.map(|durable| durable.record_end.to_string()),
        ..shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Invocation;

    fn parsed(words: &[&str]) -> Result<Invocation<Arguments>, String> {
        let words = words.iter().map(OsString::from);
        COMMAND
            .parse(words, finish)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_directory_is_needed_and_nothing_else_is_taken() {
        let directory = || "/srv/wal".into();
        let show = |json| {
            Invocation::Run(Arguments {
                directory: directory(),
                json,
            })
        };
        assert_eq!(parsed(&["-D", "/srv/wal"]), Ok(show(false)));
        assert_eq!(parsed(&["--json", "--directory=/srv/wal"]), Ok(show(true)));
        assert_eq!(parsed(&["-?", "x"]), Ok(Invocation::Help));
        assert_eq!(parsed(&["-V"]), Ok(Invocation::Version));
        for (words, error) in [
            (&["--json"][..], "no target directory specified"),
            (
                &["-D", "x", "y"],
                "too many command-line arguments (first is \"y\")",
            ),
            (
                &["-D", "x", "--json=1"],
                "option '--json' doesn't allow an argument",
            ),
            (&["-D"], "option requires an argument -- 'D'"),
            (&["--direct=x"], "unrecognized option '--direct=x'"),
        ] {
            assert_eq!(parsed(words), Err(error.to_owned()));
        }
    }
}
