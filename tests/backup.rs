//! Base backups as plain copies of the data directory, which work alike for every version.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use walproto::{Lsn, SegmentSize};

use crate::cluster::append;
use crate::process::run;
use crate::{Cluster, Version, unprivileged_user};

/// A base backup without WAL.
#[derive(Debug)]
pub struct BaseBackup {
    version: Version,
    segment_size: SegmentSize,
    directory: TempDir,
    start: Lsn,
    stop: Lsn,
}

impl BaseBackup {
    pub(crate) fn take(cluster: &Cluster) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("walrecv-")
            .tempdir()
            .unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (start, stop) = if cluster.version() >= Version::V15 {
            ("pg_backup_start('test', true)", "pg_backup_stop(false)")
        } else {
            (
                "pg_start_backup('test', true, false)",
                "pg_stop_backup(false, false)",
            )
        };
        // The backup lives as long as the connection that began it.
        let mut client = cluster.client();
        let row = client
            .query_one(&format!("SELECT {start}::text"), &[])
            .unwrap();
        let start: String = row.get(0);
        let data = directory.path().join("data");
        copy_directory(&cluster.data_directory(), &data);
        let row = client
            .query_one(&format!("SELECT lsn::text, labelfile FROM {stop}"), &[])
            .unwrap();
        let (stop, label): (String, String) = (row.get(0), row.get(1));
        fs::write(data.join("backup_label"), label).unwrap();
        for name in ["postmaster.pid", "postmaster.opts"] {
            fs::remove_file(data.join(name)).unwrap();
        }
        empty_directory(&data.join("pg_wal"));
        empty_directory(&data.join("pg_replslot"));
        Self {
            version: cluster.version(),
            segment_size: cluster.segment_size(),
            directory,
            start: start.parse().unwrap(),
            stop: stop.parse().unwrap(),
        }
    }

    /// Where WAL is needed from.
    #[must_use]
    pub fn start(&self) -> Lsn {
        self.start
    }

    /// Up to where WAL is needed for the copy to be consistent.
    #[must_use]
    pub fn stop(&self) -> Lsn {
        self.stop
    }

    /// A cluster, not started, from this backup, with a signal file (`recovery.signal` or
    /// `standby.signal`) and lines at the end of `postgresql.conf`.
    #[must_use]
    pub fn unpack(&self, signal_file: &str, conf: &str) -> Cluster {
        let cluster = Cluster::empty(self.version, self.segment_size);
        let data = cluster.data_directory();
        copy_directory(&self.directory.path().join("data"), &data);
        let sockets = cluster.socket_directory();
        append(
            &data.join("postgresql.conf"),
            &format!(
                "unix_socket_directories = '{}'\nsynchronous_standby_names = ''\n{conf}",
                sockets.display()
            ),
        );
        let signal_file = data.join(signal_file);
        fs::write(&signal_file, "").unwrap();
        let label = data.join("backup_label");
        let (user, group) = unprivileged_user().unzip();
        for file in [signal_file, label] {
            chown(file, user, group).unwrap();
        }
        cluster
    }

    /// A cluster that was restored from this backup and all that is in an archive, the growing
    /// segment included, and has ended its recovery.
    #[must_use]
    pub fn restore_from(&self, archive: &Path) -> Cluster {
        // The servers' user may not read what the receiver's has written.
        let copy = tempfile::Builder::new()
            .prefix("walrecv-copy-")
            .tempdir()
            .unwrap();
        fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (user, group) = unprivileged_user().unzip();
        for entry in fs::read_dir(archive).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                let file = copy.path().join(entry.file_name());
                fs::copy(entry.path(), &file).unwrap();
                chown(file, user, group).unwrap();
            }
        }
        let archive = copy.path().display();
        let mut cluster = self.unpack(
            "recovery.signal",
            &format!(
                "restore_command = 'cp {archive}/%f %p || cp {archive}/%f.partial %p'\n\
                 recovery_target_timeline = 'latest'\n"
            ),
        );
        cluster.start();
        crate::wait_until("the end of recovery", || {
            cluster.text("SELECT pg_is_in_recovery()::text").as_deref() == Some("false")
        });
        cluster
    }
}

fn empty_directory(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name() == Some(OsStr::new("archive_status")) {
            continue;
        }
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
    }
}

/// Copies a directory that may be in use: a file that changes or goes away meanwhile is no error.
pub(crate) fn copy_directory(from: &Path, to: &Path) {
    let mut copy = Command::new("sh");
    copy.arg("-c").arg(
        "mkdir -m 700 \"$2\" && chown --reference=\"$1\" \"$2\" &&
         { tar -C \"$1\" --warning=no-file-changed --warning=no-file-removed \
               --warning=no-file-ignored -cf - . || [ $? = 1 ]; } | tar -C \"$2\" -xpf -",
    );
    run({
        copy.arg("copy").arg(from).arg(to);
        copy
    });
}
