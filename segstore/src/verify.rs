//! The check of an archive as it lies there: every page and record of every file.
//!
//! Each timeline's files are runs of segments that follow one another. A run is cut into stretches
//! of whole segments, which any number of threads check at the same time, each as a stream that
//! begins there. What such a stream cannot know, the rest of a record that began before it and the
//! link of its first record, is then checked by going on from the stretch before it to the end of
//! that first record: from there on both would say the same. So the outcome does not depend on
//! how a run was cut.

mod check;
mod copies;
mod guess;
mod join;
mod plan;
mod report;
mod segment;
#[cfg(test)]
mod tests;
mod tip;
mod weak;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::archive::directory::ArchiveDirectory;
use crate::archive::discovery;
use crate::archive::identity::Identity;
use crate::archive::listing::Listing;
use crate::archive::position;
use crate::archive::segment_files::SegmentFiles;
use crate::disk::Disk;
use crate::error::{ArchiveError, DiskError, Operation};
use crate::wal::validator::WalFormat;

use self::check::{Checked, Checker};
use self::join::Join;
use self::plan::Plan;
pub use self::report::{Fault, GoodRange, Problem, Verification, WeakRange};

/// The least that one thread is given at once, in bytes: to join two chunks takes about a block.
const LEAST_CHUNK: u64 = 64 << 20;

/// Checks every file of the archive in `directory`: each page and record with its CRC and its link
/// to the one before, across segments and into the timelines that follow, compressed segments
/// too, and that no segment is missing between others.
///
/// Nothing is locked or changed. A receiver may write the archive at the same time: then what was
/// durable when this began must be good, and WAL may end anywhere after it. In an archive that
/// `wal-receiver` never wrote, the growing segment must be good up to the last page of it; zeros
/// end it.
///
/// `jobs` threads, this one among them, read and check; each takes some 128 KiB of memory and what
/// a decompression needs.
///
/// # Errors
/// When it cannot be told what the archive is or what lies in it. That files are damaged or cannot
/// be read is no error but a [`Problem`].
pub fn verify(
    disk: Arc<dyn Disk>,
    directory: &Path,
    jobs: NonZeroUsize,
) -> Result<Verification, ArchiveError> {
    verify_in_chunks(disk, directory, jobs, LEAST_CHUNK)
}

fn verify_in_chunks(
    disk: Arc<dyn Disk>,
    directory: &Path,
    jobs: NonZeroUsize,
    least_chunk: u64,
) -> Result<Verification, ArchiveError> {
    let directory = ArchiveDirectory::new(disk, directory);
    // Before anything is listed or read, so that it is all there.
    let durable = position::last_told(&directory)?;
    let listing = Listing::settled(&directory)?;
    let identity = Identity::load(&directory)?;
    let (size, format) = format_of(&directory, &listing, identity.as_ref())?;
    let files = SegmentFiles::new(directory, size);
    let (mut plan, problems) = Plan::new(&files, &listing, identity.as_ref(), durable)?;
    plan.cut(least_chunk);
    let checked = check_all(&files, format, &plan, jobs)?;
    Join::new(Checker::new(&files, format), &plan, &listing, problems).finish(checked)
}

/// What the archive's WAL looks like, by what was written down or by the segments themselves.
fn format_of(
    directory: &ArchiveDirectory,
    listing: &Listing,
    identity: Option<&Identity>,
) -> Result<(walproto::SegmentSize, WalFormat), ArchiveError> {
    if let Some(identity) = identity {
        let size = identity.segment_size();
        let format = WalFormat {
            system_id: identity.system_id(),
            segment_size: size,
            page_magic: identity.page_magic(),
            server_version_num: Some(identity.server_version_num()),
        };
        return Ok((size, format));
    }
    let found = discovery::discover(directory, listing)?;
    let found = found.ok_or_else(|| ArchiveError::NoIdentity {
        directory: directory.root().to_owned(),
    })?;
    let format = WalFormat {
        system_id: found.system_id,
        segment_size: found.segment_size,
        page_magic: Some(found.page_magic),
        server_version_num: None,
    };
    Ok((found.segment_size, format))
}

/// Checks the chunks of the plan, each by the first thread that is free.
fn check_all(
    files: &SegmentFiles,
    format: WalFormat,
    plan: &Plan,
    jobs: NonZeroUsize,
) -> Result<Checked, ArchiveError> {
    let next = AtomicUsize::new(0);
    let work = || check_some(Checker::new(files, format), plan, &next);
    thread::scope(|scope| {
        let mut others = Vec::new();
        for _ in 1..jobs.get().min(plan.chunk_count()) {
            let spawned = thread::Builder::new().spawn_scoped(scope, work);
            let root = files.directory().root();
            others.push(spawned.map_err(DiskError::at(Operation::StartThread, root))?);
        }
        let mut all = work()?;
        for other in others {
            let joined = other.join();
            let some = joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            all.chunks.extend(some.chunks);
            all.segments += some.segments;
            all.bytes += some.bytes;
            all.said.extend(some.said);
        }
        Ok(all)
    })
}

/// Checks one chunk after the other that no other thread has taken.
fn check_some(
    mut checker: Checker<'_>,
    plan: &Plan,
    next: &AtomicUsize,
) -> Result<Checked, ArchiveError> {
    let mut checked = Checked::default();
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some((run, chunk)) = plan.chunk(index) else {
            break;
        };
        let stretches = checker.stretches(run, chunk)?;
        checked.chunks.insert(index, stretches);
    }
    checked.segments = checker.segments();
    checked.bytes = checker.bytes();
    checked.said = checker.take_said();
    Ok(checked)
}
