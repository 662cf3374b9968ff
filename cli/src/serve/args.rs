//! The command line of `wal-receiver serve`.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::Parser;

use super::options::{self, Serving, ServingMeaning};
use crate::args::options::{Spec, flag, of_letter, of_name, unrecognized, value};
use crate::args::{LogFormat, UsageError, next_option, refuse_stray, text};

/// What a command line asks for.
#[derive(Debug)]
pub(super) enum Invocation {
    Help,
    Version,
    Serve(Box<Arguments>),
}

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Help,
    Version,
    Directory,
    Verbose,
    LogFormat,
    OnEvent,
    Serving(ServingMeaning),
}

static OPTIONS: [Spec<Meaning>; 6] = [
    flag("help", Some('?'), Meaning::Help),
    flag("version", Some('V'), Meaning::Version),
    value("directory", Some('D'), Meaning::Directory),
    flag("verbose", Some('v'), Meaning::Verbose),
    value("log-format", None, Meaning::LogFormat),
    value("on-event", None, Meaning::OnEvent),
];

/// Reads the arguments that follow `serve`. Options are not abbreviated.
///
/// # Errors
/// When they make no sense.
pub(super) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Invocation, UsageError> {
    let mut parser = Parser::from_args(arguments);
    parser.set_short_equals(false);
    let mut given = Given::new();
    let mut stray = Vec::new();
    while let Some((spec, value)) = next_option(
        &mut parser,
        &mut stray,
        |letter| of_letter(&OPTIONS, letter),
        long,
    )? {
        match spec.meaning {
            Meaning::Help => return Ok(Invocation::Help),
            Meaning::Version => return Ok(Invocation::Version),
            _ => given.set(spec, value)?,
        }
    }
    refuse_stray(stray)?;
    given.finish().map(Box::new).map(Invocation::Serve)
}

fn long(name: &str, argument: &str) -> Result<Spec<Meaning>, UsageError> {
    of_name(&OPTIONS, name)
        .or_else(|| Some(options::long(name)?.meaning(Meaning::Serving)))
        .ok_or_else(|| unrecognized(argument))
}

/// The options as they were given, before they are looked at together.
struct Given {
    directory: Option<PathBuf>,
    serving: options::Given,
    verbose: bool,
    log_format: LogFormat,
    on_event: Option<OsString>,
}

impl Given {
    fn new() -> Self {
        Self {
            directory: None,
            serving: options::Given::new(),
            verbose: false,
            log_format: LogFormat::Text,
            on_event: None,
        }
    }

    fn set(&mut self, spec: Spec<Meaning>, value: OsString) -> Result<(), UsageError> {
        match spec.meaning {
            Meaning::Help | Meaning::Version => {}
            Meaning::Directory => self.directory = Some(value.into()),
            Meaning::Verbose => self.verbose = true,
            Meaning::LogFormat => {
                self.log_format = LogFormat::from_option(text(spec.long, value)?)?;
            }
            Meaning::OnEvent => self.on_event = Some(value),
            Meaning::Serving(meaning) => self.serving.set(spec.long, meaning, value)?,
        }
        Ok(())
    }

    fn finish(self) -> Result<Arguments, UsageError> {
        Ok(Arguments {
            directory: self.directory.ok_or(UsageError::NoDirectory)?,
            serving: self.serving.finish()?,
            verbose: self.verbose,
            log_format: self.log_format,
            on_event: self.on_event,
        })
    }
}
