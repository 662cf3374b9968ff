//! An archive that is read while it grows.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use walproto::{Lsn, Major, TimelineHistory, TimelineId};

use crate::archive::Archive;
use crate::archive::directory::ArchiveDirectory;
use crate::archive::discovery;
use crate::archive::history;
use crate::archive::identity::{Identity, ServerFacts};
use crate::archive::listeners::Subscription;
use crate::archive::listing::Listing;
use crate::archive::live::Live;
use crate::archive::position::{self, ArchivePosition};
use crate::archive::segment_files::SegmentFiles;
use crate::disk::Disk;
use crate::error::ArchiveError;
use crate::serve::ledger::Ledger;
use crate::serve::open_file::OpenFile;
use crate::wal::page::BLOCK_SIZE;
use crate::wal::segment::{Encoding, SegmentFile, SegmentName};

#[cfg(test)]
mod tests;

/// An archive, opened to be read, that this or another process may be filling at the same time.
///
/// It takes no lock and changes nothing. It hands out durable bytes only: those up to the position
/// that the archive's writer tells ([`Followed`] says how), read by a [`Feed`](crate::Feed).
/// Clones are the same view.
///
/// To go on with what arrives: [subscribe](Self::on_advance), look at [`durable`](Self::durable),
/// then wait. Another process is heard as long as a [`Follower`](crate::Follower) lives.
#[derive(Clone, Debug)]
pub struct ArchiveView {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    files: SegmentFiles,
    source: Source,
    live: Arc<Live>,
    identity: Mutex<Arc<Identity>>,
    histories: Mutex<BTreeMap<TimelineId, Arc<TimelineHistory>>>,
    /// The file of the segment that grows, which all feeds at the end share.
    newest_file: Mutex<Option<OpenFile>>,
    /// How far files are checked.
    ledger: Ledger,
    failure: Mutex<Option<ArchiveError>>,
}

#[derive(Debug)]
enum Source {
    ThisProcess,
    AnotherProcess(AnotherProcess),
}

#[derive(Debug)]
struct AnotherProcess {
    followed: Mutex<Followed>,
    /// Held while it is read what the process tells, so that what is read last counts.
    refreshing: Mutex<()>,
    sync_failed: AtomicBool,
}

/// Where the durable position of an archive comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Followed {
    /// From the writer in this process, with each of its syncs.
    SameProcess,
    /// From the position that a receiver in another process publishes with each of its syncs, or,
    /// if a crash of the machine damaged that, the one that it last noted as acknowledged.
    Published,
    /// Nobody publishes one: another program, such as `pg_receivewal`, writes the archive. Its
    /// complete segments are taken, and synced before a byte of them is handed out; a growing one
    /// is not touched.
    CompleteSegmentsOnly,
}

impl Archive {
    /// A view of this archive that hears of each sync of its writers as it happens.
    ///
    /// # Errors
    /// When there is no identity yet, or nothing is synced and so nothing is durable.
    pub fn view(&self) -> Result<ArchiveView, ArchiveError> {
        let identity = self.bound()?.clone();
        if !self.is_synced() {
            return Err(ArchiveError::NotDurable {
                directory: self.path().to_owned(),
            });
        }
        let files = self.segment_files()?;
        let live = Arc::clone(self.live());
        Ok(ArchiveView::new(files, identity, Source::ThisProcess, live))
    }
}

impl ArchiveView {
    /// Opens the archive in `directory`, which another process may be filling, and reads how far
    /// it is durable.
    ///
    /// # Errors
    /// When nothing in the directory says which cluster it is of, it was last written without
    /// syncs, or it cannot be read.
    pub fn open(disk: Arc<dyn Disk>, directory: &Path) -> Result<Self, ArchiveError> {
        let directory = ArchiveDirectory::new(disk, directory);
        let identity = match Identity::load(&directory)? {
            Some(identity) => identity,
            None => discovered(&directory)?,
        };
        let files = SegmentFiles::new(directory, identity.segment_size());
        let source = Source::AnotherProcess(AnotherProcess {
            followed: Mutex::new(Followed::CompleteSegmentsOnly),
            refreshing: Mutex::new(()),
            sync_failed: AtomicBool::new(false),
        });
        let this = Self::new(files, identity, source, Arc::default());
        this.refresh()?;
        Ok(this)
    }

