//! Compresses completed segments in the background.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use walproto::SegmentSize;

use crate::archive::compression::{self, Compression};
use crate::archive::directory::ArchiveDirectory;
use crate::archive::listing::Listing;
use crate::archive::segment_files::SegmentFiles;
use crate::archive::segment_reader::unreadable;
use crate::disk::OpenMode;
use crate::disk::named_file::NamedFile;
use crate::error::{ArchiveError, Damage, DiskError, Operation};
use crate::wal::segment::{SegmentFile, SegmentName};

/// How many segments wait at most: names alone, 24 bytes each. Those beyond stay as they are
/// until the archive is opened again.
const QUEUE_LENGTH: usize = 1 << 16;

/// A thread that compresses segments one after the other.
///
/// A plain segment is removed only after its compressed copy was synced, read back and found to
/// be the same. Stopping it leaves what it has not finished as it was.
#[derive(Debug)]
pub(crate) struct Compressor {
    queue: Option<SyncSender<SegmentName>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    failure: Mutex<Option<ArchiveError>>,
    ended: Mutex<bool>,
    end: Condvar,
}

impl Compressor {
    /// Starts the thread. It compresses `left` too, those of the run before for which there was
    /// no time, but each not before a later segment is queued: until then a writer may move it
    /// out of the way, and one compressed meanwhile would be back.
    pub(crate) fn start(
        directory: ArchiveDirectory,
        compression: Compression,
        left: Vec<SegmentName>,
    ) -> Result<Self, DiskError> {
        let (queue, segments) = sync_channel(QUEUE_LENGTH);
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let root = directory.root().to_owned();
        let thread = thread::Builder::new()
            .name("wal-compressor".to_owned())
            .spawn(move || {
                let _ended = Ended(&theirs);
                work(&directory, compression, left, &segments, &theirs);
            })
            .map_err(DiskError::at(Operation::StartThread, root))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
            shared,
        })
    }

    /// Queues a completed segment; never waits. `false` when the queue has no room: it is compressed
    /// after the archive is next opened.
    pub(crate) fn enqueue(&self, name: SegmentName) -> bool {
        match self.queue.as_ref().map(|queue| queue.try_send(name)) {
            Some(Ok(())) => true,
            None | Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) => false,
        }
    }

    /// The first failure since this was last asked. The segment it was about is still there,
    /// uncompressed.
    pub(crate) fn take_failure(&self) -> Option<ArchiveError> {
        self.shared.failure().take()
    }

    /// Compresses what is queued, for as long as `patience` lasts, then stops. Returns the first
    /// failure.
    pub(crate) fn finish(mut self, patience: Duration) -> Option<ArchiveError> {
        self.queue = None;
        let shared = Arc::clone(&self.shared);
        let ended = shared.ended();
        // Whether it has ended or is out of time now makes no difference.
        drop(
            shared
                .end
                .wait_timeout_while(ended, patience, |ended| !*ended)
                .unwrap_or_else(PoisonError::into_inner),
        );
        drop(self);
        shared.failure().take()
    }
}

/// Says that the thread has ended, also by a panic.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        *self.0.ended() = true;
        self.0.end.notify_all();
    }
}

impl Drop for Compressor {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed, and nothing depends on the thread's end.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn failure(&self) -> MutexGuard<'_, Option<ArchiveError>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, bool> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

fn work(
    directory: &ArchiveDirectory,
    compression: Compression,
    mut left: Vec<SegmentName>,
    segments: &Receiver<SegmentName>,
    shared: &Shared,
) {
    for queued in segments {
        // Those after it may yet be given up for other WAL.
        let (before, after): (Vec<_>, Vec<_>) = left.into_iter().partition(|name| *name < queued);
        left = after;
        for name in before.into_iter().chain([queued]) {
            if !shared.goes_on() {
                return;
            }
            if let Err(error) = compress(directory, compression, name, &|| shared.goes_on()) {
                shared.failure().get_or_insert(error);
            }
        }
    }
}

/// Replaces the plain file of a complete segment, unless `go_on` says no meanwhile.
pub(crate) fn compress(
    directory: &ArchiveDirectory,
    compression: Compression,
    name: SegmentName,
    go_on: &dyn Fn() -> bool,
) -> Result<(), ArchiveError> {
    compress_file(directory, compression, SegmentFile::complete(name), go_on)
}

/// Replaces the growing segment by a compressed file, `.gz.partial` for example, as
/// `pg_receivewal -Z` leaves it. Nothing may write the archive meanwhile.
///
/// At every moment one of the two files is durable, and where both are there, they hold the same.
/// The next opening makes a plain file again ([`import_partials`](crate::takeover)).
///
/// A segment in which a sync failed stays as it is: the cache may show what the disk does not have.
pub(crate) fn compress_growing(
    directory: &ArchiveDirectory,
    compression: Compression,
    size: SegmentSize,
    go_on: &dyn Fn() -> bool,
) -> Result<(), ArchiveError> {
    let files = SegmentFiles::new(directory.clone(), size);
    let marked: BTreeSet<_> = directory.poisoned()?.iter().map(|file| file.name).collect();
    let listing = Listing::read(directory)?;
    for (file, _) in listing.segments().rev() {
        if file != SegmentFile::partial(file.name) || marked.contains(&file.name) {
            return Ok(());
        }
        // The segment after the last WAL may have been begun already.
        if !files.is_empty(file)? {
            compress_file(directory, compression, file, go_on)?;
            return Ok(directory.sync_root()?);
        }
    }
    Ok(())
}

/// Replaces a plain file by a compressed one, unless `go_on` says no meanwhile. The removal of the
/// plain one is not synced.
fn compress_file(
    directory: &ArchiveDirectory,
    compression: Compression,
    segment: SegmentFile,
    go_on: &dyn Fn() -> bool,
) -> Result<(), ArchiveError> {
    let encoding = compression.encoding();
    let target = directory.path(segment.encoded(encoding));
    let plain_path = directory.path(segment);
    if plain_path == target {
        return Ok(());
    }
    let plain = NamedFile::open_if_exists(directory.disk(), plain_path.clone(), OpenMode::Read)?;
    let Some(plain) = plain else {
        return Ok(());
    };
    let temporary = directory.create_temporary(segment.encoded(encoding))?;
    let temporary_path = temporary.path().to_owned();
    let result = (|| {
        let encoded = compression::encode(compression, &plain, temporary, go_on)?;
        let Some((file, expected)) = encoded else {
            return Ok(false);
        };
        file.sync_data()?;
        let copy = directory.open(temporary_path.clone(), OpenMode::Read)?;
        let found = compression::digest(encoding, copy, expected.length)
            .map_err(|error| unreadable(&temporary_path, error))?;
        if found != expected {
            return Err(ArchiveError::Damaged {
                path: temporary_path.clone(),
                reason: Damage::Checksum {
                    expected: expected.checksum,
                    found: found.checksum,
                },
            });
        }
        directory.finish_temporary(&file, &target)?;
        Ok(true)
    })();
    match result {
        // Not synced: should it reappear, it is the same segment, and opening sorts it out.
        Ok(true) => {
            if !directory.remove_if_exists(&plain_path)? {
                // Another process has removed the segment meanwhile (`Removable::remove`), and a
                // lone file of it would look as if those after it were missing.
                directory.remove(&target)?;
                directory.sync_root()?;
            }
            Ok(())
        }
        Ok(false) => Ok(directory.remove(&temporary_path)?),
        Err(error) => {
            // The failure is what matters; what is left is removed on opening.
            let _ = directory.remove(&temporary_path);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests;
