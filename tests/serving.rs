//! Our server of an archive, as a process.

use std::path::Path;
use std::process::ExitStatus;

use crate::{Receiver, ReceiverBuilder, Signal};

/// `wal-receiver serve` on an archive that another process fills, where everybody on this machine
/// is believed; killed when it goes out of scope.
#[derive(Debug)]
pub struct Serving {
    process: Receiver,
    port: u16,
}

impl Serving {
    /// Starts it for the archive, and returns when it listens.
    #[must_use]
    #[track_caller]
    pub fn start(archive: &Path) -> Self {
        Self::start_with(archive, 0, &["--trust-loopback"])
    }

    /// The same at a port, 0 for any, with those options only.
    #[must_use]
    #[track_caller]
    pub fn start_with(archive: &Path, port: u16, options: &[&str]) -> Self {
        let program = Receiver::bare()
            .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "-D"])
            .arg(archive)
            .args(options);
        Self::listening(program)
    }

    /// Starts a program that says, as `wal-receiver serve` does, that it listens at 127.0.0.1.
    #[must_use]
    #[track_caller]
    pub fn listening(program: ReceiverBuilder) -> Self {
        let mut process = program.start();
        let start = "listening at 127.0.0.1:";
        let log = process.wait_for_log(start);
        let (_, rest) = log.split_once(start).unwrap();
        // In JSON more follows on the line.
        let port = rest.split(|c: char| !c.is_ascii_digit()).next();
        let port = port.unwrap().parse().unwrap();
        Self { process, port }
    }

    /// Kills it as a crash would, and starts it again at the same address.
    pub fn kill9_and_restart(&mut self, archive: &Path) {
        self.process.kill9();
        *self = Self::start_with(archive, self.port, &["--trust-loopback"]);
    }

    /// The port that it listens at.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// How to connect to it.
    #[must_use]
    pub fn conninfo(&self) -> String {
        format!("host=127.0.0.1 port={} user=any", self.port)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends it a signal.
    pub fn signal(&self, number: Signal) {
        self.process.signal(number);
    }

    /// Tells it to stop, and waits until it has.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.process.stop()
    }

    /// How it has ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.process.exit_status()
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub fn wait_exit(&mut self) -> ExitStatus {
        self.process.wait_exit()
    }

    /// Waits until it has printed a line that contains `text`, and gives the line.
    #[track_caller]
    pub fn wait_for_log(&mut self, text: &str) -> String {
        self.process.wait_for_log(text)
    }

    /// What it has said.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}
