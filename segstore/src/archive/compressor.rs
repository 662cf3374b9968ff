//! The stage that compresses completed segments.

use std::collections::BTreeSet;

use walproto::SegmentSize;

use super::pipeline::Stage;
use crate::archive::compression::{self, Compression};
use crate::archive::directory::ArchiveDirectory;
use crate::archive::listing::Listing;
use crate::archive::segment_files::SegmentFiles;
use crate::archive::segment_reader::unreadable;
use crate::disk::OpenMode;
use crate::disk::named_file::NamedFile;
use crate::error::{ArchiveError, Damage};
use crate::wal::segment::{Encoding, SegmentFile, SegmentName};

/// Replaces each completed segment by a compressed file. The plain one is removed only after its
/// compressed copy was synced, read back and found to be the same.
#[derive(Debug)]
pub(crate) struct Compressor {
    pub(crate) directory: ArchiveDirectory,
    pub(crate) compression: Compression,
}

impl Stage for Compressor {
    /// The plain segments after the last compressed one. What lies before it was never to be
    /// compressed.
    fn left(&self, listing: &Listing) -> Vec<SegmentName> {
        let encoding = self.compression.encoding();
        let complete = || listing.segments().filter(|(file, _)| !file.partial);
        if !complete().any(|(file, _)| file.encoding == encoding) {
            return Vec::new();
        }
        let after_last = listing
            .segments()
            .rev()
            .filter(|(file, _)| !file.partial)
            .take_while(|(file, _)| file.encoding != encoding);
        let plain = after_last.filter(|(file, _)| file.encoding == Encoding::Plain);
        plain.map(|(file, _)| file.name).collect()
    }

    fn process(&self, name: SegmentName, go_on: &dyn Fn() -> bool) -> Result<(), ArchiveError> {
        compress(&self.directory, self.compression, name, go_on)
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
