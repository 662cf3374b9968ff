//! Orphans: in a container this program may be the first process (PID 1), which inherits each
//! process whose parent has ended. What it does not wait for stays as a zombie.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tracing::warn;

/// How often it is looked for orphans that have ended.
const INTERVAL: Duration = Duration::from_secs(1);

/// The processes that this one has started itself and waits for elsewhere.
static OWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn own() -> MutexGuard<'static, BTreeSet<i32>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for orphans from now on if this is the first process; another one inherits none.
pub(crate) fn reap_if_first_process() {
    if std::process::id() != 1 {
        return;
    }
    let started = thread::Builder::new().name("orphans".to_owned()).spawn(|| {
        loop {
            thread::sleep(INTERVAL);
            while reap_one() {}
        }
    });
    if let Err(error) = started {
        warn!("could not start the thread that waits for orphaned processes: {error}");
    }
}

/// Waits for an orphan that has ended; false if there is none.
fn reap_one() -> bool {
    // Held all the while: a process that is being started is not taken for an orphan.
    let own = own();
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let Some(ended) = waitid(Id::All, look).ok().and_then(|status| status.pid()) else {
        return false;
    };
    // The system names one of our own until it was waited for, which is soon.
    !own.contains(&ended.as_raw()) && waitpid(ended, Some(WaitPidFlag::WNOHANG)).is_ok()
}

/// A process of our own, which no one else waits for as long as this lives.
#[derive(Debug)]
pub(crate) struct OwnChild {
    pub(crate) child: Child,
    pid: Option<Pid>,
}

impl OwnChild {
    /// Starts a process.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut own = own();
        let child = command.spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        own.extend(pid);
        Ok(Self {
            child,
            pid: pid.map(Pid::from_raw),
        })
    }

    /// Its process id, and that of its group if it has one of its own.
    pub(crate) const fn pid(&self) -> Option<Pid> {
        self.pid
    }
}

impl Drop for OwnChild {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            own().remove(&pid.as_raw());
        }
    }
}
