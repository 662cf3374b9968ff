//! Hearing of what another process does to an archive.
//!
//! The kernel tells of changes in the archive's two directories (inotify), and what the change
//! means is then read from the files. Nothing is looked at by time, but for what could not be read:
//! that is tried again after a pause.
//!
//! Changes that another machine makes on a network file system are not told by any kernel.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::archive::directory::Place;
use crate::error::{ArchiveError, DiskError, Operation};
use crate::serve::view::{ArchiveView, Followed};
use crate::wal::segment::{EntryName, OWN_DIRECTORY};

/// What is read of the kernel's notices at once, in bytes: one with the longest name at least.
pub(crate) const NOTICES: usize = 4096;

/// How long is waited before that is read again which could not be.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What is done to a name or a file that can tell something new.
pub(crate) const CHANGES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ONLYDIR);

/// Keeps a view up to date with what another process writes, as long as it lives.
#[derive(Debug)]
#[must_use = "a view is kept up to date only as long as this lives"]
pub struct Follower {
    thread: Option<Following>,
}

#[derive(Debug)]
struct Following {
    inotify: Arc<OwnedFd>,
    root: i32,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl ArchiveView {
    /// Has a thread follow the process that fills the archive, which [`durable`](Self::durable)
    /// and those who [subscribed](Self::on_advance) hear of at once. For an archive of this process
    /// there is nothing to do, and no thread.
    ///
    /// What goes wrong on the way is for [`take_failure`](Self::take_failure); subscribers are
    /// called then too.
    ///
    /// On a network file system changes are heard only from processes on this machine
    /// ([`is_on_network`](Self::is_on_network) tells).
    ///
    /// # Errors
    /// When the kernel does not tell of changes, the thread cannot be started, or the archive
    /// cannot be read.
    pub fn follow(&self) -> Result<Follower, ArchiveError> {
        if self.followed() == Followed::SameProcess {
            return Ok(Follower { thread: None });
        }
        let failed = |error: Errno| DiskError::at(Operation::Watch, self.path())(error.into());
        let inotify = Arc::new(inotify::init(CreateFlags::CLOEXEC).map_err(failed)?);
        let root = inotify::add_watch(&*inotify, self.path(), CHANGES).map_err(failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut work = Work {
            view: self.clone(),
            inotify: Arc::clone(&inotify),
            root,
            own: None,
            stop: Arc::clone(&stop),
        };
        work.watch_own().map_err(failed)?;
        // What was changed before it was watched.
        self.refresh()?;
        let thread = thread::Builder::new()
            .name("archive-follower".to_owned())
            .spawn(move || work.run())
            .map_err(DiskError::at(Operation::StartThread, self.path()))?;
        Ok(Follower {
            thread: Some(Following {
                inotify,
                root,
                stop,
                thread,
            }),
        })
    }

    /// Whether more may be durable, and have been acknowledged, than [`durable`](Self::durable)
    /// says: what another process published was last written before this machine started. It is
    /// written without a sync, so a crash of the machine may have brought back an older one. It
    /// lasts until a receiver has found out anew how far the archive reaches.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn may_reach_further(&self) -> Result<bool, ArchiveError> {
        if self.followed() != Followed::Published {
            return Ok(false);
        }
        let path = self.files().directory().own(Place::Position);
        let written = match fs::metadata(&path).and_then(|metadata| metadata.modified()) {
            Ok(time) => time,
            // Only what was last noted as acknowledged is known.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(DiskError::at(Operation::Open, &path)(error).into()),
        };
        let uptime = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default();
        let started = SystemTime::now().checked_sub(uptime);
        Ok(started.is_some_and(|started| written < started))
    }

    /// Whether the archive lies on a network file system: what another machine writes there is
    /// not heard of.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn is_on_network(&self) -> Result<bool, ArchiveError> {
        let found = rustix::fs::statfs(self.path())
            .map_err(|error| DiskError::at(Operation::Open, self.path())(error.into()))?;
        Ok(NETWORK_FILE_SYSTEMS.contains(&u64::try_from(found.f_type).unwrap_or_default()))
    }
}

