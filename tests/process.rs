//! Child processes: started as the unprivileged user, run to their end, killed.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use rustix::process::{Pid, Signal, kill_process};

use crate::unprivileged_user;
use crate::wait::wait_until;

/// A command without any of the caller's PostgreSQL settings, and without translated messages.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C").env("TZ", "UTC");
    command
}

/// Lets a command run as the user whom the servers belong to.
pub(crate) fn as_unprivileged(mut command: Command) -> Command {
    if let Some((user, group)) = unprivileged_user() {
        command.uid(user).gid(group);
    }
    command.current_dir("/");
    command
}

/// Runs a command to its end in `directory`, as the user whom the servers belong to.
///
/// # Panics
/// When it cannot be started.
#[must_use]
pub fn unprivileged_output(command: Command, directory: &Path) -> Output {
    let mut command = as_unprivileged(command);
    command.current_dir(directory);
    command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a command to its end, which must be a good one.
#[track_caller]
pub(crate) fn run(mut command: Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

pub(crate) fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

/// Sends a signal to a process that may have ended by itself.
pub fn signal(number: u32, signal: Signal) {
    match kill_process(pid(number), signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("signal {signal:?} to process {number}: {error}"),
    }
}

/// The processes that a process has started and that still run.
///
/// # Panics
/// When `/proc` cannot be read.
#[must_use]
pub fn children_of(parent: u32) -> Vec<u32> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|&process| parent_of(process) == Some(parent))
        .collect()
}

fn parent_of(process: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program stands in parentheses and may hold anything; state and parent follow.
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

/// Waits until none of the processes is there, zombies of others aside.
pub(crate) fn wait_gone(processes: &[u32]) {
    wait_until("killed processes to be gone", || {
        processes.iter().all(|process| {
            std::fs::read_to_string(format!("/proc/{process}/stat"))
                .ok()
                .and_then(|stat| {
                    stat.rsplit_once(") ")
                        .map(|(_, rest)| rest.starts_with('Z'))
                })
                .unwrap_or(true)
        })
    });
}
