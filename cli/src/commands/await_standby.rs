//! `wal-receiver await-standby`: waits until a standby has all that was acknowledged to the
//! primary, so that it may be promoted in its place.
//!
//! What is waited for is the durable end of the archive at the start, which is never before what
//! was acknowledged, whichever process did so and however it ended. So nothing need be known of
//! that process, and the primary may be gone.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use segstore::{ArchiveError, ArchiveView, OsDisk};
use tracing::{Level, info};
use walproto::{TimelineHistory, TimelineId, WalPosition};

use crate::ask_error::AskError;
use crate::error::MainError;
use crate::exit::{self, Ended, conclude};
use crate::face::Face;
use crate::flags::rows::{DIRECTORY, HELP, TIMEOUT, VERSION};
use crate::flags::{Command, Given, LogFormat, Section, UsageError, text};
use crate::logging;
use crate::observe::control::Socket;
use crate::observe::control::client;
use crate::observe::control::document::{ServerDocument, StandbyDocument};
use crate::owner::check_directory;
use crate::screen::Screen;

/// How long is waited before a process is looked for again that was not there.
const PAUSE: Duration = Duration::from_millis(200);

/// Where somebody may be serving the archive.
const SOCKETS: [Socket; 2] = [Socket::Receiver, Socket::Serve];

pub(crate) static COMMAND: Command = Command {
    face: Face::WalReceiver,
    name: Some("await-standby"),
    about: "\
waits until a standby that streams from an archive has made durable
all that was acknowledged to the primary: then it is safe to promote it.",
    usage: "-D DIR [OPTION]... NAME",
    sections: &[
        Section::text("NAME is the standby's application_name."),
        Section {
            text: "Options (never abbreviated):",
            flags: &[&[
                DIRECTORY.help("the archive, which a process serves to the standby"),
                TIMEOUT,
                VERSION,
                HELP,
            ]],
        },
        Section::text(
            "\
It prints the position that it waits for, the end of what is durable in the archive: nothing
beyond it was ever acknowledged. It ends with exit code 0 once the standby has it, also on a later
timeline that goes on from there, and with 1 otherwise. The primary need not be there. After a
crash of the machine that the archive is on it asks for a relay on it first, which finds that end
anew.",
        ),
    ],
    refused: 1,
};

#[derive(Debug, PartialEq, Eq)]
struct Arguments {
    directory: PathBuf,
    /// The standby's `application_name`.
    name: String,
    /// `None` is for ever.
    timeout: Option<Duration>,
}

/// How a standby stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// No process serves the archive.
    NobodyServes,
    NotConnected,
    /// It has reported this, or nothing yet.
    Behind(Option<WalPosition>),
    HasIt,
}

/// Does what the arguments after `await-standby` ask for.
pub(crate) fn main(program: &str, words: &mut dyn Iterator<Item = OsString>) -> Ended {
    let arguments = exit::arguments(&COMMAND, program, words, finish)?;
    let screen = Arc::new(Screen::stderr());
    logging::init(program, LogFormat::Text, Level::INFO, screen);
    Ok(conclude(await_standby(&arguments)))
}

fn finish(mut given: Given) -> Result<Arguments, UsageError> {
    let name = given.operand()?;
    Ok(Arguments {
        directory: given.directory.ok_or(UsageError::NoDirectory)?,
        name: text("NAME", name.ok_or(UsageError::NoStandby)?)?,
        timeout: given.timeout,
    })
}

fn await_standby(arguments: &Arguments) -> Result<(), MainError> {
    let Arguments {
        directory,
        name,
        timeout,
    } = arguments;
    check_directory(directory)?;
    let view = ArchiveView::open(Arc::new(OsDisk::new()), directory)?;
    let durable = view.durable().ok_or_else(|| MainError::NothingDurable {
        directory: directory.clone(),
    })?;
    let told = WalPosition {
        timeline: durable.timeline,
        lsn: durable.record_end,
    };
    let [by_relay, by_server] = SOCKETS.map(|socket| served(directory, socket));
    if by_relay.is_none() && view.may_reach_further()? {
        return Err(MainError::MayEndLater {
            directory: directory.clone(),
        });
    }
    let target = by_relay
        .into_iter()
        .chain(by_server)
        .fold(told, WalPosition::max);
    let mut stdout = io::stdout();
    writeln!(stdout, "{target}").map_err(MainError::Output)?;
    let (sender, news) = mpsc::channel();
    for socket in SOCKETS {
        let (sender, directory) = (sender.clone(), directory.clone());
        thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || watch(&directory, socket, &sender))
            .map_err(MainError::Runtime)?;
    }
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut waiting = Waiting::new(name, target, view);
    loop {
        let next = match deadline {
            Some(deadline) => news.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            None => news.recv().map_err(RecvTimeoutError::from),
        };
        let (socket, server) = match next {
            Ok((socket, server)) => (socket, server?),
            // As long as `sender` is here somebody may send.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return Err(MainError::StandbyMissed {
                    name: name.clone(),
                    timeline: target.timeline,
                    lsn: target.lsn,
                    timeout: timeout.unwrap_or_default(),
                    why: waiting.why(),
                });
            }
        };
        if waiting.take(socket, server)? {
            return Ok(());
        }
    }
}

