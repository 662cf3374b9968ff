//! The next segment, made ready before it is needed.
//!
//! A segment is written into a file whose blocks were all written with zeros and synced before:
//! a sync then has no file size and no block map to make durable beside the data, and a full disk
//! shows before the segment is begun. Making such a file takes as long as writing a segment, so
//! a thread does it while the segment before fills. Should that thread not be done in time, the
//! segment begins in a file whose space is reserved but not written, and the writer writes zeros
//! ahead of a little WAL as it goes.
//!
//! It pays where there are many small syncs. A writer that catches up syncs a segment a few times
//! only, and would write everything twice; it asks for the next file once it has synced often
//! enough.
//!
//! The files lie in a directory of our own and get their name in the archive by a rename. As
//! `NAME.partial` beside the others the next segment would be where `pg_receivewal` starts, which
//! would skip the end of the one before
//! (src/bin/pg_basebackup/pg_receivewal.c, `FindStreamingStart`, PG 15).

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::archive::directory::{ArchiveDirectory, Place};
use crate::disk::OpenMode;
use crate::disk::named_file::NamedFile;
use crate::error::{DiskError, Operation};
use crate::wal::segment::SegmentName;

/// When the next segment is made ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Preparation {
    /// By a thread of its own, while the segment before is written.
    #[default]
    Background,
    /// At the moment the segment before is begun, by the thread that writes it: every access to
    /// the disk is then in one order, which a simulated disk can repeat.
    Inline,
}

/// Makes files for segments to come. It outlives the writers of an archive: a new connection to the
/// server must not have a segment written with zeros that is ready already.
#[derive(Debug)]
pub(crate) struct Preparer {
    workshop: Workshop,
    way: Way,
    /// The growing segment, and up to which offset its blocks are known to have been written.
    growing: Option<(SegmentName, u64)>,
}

#[derive(Debug)]
enum Way {
    Background(Background),
    Inline(Option<NamedFile>),
}

#[derive(Debug)]
struct Background {
    /// `None` once the thread is to end.
    requests: Option<SyncSender<u64>>,
    ready: Receiver<Option<NamedFile>>,
    /// Whether a request has not been answered yet.
    requested: bool,
    thread: Option<JoinHandle<()>>,
    abandoned: Arc<AtomicBool>,
}

/// Where the files are made.
#[derive(Clone, Debug)]
struct Workshop {
    directory: ArchiveDirectory,
    length: u64,
    /// The next file's number. Names are not used twice, as a file may still have its own.
    number: u64,
    /// Set when nobody waits for the file any more.
    abandoned: Arc<AtomicBool>,
}

/// Zeros are written in pieces of this many bytes.
pub(crate) static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// A file for a segment to begin in.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) file: NamedFile,
    /// Up to which offset its blocks have been written, in bytes: its length or nothing.
    pub(crate) filled: u64,
}

impl Preparer {
    /// Makes files of `length` bytes for the archive in `directory`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn new(
        directory: ArchiveDirectory,
        length: u64,
        preparation: Preparation,
    ) -> Result<Self, DiskError> {
        let place = directory.own(Place::Prepared);
        let workshop = Workshop {
            directory,
            length,
            number: 0,
            abandoned: Arc::default(),
        };
        let way = match preparation {
            Preparation::Inline => Way::Inline(None),
            Preparation::Background => Way::Background(
                Background::start(workshop.clone())
                    .map_err(DiskError::at(Operation::StartThread, place))?,
            ),
        };
        Ok(Self {
            workshop,
            way,
            growing: None,
        })
    }

    /// Whether it makes files in this way.
    pub(crate) const fn is(&self, preparation: Preparation) -> bool {
        match self.way {
            Way::Background(_) => matches!(preparation, Preparation::Background),
            Way::Inline(_) => matches!(preparation, Preparation::Inline),
        }
    }

    /// Notes how much of the growing segment is known to have been written.
    pub(crate) const fn note_growing(&mut self, name: SegmentName, filled: u64) {
        self.growing = Some((name, filled));
    }

    /// How much of the segment `name` is known to have been written.
    pub(crate) fn filled(&self, name: SegmentName) -> u64 {
        let known = self.growing.filter(|(growing, _)| *growing == name);
        known.map_or(0, |(_, filled)| filled)
    }

    /// Has the next file made unless there is one, or one is being made. A file that cannot be
    /// made is none: the disk may have room when it is needed.
    pub(crate) fn request(&mut self) {
        let number = self.workshop.number;
        match &mut self.way {
            Way::Inline(ready) if ready.is_none() => {
                self.workshop.number += 1;
                *ready = self.workshop.make_filled(number).ok();
            }
            Way::Background(background) if !background.requested => {
                if let Some(requests) = &background.requests
                    && requests.try_send(number).is_ok()
                {
                    self.workshop.number += 1;
                    background.requested = true;
                }
            }
            Way::Inline(_) | Way::Background(_) => {}
        }
    }

    /// A file for a segment to begin: one that is ready, or is so before `patience` ends, or else
    /// one with nothing but its length.
    ///
    /// # Errors
    /// When there is none and none can be made.
    pub(crate) fn take(&mut self, patience: Duration) -> Result<Prepared, DiskError> {
        let ready = match &mut self.way {
            Way::Inline(ready) => ready.take(),
            Way::Background(background) => background.take(patience),
        };
        match ready {
            Some(file) => Ok(Prepared {
                file,
                filled: self.workshop.length,
            }),
            None => {
                let number = self.workshop.number;
                self.workshop.number += 1;
                let file = self.workshop.make_unfilled(number)?;
                Ok(Prepared { file, filled: 0 })
            }
        }
    }
}

