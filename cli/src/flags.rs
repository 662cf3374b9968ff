//! The options of every command: one row each in [`rows`], from which the command line is parsed
//! and `--help` is printed.
//!
//! Source: src/bin/pg_basebackup/pg_receivewal.c, `main` (PG 15); the C library's `getopt_long`.

mod compression;
mod error;
mod given;
mod number;
pub(crate) mod receive;
pub(crate) mod rows;
pub(crate) mod serving;
#[cfg(test)]
mod tests;
mod value;

use std::ffi::OsString;
use std::fmt::Write;
use std::path::PathBuf;

use lexopt::{Arg, Parser};

pub(crate) use self::error::UsageError;
pub(crate) use self::given::{Given, LogFormat};
pub(crate) use self::value::{Value, text};
use crate::face::Face;

/// The column of the help text at which the descriptions begin.
const COLUMN: usize = 25;

/// The options of `pg_receivewal`, in the order in which it lists ambiguous ones. Only these are
/// abbreviated, so that every abbreviation that works with `pg_receivewal` keeps its meaning.
const ABBREVIATED: &str = "help version directory dbname endpos host port username no-loop \
                           no-password password status-interval slot verbose compress \
                           create-slot drop-slot if-not-exists synchronous no-sync";

/// An option.
#[derive(Clone, Copy)]
pub(crate) struct Flag {
    /// Its names and its value as the help text shows them: `-D, --directory=DIR`.
    form: &'static str,
    /// Its description, in lines. Without one the help text does not show the option.
    help: &'static str,
    /// What `{default}` in the description stands for.
    default: fn() -> String,
    set: Set,
}

/// What an option does.
#[derive(Clone, Copy)]
enum Set {
    Help,
    Version,
    Switch(fn(&mut Given)),
    Path(fn(&mut Given) -> &mut Option<PathBuf>),
    Value(fn(&mut Given, Value) -> Result<(), UsageError>),
}

impl Flag {
    const fn new(form: &'static str, help: &'static str, set: Set) -> Self {
        Self {
            form,
            help,
            default: String::new,
            set,
        }
    }

    /// An option without a value.
    const fn switch(form: &'static str, help: &'static str, set: fn(&mut Given)) -> Self {
        Self::new(form, help, Set::Switch(set))
    }

    /// An option whose value is a path, to be put there.
    const fn path(
        form: &'static str,
        help: &'static str,
        place: fn(&mut Given) -> &mut Option<PathBuf>,
    ) -> Self {
        Self::new(form, help, Set::Path(place))
    }

    /// An option with a value.
    const fn value(
        form: &'static str,
        help: &'static str,
        set: fn(&mut Given, Value) -> Result<(), UsageError>,
    ) -> Self {
        Self::new(form, help, Set::Value(set))
    }

    /// The same option with another description.
    pub(crate) const fn help(self, help: &'static str) -> Self {
        Self { help, ..self }
    }

    const fn default(self, default: fn() -> String) -> Self {
        Self { default, ..self }
    }

    fn letter(&self) -> Option<char> {
        let (letter, _long) = self.form.split_once(", ")?;
        letter.chars().nth(1)
    }

    /// The long name with its dashes.
    fn dashed(&self) -> &'static str {
        let long = self
            .form
            .split_once(", ")
            .map_or(self.form, |(_, long)| long);
        long.split_once('=').map_or(long, |(name, _)| name)
    }

    /// The long name.
    fn name(&self) -> &'static str {
        self.dashed().trim_start_matches('-')
    }

    fn write_help(&self, text: &mut String) {
        let indent = if self.letter().is_some() { 2 } else { 6 };
        let mut left = format!("{:indent$}{}", "", self.form);
        if left.len() >= COLUMN {
            left.push('\n');
            text.push_str(&left);
            left.clear();
        }
        for line in self.help.replace("{default}", &(self.default)()).lines() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{left:COLUMN$}{line}");
            left.clear();
        }
    }
}

/// A command of the program, and what its help text says.
pub(crate) struct Command {
    pub(crate) face: Face,
    /// The first argument that selects it, if there is one.
    pub(crate) name: Option<&'static str>,
    /// The first sentence of the help text, after the name.
    pub(crate) about: &'static str,
    /// The arguments that it takes.
    pub(crate) usage: &'static str,
    pub(crate) sections: &'static [Section],
    /// The exit code after wrong arguments.
    pub(crate) refused: u8,
}

