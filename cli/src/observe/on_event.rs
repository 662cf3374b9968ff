//! `--on-event`: a command that is run when something has happened that somebody should know.
//!
//! The commands run one after the other on a thread of their own, so that none holds up what is
//! received or served. What they are told is in their environment; README lists the variables.

mod command;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc as std_mpsc;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tracing::warn;

use super::event::Event;
use crate::shown::on_one_line;

use self::command::run;

/// How many events may wait for the commands of those before them.
const MAX_WAITING: usize = 64;

/// How long a command may take before it is killed.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long commands are waited for at the end.
const FAREWELL: Duration = Duration::from_secs(10);

/// Runs a command for each event.
#[derive(Debug)]
pub(crate) struct OnEvent {
    queue: Mutex<Option<Sender<Event>>>,
    /// Disconnected once all commands have run.
    finished: Mutex<std_mpsc::Receiver<()>>,
}

impl OnEvent {
    /// Starts the thread. `command` is for the shell, `directory` the archive.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(crate) fn start(command: OsString, directory: PathBuf) -> io::Result<Self> {
        let (queue, events) = mpsc::channel(MAX_WAITING);
        let (alive, finished) = std_mpsc::channel();
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        thread::Builder::new()
            .name("on-event".to_owned())
            .spawn(move || {
                runtime.block_on(run_all(&command, &directory, events));
                drop(alive);
            })?;
        Ok(Self {
            queue: Mutex::new(Some(queue)),
            finished: Mutex::new(finished),
        })
    }

    /// Has the command run for an event. It never waits: with too many events that wait already
    /// this one is only logged.
    pub(crate) fn tell(&self, mut event: Event) {
        // Shells and the programs behind them do not expect what a peer may have sent.
        event.message = on_one_line(&event.message);
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = &*queue else { return };
        if let Err(error) = queue.try_send(event) {
            let event = error.into_inner();
            warn!(
                event = "event_dropped",
                "command of --on-event is not run for \"{}\", {MAX_WAITING} events wait for it: {}",
                event.kind.name(),
                event.message
            );
        }
    }

    /// Waits until the commands have run, for a limited time. Nothing can be told after this.
    pub(crate) fn finish(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        drop(queue.take());
        let finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        if finished.recv_timeout(FAREWELL) == Err(std_mpsc::RecvTimeoutError::Timeout) {
            warn!(
                event = "command_left",
                "command of --on-event has not ended after {} seconds, it is left running",
                FAREWELL.as_secs()
            );
        }
    }
}

async fn run_all(command: &OsString, directory: &std::path::Path, mut events: Receiver<Event>) {
    while let Some(event) = events.recv().await {
        run(command, directory, &event, PATIENCE).await;
    }
}
