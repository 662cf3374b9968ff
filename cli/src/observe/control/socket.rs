//! Where the sockets are, and how they are bound and connected to.
//!
//! A path that is longer than a socket's address may be (108 bytes) is gone through the open
//! directory, as `/proc/self/fd/N/NAME`.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use segstore::OWN_DIRECTORY;
use socket2::{Domain, SockAddr, Type};

use crate::owner;

/// The longest path that fits an address (`sun_path` without its NUL).
const LONGEST_PATH: usize = 107;

/// How many may wait to be accepted.
const BACKLOG: i32 = 16;

/// A socket in an archive's own subdirectory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Socket {
    /// Of the process that streams into the archive, which holds that lock.
    Receiver,
    /// Of the process that serves the archive and nothing else, which holds the slots' lock.
    Serve,
}

impl Socket {
    const fn name(self) -> &'static str {
        match self {
            Self::Receiver => "receiver.sock",
            Self::Serve => "serve.sock",
        }
    }

    pub(crate) fn path(self, archive: &Path) -> PathBuf {
        archive.join(OWN_DIRECTORY).join(self.name())
    }

    /// Listens, in the place of whoever did so before. Only for who holds the lock that goes with
    /// the socket: nobody else can be listening then, and what is there was left by a crash.
    pub(super) fn bind(self, archive: &Path) -> io::Result<UnixListener> {
        let reached = Reached::new(self, archive)?;
        match fs::remove_file(&reached.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(&reached.path)?)?;
        // Before it listens, so that at no moment anybody else can connect.
        fs::set_permissions(&reached.path, Permissions::from_mode(0o600))?;
        owner::give_to_owner(&reached.path, archive)?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    }

    /// Removes the socket that was bound, at a clean end: tools that walk through the directory may
    /// refuse anything that is neither a file nor a directory, as PostgreSQL's own tests do.
    ///
    /// The lock is no longer held, so that the next process may have bound its own there. Whatever
    /// is there is given another name before it is looked at, and gets its name back if it is that.
    pub(super) fn remove(self, archive: &Path, bound: BoundSocket) -> io::Result<()> {
        let reached = Reached::new(self, archive)?;
        if BoundSocket::at(&reached.path)? != bound {
            return Ok(());
        }
        let name = format!("{}.{}", self.name(), std::process::id());
        let aside = reached.path.with_file_name(name);
        fs::rename(&reached.path, &aside)?;
        if BoundSocket::at(&aside)? != bound {
            return fs::rename(&aside, &reached.path);
        }
        fs::remove_file(&aside)
    }

    /// Which socket is there now.
    pub(super) fn bound(self, archive: &Path) -> io::Result<BoundSocket> {
        BoundSocket::at(&Reached::new(self, archive)?.path)
    }

    /// Connects; `None` when nobody listens.
    pub(super) fn connect(
        self,
        archive: &Path,
        patience: Duration,
    ) -> io::Result<Option<UnixStream>> {
        let reached = match Reached::new(self, archive) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            reached => reached?,
        };
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // A process that is stopped accepts nobody, and its queue may be full.
        socket.set_write_timeout(Some(patience))?;
        socket.set_read_timeout(Some(patience))?;
        match socket.connect(&SockAddr::unix(&reached.path)?) {
            Ok(()) => Ok(Some(socket.into())),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// A socket's file, told from others of its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BoundSocket {
    device: u64,
    inode: u64,
}

impl BoundSocket {
    fn at(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

/// A path that is short enough, and what keeps it valid.
struct Reached {
    path: PathBuf,
    _directory: Option<File>,
}

impl Reached {
    fn new(socket: Socket, archive: &Path) -> io::Result<Self> {
        let path = socket.path(archive);
        if path.as_os_str().len() <= LONGEST_PATH {
            return Ok(Self {
                path,
                _directory: None,
            });
        }
        let directory = File::open(archive.join(OWN_DIRECTORY))?;
        let number = directory.as_raw_fd();
        Ok(Self {
            path: PathBuf::from(format!("/proc/self/fd/{number}")).join(socket.name()),
            _directory: Some(directory),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn archive(directory: &Path) {
        fs::create_dir_all(directory.join(OWN_DIRECTORY)).unwrap();
    }

    #[test]
    fn a_socket_that_a_crash_left_is_replaced_and_is_the_user_s_alone() {
        let directory = tempfile::tempdir().unwrap();
        let patience = Duration::from_secs(5);
        let connect = || Socket::Serve.connect(directory.path(), patience).unwrap();
        assert!(connect().is_none());
        archive(directory.path());
        assert!(connect().is_none());
        drop(Socket::Serve.bind(directory.path()).unwrap());
        // It is still there, and nobody listens.
        let path = Socket::Serve.path(directory.path());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(connect().is_none());
        let _listener = Socket::Serve.bind(directory.path()).unwrap();
        assert!(connect().is_some());
        assert!(
            Socket::Receiver
                .connect(directory.path(), patience)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_socket_is_removed_by_whoever_bound_it() {
        let directory = tempfile::tempdir().unwrap();
        archive(directory.path());
        let first = Socket::Receiver.bind(directory.path()).unwrap();
        let ours = Socket::Receiver.bound(directory.path()).unwrap();
        let second = Socket::Receiver.bind(directory.path()).unwrap();
        let theirs = Socket::Receiver.bound(directory.path()).unwrap();
        assert_ne!(ours, theirs);
        drop(first);
        Socket::Receiver.remove(directory.path(), ours).unwrap();
        let patience = Duration::from_secs(5);
        let connected = Socket::Receiver.connect(directory.path(), patience);
        assert!(connected.unwrap().is_some());
        drop(second);
        Socket::Receiver.remove(directory.path(), theirs).unwrap();
        let own = fs::read_dir(directory.path().join(OWN_DIRECTORY)).unwrap();
        assert_eq!(own.count(), 0);
    }

    #[test]
    fn a_path_may_be_longer_than_an_address() {
        let directory = tempfile::tempdir().unwrap();
        let long = directory.path().join("x".repeat(200));
        archive(&long);
        let listener = Socket::Receiver.bind(&long).unwrap();
        let client = Socket::Receiver.connect(&long, Duration::from_secs(5));
        let mut client = client.unwrap().unwrap();
        let (mut served, _) = listener.accept().unwrap();
        served.write_all(b"x").unwrap();
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
        assert!(Socket::Receiver.path(&long).exists());
    }
}