/// A part of a help text.
pub(crate) struct Section {
    /// The heading, or the whole section if it has no options. `{program}` is the program's name.
    pub(crate) text: &'static str,
    pub(crate) flags: &'static [&'static [Flag]],
}

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invocation<A> {
    /// The help text.
    Help,
    /// The version line.
    Version,
    /// Work.
    Run(A),
}

impl Section {
    pub(crate) const fn text(text: &'static str) -> Self {
        Self { text, flags: &[] }
    }
}

impl Command {
    /// What the command is called in messages.
    pub(crate) fn called(&self, program: &str) -> String {
        match self.name {
            Some(name) => format!("{program} {name}"),
            None => program.to_owned(),
        }
    }

    /// The help text, without the last line's end.
    pub(crate) fn help(&self, program: &str) -> String {
        let called = self.called(program);
        let (about, usage) = (self.about, self.usage);
        let mut text = format!("{called} {about}\n\nUsage:\n  {called} {usage}\n");
        for section in self.sections {
            let _ = writeln!(text, "\n{}", section.text.replace("{program}", program));
            for flag in section.flags.iter().copied().flatten() {
                flag.write_help(&mut text);
            }
        }
        text.truncate(text.trim_end().len());
        text
    }

    fn flags(&self) -> impl Iterator<Item = Flag> {
        let groups = self.sections.iter().flat_map(|section| section.flags);
        groups.copied().flatten().copied()
    }

    /// Reads the arguments that follow the command's name.
    ///
    /// # Errors
    /// When they make no sense. As with `getopt_long`, the first option that cannot be read is
    /// reported before any argument that is no option.
    pub(crate) fn parse<A>(
        &self,
        arguments: impl IntoIterator<Item = OsString>,
        finish: impl FnOnce(Given) -> Result<A, UsageError>,
    ) -> Result<Invocation<A>, UsageError> {
        let mut parser = Parser::from_args(arguments);
        parser.set_short_equals(false);
        let mut given = Given::default();
        // Not `next()?`: its only error is a value that was not taken, and all are taken below.
        while let Ok(Some(argument)) = parser.next() {
            let (flag, letter, attached) = match argument {
                Arg::Value(operand) => {
                    given.operands.push(operand);
                    continue;
                }
                Arg::Short(letter) => (self.of_letter(letter)?, Some(letter), None),
                Arg::Long(name) => {
                    let name = name.to_owned();
                    let attached = parser.optional_value();
                    let argument = match &attached {
                        Some(value) => format!("{name}={}", value.to_string_lossy()),
                        None => name.clone(),
                    };
                    (self.of_name(&name, argument)?, None, attached)
                }
            };
            let option = flag.name();
            let takes_value = matches!(flag.set, Set::Path(_) | Set::Value(_));
            let value = match attached {
                Some(_) if !takes_value => return Err(UsageError::UnexpectedValue { option }),
                None if takes_value => parser.value().map_err(|_missing| match letter {
                    Some(letter) => UsageError::MissingLetterValue { letter },
                    None => UsageError::MissingValue { option },
                })?,
                attached => attached.unwrap_or_default(),
            };
            match flag.set {
                Set::Help => return Ok(Invocation::Help),
                Set::Version => return Ok(Invocation::Version),
                Set::Switch(set) => set(&mut given),
                Set::Path(place) => *place(&mut given) = Some(value.into()),
                Set::Value(set) => set(&mut given, Value::new(flag.dashed(), value))?,
            }
            given.options.push(option);
        }
        finish(given).map(Invocation::Run)
    }

    fn of_letter(&self, letter: char) -> Result<Flag, UsageError> {
        let found = self.flags().find(|flag| flag.letter() == Some(letter));
        found.ok_or(UsageError::InvalidLetter { letter })
    }

    /// The option of this name, or the only one that an abbreviation stands for. `argument` is the
    /// whole argument without the dashes.
    fn of_name(&self, name: &str, argument: String) -> Result<Flag, UsageError> {
        let exact = |name: &str| self.flags().find(|flag| flag.name() == name);
        if let Some(flag) = exact(name) {
            return Ok(flag);
        }
        let abbreviated = ABBREVIATED.split(' ').filter(|long| long.starts_with(name));
        let candidates: Vec<&str> = match self.name {
            None => abbreviated.collect(),
            Some(_subcommand) => Vec::new(),
        };
        match *candidates {
            [long] => exact(long).ok_or(UsageError::UnrecognizedOption { argument }),
            [] => Err(UsageError::UnrecognizedOption { argument }),
            _ => Err(UsageError::AmbiguousOption {
                argument,
                possibilities: candidates
                    .iter()
                    .map(|long| format!(" '--{long}'"))
                    .collect(),
            }),
        }
    }
}
