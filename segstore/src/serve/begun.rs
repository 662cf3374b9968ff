//! Waiting for an archive that a receiver has yet to begin.

use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader};
use rustix::io::Errno;

use crate::disk::Disk;
use crate::error::{ArchiveError, DiskError, Operation};
use crate::serve::follow::{CHANGES, NOTICES};
use crate::serve::view::ArchiveView;
use crate::wal::segment::OWN_DIRECTORY;

impl ArchiveView {
    /// As [`open`](Self::open), but waits as long as nothing in the directory says which cluster
    /// the archive is of. `waiting` is called once if it has to. It blocks, perhaps for ever: give
    /// it a thread of its own.
    ///
    /// On a network file system it hears only of what this machine does.
    ///
    /// # Errors
    /// Those of [`open`](Self::open); when the kernel does not tell of changes, or the directory
    /// goes away.
    pub fn open_when_begun(
        disk: &Arc<dyn Disk>,
        directory: &Path,
        waiting: impl FnOnce(),
    ) -> Result<Self, ArchiveError> {
        let failed = |error: Errno| DiskError::at(Operation::Watch, directory)(error.into());
        let notices = inotify::init(CreateFlags::CLOEXEC).map_err(failed)?;
        let root = inotify::add_watch(&notices, directory, CHANGES).map_err(failed)?;
        let mut waiting = Some(waiting);
        let mut buffer = [MaybeUninit::uninit(); NOTICES];
        let mut reader = Reader::new(&notices, &mut buffer);
        loop {
            // Before it is looked, so that no change goes unnoticed.
            match inotify::add_watch(&notices, directory.join(OWN_DIRECTORY), CHANGES) {
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => return Err(failed(error).into()),
            }
            match Self::open(Arc::clone(disk), directory) {
                Err(ArchiveError::NoIdentity { .. }) => {}
                opened => return opened,
            }
            if let Some(waiting) = waiting.take() {
                waiting();
            }
            match reader.next() {
                Ok(notice) if notice.wd() == root && notice.events() == ReadFlags::IGNORED => {
                    return Err(failed(Errno::NOENT).into());
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(failed(error).into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;
    use std::thread;

    use tempfile::TempDir;
    use walproto::{SegmentSize, SystemId};

    use super::*;
    use crate::archive::compression::Compression;
    use crate::archive::identity::ServerFacts;
    use crate::archive::{Archive, ArchiveOptions};
    use crate::disk::os_disk::OsDisk;

    fn disk() -> Arc<dyn Disk> {
        Arc::new(OsDisk::new())
    }

    type Opened = Result<ArchiveView, ArchiveError>;

    /// Begins to wait, and returns when it does.
    fn wait_for(directory: &Path) -> thread::JoinHandle<Opened> {
        let (sender, receiver) = mpsc::channel();
        let directory = directory.to_owned();
        let thread = thread::spawn(move || {
            ArchiveView::open_when_begun(&disk(), &directory, || sender.send(()).unwrap())
        });
        receiver.recv().unwrap();
        thread
    }

    #[test]
    fn an_archive_is_opened_as_soon_as_it_has_an_identity() {
        let directory = TempDir::new().unwrap();
        let waiting = wait_for(directory.path());
        let options = ArchiveOptions {
            directory: directory.path().to_owned(),
            sync: true,
            compression: Compression::NONE,
        };
        let mut archive = Archive::open(disk(), options).unwrap();
        fs::write(directory.path().join("something"), "else").unwrap();
        assert!(!waiting.is_finished());
        let facts = ServerFacts {
            system_id: SystemId(7),
            segment_size: SegmentSize::DEFAULT,
            block_size: 8192,
            server_version_num: 150_018,
            data_directory_mode: 0o700,
        };
        archive.bind(&facts).unwrap();
        let view = waiting.join().unwrap().unwrap();
        assert_eq!(view.identity().system_id(), SystemId(7));
        let never = || panic!("there is nothing to wait for");
        ArchiveView::open_when_begun(&disk(), directory.path(), never).unwrap();
    }

    #[test]
    fn a_directory_that_goes_away_is_not_waited_for() {
        let directory = TempDir::new().unwrap();
        let waiting = wait_for(directory.path());
        directory.close().unwrap();
        let error = waiting.join().unwrap().unwrap_err();
        assert!(matches!(error, ArchiveError::Disk(_)), "{error}");
    }
}