    fn new(files: SegmentFiles, identity: Identity, source: Source, live: Arc<Live>) -> Self {
        let shared = Shared {
            files,
            source,
            live,
            identity: Mutex::new(Arc::new(identity)),
            histories: Mutex::default(),
            newest_file: Mutex::default(),
            ledger: Ledger::default(),
            failure: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The archive's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.files().directory().root()
    }

    /// Which cluster the archive is of. If another program made it, the server's version is the
    /// first of the major version that its pages are of.
    #[must_use]
    pub fn identity(&self) -> Arc<Identity> {
        Arc::clone(&lock(&self.shared.identity))
    }

    /// Where the durable position comes from. It changes when a receiver begins to write what
    /// another program wrote before.
    #[must_use]
    pub fn followed(&self) -> Followed {
        match &self.shared.source {
            Source::ThisProcess => Followed::SameProcess,
            Source::AnotherProcess(another) => *lock(&another.followed),
        }
    }

    /// How far the archive is durable, on its newest timeline: that and no more is handed out.
    /// `None` as long as nothing is known to be: in this process before the first
    /// [`Archive::recover`], or in an archive without a complete segment.
    #[must_use]
    pub fn durable(&self) -> Option<ArchivePosition> {
        self.shared.live.position()
    }

    /// Has `callback` called whenever [`durable`](Self::durable) or [`followed`](Self::followed)
    /// has changed, as long as the subscription lives. It finds there what is new.
    ///
    /// No change goes without a call that comes after it; one call may be for several changes.
    /// So who subscribes first and looks at the position then misses nothing. It is called by
    /// the thread that made the WAL durable, which waits for it, and must not block. A call that
    /// is under way when the subscription is dropped goes on.
    pub fn on_advance(&self, callback: impl Fn() + Send + Sync + 'static) -> Subscription {
        self.shared.live.listeners().subscribe(Arc::new(callback))
    }

    /// Reads anew how far another process has come; whether that is something else than before.
    /// A [`Follower`](crate::Follower) does so whenever there is something to read.
    ///
    /// # Errors
    /// When it cannot be read, or the archive is now written without syncs.
    pub fn refresh(&self) -> Result<bool, ArchiveError> {
        let Source::AnotherProcess(another) = &self.shared.source else {
            return Ok(false);
        };
        let refreshing = lock(&another.refreshing);
        let directory = self.files().directory();
        if directory.is_not_durable()? {
            return Err(ArchiveError::NotDurable {
                directory: directory.root().to_owned(),
            });
        }
        let (followed, position) = match position::last_told(directory)? {
            Some(position) => (Followed::Published, Some(position)),
            None => {
                let listing = Listing::read(directory)?;
                let complete = complete_end(&listing, self.files());
                (Followed::CompleteSegmentsOnly, complete)
            }
        };
        let before = std::mem::replace(&mut *lock(&another.followed), followed);
        let moved = self.shared.live.set(position);
        drop(refreshing);
        let changed = moved || before != followed;
        if changed {
            self.shared.live.listeners().notify();
        }
        Ok(changed)
    }

    /// The first failure to follow another process since this was last asked. Following goes on
    /// with what that process does next.
    #[must_use]
    pub fn take_failure(&self) -> Option<ArchiveError> {
        lock(&self.shared.failure).take()
    }

    pub(crate) fn note_failure(&self, error: ArchiveError) {
        lock(&self.shared.failure).get_or_insert(error);
        self.shared.live.listeners().notify();
    }

    /// The history of a timeline, byte for byte; `None` if it is not here. The first timeline has
    /// none.
    ///
    /// # Errors
    /// When its file is damaged or cannot be read.
    pub fn history(
        &self,
        timeline: TimelineId,
    ) -> Result<Option<Arc<TimelineHistory>>, ArchiveError> {
        if let Some(known) = lock(&self.shared.histories).get(&timeline) {
            return Ok(Some(Arc::clone(known)));
        }
        let directory = self.files().directory();
        // It is newer than the identity that was read before may know.
        let identity = Identity::load(directory)?;
        let found = history::find(directory, timeline, identity.as_ref())?;
        if let Some(identity) = identity {
            *lock(&self.shared.identity) = Arc::new(identity);
        }
        Ok(found.map(|history| {
            let history = Arc::new(history);
            let mut histories = lock(&self.shared.histories);
            Arc::clone(histories.entry(timeline).or_insert(history))
        }))
    }

    /// The history of a timeline that there is WAL of.
    pub(crate) fn history_of(
        &self,
        timeline: TimelineId,
    ) -> Result<Arc<TimelineHistory>, ArchiveError> {
        if timeline == TimelineId::FIRST {
            return Ok(Arc::new(TimelineHistory::without_ancestors(timeline)));
        }
        self.history(timeline)?
            .ok_or(ArchiveError::HistoryMissing { timeline })
    }

    /// The segments and histories that lie in the directory now.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn listing(&self) -> Result<Listing, ArchiveError> {
        Ok(Listing::read(self.files().directory())?)
    }

