//! The names of the files in an archive directory.

use std::ffi::OsStr;
use std::fmt;

use walproto::{Lsn, SegmentNumber, SegmentSize, TimelineId};

/// The one subdirectory of an archive that is not PostgreSQL's.
pub const OWN_DIRECTORY: &str = ".wal-receiver";

/// What a WAL segment is called: the timeline and the two parts of the segment's number, as the
/// 24 hexadecimal digits of its file name say them.
///
/// The parts mean a [`SegmentNumber`] only together with a [`SegmentSize`].
///
/// Source: src/include/access/xlog_internal.h, `XLogFileName` (PG 15).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentName {
    timeline: TimelineId,
    high: u32,
    low: u32,
}

impl SegmentName {
    /// The digits of a segment's name.
    pub const LENGTH: usize = 24;

    /// The name of a segment, `None` when its number is too great for one of this size.
    #[must_use]
    pub fn new(timeline: TimelineId, number: SegmentNumber, size: SegmentSize) -> Option<Self> {
        let per_id = size.segments_per_xlog_id();
        Some(Self {
            timeline,
            high: u32::try_from(number.0 / per_id).ok()?,
            low: u32::try_from(number.0 % per_id).ok()?,
        })
    }

    /// The name of the segment that holds the byte at `lsn`.
    #[must_use]
    pub fn of(timeline: TimelineId, lsn: Lsn, size: SegmentSize) -> Self {
        let [a, b, c, d, in_id @ ..] = lsn.0.to_be_bytes();
        Self {
            timeline,
            high: u32::from_be_bytes([a, b, c, d]),
            low: u32::from_be_bytes(in_id) / size.bytes_u32(),
        }
    }

    /// Reads 24 digits; lower case is not accepted, nor is timeline 0.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != Self::LENGTH {
            return None;
        }
        Some(Self {
            timeline: TimelineId::new(hexadecimal(text.get(..8)?)?)?,
            high: hexadecimal(text.get(8..16)?)?,
            low: hexadecimal(text.get(16..)?)?,
        })
    }

    /// The timeline.
    #[must_use]
    pub const fn timeline(self) -> TimelineId {
        self.timeline
    }

    /// The segment's number, `None` when no segment of this size has the name.
    #[must_use]
    pub fn number(self, size: SegmentSize) -> Option<SegmentNumber> {
        let per_id = size.segments_per_xlog_id();
        (u64::from(self.low) < per_id)
            .then(|| SegmentNumber(u64::from(self.high) * per_id + u64::from(self.low)))
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timeline = self.timeline.number();
        write!(f, "{timeline:08X}{:08X}{:08X}", self.high, self.low)
    }
}

/// How the bytes of a file are stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Encoding {
    /// As they are.
    Plain,
    /// One gzip member, `.gz`.
    Gzip,
    /// An LZ4 frame, `.lz4`.
    Lz4,
    /// A Zstandard frame, `.zst`; PostgreSQL's own tools do not know it.
    Zstd,
}

impl Encoding {
    /// Every encoding, the one to prefer first.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Gzip, Self::Lz4, Self::Zstd];

    /// What it adds to a file's name.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Gzip => ".gz",
            Self::Lz4 => ".lz4",
            Self::Zstd => ".zst",
        }
    }

    fn from_suffix(suffix: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.suffix() == suffix)
    }
}

/// A file that holds a WAL segment, or the part of one that there is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentFile {
    /// The segment.
    pub name: SegmentName,
    /// Whether it is the growing one, `.partial`.
    pub partial: bool,
    /// How its bytes are stored.
    pub encoding: Encoding,
}

impl SegmentFile {
    /// The plain file of a complete segment.
    #[must_use]
    pub const fn complete(name: SegmentName) -> Self {
        Self {
            name,
            partial: false,
            encoding: Encoding::Plain,
        }
    }

    /// The plain file of a growing segment.
    #[must_use]
    pub const fn partial(name: SegmentName) -> Self {
        Self {
            name,
            partial: true,
            encoding: Encoding::Plain,
        }
    }

