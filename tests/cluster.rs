//! A throwaway cluster: its own data directory, its own socket directory, nothing listening on the
//! network unless asked for.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use postgres::{Client, NoTls};
use rustix::process::Signal;
use tempfile::TempDir;
use walproto::{Lsn, SegmentSize, SystemId, TimelineId};

use crate::backup::copy_directory;
use crate::builder::free_port;
use crate::process::{as_unprivileged, children_of, command, run, signal, wait_gone};
use crate::wait::{wait_for, wait_until};
use crate::{ClusterBuilder, Version, unprivileged_user};

/// The port in the name of the Unix socket, which has a directory to itself.
pub(crate) const PORT: u16 = 5432;

/// A running PostgreSQL server with a data directory of its own, removed with it.
#[derive(Debug)]
pub struct Cluster {
    version: Version,
    segment_size: SegmentSize,
    directory: TempDir,
    pub(crate) tcp_port: Option<u16>,
    server: Option<Child>,
}

impl Cluster {
    /// Describes a new cluster.
    #[must_use]
    pub fn builder(version: Version) -> ClusterBuilder {
        ClusterBuilder::new(version)
    }

    /// A cluster as it comes, running.
    #[must_use]
    pub fn start_new(version: Version) -> Self {
        Self::builder(version).start()
    }

    /// A directory for a cluster, which has no data directory yet.
    pub(crate) fn empty(version: Version, segment_size: SegmentSize) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("walrecv-")
            .tempdir()
            .unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let cluster = Self {
            version,
            segment_size,
            directory,
            tcp_port: None,
            server: None,
        };
        fs::create_dir(cluster.socket_directory()).unwrap();
        let (user, group) = unprivileged_user().unzip();
        chown(cluster.socket_directory(), user, group).unwrap();
        cluster
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The size of its WAL segments.
    #[must_use]
    pub fn segment_size(&self) -> SegmentSize {
        self.segment_size
    }

    /// The directory for things that shall be removed with the cluster.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The data directory.
    #[must_use]
    pub fn data_directory(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The directory of the Unix socket: `host` in a connection string.
    #[must_use]
    pub fn socket_directory(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// The port in the name of the Unix socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        PORT
    }

    /// The TCP port, if it listens on one.
    #[must_use]
    pub fn tcp_port(&self) -> Option<u16> {
        self.tcp_port
    }

    /// Lets it listen on a free port of 127.0.0.1 too from its next start on; see
    /// [`Cluster::tcp_port`].
    pub fn listen_on_tcp(&mut self) {
        self.tcp_port = Some(free_port());
    }

    /// A connection string for replication, as the superuser.
    #[must_use]
    pub fn conninfo(&self) -> String {
        format!(
            "host={} port={PORT} user=postgres",
            self.socket_directory().display()
        )
    }

    /// A connection for SQL.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::connect(&format!("{} dbname=postgres", self.conninfo()), NoTls).unwrap()
    }

