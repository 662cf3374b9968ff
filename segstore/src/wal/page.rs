//! The header that begins every page of WAL.
//!
//! All numbers are little-endian: WAL is in the byte order of the machine that wrote it, and
//! that of big-endian machines is not supported.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 2 | `xlp_magic`: the format's version |
//! | 2 | 2 | `xlp_info`: flags |
//! | 4 | 4 | `xlp_tli`: the timeline on which the page was begun |
//! | 8 | 8 | `xlp_pageaddr`: the page's own position |
//! | 16 | 4 | `xlp_rem_len`: the bytes still missing of a record begun on an earlier page |
//! | 20 | 4 | padding, zero |
//! | 24 | 8 | `xlp_sysid`, in the first page of a segment only, like all that follows |
//! | 32 | 4 | `xlp_seg_size` |
//! | 36 | 4 | `xlp_xlog_blcksz` |
//!
//! Source: src/include/access/xlog_internal.h, `XLogPageHeaderData` and
//! `XLogLongPageHeaderData` (PG 15).

use walproto::{Lsn, SegmentSize, SystemId, TimelineId};

/// The size of a WAL page in bytes (`XLOG_BLCKSZ`). Servers built with another one are refused.
pub const BLOCK_SIZE: u64 = 8192;

/// The length of a page header in bytes (`SizeOfXLogShortPHD`).
pub const SHORT_HEADER_LENGTH: usize = 24;

/// The length of the header of a segment's first page in bytes (`SizeOfXLogLongPHD`).
pub const LONG_HEADER_LENGTH: usize = 40;

/// What all positions of records are multiples of (`MAXIMUM_ALIGNOF`).
pub const ALIGNMENT: u64 = 8;

/// `XLP_FIRST_IS_CONTRECORD`: the page begins with the rest of a record.
pub const FIRST_IS_CONTRECORD: u16 = 0x0001;
/// `XLP_LONG_HEADER`: the first page of a segment.
pub const LONG_HEADER: u16 = 0x0002;
/// `XLP_BKP_REMOVABLE`: no backup ran when the page was begun.
pub const BKP_REMOVABLE: u16 = 0x0004;
/// `XLP_FIRST_IS_OVERWRITE_CONTRECORD`: the rest of the record before was lost in a crash, and
/// this page replaces it.
pub const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x0008;
/// `XLP_ALL_FLAGS`: every flag known to PostgreSQL 13 to 18.
pub const ALL_FLAGS: u16 = 0x000F;

/// The length of the header of the page at `page`, in bytes.
#[must_use]
pub const fn header_length(page: Lsn, segment_size: SegmentSize) -> usize {
    if segment_size.offset_of(page) == 0 {
        LONG_HEADER_LENGTH
    } else {
        SHORT_HEADER_LENGTH
    }
}

/// The fields that every page header has. Nothing in it has been checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageHeader {
    /// `xlp_magic`.
    pub magic: u16,
    /// `xlp_info`.
    pub flags: u16,
    /// `xlp_tli`, which may be 0 in a header that is no header.
    pub timeline: u32,
    /// `xlp_pageaddr`.
    pub address: Lsn,
    /// `xlp_rem_len`, in bytes.
    pub remaining: u32,
}

impl PageHeader {
    /// Reads the fields, and the padding that follows them.
    #[must_use]
    pub fn parse(bytes: &[u8; SHORT_HEADER_LENGTH]) -> (Self, u32) {
        let b = bytes;
        let header = Self {
            magic: u16::from_le_bytes([b[0], b[1]]),
            flags: u16::from_le_bytes([b[2], b[3]]),
            timeline: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
            address: Lsn(u64::from_le_bytes([
                b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15],
            ])),
            remaining: u32::from_le_bytes([b[16], b[17], b[18], b[19]]),
        };
        (header, u32::from_le_bytes([b[20], b[21], b[22], b[23]]))
    }

    /// The header as it is written.
    #[must_use]
    pub fn encode(&self) -> [u8; SHORT_HEADER_LENGTH] {
        let mut bytes = [0; SHORT_HEADER_LENGTH];
        bytes[0..2].copy_from_slice(&self.magic.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.flags.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.timeline.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.address.0.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.remaining.to_le_bytes());
        bytes
    }

    /// The timeline on which the page was begun, `None` where there is a 0.
    #[must_use]
    pub const fn timeline(&self) -> Option<TimelineId> {
        TimelineId::new(self.timeline)
    }
}

/// What the header of a segment's first page says beyond the others. Nothing in it has been
/// checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// `xlp_sysid`.
    pub system_id: SystemId,
    /// `xlp_seg_size`, in bytes.
    pub segment_size: u32,
    /// `xlp_xlog_blcksz`, in bytes.
    pub block_size: u32,
}

impl SegmentHeader {
    /// The length of these fields in bytes.
    pub const LENGTH: usize = LONG_HEADER_LENGTH - SHORT_HEADER_LENGTH;

    /// Reads the bytes that follow a [`PageHeader`].
    #[must_use]
    pub fn parse(bytes: &[u8; Self::LENGTH]) -> Self {
        let b = bytes;
        Self {
            system_id: SystemId(u64::from_le_bytes([
                b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7],
            ])),
            segment_size: u32::from_le_bytes([b[8], b[9], b[10], b[11]]),
            block_size: u32::from_le_bytes([b[12], b[13], b[14], b[15]]),
        }
    }

    /// The fields as they are written.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[0..8].copy_from_slice(&self.system_id.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.segment_size.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.block_size.to_le_bytes());
        bytes
    }
}