    /// The same segment, stored otherwise.
    #[must_use]
    pub const fn encoded(self, encoding: Encoding) -> Self {
        Self { encoding, ..self }
    }

    /// The file that has this name, `None` when it is no segment's.
    ///
    /// Source: src/bin/pg_basebackup/pg_receivewal.c, `is_xlogfilename` (PG 15).
    #[must_use]
    pub fn from_name(name: &OsStr) -> Option<Self> {
        Self::parse(name.to_str()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.split_at_checked(SegmentName::LENGTH)?;
        let (suffix, partial) = match rest.strip_suffix(".partial") {
            Some(suffix) => (suffix, true),
            None => (rest, false),
        };
        Some(Self {
            name: SegmentName::parse(name)?,
            partial,
            encoding: Encoding::from_suffix(suffix)?,
        })
    }
}

impl fmt::Display for SegmentFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let partial = if self.partial { ".partial" } else { "" };
        write!(f, "{}{}{partial}", self.name, self.encoding.suffix())
    }
}

/// The file that holds the history of a timeline.
///
/// PostgreSQL writes it plain; a `pg_receivewal` that compresses gives its name, and its content,
/// the treatment of a segment (src/bin/pg_basebackup/walmethods.c, `dir_get_file_name`, PG 15).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HistoryFile {
    /// The timeline, at least 2.
    pub timeline: TimelineId,
    /// How its bytes are stored.
    pub encoding: Encoding,
}

impl HistoryFile {
    fn parse(text: &str) -> Option<Self> {
        let (digits, rest) = text.split_at_checked(8)?;
        let timeline = TimelineId::new(hexadecimal(digits)?)?;
        let encoding = Encoding::from_suffix(rest.strip_prefix(".history")?)?;
        (timeline > TimelineId::FIRST).then_some(Self { timeline, encoding })
    }
}

impl fmt::Display for HistoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.timeline.history_file_name())?;
        f.write_str(self.encoding.suffix())
    }
}

/// What an entry of an archive directory is, by its name alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryName {
    /// A WAL segment, complete or growing.
    Segment(SegmentFile),
    /// A timeline's history.
    History(HistoryFile),
    /// The subdirectory that is ours.
    Own,
    /// Something that is not ours to touch.
    Foreign,
}

impl EntryName {
    /// Tells what `name` is.
    #[must_use]
    pub fn classify(name: &OsStr) -> Self {
        let Some(text) = name.to_str() else {
            return Self::Foreign;
        };
        if text == OWN_DIRECTORY {
            Self::Own
        } else if let Some(segment) = SegmentFile::parse(text) {
            Self::Segment(segment)
        } else if let Some(history) = HistoryFile::parse(text) {
            Self::History(history)
        } else {
            Self::Foreign
        }
    }
}

