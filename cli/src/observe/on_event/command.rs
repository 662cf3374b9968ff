//! One run of the command.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use tokio::process::Command;
use tokio::time::timeout;
use tracing::warn;

use super::super::event::Event;
use crate::orphans::OwnChild;

/// Runs the command for an event, and tells if that went wrong. It is killed, with all that it
/// started and that did not leave its process group, if it has not ended after `patience`.
pub(super) async fn run(command: &OsStr, directory: &Path, event: &Event, patience: Duration) {
    let kind = event.kind.name();
    let started = OwnChild::spawn(&mut prepared(command, directory, event));
    let mut own = match started {
        Ok(own) => own,
        Err(error) => return tell(kind, &format!("could not be started: {error}")),
    };
    match timeout(patience, own.child.wait()).await {
        Ok(ended) => tell_end(kind, ended),
        Err(_elapsed) => {
            kill(&own);
            // The shell is gone at once.
            let _ended = own.child.wait().await;
            let seconds = patience.as_secs();
            tell(
                kind,
                &format!("did not end within {seconds} seconds and was killed"),
            );
        }
    }
}

fn prepared(command: &OsStr, directory: &Path, event: &Event) -> Command {
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(command)
        .stdin(Stdio::null())
        // What a terminal's interrupt key sends is for us.
        .process_group(0)
        .env("WAL_RECEIVER_EVENT", event.kind.name())
        .env("WAL_RECEIVER_MESSAGE", &event.message)
        .env("WAL_RECEIVER_DIRECTORY", directory)
        .env_remove("WAL_RECEIVER_TIMELINE")
        .env_remove("WAL_RECEIVER_LSN");
    if let Some((timeline, lsn)) = event.position {
        shell
            .env("WAL_RECEIVER_TIMELINE", timeline.to_string())
            .env("WAL_RECEIVER_LSN", lsn.to_string());
    }
    shell
}

fn kill(own: &OwnChild) {
    if let Some(process) = own.pid() {
        // It may have ended in this moment.
        let _: Result<(), Errno> = killpg(process, Signal::SIGKILL);
    }
}

fn tell_end(kind: &str, ended: io::Result<ExitStatus>) {
    match ended {
        Ok(status) if status.success() => {}
        Ok(status) => tell(kind, &format!("failed: {status}")),
        Err(error) => tell(kind, &format!("was lost: {error}")),
    }
}

fn tell(kind: &str, what: &str) {
    warn!(
        event = "command_failed",
        "command of --on-event for \"{kind}\" {what}"
    );
}

#[cfg(test)]
mod tests {
    use walproto::{Lsn, TimelineId};

    use super::*;
    use crate::flags::LogFormat;
    use crate::logging::tests::logged;
    use crate::observe::event::EventKind;

    fn event(position: Option<(TimelineId, Lsn)>) -> Event {
        Event {
            kind: EventKind::LostSlot,
            position,
            message: "it's \"lost\" $HOME".to_owned(),
        }
    }

    /// What is logged when the command is run in a directory of its own, given as `$0`.
    fn ran(command: &str, event: &Event, patience: Duration) -> (String, Option<String>) {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let log = logged(LogFormat::Text, || {
            runtime.block_on(run(command.as_ref(), directory.path(), event, patience));
        });
        let written = std::fs::read_to_string(directory.path().join("out"));
        (log, written.ok())
    }

    const PLENTY: Duration = Duration::from_secs(600);

    #[test]
    fn a_command_is_told_by_its_environment() {
        let command = "printf '%s|%s|%s|%s' \"$WAL_RECEIVER_EVENT\" \"$WAL_RECEIVER_MESSAGE\" \
                       \"${WAL_RECEIVER_TIMELINE-unset}\" \"${WAL_RECEIVER_LSN-unset}\" \
                       > \"$WAL_RECEIVER_DIRECTORY/out\"";
        let at = Some((TimelineId::FIRST, Lsn(0x1_0000_0060)));
        for (position, expected) in [
            (at, "lost_slot|it's \"lost\" $HOME|1|1/60"),
            (None, "lost_slot|it's \"lost\" $HOME|unset|unset"),
        ] {
            let (log, written) = ran(command, &event(position), PLENTY);
            assert_eq!(written.as_deref(), Some(expected));
            assert_eq!(log, "");
        }
    }

    #[test]
    fn a_command_that_fails_or_hangs_is_told_of() {
        let (log, _) = ran("exit 3", &event(None), PLENTY);
        assert_eq!(
            log,
            "prog: warning: command of --on-event for \"lost_slot\" failed: exit status: 3\n"
        );
        // Another process than the shell keeps it from ending.
        let (log, _) = ran("sleep 1000; true", &event(None), Duration::from_millis(50));
        assert!(
            log.contains("did not end within 0 seconds and was killed"),
            "{log}"
        );
    }
}