    /// Runs statements.
    pub fn sql(&self, statements: &str) {
        self.client()
            .batch_execute(statements)
            .unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    /// The text of a query's only value, `None` for NULL or no row. The query has to cast to text.
    #[must_use]
    pub fn text(&self, query: &str) -> Option<String> {
        self.client()
            .query(query, &[])
            .unwrap_or_else(|error| panic!("{query}: {error:?}"))
            .first()?
            .get(0)
    }

    /// The position up to which the server has flushed WAL, or replayed it on a standby.
    #[must_use]
    pub fn flush_lsn(&self) -> Lsn {
        self.text(
            "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                    ELSE pg_current_wal_flush_lsn() END::text",
        )
        .unwrap()
        .parse()
        .unwrap()
    }

    /// The identifier that `initdb` gave the cluster.
    #[must_use]
    pub fn system_id(&self) -> SystemId {
        self.text("SELECT system_identifier::text FROM pg_control_system()")
            .unwrap()
            .parse()
            .unwrap()
    }

    /// The timeline of the last checkpoint.
    #[must_use]
    pub fn timeline(&self) -> TimelineId {
        self.text("SELECT timeline_id::text FROM pg_control_checkpoint()")
            .unwrap()
            .parse()
            .unwrap()
    }

    /// Writes WAL of at least `mib` MiB and gives the position up to which it is flushed.
    pub fn write_wal(&self, mib: u64) -> Lsn {
        self.sql("CREATE TABLE IF NOT EXISTS filler (id bigserial, body text)");
        let mut client = self.client();
        let end = Lsn(self.flush_lsn().0 + (mib << 20));
        while self.flush_lsn() < end {
            client
                .batch_execute(
                    "INSERT INTO filler (body)
                     SELECT repeat(md5(i::text), 20) FROM generate_series(1, 1500) i",
                )
                .unwrap();
        }
        self.flush_lsn()
    }

    /// Ends the current segment with an `XLOG_SWITCH` record, and begins the next with a little WAL.
    pub fn switch_wal(&self) -> Lsn {
        self.sql("SELECT pg_switch_wal(); SELECT txid_current()");
        self.sql("CREATE TABLE IF NOT EXISTS switched (id int); INSERT INTO switched VALUES (1)");
        self.flush_lsn()
    }

    /// Changes settings while the server runs.
    pub fn reload_with(&self, name: &str, value: &str) {
        append(
            &self.data_directory().join("postgresql.conf"),
            &format!("{name} = '{}'\n", value.replace('\'', "''")),
        );
        signal(self.server_pid(), Signal::HUP);
        wait_until("the new setting", || {
            self.text(&format!("SELECT current_setting('{name}')"))
                .is_some_and(|now| now == value)
        });
    }

    /// Has commits wait for these standbys from now on, as `synchronous_standby_names` has them.
    ///
    /// A new connection shows the setting before the checkpointer has read it, and until then
    /// commits wait for nobody; before it makes a checkpoint it has.
    ///
    /// Source: src/backend/replication/syncrep.c, `SyncRepUpdateSyncStandbysDefined` (PG 15).
    pub fn set_synchronous_standbys(&self, names: &str) {
        self.reload_with("synchronous_standby_names", names);
        self.sql("CHECKPOINT");
    }

    /// Runs a program on the data directory of the stopped server, as its user.
    pub fn run_offline(&self, program: &str, arguments: &[&str]) {
        assert!(self.server.is_none(), "the server is running");
        let program = self.version.client_program(program).unwrap();
        let mut command = command(&program);
        command.args(arguments).arg("-D").arg(self.data_directory());
        run(as_unprivileged(command));
    }

    /// The process id of the postmaster.
    #[must_use]
    pub fn server_pid(&self) -> u32 {
        self.server
            .as_ref()
            .expect("the server is not running")
            .id()
    }

    /// What the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }

    /// Starts the server and waits until it answers queries.
    pub fn start(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    /// Starts the server without waiting.
    pub fn spawn(&mut self) {
        assert!(self.server.is_none(), "the server runs already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        let mut server = command(&self.version.server_program("postgres"));
        server.arg("-D").arg(self.data_directory());
        if let Some(port) = self.tcp_port {
            // One number serves both sockets, so the Unix one gets a link under the usual name.
            server.args([
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                &format!("port={port}"),
            ]);
            let link = self.socket_directory().join(format!(".s.PGSQL.{PORT}"));
            if fs::symlink_metadata(&link).is_err() {
                std::os::unix::fs::symlink(format!(".s.PGSQL.{port}"), link).unwrap();
            }
        }
        server
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.server = Some(as_unprivileged(server).spawn().unwrap());
    }

    /// Waits until the server answers queries.
    pub fn wait_ready(&mut self) {
        let conninfo = format!("{} dbname=postgres", self.conninfo());
        let log = self.log_path();
        let server = self.server.as_mut().expect("the server was not started");
        wait_until("the server to answer", || {
            if let Some(status) = server.try_wait().unwrap() {
                let log = fs::read_to_string(&log).unwrap_or_default();
                panic!("the server has ended: {status}\n{log}");
            }
            Client::connect(&conninfo, NoTls).is_ok()
        });
    }

    /// Shuts down cleanly (`fast`): the server waits for its standbys to have everything.
    pub fn stop(&mut self) {
        self.stop_without_waiting();
        self.wait_stopped();
    }

    /// Asks for a clean shutdown.
    pub fn stop_without_waiting(&self) {
        signal(self.server_pid(), Signal::INT);
    }

    /// Waits for the server to end.
    pub fn wait_stopped(&mut self) {
        let mut server = self.server.take().expect("the server is not running");
        wait_for("the server to end", || server.try_wait().unwrap());
    }

    /// SIGKILL to every process of the server at once: the machine's power goes off.
    pub fn kill9(&mut self) {
        let mut server = self.server.take().expect("the server is not running");
        let shared_memory = self.shared_memory_id();
        let mut processes = children_of(server.id());
        for &process in &processes {
            signal(process, Signal::STOP);
        }
        server.kill().unwrap();
        server.wait().unwrap();
        for &process in &processes {
            signal(process, Signal::KILL);
        }
        processes.retain(|&process| process != server.id());
        wait_gone(&processes);
        if let Some(id) = shared_memory {
            // Nobody is left who would remove it, and the kernel keeps only so many.
            let mut ipcrm = Command::new("ipcrm");
            ipcrm.args(["--shmem-id", &id]);
            run(ipcrm);
        }
    }

    /// Stops every process of the server where it is, as a machine that hangs does.
    pub fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, number: Signal) {
        let postmaster = self.server_pid();
        signal(postmaster, number);
        for process in children_of(postmaster) {
            signal(process, number);
        }
    }

    /// Clean stop, then start.
    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// A stopped server with a copy of this one's data directory, which must be stopped too: what
    /// comes back from a snapshot of the disk.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        assert!(self.server.is_none(), "the server is running");
        let copy = Self::empty(self.version, self.segment_size);
        copy_directory(&self.data_directory(), &copy.data_directory());
        append(
            &copy.data_directory().join("postgresql.conf"),
            &format!(
                "unix_socket_directories = '{}'\n",
                copy.socket_directory().display()
            ),
        );
        copy
    }

    fn shared_memory_id(&self) -> Option<String> {
        let lock = fs::read_to_string(self.data_directory().join("postmaster.pid")).ok()?;
        let line = lock.lines().nth(6)?;
        Some(line.split_whitespace().nth(1)?.to_owned())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            signal(server.id(), Signal::QUIT);
            signal(server.id(), Signal::CONT);
            // The postmaster ends within its five seconds of grace, or is killed by this.
            server.wait().unwrap();
        }
        if std::thread::panicking() {
            println!(
                "--- log of the server in {:?}\n{}",
                self.directory,
                self.log()
            );
        }
    }
}

pub(crate) fn append(file: &Path, lines: &str) {
    let mut content = fs::read_to_string(file).unwrap();
    content.push_str(lines);
    fs::write(file, content).unwrap();
}
