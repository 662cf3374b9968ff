//! What lies in an archive directory at one moment.

use std::collections::BTreeMap;
use std::ffi::OsString;

use walproto::{SegmentSize, TimelineId};

use crate::archive::directory::ArchiveDirectory;
use crate::error::{ArchiveError, DiskError};
use crate::wal::segment::{EntryName, HistoryFile, SegmentFile, SegmentName};

/// The files of an archive directory, by their names and lengths.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listing {
    segments: BTreeMap<SegmentFile, u64>,
    histories: Vec<HistoryFile>,
    foreign: Vec<OsString>,
}

impl Listing {
    pub(crate) fn read(directory: &ArchiveDirectory) -> Result<Self, DiskError> {
        let mut this = Self::default();
        for entry in directory.list(directory.root())? {
            match EntryName::classify(&entry.name) {
                EntryName::Segment(file) if entry.is_file => {
                    this.segments.insert(file, entry.length);
                }
                EntryName::History(file) if entry.is_file => this.histories.push(file),
                EntryName::Own => {}
                // At the root of some file systems, and nobody's to remove.
                EntryName::Foreign if entry.name == "lost+found" => {}
                EntryName::Segment(_) | EntryName::History(_) | EntryName::Foreign => {
                    this.foreign.push(entry.name);
                }
            }
        }
        this.histories.sort();
        this.foreign.sort();
        Ok(this)
    }

    /// The same, read twice: a segment that gets another name while the directory is read, as when
    /// it is compressed, may be seen under neither, but has the new one by a second look.
    pub(crate) fn settled(directory: &ArchiveDirectory) -> Result<Self, DiskError> {
        Ok(Self::read(directory)?.and(Self::read(directory)?))
    }

    /// What this and a later listing have together of segments; all else is as it was later.
    fn and(self, later: Self) -> Self {
        let mut segments = self.segments;
        segments.extend(later.segments.iter());
        Self { segments, ..later }
    }

    /// Whether there is nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.histories.is_empty() && self.foreign.is_empty()
    }

    /// All files of segments and their lengths on disk in bytes, in the order of timelines and
    /// positions. Of several files of a segment the one to prefer comes first: a complete one,
    /// a plain one.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = (SegmentFile, u64)> + Clone {
        self.segments.iter().map(|(&file, &length)| (file, length))
    }

    /// The files of one timeline's segments, as [`Listing::segments`].
    pub fn of_timeline(
        &self,
        timeline: TimelineId,
    ) -> impl DoubleEndedIterator<Item = (SegmentFile, u64)> {
        self.segments()
            .filter(move |(file, _)| file.name.timeline() == timeline)
    }

    /// The files of one segment, the one to prefer first.
    pub fn of_segment(&self, name: SegmentName) -> impl DoubleEndedIterator<Item = SegmentFile> {
        self.segments()
            .map(|(file, _)| file)
            .filter(move |file| file.name == name)
    }

    /// The length of a file in bytes, `None` when there is no such file.
    #[must_use]
    pub fn length_of(&self, file: SegmentFile) -> Option<u64> {
        self.segments.get(&file).copied()
    }

    /// The greatest timeline of which there is a segment.
    #[must_use]
    pub fn newest_timeline(&self) -> Option<TimelineId> {
        let newest = self.segments.last_key_value();
        newest.map(|(file, _)| file.name.timeline())
    }

    /// The history files.
    #[must_use]
    pub fn histories(&self) -> &[HistoryFile] {
        &self.histories
    }

    /// What is neither a segment, nor a history, nor ours.
    #[must_use]
    pub fn foreign(&self) -> &[OsString] {
        &self.foreign
    }

    /// Checks names and lengths of plain segments: a complete one has the size of a segment, a
    /// growing one at most that.
    pub(crate) fn check(
        &self,
        directory: &ArchiveDirectory,
        size: SegmentSize,
    ) -> Result<(), ArchiveError> {
        for (file, found) in self.segments() {
            if file.name.number(size).is_none() {
                return Err(ArchiveError::ImpossibleSegment {
                    path: directory.path(file),
                    segment_size: size,
                });
            }
            let expected = size.bytes();
            let plain = file.encoding == crate::wal::segment::Encoding::Plain;
            let right = found == expected || (file.partial && found < expected);
            if plain && !right {
                return Err(ArchiveError::WrongLength {
                    path: directory.path(file),
                    found,
                    expected,
                    partial: file.partial,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::wal::segment::Encoding;

    /// As a directory may be read while a segment in it gets another name.
    #[test]
    fn a_segment_that_either_of_two_looks_shows_is_there() {
        let disk = SimDisk::new("/a");
        let directory = ArchiveDirectory::new(Arc::new(disk.clone()), Path::new("/a"));
        let plain = SegmentName::parse("000000010000000000000003").map(SegmentFile::complete);
        let plain = plain.unwrap();
        let gzip = plain.encoded(Encoding::Gzip);
        disk.plant("/a/000000010000000000000002", b"a").unwrap();
        let first = Listing::read(&directory).unwrap();
        disk.plant(directory.path(gzip), b"bc").unwrap();
        directory
            .remove(Path::new("/a/000000010000000000000002"))
            .unwrap();
        let both = first.and(Listing::read(&directory).unwrap());
        let lengths: Vec<_> = both.segments().map(|(_, length)| length).collect();
        assert_eq!(lengths, [1, 2]);
        assert_eq!(both.length_of(plain), None);
    }
}
