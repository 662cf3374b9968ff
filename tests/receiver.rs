//! A receiver as a child process: ours, or `pg_receivewal` as the model.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tempfile::TempDir;
use walproto::Lsn;

use crate::process::{command, signal};
use crate::wait::{wait_for, wait_until};
use crate::{Cluster, Version};

/// A receiver that is to be started.
#[derive(Debug)]
pub struct ReceiverBuilder {
    command: Command,
    on_terminal: bool,
}

impl ReceiverBuilder {
    /// One argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Several arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// A variable of the environment; none of the `PG*` variables comes from the test's own.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs a copy of the program as the user `postgres`, who need not be able to read this checkout;
    /// without root's rights to give up, the program itself as it is. The copy lies in `directory`,
    /// which that user can enter.
    #[must_use]
    pub fn as_postgres(self, directory: &Path) -> Self {
        let Some((user, group)) = crate::unprivileged_user() else {
            return self;
        };
        let copy = directory.join("program");
        fs::copy(self.command.get_program(), &copy).unwrap();
        let mut copied = command(&copy);
        copied.args(self.command.get_args()).uid(user).gid(group);
        copied.current_dir("/");
        for (name, value) in self.command.get_envs() {
            if let Some(value) = value {
                copied.env(name, value);
            }
        }
        Self {
            command: copied,
            ..self
        }
    }

    /// Lets the process see a small disk of its own at `directory`; see [`Receiver::sees`] for how
    /// to look into it. `options` are `mount`'s: `size=4m`, or `ro` for one that nobody can write.
    #[must_use]
    pub fn with_small_disk(self, directory: &Path, options: &str) -> Self {
        let script = "mount -t tmpfs -o \"$1\" small-disk \"$2\" && shift 2 && exec \"$@\"";
        let mut unshare = unshare("mount", &["--mount"]);
        unshare
            .args(["sh", "-c", script, "small-disk", options])
            .arg(directory);
        self.within(unshare)
    }

    /// Lets the process be the first one of its own process namespace, a child of the one that is
    /// started.
    #[must_use]
    pub fn as_first_process(self) -> Self {
        self.within(unshare("process", &["--pid", "--fork", "--kill-child"]))
    }

    /// Has another program start this one, which gets it with its arguments.
    fn within(self, mut unshare: Command) -> Self {
        unshare
            .arg(self.command.get_program())
            .args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => unshare.env(name, value),
                None => unshare.env_remove(name),
            };
        }
        Self {
            command: unshare,
            ..self
        }
    }

    /// Limits how many files the process may have open, by a soft and a hard limit.
    #[must_use]
    pub fn with_open_files(self, soft: u64, hard: u64) -> Self {
        let script = "ulimit -Sn \"$1\" && ulimit -Hn \"$2\" && shift 2 && exec \"$@\"";
        let mut shell = command(Path::new("bash"));
        shell
            .args([
                "-c",
                script,
                "limited",
                &soft.to_string(),
                &hard.to_string(),
            ])
            .arg(self.command.get_program())
            .args(self.command.get_args());
        Self {
            command: shell,
            ..self
        }
    }

    /// Lets the process's standard error be a terminal, all that is written to which is its log.
    #[must_use]
    pub fn on_terminal(self) -> Self {
        Self {
            on_terminal: true,
            ..self.env("TERM", "xterm")
        }
    }

    /// Starts the process.
    #[must_use]
    pub fn start(mut self) -> Receiver {
        let directory = tempfile::Builder::new()
            .prefix("walrecv-log-")
            .tempdir()
            .unwrap();
        let log_path = directory.path().join("log");
        let log = File::create(&log_path).unwrap();
        let stderr = if self.on_terminal {
            terminal_into(log.try_clone().unwrap())
        } else {
            log.try_clone().unwrap()
        };
        let child = self
            .command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("{:?}: {error}", self.command));
        Receiver {
            child,
            ended: None,
            log_path,
            _directory: directory,
        }
    }

    /// Runs the process to its end, which must come by itself, and gives how it ended and all that
    /// it said.
    #[track_caller]
    pub fn run(self) -> (ExitStatus, String) {
        let mut receiver = self.start();
        let status = receiver.wait_exit();
        (status, receiver.log())
    }
}

/// `unshare` with these options, as root of a namespace of users if need be.
///
/// # Panics
/// When the system does not allow such a namespace.
#[track_caller]
fn unshare(kind: &str, options: &[&str]) -> Command {
    let command = || {
        let mut unshare = command(Path::new("unshare"));
        if !rustix::process::geteuid().is_root() {
            unshare.args(["--user", "--map-root-user"]);
        }
        unshare.args(options);
        unshare
    };
    let tried = command().arg("true").output().unwrap();
    assert!(
        tried.status.success(),
        "this test needs a {kind} namespace, which this system does not allow ({}): run it as \
         root with CAP_SYS_ADMIN",
        String::from_utf8_lossy(&tried.stderr).trim()
    );
    command()
}

/// A terminal for a process, what is written to which goes into `log` until the process ends.
fn terminal_into(mut log: File) -> File {
    let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&screen).unwrap();
    unlockpt(&screen).unwrap();
    let path = ptsname(&screen, Vec::new()).unwrap();
    let options = OpenOptions::new().write(true).clone();
    let terminal = options.open(OsStr::from_bytes(path.as_bytes())).unwrap();
    let mut screen = File::from(screen);
    // It ends with an error once the terminal is closed, and has copied all then.
    std::thread::spawn(move || drop(io::copy(&mut screen, &mut log)));
    terminal
}

/// A receiver that was started; killed when it goes out of scope.
#[derive(Debug)]
pub struct Receiver {
    child: Child,
    ended: Option<ExitStatus>,
    log_path: PathBuf,
    _directory: TempDir,
}

