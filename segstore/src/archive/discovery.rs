//! What the segments in a directory that has no identity yet say about their cluster.

use std::path::PathBuf;

use walproto::{SegmentSize, SystemId};

use crate::archive::directory::ArchiveDirectory;
use crate::archive::listing::Listing;
use crate::archive::segment_reader::SegmentReader;
use crate::disk::OpenMode;
use crate::disk::named_file::NamedFile;
use crate::error::ArchiveError;
use crate::wal::page::{
    BLOCK_SIZE, LONG_HEADER, LONG_HEADER_LENGTH, PageHeader, SHORT_HEADER_LENGTH, SegmentHeader,
};
use crate::wal::segment::SegmentFile;

/// What the first page of a segment says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Discovery {
    /// The file it was read from.
    pub(crate) path: PathBuf,
    pub(crate) system_id: SystemId,
    pub(crate) segment_size: SegmentSize,
    pub(crate) page_magic: u16,
}

/// Looks at the newest and the oldest segment whose first page can be read; `None` when there is
/// none. Two clusters in one directory are an error.
pub(crate) fn discover(
    directory: &ArchiveDirectory,
    listing: &Listing,
) -> Result<Option<Discovery>, ArchiveError> {
    let files = listing.segments().map(|(file, _)| file);
    let newest = first_of(directory, files.clone().rev())?;
    let oldest = first_of(directory, files)?;
    if let (Some(newest), Some(oldest)) = (&newest, &oldest)
        && newest.system_id != oldest.system_id
    {
        return Err(ArchiveError::MixedClusters {
            path: newest.path.clone(),
            other: oldest.path.clone(),
            expected: oldest.system_id,
            found: newest.system_id,
        });
    }
    Ok(newest)
}

fn first_of(
    directory: &ArchiveDirectory,
    files: impl Iterator<Item = SegmentFile>,
) -> Result<Option<Discovery>, ArchiveError> {
    for file in files {
        if let Some(discovery) = read(directory, file)? {
            return Ok(Some(discovery));
        }
    }
    Ok(None)
}

/// What a segment says of itself; `None` for one without a credible first page, such as one that
/// is only zeros yet. Whether it is damaged is for recovery to tell.
fn read(
    directory: &ArchiveDirectory,
    file: SegmentFile,
) -> Result<Option<Discovery>, ArchiveError> {
    let path = directory.path(file);
    // Another program may have moved it away meanwhile.
    let opened = NamedFile::open_if_exists(directory.disk(), path.clone(), OpenMode::Read)?;
    let Some(opened) = opened else {
        return Ok(None);
    };
    let Ok(mut reader) = SegmentReader::recognizing(opened, file)? else {
        return Ok(None);
    };
    let mut bytes = [0; LONG_HEADER_LENGTH];
    match reader.read_at(&mut bytes, 0) {
        Ok(LONG_HEADER_LENGTH) => {}
        Err(error @ ArchiveError::Disk(_)) => return Err(error),
        Ok(_) | Err(_) => return Ok(None),
    }
    let Some((page, segment)) = split(&bytes) else {
        return Ok(None);
    };
    let (page, _) = PageHeader::parse(page);
    let segment = SegmentHeader::parse(segment);
    let Some(segment_size) = SegmentSize::new(segment.segment_size.into()).ok() else {
        return Ok(None);
    };
    let start = file
        .name
        .number(segment_size)
        .and_then(|number| number.start(segment_size));
    if page.flags & LONG_HEADER == 0 || start != Some(page.address) {
        return Ok(None);
    }
    if u64::from(segment.block_size) != BLOCK_SIZE {
        return Err(ArchiveError::OtherBlockSize {
            origin: path,
            expected: BLOCK_SIZE,
            found: segment.block_size.into(),
        });
    }
    Ok(Some(Discovery {
        path,
        system_id: segment.system_id,
        segment_size,
        page_magic: page.magic,
    }))
}

type LongHeader<'a> = (
    &'a [u8; SHORT_HEADER_LENGTH],
    &'a [u8; SegmentHeader::LENGTH],
);

fn split(bytes: &[u8; LONG_HEADER_LENGTH]) -> Option<LongHeader<'_>> {
    let (page, segment) = bytes.split_first_chunk()?;
    Some((page, segment.first_chunk()?))
}
