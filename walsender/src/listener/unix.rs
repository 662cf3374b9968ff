//! A Unix socket's name, which one process has at a time.
//!
//! A server that was killed leaves the name, and the next one removes it. If two start at the same
//! time, neither may remove the name that the other has just taken. So the process that holds a lock
//! owns the name. The kernel releases the lock of a process that was killed.
//!
//! The lock is on the file that PostgreSQL has for this purpose, and the file says in
//! PostgreSQL's form which process it belongs to: a PostgreSQL server and this one respect each other.
//!
//! Source: src/backend/utils/init/miscinit.c, `CreateSocketLockFile` and `CreateLockFile` (PG 15).

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::{Pid, test_kill_process};

/// Where PostgreSQL has the data directory in its lock files. With this line the lock alone tells
/// whether the process lives; of another program's file its number does.
const OWNER: &str = "wal-receiver";

/// More than a lock file has.
const MAX_CONTENT: u64 = 4096;

/// How often a lock file is opened that another process is just removing.
const MAX_TRIES: usize = 100;

/// A socket's name, which is removed together with this.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// The device and inode of the name, so that one which is not ours is not removed.
    identity: Option<(u64, u64)>,
    _lock: Lock,
}

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).ok().as_ref().map(identity) == self.identity {
            // If it cannot be removed, the next server does so.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at a name. Access is decided by the rules, not by the file's mode
/// (`unix_socket_permissions`).
pub(super) fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let lock = Lock::take(path)?;
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match UnixStream::connect(path) {
            Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            // A server that takes no lock.
            _ => return Err(error),
        },
        result => result?,
    };
    let file = SocketFile {
        path: path.to_owned(),
        identity: Some(identity(&fs::symlink_metadata(path)?)),
        _lock: lock,
    };
    fs::set_permissions(path, Permissions::from_mode(0o777))?;
    Ok((listener, file))
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// The lock, which is released and whose file is removed together with this.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn take(socket: &Path) -> io::Result<Self> {
        let mut path = OsString::from(socket);
        path.push(".lock");
        let path = PathBuf::from(path);
        let taken = take(&path).map_err(|error| {
            let text = format!("lock file \"{}\": {error}", path.display());
            io::Error::new(error.kind(), text)
        })?;
        match taken {
            Taken::By(file) => Ok(Self { path, _file: file }),
            Taken::ByAnother(process) => {
                let text = format!(
                    "lock file \"{}\" belongs to another process (PID {process})",
                    path.display()
                );
                Err(io::Error::new(io::ErrorKind::AddrInUse, text))
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Before the lock is released: who waits to open the file finds it gone, and opens a new
        // one.
        let _ = fs::remove_file(&self.path);
    }
}

enum Taken {
    By(File),
    ByAnother(i32),
}

fn take(path: &Path) -> io::Result<Taken> {
    for _ in 0..MAX_TRIES {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)?;
        let locked = match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => true,
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => false,
            Err(error) => return Err(error.into()),
        };
        let current = match fs::symlink_metadata(path) {
            Ok(current) => identity(&current) == identity(&file.metadata()?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if !current {
            continue;
        }
        let mut content = String::new();
        // What is no text is no lock file of anybody's.
        let _ = (&mut file).take(MAX_CONTENT).read_to_string(&mut content);
        let mut lines = content.lines();
        let process = lines.next().and_then(|line| line.trim().parse().ok());
        let process = process.unwrap_or_default();
        if !locked {
            return Ok(Taken::ByAnother(process));
        }
        let is_own = process == own_number() || lines.next() == Some(OWNER);
        if !is_own && lives(process) {
            return Ok(Taken::ByAnother(process));
        }
        file.set_len(0)?;
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
        write!(file, "{}\n{OWNER}\n", own_number())?;
        return Ok(Taken::By(file));
    }
    Err(io::ErrorKind::WouldBlock.into())
}

fn own_number() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Whether there is such a process, also one that this user may not signal.
fn lives(process: i32) -> bool {
    let Some(pid) = Pid::from_raw(process).filter(|_| process > 0) else {
        return false;
    };
    match test_kill_process(pid) {
        Ok(()) => true,
        Err(error) => error == rustix::io::Errno::PERM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn of_several_servers_that_find_a_stale_name_one_gets_it_and_keeps_it() {
        const STARTERS: usize = 8;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".s.PGSQL.1");
        let holders = AtomicUsize::new(0);
        let started = AtomicUsize::new(0);
        let barrier = Barrier::new(STARTERS);
        std::thread::scope(|scope| {
            for _ in 0..STARTERS {
                scope.spawn(|| {
                    for _ in 0..200 {
                        if barrier.wait().is_leader() {
                            let _ = fs::remove_file(&path);
                            drop(UnixListener::bind(&path).unwrap());
                        }
                        barrier.wait();
                        let Ok((listener, file)) = bind(&path) else {
                            continue;
                        };
                        started.fetch_add(1, Ordering::SeqCst);
                        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                        // The name leads here.
                        let _client = UnixStream::connect(&path).unwrap();
                        listener.set_nonblocking(true).unwrap();
                        listener.accept().unwrap();
                        holders.fetch_sub(1, Ordering::SeqCst);
                        drop(file);
                    }
                });
            }
        });
        assert!(started.load(Ordering::SeqCst) >= 200);
    }

    #[test]
    fn the_lock_file_of_a_postgresql_server_counts_as_long_as_it_lives() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".s.PGSQL.5432");
        let lock = directory.path().join(".s.PGSQL.5432.lock");
        // It has a number, and does not listen yet.
        let mut server = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let content = format!(
            "{}\n/var/lib/postgresql/15/main\n1700000000\n5432\n",
            server.id()
        );
        fs::write(&lock, &content).unwrap();
        let refused = bind(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        let expected = format!(
            "lock file \"{}\" belongs to another process (PID {})",
            lock.display(),
            server.id()
        );
        assert_eq!(refused.to_string(), expected);
        assert_eq!(fs::read_to_string(&lock).unwrap(), content);
        server.kill().unwrap();
        server.wait().unwrap();
        let (_listener, file) = bind(&path).unwrap();
        let own = fs::read_to_string(&lock).unwrap();
        assert_eq!(own.lines().next().unwrap(), std::process::id().to_string());
        drop(file);
        assert!(!lock.exists() && !path.exists());
    }

    #[test]
    fn keeps_a_name_that_another_process_has_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".s.PGSQL.1");
        let (_listener, file) = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
    }
}
