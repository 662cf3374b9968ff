//! Our server of an archive, as a process.

use std::path::Path;
use std::process::ExitStatus;

use crate::Receiver;

/// The example program `serve`, which serves an archive that another process fills; killed when it
/// goes out of scope.
#[derive(Debug)]
pub struct Serving {
    process: Receiver,
    port: u16,
}

impl Serving {
    /// Starts it for the archive, which has to have an identity by now.
    #[must_use]
    #[track_caller]
    pub fn start(archive: &Path) -> Self {
        Self::start_at(archive, 0)
    }

    fn start_at(archive: &Path, port: u16) -> Self {
        let mut process = Receiver::example("serve")
            .arg(archive)
            .arg(format!("127.0.0.1:{port}"))
            .start();
        let start = "listening at 127.0.0.1:";
        let log = process.wait_for_log(start);
        let (_, rest) = log.split_once(start).unwrap();
        let port = rest.lines().next().unwrap().parse().unwrap();
        Self { process, port }
    }

    /// Kills it as a crash would, and starts it again at the same address.
    pub fn kill9_and_restart(&mut self, archive: &Path) {
        self.process.kill9();
        *self = Self::start_at(archive, self.port);
    }

    /// How to connect to it.
    #[must_use]
    pub fn conninfo(&self) -> String {
        format!("host=127.0.0.1 port={} user=any", self.port)
    }

    /// Tells it to stop, and waits until it has.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.process.stop()
    }

    /// What it has said.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}