impl Receiver {
    /// The path of our program: `WAL_RECEIVER_BIN`, or the one that lies beside the tests.
    #[must_use]
    pub fn program() -> PathBuf {
        if let Some(program) = std::env::var_os("WAL_RECEIVER_BIN") {
            return program.into();
        }
        let test = std::env::current_exe().unwrap();
        let program = test.ancestors().nth(2).unwrap().join("wal-receiver");
        assert!(
            program.exists(),
            "{} is not there: cargo build -p wal-receiver",
            program.display()
        );
        program
    }

    /// Our receiver, filling `archive` from `cluster`.
    #[must_use]
    pub fn of(cluster: &Cluster, archive: &Path) -> ReceiverBuilder {
        Self::bare()
            .arg("-D")
            .arg(archive)
            .arg("-d")
            .arg(cluster.conninfo())
    }

    /// Our receiver without arguments.
    #[must_use]
    pub fn bare() -> ReceiverBuilder {
        Self::other(&Self::program())
    }

    /// An example program of our library, built beside the tests too.
    #[must_use]
    pub fn example(name: &str) -> ReceiverBuilder {
        let test = std::env::current_exe().unwrap();
        let directory = test.ancestors().nth(2).unwrap();
        let program = directory.join("examples").join(name);
        assert!(
            program.exists(),
            "{} is not there: cargo build -p walreceiver --examples",
            program.display()
        );
        Self::other(&program)
    }

    /// Our receiver by its other name, for which a link is made in `directory`.
    #[must_use]
    pub fn as_pg_receivewal(directory: &Path) -> ReceiverBuilder {
        let link = directory.join("pg_receivewal");
        if fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(Self::program(), &link).unwrap();
        }
        Self::other(&link)
    }

    /// PostgreSQL's own `pg_receivewal`, of a version that has client programs.
    #[must_use]
    pub fn pg_receivewal(version: Version, conninfo: &str, archive: &Path) -> ReceiverBuilder {
        let program = version
            .client_program("pg_receivewal")
            .unwrap_or_else(|| panic!("PostgreSQL {version} has no client programs here"));
        Self::other(&program)
            .arg("-D")
            .arg(archive)
            .args(["-d", conninfo])
    }

    /// PostgreSQL's own `pg_archivecleanup`, of a version that has client programs.
    #[must_use]
    pub fn pg_archivecleanup(version: Version) -> ReceiverBuilder {
        Self::other(&version.client_program("pg_archivecleanup").unwrap())
    }

    /// PostgreSQL's `psql` on a replication connection: runs a command and prints the values.
    #[must_use]
    pub fn psql(version: Version, conninfo: &str, command: &str) -> ReceiverBuilder {
        let program = version.client_program("psql").unwrap();
        let conninfo = format!("{conninfo} dbname=postgres replication=true");
        Self::other(&program).args(["-XAt", "-d", &conninfo, "-c", command])
    }

    fn other(program: &Path) -> ReceiverBuilder {
        ReceiverBuilder {
            command: command(program),
            on_terminal: false,
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The path at which the test finds what the process finds at `path`, its own disk included.
    #[must_use]
    pub fn sees(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.pid()));
        root.join(path.strip_prefix("/").unwrap())
    }

    /// What it has printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log_path).unwrap()).into_owned()
    }

    /// Waits until it has printed a line that contains `text`, and gives the line.
    #[track_caller]
    pub fn wait_for_log(&mut self, text: &str) -> String {
        wait_for(&format!("a line with {text:?} from the receiver"), || {
            // The status first: what it said last is then in the log that is read.
            let ended = self.exit_status();
            let found = self
                .log()
                .lines()
                .find(|line| line.contains(text))
                .map(str::to_owned);
            assert!(
                found.is_some() || ended.is_none(),
                "the receiver has ended ({ended:?}) without saying {text:?}:\n{}",
                self.log()
            );
            found
        })
    }

    /// How it has ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub fn wait_exit(&mut self) -> ExitStatus {
        wait_for("the receiver to end", || self.exit_status())
    }

    /// Asks it to stop as a terminal's interrupt key does, and gives how it ended.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::INT);
        self.wait_exit()
    }

    /// Sends it a signal.
    pub fn signal(&self, number: Signal) {
        assert!(
            self.ended.is_none(),
            "the receiver has ended:\n{}",
            self.log()
        );
        signal(self.pid(), number);
        if number == Signal::STOP {
            wait_until("all threads to have stopped", || self.has_stopped());
        }
    }

    /// Whether none of its threads runs, as after a stop signal, which takes a moment.
    fn has_stopped(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        threads.into_iter().all(|thread| {
            let stat = fs::read_to_string(thread.unwrap().path().join("stat"));
            let state = stat.ok().and_then(|stat| {
                let (_, fields) = stat.rsplit_once(") ")?;
                fields.chars().next()
            });
            // Those that have ended meanwhile run no more either.
            state.is_none_or(|state| state == 'T')
        })
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill9(&mut self) {
        if self.exit_status().is_none() {
            self.child.kill().unwrap();
            self.ended = Some(self.child.wait().unwrap());
        }
    }

    /// Waits until the primary has it reported as flushed up to `lsn`, by its application name.
    #[track_caller]
    pub fn wait_flushed(&mut self, cluster: &Cluster, application_name: &str, lsn: Lsn) {
        wait_until(
            &format!("{application_name} to have flushed up to {lsn}"),
            || {
                if let Some(status) = self.exit_status() {
                    panic!("the receiver has ended: {status}\n{}", self.log());
                }
                cluster
                    .reported_flush(application_name)
                    .is_some_and(|flushed| flushed >= lsn)
            },
        );
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            println!("--- receiver, {:?}\n{}", self.ended, self.log());
        }
    }
}
