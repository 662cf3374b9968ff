//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

use crate::{catch_up, commits, generated, live, serving, validation};

/// What can be measured, in the order in which it is.
pub(crate) const SCENARIOS: [&str; 7] = [
    catch_up::SCENARIO,
    serving::SCENARIO,
    validation::SCENARIO,
    generated::SCENARIO,
    commits::SCENARIO,
    commits::WITH_BULK,
    live::SCENARIO,
];

/// What to measure, and how long.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Arguments {
    /// Some of [`SCENARIOS`].
    pub(crate) scenarios: Vec<&'static str>,
    pub(crate) rounds: u32,
    /// How long each run takes whose length is not that of the WAL.
    pub(crate) duration: Duration,
    /// How much WAL is made to be received, served and checked, in bytes.
    pub(crate) size: u64,
    /// The numbers of clients that commit at the same time.
    pub(crate) clients: Vec<u32>,
    /// How many clients are streamed to live.
    pub(crate) live_clients: u32,
    /// How long to wait at most for the machine to become quiet.
    pub(crate) patience: Duration,
    /// Where results go.
    pub(crate) output: PathBuf,
    /// A document whose part between markers becomes the results.
    pub(crate) document: Option<PathBuf>,
    /// One whose part between markers becomes what many primaries and standbys need.
    pub(crate) scaling: Option<PathBuf>,
}

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Invocation {
    Measure(Arguments),
    /// Write table, plots and document from results that are there.
    Render(Arguments),
    Help,
}

/// A command line that is not understood.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) String);

impl Default for Arguments {
    fn default() -> Self {
        Self {
            scenarios: SCENARIOS.to_vec(),
            rounds: 3,
            duration: Duration::from_secs(5),
            size: 3_000_000_000,
            clients: vec![1, 2, 8, 32, 64],
            live_clients: 200,
            patience: Duration::from_secs(120),
            output: PathBuf::from("target/results"),
            document: None,
            scaling: None,
        }
    }
}

impl Arguments {
    /// Small enough to prove in a minute or two that everything works. The figures mean nothing.
    fn quick() -> Self {
        Self {
            rounds: 1,
            duration: Duration::from_secs(1),
            size: 50_000_000,
            clients: vec![1, 8],
            live_clients: 20,
            patience: Duration::ZERO,
            ..Self::default()
        }
    }
}

/// Understands the words after the program's name.
///
/// # Errors
/// When one is not known, or its value is not.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Invocation, Refused> {
    let words: Vec<OsString> = words.into_iter().collect();
    // The small values are defaults too, whichever place the word has.
    let mut arguments = if words.iter().any(|word| word == "--quick") {
        Arguments::quick()
    } else {
        Arguments::default()
    };
    let mut scenarios = Vec::new();
    let mut render = false;
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(word) = parser.next()? {
        match word {
            Long("quick") => {}
            Long("render") => render = true,
            Long("rounds") => arguments.rounds = positive(&mut parser, "--rounds")?,
            Long("seconds") => {
                let seconds = positive(&mut parser, "--seconds")?;
                arguments.duration = Duration::from_secs(u64::from(seconds));
            }
            Long("size") => arguments.size = size(&text(&mut parser, "--size")?)?,
            Long("clients") => arguments.clients = clients(&text(&mut parser, "--clients")?)?,
            Long("live-clients") => {
                arguments.live_clients = positive(&mut parser, "--live-clients")?;
            }
            Long("output") => arguments.output = parser.value()?.into(),
            Long("document") => arguments.document = Some(parser.value()?.into()),
            Long("scaling") => arguments.scaling = Some(parser.value()?.into()),
            Short('?') | Long("help") => return Ok(Invocation::Help),
            Value(word) => scenarios.push(scenario(&word.to_string_lossy())?),
            other => return Err(other.unexpected().into()),
        }
    }
    if !scenarios.is_empty() {
        arguments.scenarios = scenarios;
    }
    Ok(match render {
        true => Invocation::Render(arguments),
        false => Invocation::Measure(arguments),
    })
}

fn scenario(word: &str) -> Result<&'static str, Refused> {
    let known = SCENARIOS.into_iter().find(|name| *name == word);
    known.ok_or_else(|| {
        Refused(format!(
            "unknown scenario \"{word}\": choose from {}",
            SCENARIOS.join(", ")
        ))
    })
}

