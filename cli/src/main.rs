//! `wal-receiver`: a synchronous standby that keeps the WAL.
#![forbid(unsafe_code)]

mod ask_error;
mod commands;
mod error;
mod exit;
mod face;
mod flags;
mod logging;
mod observe;
mod orphans;
mod owner;
mod screen;
mod shown;
mod signals;
mod timestamp;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::commands::{await_standby, prune, receive, serve, status, verify};
use crate::exit::Ended;
use crate::face::Face;
use crate::flags::Command;

/// What is done instead of receiving, if the first word says so.
static SUBCOMMANDS: [(&Command, Subcommand); 5] = [
    (&await_standby::COMMAND, await_standby::main),
    (&prune::args::COMMAND, prune::main),
    (&serve::args::COMMAND, serve::main),
    (&status::COMMAND, status::main),
    (&verify::args::COMMAND, verify::main),
];

/// Is given the program's name and the words after its own.
type Subcommand = fn(&str, &mut dyn Iterator<Item = OsString>) -> Ended;

fn main() -> ExitCode {
    run_command().unwrap_or_else(|code| code)
}

fn run_command() -> Ended {
    orphans::reap_if_first_process();
    let mut words = std::env::args_os();
    let program = face::program_name(words.next().as_deref());
    let face = Face::of(&program);
    let mut words = words.peekable();
    if face == Face::WalReceiver {
        for (command, main) in &SUBCOMMANDS {
            if words
                .next_if(|word| word.to_str() == command.name)
                .is_some()
            {
                return main(&program, &mut words);
            }
        }
    }
    receive::main(face, &program, &mut words)
}
