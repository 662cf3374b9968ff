//! Why the last process of an archive ended, kept in the archive for `status`.
//!
//! A small file for each kind of process, replaced as a whole and never synced: the archive does
//! without it. A process is noted in it when it starts, so that one that was killed is not taken
//! for the one before it.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use segstore::{ArchiveError, OWN_DIRECTORY};
use serde::{Deserialize, Serialize};
use tracing::debug;
use walreceiver::ReceiveError;

use super::control::Socket;
use super::event;
use crate::error::MainError;
use crate::logging::chain;
use crate::shown::on_one_line;
use crate::timestamp::timestamp;

/// The longest file that is read, in bytes.
const MAX_LENGTH: u64 = 256 << 10;

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// As it was asked to.
    Stopped,
    /// By an error.
    Failed,
    /// It was killed or crashed, or the machine stopped.
    Killed,
}

impl Outcome {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Killed => "killed",
        }
    }
}

/// The end of a process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) pid: u32,
    pub(crate) started: String,
    /// When it ended; unknown of one that was killed.
    pub(crate) time: Option<String>,
    pub(crate) outcome: Outcome,
    pub(crate) exit_code: Option<u8>,
    /// The event for which the command of `--on-event` runs, if it runs for this outcome.
    pub(crate) event: Option<String>,
    pub(crate) timeline: Option<u32>,
    pub(crate) lsn: Option<String>,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// What the file holds.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Record {
    /// The process that has started and noted no end.
    running: Option<Running>,
    /// The last end of one before it.
    last: Option<End>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Running {
    pid: u32,
    started: String,
}

impl Record {
    /// The last end if none of these processes runs any more.
    fn when_none_runs(self) -> Option<End> {
        match self.running {
            Some(Running { pid, started }) => Some(End {
                pid,
                started,
                time: None,
                outcome: Outcome::Killed,
                exit_code: None,
                event: None,
                timeline: None,
                lsn: None,
                message: "the process was killed or crashed, or the machine stopped".to_owned(),
                hint: None,
            }),
            None => self.last,
        }
    }

    /// Reads the file. One that is absent, or was cut by a power failure, says nothing.
    fn read(path: &Path) -> Self {
        let read = || -> io::Result<Self> {
            let mut bytes = Vec::new();
            fs::File::open(path)?
                .take(MAX_LENGTH)
                .read_to_end(&mut bytes)?;
            Ok(serde_json::from_slice(&bytes)?)
        };
        read().unwrap_or_default()
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        // A symbolic link at this path is removed, not followed.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        fs::rename(&new, path)
    }
}

fn path(archive: &Path, socket: Socket) -> PathBuf {
    let name = match socket {
        Socket::Receiver => "receiver.end",
        Socket::Serve => "serve.end",
    };
    archive.join(OWN_DIRECTORY).join(name)
}

/// How the last process that used a socket ended. One that `runs` is not meant.
pub(crate) fn read(archive: &Path, socket: Socket, runs: bool) -> Option<End> {
    let record = Record::read(&path(archive, socket));
    if runs {
        record.last
    } else {
        record.when_none_runs()
    }
}

/// Notes the start and the end of this process.
#[derive(Debug)]
pub(crate) struct LastEnd {
    path: PathBuf,
    running: Running,
    /// Whether the file has it as the one that runs.
    is_noted: AtomicBool,
    /// Why it ends without an error.
    reason: Mutex<Option<String>>,
}

impl LastEnd {
    /// For this process, which starts and answers at `socket`.
    pub(crate) fn new(archive: &Path, socket: Socket) -> Self {
        Self {
            path: path(archive, socket),
            running: Running {
                pid: std::process::id(),
                started: timestamp(SystemTime::now()),
            },
            is_noted: AtomicBool::new(false),
            reason: Mutex::default(),
        }
    }

    /// Notes that the archive is this process's.
    pub(crate) fn note_start(&self) {
        self.is_noted.store(true, Ordering::Relaxed);
        let last = Record::read(&self.path).when_none_runs();
        self.write(&Record {
            running: Some(self.running.clone()),
            last,
        });
    }

    /// Notes why the process is about to end without an error.
    pub(crate) fn note_reason(&self, reason: String) {
        let mut noted = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        *noted = Some(reason);
    }