impl Background {
    fn start(workshop: Workshop) -> io::Result<Self> {
        let (requests, requested) = sync_channel::<u64>(1);
        let (done, ready) = sync_channel(1);
        let abandoned = Arc::clone(&workshop.abandoned);
        let thread = std::thread::Builder::new()
            .name("segment preparer".to_owned())
            .spawn(move || {
                for number in requested {
                    if done.send(workshop.make_filled(number).ok()).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            requests: Some(requests),
            ready,
            requested: false,
            thread: Some(thread),
            abandoned,
        })
    }

    fn take(&mut self, patience: Duration) -> Option<NamedFile> {
        if !self.requested {
            return None;
        }
        match self.ready.recv_timeout(patience) {
            Ok(made) => {
                self.requested = false;
                made
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.requests = None;
        self.abandoned.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it made stays in the directory, which the next recovery empties.
            drop(thread.join());
        }
    }
}

impl Workshop {
    fn make_filled(&self, number: u64) -> Result<NamedFile, DiskError> {
        self.make(number, |file| {
            let mut offset = 0;
            while offset < self.length && !self.abandoned.load(Ordering::Relaxed) {
                let length = (self.length - offset).min(ZEROS.len() as u64);
                let zeros = usize::try_from(length).ok().and_then(|l| ZEROS.get(..l));
                file.write_at(&[IoSlice::new(zeros.unwrap_or(&ZEROS))], offset)?;
                offset += length;
            }
            file.sync_data()
        })
    }

    fn make_unfilled(&self, number: u64) -> Result<NamedFile, DiskError> {
        self.make(number, |file| file.allocate(self.length))
    }

    /// Creates a file and fills it, or removes it again.
    fn make(
        &self,
        number: u64,
        fill: impl FnOnce(&NamedFile) -> Result<(), DiskError>,
    ) -> Result<NamedFile, DiskError> {
        let path = self.directory.own_file(Place::Prepared, number);
        let file = self.directory.open(path, OpenMode::CreateNew)?;
        if let Err(error) = fill(&file) {
            // If even this is refused, the file is in nobody's way until the next recovery
            // removes it; the error above is the one that matters.
            drop(self.directory.remove(file.path()));
            return Err(error);
        }
        Ok(file)
    }
}

/// Removes what an earlier process made ready: whether it came to the end of it nobody knows.
pub(crate) fn remove_prepared(directory: &ArchiveDirectory) -> Result<(), DiskError> {
    let place = directory.own(Place::Prepared);
    for entry in directory.list(&place)? {
        if entry.is_file {
            directory.remove(&place.join(entry.name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::sim::{Fault, SimDisk};

    const LENGTH: u64 = 600_000;
    const PATIENCE: Duration = Duration::from_secs(60);

    fn preparer(preparation: Preparation) -> (SimDisk, ArchiveDirectory, Preparer) {
        let disk = SimDisk::new("/a");
        let directory = ArchiveDirectory::new(Arc::new(disk.clone()), Path::new("/a"));
        directory.create_own().unwrap();
        let preparer = Preparer::new(directory.clone(), LENGTH, preparation).unwrap();
        (disk, directory, preparer)
    }

    fn made_by_writing(disk: &SimDisk, file: &NamedFile) -> bool {
        let written = format!("write {}", file.path().display());
        disk.log().iter().any(|line| line.contains(&written))
    }

    #[test]
    fn what_was_asked_for_is_written_with_zeros_and_synced() {
        for preparation in [Preparation::Background, Preparation::Inline] {
            let (disk, _, mut preparer) = preparer(preparation);
            preparer.request();
            preparer.request();
            let file = preparer.take(PATIENCE).unwrap().file;
            assert!(made_by_writing(&disk, &file));
            let content = disk.content(file.path()).unwrap();
            assert!(content == vec![0; content.len()] && content.len() as u64 == LENGTH);
            let synced = format!("sync {}", file.path().display());
            assert!(disk.log().iter().any(|line| line.ends_with(&synced)));
            // Only one was made for the two requests.
            let next = preparer.take(Duration::ZERO).unwrap().file;
            assert_ne!(next.path(), file.path());
            assert!(!made_by_writing(&disk, &next));
            assert_eq!(next.length().unwrap(), LENGTH);
        }
    }

    #[test]
    fn a_file_that_could_not_be_made_ready_is_removed_and_missed_by_nobody() {
        for preparation in [Preparation::Background, Preparation::Inline] {
            let (disk, directory, mut preparer) = preparer(preparation);
            disk.fail_at(disk.operations() + 2, Fault::NoSpace);
            preparer.request();
            let file = preparer.take(PATIENCE).unwrap().file;
            assert!(!made_by_writing(&disk, &file));
            let entries = directory.list(&directory.own(Place::Prepared)).unwrap();
            assert_eq!(entries.len(), 1);
            preparer.request();
            let file = preparer.take(PATIENCE).unwrap().file;
            assert!(made_by_writing(&disk, &file));
        }
    }

    #[test]
    fn an_earlier_processs_files_are_removed() {
        let (_, directory, mut preparer) = preparer(Preparation::Inline);
        preparer.request();
        drop(preparer);
        assert!(
            !directory
                .list(&directory.own(Place::Prepared))
                .unwrap()
                .is_empty()
        );
        remove_prepared(&directory).unwrap();
        assert!(
            directory
                .list(&directory.own(Place::Prepared))
                .unwrap()
                .is_empty()
        );
    }
}
