//! Positions in the WAL and the arithmetic of segments.

use std::fmt;
use std::str::FromStr;

/// A position in the write-ahead log: a byte offset from the beginning of a cluster's life
/// (`XLogRecPtr`).
///
/// An `Lsn` alone does not name a byte: after a promotion two timelines have different bytes at
/// the same `Lsn`. Positions that are stored, compared or shown go together with a
/// [`TimelineId`](crate::TimelineId).
///
/// The text form is PostgreSQL's: the upper and the lower 32 bits in hexadecimal, with a slash
/// between them.
///
/// ```
/// use walproto::Lsn;
/// let lsn: Lsn = "16/B374D848".parse()?;
/// assert_eq!(lsn, Lsn(0x16_B374_D848));
/// assert_eq!(lsn.to_string(), "16/B374D848");
/// # Ok::<(), walproto::ParseLsnError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// `0/0`, which PostgreSQL uses for "no position" (`InvalidXLogRecPtr`).
    pub const INVALID: Self = Self(0);

    /// Whether this is `0/0`, "no position".
    #[must_use]
    pub const fn is_invalid(self) -> bool {
        self.0 == 0
    }

    /// The position `bytes` further on, or `None` past the last position there is.
    #[must_use]
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(lsn) => Some(Self(lsn)),
            None => None,
        }
    }

    /// The bytes from `earlier` up to here, or `None` if `earlier` is in fact later.
    #[must_use]
    pub const fn checked_sub(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }

    /// The bytes from `earlier` up to here, 0 if `earlier` is in fact later.
    #[must_use]
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The greatest multiple of `alignment`, a power of two, that is not past this position.
    #[must_use]
    pub const fn align_down(self, alignment: u64) -> Self {
        Self(self.0 & !(alignment - 1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not an LSN: two hexadecimal numbers of up to eight digits with a slash between.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid LSN {text:?}, expected two hexadecimal numbers like 16/B374D848")]
pub struct ParseLsnError {
    text: String,
}

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let half = |digits: &str| {
            let hexadecimal = digits.bytes().all(|b| b.is_ascii_hexdigit());
            (hexadecimal && (1..=8).contains(&digits.len()))
                .then(|| u64::from_str_radix(digits, 16).ok())
                .flatten()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| ParseLsnError {
                text: text.chars().take(64).collect(),
            })
    }
}

/// The size of a WAL segment in bytes: a power of two from 1 MiB to 1 GiB (`wal_segment_size`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SegmentSize(u32);

/// A number that is not a size of WAL segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid WAL segment size {bytes}, expected a power of two from 1 MiB to 1 GiB")]
pub struct InvalidSegmentSize {
    /// The refused size in bytes.
    pub bytes: u64,
}

impl SegmentSize {
    /// 16 MiB, which `initdb` chooses unless told otherwise.
    pub const DEFAULT: Self = Self(16 << 20);

    /// Checks a size in bytes.
    ///
    /// # Errors
    /// When `bytes` is not a power of two from 1 MiB to 1 GiB.
    ///
    /// Source: src/include/access/xlog_internal.h, `IsValidWalSegSize` (PG 15).
    pub fn new(bytes: u64) -> Result<Self, InvalidSegmentSize> {
        match u32::try_from(bytes) {
            Ok(size) if size.is_power_of_two() && (1 << 20..=1 << 30).contains(&size) => {
                Ok(Self(size))
            }
            _ => Err(InvalidSegmentSize { bytes }),
        }
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }

    /// The size in bytes, which is at most 1 GiB.
    #[must_use]
    pub const fn bytes_u32(self) -> u32 {
        self.0
    }

    /// The number of the segment that holds the byte at `lsn`.
    #[must_use]
    pub const fn segment_of(self, lsn: Lsn) -> SegmentNumber {
        SegmentNumber(lsn.0 / self.bytes())
    }

    /// The offset of `lsn` inside its segment, in bytes.
    #[must_use]
    pub const fn offset_of(self, lsn: Lsn) -> u64 {
        lsn.0 & (self.bytes() - 1)
    }

    /// The first position of the segment that holds the byte at `lsn`.
    #[must_use]
    pub const fn start_of(self, lsn: Lsn) -> Lsn {
        lsn.align_down(self.bytes())
    }

    /// How many segments share the middle eight digits of a segment's file name
    /// (`XLogSegmentsPerXLogId`).
    #[must_use]
    pub const fn segments_per_xlog_id(self) -> u64 {
        (1 << 32) / self.bytes()
    }
}

/// The number of a WAL segment: its first position divided by the segment size (`XLogSegNo`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentNumber(pub u64);

impl SegmentNumber {
    /// The first position of the segment, or `None` past the last position there is.
    #[must_use]
    pub const fn start(self, size: SegmentSize) -> Option<Lsn> {
        match self.0.checked_mul(size.bytes()) {
            Some(lsn) => Some(Lsn(lsn)),
            None => None,
        }
    }

    /// The number of the segment that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_that_are_no_lsn_are_refused() {
        for text in [
            "",
            "/",
            "1",
            "1/",
            "/1",
            "1/2/3",
            "x/1",
            "123456789/0",
            "+1/0",
            " 1/0",
            "é/0",
        ] {
            assert!(text.parse::<Lsn>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_powers_of_two_from_one_mib_to_one_gib_are_segment_sizes() {
        for bytes in [
            0,
            1 << 19,
            (1 << 20) + 1,
            3 << 20,
            1 << 31,
            1 << 32,
            u64::MAX,
        ] {
            assert_eq!(SegmentSize::new(bytes), Err(InvalidSegmentSize { bytes }));
        }
        for shift in 20..=30 {
            assert_eq!(
                SegmentSize::new(1 << shift).map(SegmentSize::bytes),
                Ok(1 << shift)
            );
        }
    }

    proptest! {
        #[test]
        fn the_text_of_an_lsn_is_read_back(lsn: u64) {
            prop_assert_eq!(Lsn(lsn).to_string().parse(), Ok(Lsn(lsn)));
        }

        #[test]
        fn an_lsn_is_its_segment_start_plus_its_offset(lsn: u64, shift in 20u32..=30) {
            let size = SegmentSize::new(1 << shift).unwrap();
            let start = size.segment_of(Lsn(lsn)).start(size).unwrap();
            prop_assert_eq!(start, size.start_of(Lsn(lsn)));
            prop_assert_eq!(start.checked_add(size.offset_of(Lsn(lsn))), Some(Lsn(lsn)));
        }
    }
}
