//! An archive directory, opened to be written.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use walproto::{SegmentSize, SystemId, TimelineHistory, TimelineId};

use crate::disk::Disk;
use crate::error::ArchiveError;
use crate::wal::segment::{SegmentFile, SegmentName};

pub(crate) mod checked_json;
pub(crate) mod compression;
pub(crate) mod compressor;
pub(crate) mod directory;
pub(crate) mod discovery;
pub(crate) mod flushed;
pub(crate) mod history;
pub(crate) mod identity;
pub(crate) mod listeners;
pub(crate) mod listing;
pub(crate) mod live;
pub(crate) mod lock;
pub(crate) mod missing;
pub(crate) mod pipeline;
pub(crate) mod position;
pub(crate) mod prepare;
pub(crate) mod read;
pub(crate) mod recovery;
pub(crate) mod segment_files;
pub(crate) mod segment_reader;
pub(crate) mod stored_records;
pub(crate) mod tail;
pub(crate) mod takeover;
pub(crate) mod writer;

mod histories;
mod opening;
mod stream;

use compression::Compression;
use directory::ArchiveDirectory;
use discovery::Discovery;
use identity::Identity;
use listing::Listing;
use live::Live;
use lock::ProcessLock;
use missing::{MissingSegments, missing_segments};
use pipeline::Pipeline;
use position::ArchivePosition;
use prepare::Preparer;
use segment_reader::SegmentReader;

/// How an archive is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArchiveOptions {
    /// The directory, which exists.
    pub directory: PathBuf,
    /// Whether anything is synced. Without it a crash of the machine may take everything, so
    /// nothing of it may be promised to a server.
    pub sync: bool,
    /// How completed segments are compressed.
    pub compression: Compression,
}

/// An archive directory that this process, and no other, streams into.
///
/// A directory that `pg_receivewal` left is taken over as it stands. Opening one changes nothing
/// beside the subdirectory [`OWN_DIRECTORY`](crate::OWN_DIRECTORY) until [`Archive::bind`] found
/// that the server is of the same cluster.
#[derive(Debug)]
pub struct Archive {
    directory: ArchiveDirectory,
    sync: bool,
    segments_are_moved: bool,
    compression: Compression,
    identity: Option<Identity>,
    discovery: Option<Discovery>,
    histories: BTreeMap<TimelineId, TimelineHistory>,
    foreign: Vec<OsString>,
    /// What completed segments go through; none if nothing is done with them.
    pipeline: Option<Arc<Pipeline>>,
    lock: Arc<ProcessLock>,
    /// Tells views in this process how far the archive is durable.
    live: Arc<Live>,
    /// Makes segments ready for one writer after the other; none before the first.
    preparer: Mutex<Option<Arc<Mutex<Preparer>>>>,
}

impl Archive {
    /// Says that another program moves completed segments away: that there are none is no loss
    /// then, and the archive begins anew where it is told to. Otherwise WAL that was durable and
    /// is not here any more is an error.
    pub const fn let_segments_be_moved(&mut self) {
        self.segments_are_moved = true;
    }

    pub(crate) const fn segments_are_moved(&self) -> bool {
        self.segments_are_moved
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.root()
    }

    /// The path of a segment file.
    #[must_use]
    pub fn path_of(&self, file: SegmentFile) -> PathBuf {
        self.directory.path(file)
    }

    /// Whether what is written is synced.
    #[must_use]
    pub const fn is_synced(&self) -> bool {
        self.sync
    }

    /// Which cluster the archive is of, `None` before the first [`Archive::bind`].
    #[must_use]
    pub const fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The cluster's system identifier, which the segments tell even before the first
    /// [`Archive::bind`]; `None` for an empty archive.
    #[must_use]
    pub fn system_id(&self) -> Option<SystemId> {
        let bound = self.identity.as_ref().map(Identity::system_id);
        bound.or_else(|| self.discovery.as_ref().map(|found| found.system_id))
    }

    /// The size of the segments, known as [`Archive::system_id`] is.
    #[must_use]
    pub fn segment_size(&self) -> Option<SegmentSize> {
        let bound = self.identity.as_ref().map(Identity::segment_size);
        bound.or_else(|| self.discovery.as_ref().map(|found| found.segment_size))
    }

    /// Keeps the magic number of the cluster's WAL pages, from now on the only one allowed.
    ///
    /// # Errors
    /// When there is no identity to keep it in, or the disk refuses.
    pub fn learn_page_magic(&mut self, magic: u16) -> Result<(), ArchiveError> {
        let mut identity = self.bound()?.clone();
        if identity.page_magic() != Some(magic) {
            identity.set_page_magic(magic);
            identity.save(&self.directory)?;
            self.identity = Some(identity);
        }
        Ok(())
    }

    pub(crate) fn bound(&self) -> Result<&Identity, ArchiveError> {
        self.identity
            .as_ref()
            .ok_or_else(|| ArchiveError::NoIdentity {
                directory: self.directory.root().to_owned(),
            })
    }

    /// Uses at most so much memory, in bytes, for the newest WAL, for the feeds of this process that
    /// are no further behind; without one, none. Until this is called it is
    /// [`DEFAULT_TAIL_BYTES`](crate::DEFAULT_TAIL_BYTES). A writer takes up to as much again for
    /// what is not durable yet.
    pub fn set_tail_capacity(&self, bytes: usize) {
        self.live.set_tail_capacity(bytes);
    }