    /// Notes how the process ends.
    pub(crate) fn note_end(&self, ended: &Result<(), MainError>) {
        let ended = ended.as_ref().map_err(MainError::itself);
        let is_noted = self.is_noted.load(Ordering::Relaxed);
        if !is_noted && ended.is_err_and(is_another_s) {
            return;
        }
        // The next process may have the archive already.
        let is_next = |running: &Running| is_noted && *running != self.running;
        self.write(&Record {
            running: Record::read(&self.path).running.filter(is_next),
            last: Some(self.end(ended)),
        });
    }

    fn end(&self, ended: Result<&(), &MainError>) -> End {
        let Running { pid, started } = self.running.clone();
        let end = End {
            pid,
            started,
            time: Some(timestamp(SystemTime::now())),
            outcome: Outcome::Stopped,
            exit_code: Some(0),
            event: None,
            timeline: None,
            lsn: None,
            message: String::new(),
            hint: None,
        };
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        let Err(error) = ended else {
            let asked = || "the process was asked to stop".to_owned();
            return End {
                message: reason.clone().unwrap_or_else(asked),
                ..end
            };
        };
        let (timeline, lsn) = error.position().unzip();
        let message = match error {
            // What is logged last does not repeat the reason, which was logged before.
            MainError::Disconnected { cause } => chain(&**cause),
            error => chain(error),
        };
        End {
            outcome: Outcome::Failed,
            exit_code: Some(1),
            event: event::of_main(error).map(|kind| kind.name().to_owned()),
            timeline: timeline.map(walproto::TimelineId::number),
            lsn: lsn.map(|lsn| lsn.to_string()),
            message: on_one_line(&message),
            hint: error.hint().map(on_one_line),
            ..end
        }
    }

    fn write(&self, record: &Record) {
        if let Err(error) = record.write(&self.path) {
            // There may be no archive yet, or no room: it is only for `status`.
            debug!(
                event = "last_end_not_kept",
                "could not write \"{}\": {error}",
                self.path.display()
            );
        }
    }
}

/// Whether another process has the archive, whose start the file tells.
const fn is_another_s(error: &MainError) -> bool {
    matches!(
        error,
        MainError::Archive(ArchiveError::Locked { .. } | ArchiveError::SlotsLocked { .. })
            | MainError::Receive(ReceiveError::Archive(
                ArchiveError::Locked { .. } | ArchiveError::SlotsLocked { .. }
            ))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(OWN_DIRECTORY)).unwrap();
        directory
    }

    fn locked() -> Result<(), MainError> {
        Err(MainError::Archive(ArchiveError::Locked {
            directory: PathBuf::from("/srv/wal"),
            pid: Some(7),
        }))
    }

    #[test]
    fn the_last_end_is_read_back_and_a_process_without_one_was_killed() {
        let archive = archive();
        let read = |runs| read(archive.path(), Socket::Receiver, runs);
        assert_eq!(read(false), None);
        let first = LastEnd::new(archive.path(), Socket::Receiver);
        first.note_start();
        assert_eq!(read(true), None);
        assert_eq!(read(false).unwrap().outcome, Outcome::Killed);
        let error = MainError::NotRunning {
            directory: PathBuf::from("a\nb"),
        };
        first.note_end(&Err(error));
        let end = read(false).unwrap();
        assert_eq!((end.outcome, end.exit_code), (Outcome::Failed, Some(1)));
        assert!(end.message.contains("archive \"a\\nb\""), "{end:?}");
        let second = LastEnd::new(archive.path(), Socket::Receiver);
        second.note_start();
        assert_eq!(read(true), Some(end));
        // Another process that may not begin says nothing of this one.
        LastEnd::new(archive.path(), Socket::Receiver).note_end(&locked());
        assert_eq!(read(false).unwrap().outcome, Outcome::Killed);
        second.note_reason("the end position 0/3 is reached".to_owned());
        second.note_end(&Ok(()));
        let end = read(false).unwrap();
        assert_eq!((end.outcome, end.exit_code), (Outcome::Stopped, Some(0)));
        assert_eq!(end.message, "the end position 0/3 is reached");
        assert!(super::read(archive.path(), Socket::Serve, false).is_none());
    }

    #[test]
    fn what_cannot_be_read_or_written_says_nothing() {
        let archive = archive();
        let path = path(archive.path(), Socket::Serve);
        for garbage in [&b""[..], b"{", b"[1]", b"\xff"] {
            fs::write(&path, garbage).unwrap();
            assert_eq!(read(archive.path(), Socket::Serve, false), None);
        }
        let missing = LastEnd::new(&archive.path().join("missing"), Socket::Serve);
        missing.note_start();
        missing.note_end(&Ok(()));
        assert!(!archive.path().join("missing").exists());
    }
}