fn text(parser: &mut lexopt::Parser, option: &str) -> Result<String, Refused> {
    let value = parser.value()?;
    let text = value.into_string();
    text.map_err(|value| Refused(format!("{option} {}: not a text", value.display())))
}

fn positive(parser: &mut lexopt::Parser, option: &str) -> Result<u32, Refused> {
    let text = text(parser, option)?;
    number(&text).ok_or_else(|| {
        Refused(format!(
            "{option} {text}: must be a whole number of 1 or more"
        ))
    })
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&number| number > 0)
}

fn clients(text: &str) -> Result<Vec<u32>, Refused> {
    let numbers: Option<Vec<u32>> = text.split(',').map(number).collect();
    numbers.ok_or_else(|| {
        Refused(format!(
            "--clients {text}: must be numbers of 1 or more, as 1,8,32"
        ))
    })
}

/// A size with a unit, in which 1 kB is 1000 bytes, as throughput is told.
fn size(text: &str) -> Result<u64, Refused> {
    let refused = || Refused(format!("--size {text}: must be a size as 500MB or 3GB"));
    let (digits, unit) = [("MB", 1_000_000), ("GB", 1_000_000_000)]
        .into_iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))
        .ok_or_else(refused)?;
    let count = number(digits).ok_or_else(refused)?;
    Ok(u64::from(count) * unit)
}

impl From<lexopt::Error> for Refused {
    fn from(error: lexopt::Error) -> Self {
        Self(error.to_string())
    }
}

/// The help text.
pub(crate) fn help() -> String {
    let Arguments {
        rounds,
        duration,
        live_clients,
        ..
    } = Arguments::default();
    format!(
        "harness measures wal-receiver beside PostgreSQL's own programs, in turn, in one run.

Usage:
  harness [OPTION]... [SCENARIO]...

Scenarios (default: all):
  {scenarios}

Options:
      --rounds=N         how many times each is measured (default: {rounds})
      --seconds=N        how long a run of commits or of live streaming takes (default: {seconds})
      --size=SIZE        how much WAL is received, served, checked, in MB or GB (default: 3GB)
      --clients=N,...    how many clients commit at a time (default: 1,2,8,32,64)
      --live-clients=N   how many clients are streamed to live (default: {live_clients})
      --output=DIR       where results.json and the plots go (default: target/results)
      --document=FILE    put the tables between the markers of this file
      --scaling=FILE     put what many primaries and standbys need between those of this file
      --render           measure nothing: tables and plots of the results that are there
      --quick            small and short, to see that everything works
  -?, --help             print this help and exit

It needs the programs of PostgreSQL 15 and wal-receiver beside itself, or WAL_RECEIVER_BIN. All is
written below TMPDIR. As root the servers run as the user postgres, and a cold page cache is
measured too.",
        scenarios = SCENARIOS.join(", "),
        seconds = duration.as_secs(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Invocation, String> {
        parse(line.split_whitespace().map(OsString::from)).map_err(|refused| refused.0)
    }

    #[test]
    fn options_change_the_defaults_and_those_of_quick() {
        let expected = Arguments {
            scenarios: vec!["serving"],
            rounds: 7,
            size: 500_000_000,
            clients: vec![1, 16],
            ..Arguments::quick()
        };
        assert_eq!(
            parsed("serving --rounds 7 --size=500MB --clients 1,16 --quick"),
            Ok(Invocation::Measure(expected))
        );
        assert_eq!(parsed(""), Ok(Invocation::Measure(Arguments::default())));
        assert_eq!(
            parsed("--render"),
            Ok(Invocation::Render(Arguments::default()))
        );
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, expected) in [
            (
                "caught-up",
                "unknown scenario \"caught-up\": choose from catch-up, serving, validation, \
                 generated, commits, commits-bulk, live",
            ),
            (
                "--rounds 0",
                "--rounds 0: must be a whole number of 1 or more",
            ),
            ("--size 3", "--size 3: must be a size as 500MB or 3GB"),
            ("--size 0GB", "--size 0GB: must be a size as 500MB or 3GB"),
            (
                "--clients 1,,2",
                "--clients 1,,2: must be numbers of 1 or more, as 1,8,32",
            ),
            ("--fast", "invalid option '--fast'"),
            ("--output", "missing argument for option '--output'"),
        ] {
            assert_eq!(parsed(line), Err(expected.to_owned()), "{line}");
        }
    }
}