    #[cfg(test)]
    pub(crate) const fn directory(&self) -> &ArchiveDirectory {
        &self.directory
    }

    pub(crate) const fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// What lay in the directory on opening that is neither PostgreSQL's nor ours. It is left
    /// alone.
    #[must_use]
    pub fn foreign(&self) -> &[OsString] {
        &self.foreign
    }

    /// The segments and histories that lie in the directory now.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn listing(&self) -> Result<Listing, ArchiveError> {
        Ok(Listing::read(&self.directory)?)
    }

    /// The greatest timeline of which there is a segment.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn newest_timeline(&self) -> Result<Option<TimelineId>, ArchiveError> {
        Ok(self.listing()?.newest_timeline())
    }

    /// The segments that are missing between the oldest one on the way to the newest timeline and
    /// that timeline's last one. Nothing of this crate leaves such a hole behind; whoever restores
    /// from before it comes to its start and no further.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn missing_segments(&self) -> Result<Vec<MissingSegments>, ArchiveError> {
        let listing = self.listing()?;
        let (Some(newest), Some(size)) = (listing.newest_timeline(), self.segment_size()) else {
            return Ok(Vec::new());
        };
        let history = match self.histories.get(&newest) {
            Some(history) => history.clone(),
            // That it is gone is told by who needs it. The timeline's own segments are known.
            None => TimelineHistory::without_ancestors(newest),
        };
        Ok(missing_segments(&listing, &history, size))
    }

    /// Opens a segment file to be read.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn read_segment(&self, file: SegmentFile) -> Result<SegmentReader, ArchiveError> {
        SegmentReader::open(&self.directory, file)
    }

    /// Checks that a complete segment, compressed or not, is a whole one.
    ///
    /// # Errors
    /// When it is not, or the disk refuses.
    pub fn verify_segment(&self, file: SegmentFile) -> Result<(), ArchiveError> {
        takeover::verify(&self.directory, file, self.bound()?.segment_size())
    }

    /// The files in which a sync failed and which were not built anew since.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn poisoned(&self) -> Result<Vec<SegmentFile>, ArchiveError> {
        Ok(self.directory.poisoned()?)
    }

    /// Leaves a durable marker that nothing in a file may be trusted, since a sync of it failed.
    ///
    /// # Errors
    /// When the disk refuses this too.
    pub fn poison(&self, file: SegmentFile) -> Result<(), ArchiveError> {
        Ok(self.directory.poison(file)?)
    }

    /// Removes the marker of a file that was built anew.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn clear_poison(&self, file: SegmentFile) -> Result<(), ArchiveError> {
        Ok(self.directory.clear_poison(file)?)
    }

    /// Moves a bad file into quarantine, durably, and returns where it is now.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn quarantine(&self, file: SegmentFile) -> Result<PathBuf, ArchiveError> {
        Ok(self.directory.quarantine(&self.directory.path(file))?)
    }

    /// Has a completed segment processed in the background: compressed, if segments are.
    pub fn compress(&self, name: SegmentName) {
        if let Some(pipeline) = &self.pipeline {
            // What the queue has no room for is processed after the next opening.
            pipeline.enqueue(name);
        }
    }

    /// Compresses the growing segment, so that the directory looks as `pg_receivewal -Z` leaves
    /// it: `.gz.partial` in place of `.partial`. The next opening makes a plain file of it again.
    /// If `patience` is too short, the segment stays plain. There must be no writer any more.
    ///
    /// # Errors
    /// When the disk refuses. Nothing is lost by it: the plain segment is there.
    pub fn compress_growing(
        &self,
        compression: Compression,
        patience: Duration,
    ) -> Result<(), ArchiveError> {
        let Some(size) = self.segment_size() else {
            return Ok(());
        };
        if compression == Compression::NONE {
            return Ok(());
        }
        let begun = Instant::now();
        let go_on = || begun.elapsed() <= patience;
        compressor::compress_growing(&self.directory, compression, size, &go_on)
    }

    /// Closes the archive. Completed segments that wait to be compressed are compressed, for as
    /// long as `patience` lasts; the others are after the next opening. Returns the first failure
    /// of that, by which nothing is lost.
    pub fn close(mut self, patience: Duration) -> Option<ArchiveError> {
        // A writer that still lives has it go on, and then stops it.
        let pipeline = self.pipeline.take().and_then(Arc::into_inner);
        pipeline.and_then(|pipeline| pipeline.finish(patience))
    }

    /// The first failure of compression since this was last asked. Nothing is lost by it: the
    /// segment is there, plain.
    #[must_use]
    pub fn take_compression_failure(&self) -> Option<ArchiveError> {
        self.pipeline
            .as_ref()
            .and_then(|pipeline| pipeline.take_failure())
    }
}

/// The position up to which the archive in `directory` is durable, as its writer last told. For
/// other processes; it takes no lock. `None` when no writer ever told one, and while the archive
/// is one that is written without syncs.
///
/// # Errors
/// When the disk refuses, or a crash of the machine damaged what was told: the writer mends that
/// with its next start.
pub fn published_position(
    disk: Arc<dyn Disk>,
    directory: &Path,
) -> Result<Option<ArchivePosition>, ArchiveError> {
    let directory = ArchiveDirectory::new(disk, directory);
    if directory.is_not_durable()? {
        return Ok(None);
    }
    position::published(&directory)
}

#[cfg(test)]
mod tests;