/// Reads upper-case hexadecimal digits, and only those.
fn hexadecimal(digits: &str) -> Option<u32> {
    digits
        .bytes()
        .all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'))
        .then(|| u32::from_str_radix(digits, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn classify(name: &str) -> EntryName {
        EntryName::classify(OsStr::new(name))
    }

    #[test]
    fn names_of_pg_receivewal_are_known() {
        let name = SegmentName::parse("0000000A000000010000002F").unwrap();
        let size = SegmentSize::DEFAULT;
        assert_eq!(name.timeline().number(), 10);
        assert_eq!(name.number(size), Some(SegmentNumber(0x12F)));
        assert_eq!(
            SegmentName::of(name.timeline(), Lsn(0x1_2FFF_FFFF), size),
            name
        );
        for (text, partial, encoding) in [
            ("0000000A000000010000002F", false, Encoding::Plain),
            ("0000000A000000010000002F.gz", false, Encoding::Gzip),
            ("0000000A000000010000002F.lz4", false, Encoding::Lz4),
            ("0000000A000000010000002F.zst", false, Encoding::Zstd),
            ("0000000A000000010000002F.partial", true, Encoding::Plain),
            ("0000000A000000010000002F.gz.partial", true, Encoding::Gzip),
            ("0000000A000000010000002F.lz4.partial", true, Encoding::Lz4),
        ] {
            let file = SegmentFile {
                name,
                partial,
                encoding,
            };
            assert_eq!(classify(text), EntryName::Segment(file));
            assert_eq!(file.to_string(), text);
        }
        for (text, encoding) in [
            ("0000000B.history", Encoding::Plain),
            ("0000000B.history.gz", Encoding::Gzip),
            ("0000000B.history.lz4", Encoding::Lz4),
        ] {
            let timeline = TimelineId::new(11).unwrap();
            let file = HistoryFile { timeline, encoding };
            assert_eq!(classify(text), EntryName::History(file));
            assert_eq!(file.to_string(), text);
        }
        assert_eq!(classify(".wal-receiver"), EntryName::Own);
    }

    #[test]
    fn other_names_are_foreign() {
        for text in [
            "",
            "0000000A000000010000002",
            "0000000A000000010000002f",
            "000000000000000100000001",
            "0000000A000000010000002F.00000028.backup",
            "0000000A000000010000002F.partial.gz",
            "0000000A000000010000002F.bz2",
            "0000000A000000010000002F.gz.tmp",
            "0000000A000000010000002F.",
            "00000001.history",
            "0000000B.history.tmp",
            "0000000B.history.partial",
            "+000000B.history",
            "archive_status",
            "0000000A00000001000000é",
        ] {
            assert_eq!(classify(text), EntryName::Foreign, "{text:?}");
        }
    }

    #[test]
    fn a_low_part_too_great_for_the_segment_size_has_no_number() {
        let name = SegmentName::parse("000000010000000000000100").unwrap();
        assert_eq!(name.number(SegmentSize::DEFAULT), None);
        let size = SegmentSize::new(1 << 20).unwrap();
        assert_eq!(name.number(size), Some(SegmentNumber(256)));
        let last = SegmentNumber(u64::MAX / SegmentSize::DEFAULT.bytes());
        assert!(SegmentName::new(TimelineId::FIRST, last, SegmentSize::DEFAULT).is_some());
        assert!(SegmentName::new(TimelineId::FIRST, last.next(), SegmentSize::DEFAULT).is_none());
    }

    proptest! {
        #[test]
        fn a_segment_is_found_again_by_its_name(
            timeline in 1u32.., lsn: u64, shift in 20u32..=30, partial: bool, encoding in 0usize..4,
        ) {
            let size = SegmentSize::new(1 << shift).unwrap();
            let number = size.segment_of(Lsn(lsn));
            let name = SegmentName::new(TimelineId::new(timeline).unwrap(), number, size).unwrap();
            prop_assert_eq!(SegmentName::of(name.timeline(), Lsn(lsn), size), name);
            prop_assert_eq!(name.number(size), Some(number));
            let file = SegmentFile { name, partial, encoding: Encoding::ALL[encoding] };
            prop_assert_eq!(classify(&file.to_string()), EntryName::Segment(file));
        }

        #[test]
        fn what_is_known_prints_as_it_was_read(
            text in "[0-9A-Fa-g.]{8}(|[0-9A-F]{16})(|\\.gz|\\.lz4|\\.partial|\\.history|\\.x){0,3}",
        ) {
            match classify(&text) {
                EntryName::Segment(file) => prop_assert_eq!(file.to_string(), text),
                EntryName::History(file) => prop_assert_eq!(file.to_string(), text),
                EntryName::Own | EntryName::Foreign => {}
            }
        }

        #[test]
        fn arbitrary_names_never_panic(name: Vec<u8>) {
            use std::os::unix::ffi::OsStrExt;
            let known = EntryName::classify(OsStr::from_bytes(&name));
            prop_assert!(std::str::from_utf8(&name).is_ok() || known == EntryName::Foreign);
        }
    }
}
