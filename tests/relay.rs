//! Our receiver that serves what it receives, as a process.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitStatus;

use rustix::process::Signal;
use walproto::Lsn;

use crate::cluster::append;
use crate::{BaseBackup, Cluster, Receiver};

/// The program as a relay, at a free port of 127.0.0.1 where everybody is believed; killed when it
/// goes out of scope.
#[derive(Debug)]
pub struct Relay {
    process: Receiver,
    port: u16,
    arguments: Vec<OsString>,
}

impl Relay {
    /// Starts one that fills `archive` from where `conninfo` says, with more arguments, and waits
    /// until it listens.
    #[must_use]
    #[track_caller]
    pub fn start(conninfo: &str, archive: &Path, arguments: &[&str]) -> Self {
        let mut all: Vec<OsString> = ["-v", "--trust-loopback", "-d", conninfo, "-D"]
            .map(OsString::from)
            .into();
        all.push(archive.into());
        all.extend(arguments.iter().map(OsString::from));
        Self::start_at(all, 0)
    }

    #[track_caller]
    fn start_at(arguments: Vec<OsString>, port: u16) -> Self {
        let mut process = Receiver::bare()
            .args(&arguments)
            .arg("--listen")
            .arg(format!("127.0.0.1:{port}"))
            .start();
        let start = "listening at 127.0.0.1:";
        let log = process.wait_for_log(start);
        let (_, rest) = log.split_once(start).unwrap();
        let port = rest.trim_end().parse().unwrap();
        Self {
            process,
            port,
            arguments,
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Starts it again at the same address, once it is gone.
    #[track_caller]
    pub fn start_again(&mut self) {
        *self = Self::start_at(self.arguments.clone(), self.port);
    }

    /// The same with more arguments.
    #[track_caller]
    pub fn start_again_with(&mut self, arguments: &[&str]) {
        let more = arguments.iter().map(OsString::from);
        self.arguments.extend(more);
        self.start_again();
    }

    /// How to connect to it.
    #[must_use]
    pub fn conninfo(&self) -> String {
        format!("host=127.0.0.1 port={} user=any", self.port)
    }

    /// A cluster, not started, of a base backup, whose server is to be a standby of this relay
    /// under that name; with lines at the end of its `postgresql.conf`.
    #[must_use]
    pub fn standby(&self, backup: &BaseBackup, name: &str, conf: &str) -> Cluster {
        let standby = backup.unpack("standby.signal", conf);
        self.lead(&standby, name);
        standby
    }

    /// Has a standby that is not started follow this relay under that name.
    pub fn lead(&self, standby: &Cluster, name: &str) {
        let conninfo = self.conninfo();
        append(
            &standby.data_directory().join("postgresql.conf"),
            &format!(
                "primary_conninfo = '{conninfo} application_name={name}'\n\
                 wal_receiver_status_interval = 1\nwal_retrieve_retry_interval = '200ms'\n"
            ),
        );
    }

    /// Waits until `cluster` has it reported as flushed up to `lsn`.
    #[track_caller]
    pub fn wait_flushed(&mut self, cluster: &Cluster, lsn: Lsn) {
        self.process.wait_flushed(cluster, "wal_receiver", lsn);
    }

    /// Waits until it has said something, and gives the line.
    #[track_caller]
    pub fn wait_for_log(&mut self, text: &str) -> String {
        self.process.wait_for_log(text)
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

    /// Waits until it ends by itself.
    #[track_caller]
    pub fn wait_exit(&mut self) -> ExitStatus {
        self.process.wait_exit()
    }

    /// What it has said.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}