/// Up to where a process serves the archive. A relay has looked itself where the WAL ends, while
/// the archive's own word may be older than a crash of the machine. One that does not answer now
/// is asked again when its standbys are looked for.
fn served(directory: &Path, socket: Socket) -> Option<WalPosition> {
    let server = client::status(directory, socket).ok()??.server?;
    Some(WalPosition {
        timeline: TimelineId::new(server.timeline?)?,
        lsn: server.durable_lsn?.parse().ok()?,
    })
}

/// What a process that may serve the archive says.
type News = (Socket, Result<Option<ServerDocument>, AskError>);

/// Sends what a process says whenever it says something else, and nothing when it is not there,
/// until nobody wants to know or it cannot be asked.
fn watch(directory: &Path, socket: Socket, sender: &Sender<News>) {
    loop {
        let mut watched = match client::watch(directory, socket) {
            // One that is stopped may be continued.
            Err(AskError::Silent { .. }) => None,
            Ok(watched) => watched,
            Err(error) => {
                // Who does not want to know any more does not need it.
                let _ = sender.send((socket, Err(error)));
                return;
            }
        };
        while let Some(asked) = &mut watched {
            let server = match asked.next() {
                Ok(Some(document)) => Ok(document.server),
                Ok(None) => break,
                Err(error) => Err(error),
            };
            let failed = server.is_err();
            if sender.send((socket, server)).is_err() || failed {
                return;
            }
        }
        if sender.send((socket, Ok(None))).is_err() {
            return;
        }
        thread::sleep(PAUSE);
    }
}

/// What is known so far of the standby that is waited for.
struct Waiting<'a> {
    name: &'a str,
    target: WalPosition,
    view: ArchiveView,
    /// What each of [`SOCKETS`] said last, `None` before it was asked.
    said: [Option<Option<ServerDocument>>; SOCKETS.len()],
    standing: Standing,
    /// What the user has been told of.
    told: Vec<std::mem::Discriminant<Standing>>,
}

impl<'a> Waiting<'a> {
    fn new(name: &'a str, target: WalPosition, view: ArchiveView) -> Self {
        Self {
            name,
            target,
            view,
            said: [const { None }; SOCKETS.len()],
            standing: Standing::NobodyServes,
            told: Vec::new(),
        }
    }

    /// Takes what a process says; whether the standby has what it is to have.
    fn take(
        &mut self,
        socket: Socket,
        server: Option<ServerDocument>,
    ) -> Result<bool, ArchiveError> {
        let slots = SOCKETS.iter().zip(&mut self.said);
        for (_, said) in slots.filter(|(known, _)| **known == socket) {
            *said = Some(server.clone());
        }
        self.standing = self.look()?;
        let all_asked = self.said.iter().all(Option::is_some);
        let kind = std::mem::discriminant(&self.standing);
        if self.standing != Standing::HasIt && all_asked && !self.told.contains(&kind) {
            self.told.push(kind);
            info!(event = "waiting", "waiting: {}", self.why());
        }
        Ok(self.standing == Standing::HasIt)
    }

    fn look(&self) -> Result<Standing, ArchiveError> {
        let mut standing = Standing::NobodyServes;
        for server in self.said.iter().flatten().flatten() {
            if standing == Standing::NobodyServes {
                standing = Standing::NotConnected;
            }
            let standbys = server.standbys.iter();
            // As in synchronous_standby_names, case does not matter.
            let named =
                standbys.filter(|other| other.application_name.eq_ignore_ascii_case(self.name));
            for standby in named {
                let reported = reported(standby);
                if let Some(reported) = reported
                    && self.has_it(reported)?
                {
                    return Ok(Standing::HasIt);
                }
                standing = Standing::Behind(reported);
            }
        }
        Ok(standing)
    }

    fn has_it(&self, reported: WalPosition) -> Result<bool, ArchiveError> {
        let history = self.view.history(reported.timeline)?;
        Ok(covers(reported, history.as_deref(), self.target))
    }

    fn why(&self) -> String {
        let name = self.name;
        match self.standing {
            Standing::NobodyServes => "no process serves the archive".to_owned(),
            Standing::NotConnected => format!("standby \"{name}\" is not connected"),
            Standing::Behind(None) => format!("standby \"{name}\" has reported nothing yet"),
            Standing::Behind(Some(at)) => format!("standby \"{name}\" has WAL up to {at}"),
            Standing::HasIt => format!("standby \"{name}\" has it"),
        }
    }
}

/// Whether who is at `reported`, a timeline of that history, has `target` too: it is as far on that
/// timeline, or on one that goes on from there or later.
fn covers(reported: WalPosition, history: Option<&TimelineHistory>, target: WalPosition) -> bool {
    let branch = history.and_then(|history| history.switch_point_of(target.timeline));
    let is_on_it = reported.timeline == target.timeline;
    reported.lsn >= target.lsn && (is_on_it || branch.is_some_and(|branch| branch >= target.lsn))
}

/// What a standby has reported as flushed.
fn reported(standby: &StandbyDocument) -> Option<WalPosition> {
    Some(WalPosition {
        timeline: TimelineId::new(standby.timeline?)?,
        lsn: standby.flush_lsn.as_ref()?.parse().ok()?,
    })
}
