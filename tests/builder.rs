//! What a new cluster shall be like, and how it is made.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use walproto::SegmentSize;

use crate::backup::copy_directory;
use crate::cluster::{PORT, append};
use crate::process::{as_unprivileged, command, run};
use crate::{Cluster, Version, unprivileged_user};

/// What a new cluster shall be like.
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    version: Version,
    segment_size: SegmentSize,
    conf: String,
    hba: Option<String>,
    own_identity: bool,
    tcp: bool,
}

impl ClusterBuilder {
    pub(crate) fn new(version: Version) -> Self {
        Self {
            version,
            segment_size: SegmentSize::DEFAULT,
            conf: String::new(),
            hba: None,
            own_identity: false,
            tcp: false,
        }
    }

    /// The size of its WAL segments in MiB; 16 unless said otherwise.
    #[must_use]
    pub fn segment_size_mib(mut self, mib: u64) -> Self {
        self.segment_size = SegmentSize::new(mib << 20).unwrap();
        self
    }

    /// A line of `postgresql.conf`.
    #[must_use]
    pub fn conf(mut self, name: &str, value: &str) -> Self {
        writeln!(self.conf, "{name} = '{}'", value.replace('\'', "''")).unwrap();
        self
    }

    /// The whole of `pg_hba.conf`, in place of one that trusts everybody.
    #[must_use]
    pub fn hba(mut self, lines: &str) -> Self {
        self.hba = Some(format!("{lines}\n"));
        self
    }

    /// Runs `initdb` for this cluster alone. Others of one version and segment size are copies
    /// of each other and share their system identifier.
    #[must_use]
    pub fn own_identity(mut self) -> Self {
        self.own_identity = true;
        self
    }

    /// Listens on a free port of 127.0.0.1 too; see [`Cluster::tcp_port`].
    #[must_use]
    pub fn listen_on_tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// Makes the cluster and starts its server.
    #[must_use]
    pub fn start(self) -> Cluster {
        let mut cluster = Cluster::empty(self.version, self.segment_size);
        let data = cluster.data_directory();
        if self.own_identity {
            initdb(self.version, self.segment_size, &data);
        } else {
            copy_directory(&initialized(self.version, self.segment_size), &data);
        }
        // Nothing is said about the server's own durability, so it may be fast; and it keeps all
        // WAL, for the tests compare with it.
        let mut conf = format!(
            "listen_addresses = ''\nport = {PORT}\nunix_socket_directories = '{}'\n\
             fsync = off\nwal_keep_size = '4GB'\nmax_wal_size = '8GB'\ncheckpoint_timeout = '1h'\n\
             shared_buffers = '32MB'\nmax_connections = 40\nmax_wal_senders = 10\n\
             max_replication_slots = 10\nautovacuum = off\nlogging_collector = off\n\
             hot_standby = on\nwal_sender_timeout = '60s'\nlog_line_prefix = '%m [%p] %a '\n",
            cluster.socket_directory().display()
        );
        conf.push_str(&self.conf);
        append(&data.join("postgresql.conf"), &conf);
        if let Some(hba) = &self.hba {
            fs::write(data.join("pg_hba.conf"), hba).unwrap();
        }
        if self.tcp {
            cluster.listen_on_tcp();
        }
        cluster.start();
        cluster
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A data directory as `initdb` makes it, to be copied: it takes seconds, a copy does not.
fn initialized(version: Version, segment_size: SegmentSize) -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    let cache = std::env::temp_dir().join(format!("walrecv-initdb-{user}"));
    let program = fs::canonicalize(version.server_program("initdb")).unwrap();
    // Another build of the same major version may not be able to use it.
    let built = fs::metadata(&program).unwrap().len();
    let data = cache.join(format!("{version}-{}-{built}", segment_size.bytes()));
    if data.exists() {
        return data;
    }
    fs::create_dir_all(&cache).unwrap();
    let work = tempfile::Builder::new()
        .prefix("making-")
        .tempdir_in(&cache)
        .unwrap();
    fs::set_permissions(work.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let made = work.path().join("data");
    initdb(version, segment_size, &made);
    match fs::rename(&made, &data) {
        Ok(()) => {}
        Err(error) if data.exists() => drop(error),
        Err(error) => panic!("{}: {error}", data.display()),
    }
    data
}

fn initdb(version: Version, segment_size: SegmentSize, data: &Path) {
    let (user, group) = unprivileged_user().unzip();
    fs::create_dir(data).unwrap();
    chown(data, user, group).unwrap();
    let mut initdb = command(&version.server_program("initdb"));
    initdb
        .args(["--auth=trust", "--username=postgres", "--no-sync"])
        .args(["--encoding=UTF8", "--locale=C"])
        .arg(format!("--wal-segsize={}", segment_size.bytes() >> 20))
        .arg("--pgdata")
        .arg(data);
    run(as_unprivileged(initdb));
}