/// The magic numbers of the network file systems that Linux has.
///
/// Source: linux, include/uapi/linux/magic.h.
const NETWORK_FILE_SYSTEMS: [u64; 8] = [
    0x6969,      // NFS
    0x517B,      // SMB
    0xFE53_4D42, // SMB2
    0xFF53_4D42, // CIFS
    0x00C3_6400, // Ceph
    0x0102_1997, // 9P
    0x6B41_4653, // AFS
    0x7375_7245, // Coda
];

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(following) = self.thread.take() {
            following.stop.store(true, Ordering::Relaxed);
            // The thread is told that the watch is no more, and sees that it is to stop. There is
            // none any more if the directory has gone, and then no thread either.
            let _ = inotify::remove_watch(&*following.inotify, following.root);
            // A subscriber that drops this must not wait for the thread that called it.
            if following.thread.thread().id() != thread::current().id() {
                // A panic there has been printed, and nothing depends on the thread's end.
                let _ = following.thread.join();
            }
        }
    }
}

/// The thread's part.
struct Work {
    view: ArchiveView,
    inotify: Arc<OwnedFd>,
    root: i32,
    /// The watch of our own subdirectory, once there is one.
    own: Option<i32>,
    stop: Arc<AtomicBool>,
}

/// What notices mean together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum News {
    Nothing,
    Something,
    /// The archive's directory has gone.
    Gone,
}

impl Work {
    fn run(&mut self) {
        let mut buffer = [MaybeUninit::uninit(); NOTICES];
        while !self.stop.load(Ordering::Relaxed) {
            let news = self.wait(&mut buffer);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            match news {
                Ok(News::Nothing) => {}
                Ok(News::Something) => self.refresh(),
                Ok(News::Gone) => return self.end(io::ErrorKind::NotFound.into()),
                Err(error) => return self.end(error.into()),
            }
        }
    }

    /// Reads what is new; again if the system refuses, as with too many open files, since nothing
    /// more need ever be told. That is noted once.
    fn refresh(&self) {
        let mut is_noted = false;
        while let Err(error) = self.view.refresh() {
            // A directory that is gone is told of, and what is not durable has to change.
            let passes = matches!(&error, ArchiveError::Disk(error) if !error.is_not_found());
            if !is_noted || !passes {
                self.view.note_failure(error);
                is_noted = true;
            }
            if !passes || self.stop.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(RETRY_PAUSE);
        }
    }

    fn end(&self, error: io::Error) {
        let error = DiskError::at(Operation::Watch, self.view.path())(error);
        self.view.note_failure(error.into());
    }

    /// Waits for notices, and takes all that the kernel gives at once.
    fn wait(&mut self, buffer: &mut [MaybeUninit<u8>]) -> Result<News, Errno> {
        let inotify = Arc::clone(&self.inotify);
        let mut reader = Reader::new(&*inotify, buffer);
        let mut news = News::Nothing;
        loop {
            let notice = match reader.next() {
                Err(Errno::INTR) => continue,
                notice => notice?,
            };
            let watch = notice.wd();
            let name = notice.file_name().map(|name| name.to_bytes().to_vec());
            news = news.max(self.meaning(watch, notice.events(), name.as_deref())?);
            if reader.is_buffer_empty() {
                return Ok(news);
            }
        }
    }

    fn meaning(
        &mut self,
        watch: i32,
        events: ReadFlags,
        name: Option<&[u8]>,
    ) -> Result<News, Errno> {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.watch_own()?;
            return Ok(News::Something);
        }
        if events.contains(ReadFlags::IGNORED) {
            if watch == self.root {
                return Ok(News::Gone);
            }
            self.own = None;
            return Ok(News::Something);
        }
        let name = OsStr::from_bytes(name.unwrap_or_default());
        if Some(watch) == self.own {
            let tells = [Place::Position, Place::NotDurable]
                .into_iter()
                .any(|place| name == place.name());
            return Ok(if tells {
                News::Something
            } else {
                News::Nothing
            });
        }
        if name == OWN_DIRECTORY {
            self.watch_own()?;
            return Ok(News::Something);
        }
        // With a writer that tells its position, names tell nothing.
        let segment =
            matches!(EntryName::classify(name), EntryName::Segment(file) if !file.partial);
        if segment && self.view.followed() == Followed::CompleteSegmentsOnly {
            return Ok(News::Something);
        }
        Ok(News::Nothing)
    }

    /// Watches our own subdirectory, if there is one by now.
    fn watch_own(&mut self) -> Result<(), Errno> {
        let path = self.view.path().join(OWN_DIRECTORY);
        let flags = CHANGES.union(WatchFlags::MODIFY);
        self.own = match inotify::add_watch(&*self.inotify, &path, flags) {
            Err(Errno::NOENT) => None,
            added => Some(added?),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests;
