//! `wal-receiver`: a synchronous standby that keeps the WAL.
#![forbid(unsafe_code)]

mod args;
mod await_standby;
mod control;
mod disk_hold;
mod error;
mod face;
mod help;
mod last_end;
mod live_line;
mod logging;
mod on_event;
mod orphans;
mod own_address;
mod owner;
mod password;
mod prune;
mod relay;
mod report;
mod run;
mod screen;
mod serve;
mod shown;
mod signals;
mod status;
mod verify;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::args::{Invocation, UsageError};
use crate::face::Face;

/// What is done instead of receiving, by the first word.
const SUBCOMMANDS: [(&str, Subcommand); 5] = [
    ("await-standby", await_standby::main),
    ("prune", prune::main),
    ("serve", serve::main),
    ("status", status::main),
    ("verify", verify::main),
];

/// Is given the program's name and the words after its own.
type Subcommand = fn(&str, &mut dyn Iterator<Item = OsString>) -> ExitCode;

fn main() -> ExitCode {
    orphans::reap_if_first_process();
    let mut words = std::env::args_os();
    let program = face::program_name(words.next().as_deref());
    let face = Face::of(&program);
    let mut words = words.peekable();
    if face == Face::WalReceiver {
        for (name, main) in SUBCOMMANDS {
            if words.next_if(|word| word == name).is_some() {
                return main(&program, &mut words);
            }
        }
    }
    match args::parse(face, words) {
        Ok(Invocation::Help) => print(&help::text(face, &program)),
        Ok(Invocation::Version) => print(&face.version()),
        Ok(Invocation::Run(arguments)) => run::run(face, &program, *arguments),
        Err(error) => refuse(&program, &error),
    }
}

/// Says what is wrong with the command line.
fn refuse(program: &str, error: &UsageError) -> ExitCode {
    let message = logging::usage_error(program, error);
    // Nobody to tell if that fails, and the exit code says the same.
    drop(io::stderr().write_all(message.as_bytes()));
    ExitCode::FAILURE
}

/// Writes what was asked for to standard output.
fn print(text: &str) -> ExitCode {
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