    /// The same, with all that only gets another name meanwhile.
    pub(crate) fn settled_listing(&self) -> Result<Listing, ArchiveError> {
        Ok(Listing::settled(self.files().directory())?)
    }

    /// The oldest segment of a timeline, `None` when there is none.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn oldest_segment(
        &self,
        timeline: TimelineId,
    ) -> Result<Option<SegmentName>, ArchiveError> {
        let listing = self.listing()?;
        let oldest = listing.of_timeline(timeline).next();
        Ok(oldest.map(|(file, _)| file.name))
    }

    /// Whether the durable WAL ended with a record when it ended at `end`. Complete segments need not
    /// end with one.
    pub(crate) fn is_record_end(&self, end: Lsn) -> bool {
        if self.files().size().offset_of(end) != 0 {
            return true;
        }
        match &self.shared.source {
            Source::ThisProcess => true,
            Source::AnotherProcess(another) => {
                // Both change together.
                let _refreshing = lock(&another.refreshing);
                self.followed() != Followed::CompleteSegmentsOnly
                    && self
                        .durable()
                        .is_some_and(|durable| durable.record_end == end)
            }
        }
    }

    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.shared.live
    }

    pub(crate) fn files(&self) -> &SegmentFiles {
        &self.shared.files
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }

    pub(crate) fn newest_file(&self) -> MutexGuard<'_, Option<OpenFile>> {
        lock(&self.shared.newest_file)
    }

    /// Makes a file durable that another program wrote, before a byte of it is handed out.
    pub(crate) fn make_durable(
        &self,
        file: &crate::disk::named_file::NamedFile,
    ) -> Result<(), ArchiveError> {
        let Source::AnotherProcess(another) = &self.shared.source else {
            return Ok(());
        };
        if self.followed() != Followed::CompleteSegmentsOnly {
            return Ok(());
        }
        if another.sync_failed.load(Ordering::Relaxed) {
            return Err(ArchiveError::SyncFailedBefore {
                directory: self.path().to_owned(),
            });
        }
        let synced = file.sync_data();
        synced
            .and_then(|()| self.files().directory().sync_root())
            .map_err(|error| {
                // A second try would succeed without the bytes.
                another.sync_failed.store(true, Ordering::Relaxed);
                error.into()
            })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is only ever replaced whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the segments of another program say about their cluster.
fn discovered(directory: &ArchiveDirectory) -> Result<Identity, ArchiveError> {
    let listing = Listing::read(directory)?;
    let Some(found) = discovery::discover(directory, &listing)? else {
        return Err(ArchiveError::NoIdentity {
            directory: directory.root().to_owned(),
        });
    };
    let Some(major) = Major::of_page_magic(found.page_magic) else {
        return Err(ArchiveError::UnknownVersion {
            path: found.path,
            magic: found.page_magic,
        });
    };
    let facts = ServerFacts {
        system_id: found.system_id,
        segment_size: found.segment_size,
        block_size: u32::try_from(BLOCK_SIZE).unwrap_or(u32::MAX),
        server_version_num: major.first_release().0,
        data_directory_mode: 0o700,
    };
    Ok(Identity::new(&facts, Some(found.page_magic)))
}

/// The end of the last complete segment of the newest timeline that has one.
fn complete_end(listing: &Listing, files: &SegmentFiles) -> Option<ArchivePosition> {
    let size = files.size();
    let whole = |file: SegmentFile, length| {
        // What is copied here is as long as a segment only when it is one.
        !file.partial && (file.encoding != Encoding::Plain || length == size.bytes())
    };
    let (last, _) = listing
        .segments()
        .rev()
        .find(|&(file, length)| whole(file, length))?;
    let start = last.name.number(size)?.start(size)?;
    let end = files.end_of(start);
    Some(ArchivePosition {
        timeline: last.name.timeline(),
        record_end: end,
        byte_end: end,
    })
}
