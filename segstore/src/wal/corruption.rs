//! What can be wrong with WAL.

use walproto::{Lsn, SystemId, TimelineId};

/// Bytes that are not valid WAL where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid WAL at {lsn} on timeline {timeline}: {reason}")]
pub struct Corruption {
    /// The timeline whose WAL was checked.
    pub timeline: TimelineId,
    /// Where the page or the record that failed starts.
    pub lsn: Lsn,
    /// What is wrong with it.
    pub reason: CorruptionReason,
}

/// Why bytes are not valid WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CorruptionReason {
    /// Zeros where a page header was due: WAL was never written here.
    #[error("expected a page header, found zeros")]
    NoPage,
    /// A zero where the length of a record was due: WAL was never written here.
    #[error("expected a record, found zeros")]
    NoRecord,
    /// The page ends past the last position that 64 bits can hold.
    #[error("no WAL can be here, at the end of all positions")]
    PastTheEnd,
    /// `xlp_magic` is not the one of this archive or server.
    #[error("page magic number: expected {expected:#06X}, found {found:#06X}")]
    PageMagic {
        /// The number due.
        expected: u16,
        /// The number found.
        found: u16,
    },
    /// `xlp_magic` is not known, and the server's version does not account for it.
    #[error("unknown page magic number {found:#06X}")]
    UnknownPageMagic {
        /// The number found.
        found: u16,
    },
    /// `xlp_info` has unknown flags, or the flag of a segment's first page where it is wrong.
    #[error("page flags: expected others here, found {found:#06X}")]
    PageFlags {
        /// The flags found.
        found: u16,
    },
    /// `xlp_pageaddr` is not where the page is.
    #[error("page address: expected {expected}, found {found}")]
    PageAddress {
        /// The position of the page.
        expected: Lsn,
        /// The address found.
        found: Lsn,
    },
    /// `xlp_tli` is not the timeline that the history has here.
    #[error("timeline in page header: expected {expected}, found {found}")]
    PageTimeline {
        /// The timeline by the history.
        expected: TimelineId,
        /// The number found.
        found: u32,
    },
    /// The unused bytes of a page header are not zero.
    #[error("padding of the page header: expected zeros, found {found:#010X}")]
    PagePadding {
        /// The bytes found.
        found: u32,
    },
    /// `xlp_sysid` is another cluster's.
    #[error("system identifier in page header: expected {expected}, found {found}")]
    SystemId {
        /// The cluster's.
        expected: SystemId,
        /// The one found.
        found: SystemId,
    },
    /// `xlp_seg_size` is not the cluster's.
    #[error("segment size in page header: expected {expected}, found {found}")]
    SegmentSize {
        /// The cluster's, in bytes.
        expected: u64,
        /// The one found.
        found: u32,
    },
    /// `xlp_xlog_blcksz` is not [`BLOCK_SIZE`](crate::BLOCK_SIZE).
    #[error("block size in page header: expected {expected}, found {found}")]
    BlockSize {
        /// The one supported, in bytes.
        expected: u64,
        /// The one found.
        found: u32,
    },
    /// The page does not go on with the record that the page before left unfinished.
    #[error("expected {remaining} more bytes of the record at {record}, found another page")]
    MissingContrecord {
        /// Where the record starts, or the stream if that was earlier.
        record: Lsn,
        /// How many of its bytes are missing.
        remaining: u32,
    },
    /// The page goes on with a record, but the page before ended with a complete one.
    #[error("expected the start of a record, found {found} more bytes of one")]
    UnexpectedContrecord {
        /// `xlp_rem_len`.
        found: u32,
    },
    /// `xlp_rem_len` is not what is missing of the record.
    #[error("remaining record length in page header: expected {expected}, found {found}")]
    ContrecordLength {
        /// How many bytes are missing.
        expected: u32,
        /// `xlp_rem_len`.
        found: u32,
    },
    /// The page claims to replace the rest of a record, but none was unfinished.
    #[error("the page is flagged to overwrite a record, but no record is unfinished here")]
    UnexpectedOverwrite,
    /// The first record of a flagged page is no `XLOG_OVERWRITE_CONTRECORD`, or one has no flag.
    #[error(
        "the page's overwrite flag does not agree with its first record, of resource manager \
         {resource_manager} and info {info:#04X}"
    )]
    OverwriteRecord {
        /// `xl_rmid`.
        resource_manager: u8,
        /// `xl_info`.
        info: u8,
    },
    /// `XLOG_OVERWRITE_CONTRECORD` names another record than the unfinished one.
    #[error("overwritten record: expected the one at {expected}, found {found}")]
    OverwrittenRecord {
        /// Where the unfinished record starts.
        expected: Lsn,
        /// `overwritten_lsn`.
        found: Lsn,
    },
    /// `xl_tot_len` is less than a record header.
    #[error("record length: expected at least 24, found {found}")]
    RecordLength {
        /// `xl_tot_len`.
        found: u32,
    },
    /// The record extends past the durable WAL, which ends with a record.
    #[error("expected the end of the record at {end}, where the durable WAL ends")]
    RecordEnd {
        /// The end of the durable WAL.
        end: Lsn,
    },
    /// `xl_rmid` is not in use.
    #[error("invalid resource manager {found}")]
    ResourceManager {
        /// `xl_rmid`.
        found: u8,
    },
    /// `xl_prev` is not the start of the record before.
    #[error("link to the previous record: expected {expected}, found {found}")]
    PreviousRecord {
        /// Where the record before starts.
        expected: Lsn,
        /// `xl_prev`.
        found: Lsn,
    },
    /// `xl_prev` of the first record cannot be the start of a record before the stream.
    #[error("link to the previous record: expected a record before {start}, found {found}")]
    PreviousRecordPosition {
        /// Where the stream starts.
        start: Lsn,
        /// `xl_prev`.
        found: Lsn,
    },
    /// The record's CRC-32C is not the one in its header.
    #[error("record checksum: expected {expected:#010X}, found {found:#010X}")]
    Checksum {
        /// `xl_crc`.
        expected: u32,
        /// The CRC-32C of the bytes.
        found: u32,
    },
    /// The bytes between a record and the next multiple of eight are not zero.
    #[error("padding after the record: expected zeros, found {found:#04X}")]
    RecordPadding {
        /// The first byte that is not zero.
        found: u8,
    },
    /// What follows `XLOG_SWITCH` in the segment is neither zero nor left over.
    #[error("expected zeros after the segment switch, found {found:#04X}")]
    AfterSwitch {
        /// The first byte that is not zero.
        found: u8,
    },
}

impl CorruptionReason {
    /// Whether the bytes are just not there: the zeros of a file that WAL has not filled yet.
    /// At the end of WAL that is what is expected, and inside a stream it is corruption.
    #[must_use]
    pub const fn is_unwritten(&self) -> bool {
        matches!(self, Self::NoPage | Self::NoRecord)
    }
}
