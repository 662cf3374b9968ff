//! The history files of timelines on disk.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use walproto::{TimelineHistory, TimelineId};

use crate::archive::compression;
use crate::archive::directory::ArchiveDirectory;
use crate::archive::identity::Identity;
use crate::archive::listing::Listing;
use crate::archive::segment_reader::unreadable;
use crate::disk::OpenMode;
use crate::disk::named_file::{FileReader, NamedFile};
use crate::error::{ArchiveError, Damage};
use crate::wal::segment::{Encoding, HistoryFile};

/// The histories of an archive, each checked against what its identity says.
pub(crate) fn load(
    directory: &ArchiveDirectory,
    listing: &Listing,
    identity: Option<&Identity>,
) -> Result<BTreeMap<TimelineId, TimelineHistory>, ArchiveError> {
    let mut histories = BTreeMap::new();
    // Of several files of one timeline the plain one comes first.
    for &file in listing.histories() {
        if histories.contains_key(&file.timeline) {
            continue;
        }
        let path = directory.path(file);
        let opened = directory.open(path.clone(), OpenMode::Read)?;
        let content = read(opened, file, &path)?;
        let history = check(file.timeline, content, &path, identity)?;
        histories.insert(file.timeline, history);
    }
    Ok(histories)
}

/// One timeline's history, checked in the same way; `None` when there is no file of it.
pub(crate) fn find(
    directory: &ArchiveDirectory,
    timeline: TimelineId,
    identity: Option<&Identity>,
) -> Result<Option<TimelineHistory>, ArchiveError> {
    for encoding in Encoding::ALL {
        let file = HistoryFile { timeline, encoding };
        let path = directory.path(file);
        let opened = NamedFile::open_if_exists(directory.disk(), path.clone(), OpenMode::Read)?;
        if let Some(opened) = opened {
            let content = read(opened, file, &path)?;
            return check(timeline, content, &path, identity).map(Some);
        }
    }
    Ok(None)
}

fn check(
    timeline: TimelineId,
    content: Vec<u8>,
    path: &Path,
    identity: Option<&Identity>,
) -> Result<TimelineHistory, ArchiveError> {
    let damaged = |reason| ArchiveError::Damaged {
        path: path.to_owned(),
        reason,
    };
    if let Some(sum) = identity.and_then(|identity| identity.history_sum(timeline)) {
        sum.check(&content).map_err(damaged)?;
    }
    TimelineHistory::parse(timeline, Bytes::from(content))
        .map_err(|error| damaged(Damage::History(error)))
}

fn read(opened: NamedFile, file: HistoryFile, path: &Path) -> Result<Vec<u8>, ArchiveError> {
    let limit = TimelineHistory::MAX_LENGTH;
    let mut content = Vec::new();
    compression::decoder(file.encoding, FileReader::new(opened))
        .and_then(|input| input.take(limit as u64 + 1).read_to_end(&mut content))
        .map_err(|error| unreadable(path, error))?;
    if content.len() > limit {
        return Err(ArchiveError::Damaged {
            path: path.to_owned(),
            reason: Damage::TooLong {
                limit: limit as u64,
            },
        });
    }
    Ok(content)
}

/// Writes a history beside the segments, durably.
pub(crate) fn write(
    directory: &ArchiveDirectory,
    history: &TimelineHistory,
) -> Result<(), ArchiveError> {
    let path = directory.path(plain(history.timeline()));
    Ok(directory.replace(&path, history.content())?)
}

/// The name of the plain history file of a timeline.
pub(crate) const fn plain(timeline: TimelineId) -> HistoryFile {
    HistoryFile {
        timeline,
        encoding: Encoding::Plain,
    }
}
