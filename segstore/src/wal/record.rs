//! The header that begins every WAL record.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | `xl_tot_len`: the length of the record with this header |
//! | 4 | 4 | `xl_xid`: the transaction |
//! | 8 | 8 | `xl_prev`: the position of the record before |
//! | 16 | 1 | `xl_info`: flags, four bits of them the resource manager's |
//! | 17 | 1 | `xl_rmid`: the resource manager |
//! | 18 | 2 | padding, zero |
//! | 20 | 4 | `xl_crc`: CRC-32C of what follows the header, then of the header up to here |
//!
//! A record starts at a multiple of eight, so that `xl_tot_len` is always on the page where the
//! record starts; the rest of the header may already be on the next one.
//!
//! Source: src/include/access/xlogrecord.h, `XLogRecord` (PG 15).

use walproto::Lsn;

use crate::wal::crc;

/// The length of a record header in bytes (`SizeOfXLogRecord`).
pub const RECORD_HEADER_LENGTH: usize = 24;
/// The least `xl_tot_len`: a header and nothing else.
pub const LEAST_LENGTH: u32 = 24;

/// `RM_XLOG_ID`, the resource manager of records about the WAL itself.
pub const RM_XLOG: u8 = 0;
/// The last resource manager that all of PostgreSQL 13 to 18 have (`RM_LOGICALMSG_ID`).
pub const RM_LAST_BUILTIN: u8 = 21;

/// `XLOG_SWITCH`: nothing follows in this segment.
pub const XLOG_SWITCH: u8 = 0x40;
/// `XLOG_OVERWRITE_CONTRECORD`: the first record of a page that replaces the lost rest of one.
pub const XLOG_OVERWRITE_CONTRECORD: u8 = 0xD0;

/// The bits of `xl_info` that are the resource manager's (`XLR_RMGR_INFO_MASK`).
pub const RM_INFO_MASK: u8 = 0xF0;

/// The fields of a record header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    /// `xl_tot_len`: the length of the record in bytes, header included, page headers and
    /// padding not.
    pub total_length: u32,
    /// `xl_xid`: the transaction, 0 for none.
    pub xid: u32,
    /// `xl_prev`: where the record before starts, 0/0 in the first record of a cluster.
    pub previous: Lsn,
    /// `xl_info`: flags.
    pub info: u8,
    /// `xl_rmid`: the resource manager.
    pub resource_manager: u8,
    /// `xl_crc`.
    pub crc: u32,
}

impl RecordHeader {
    /// Reads the fields. Nothing in them has been checked.
    #[must_use]
    pub fn parse(bytes: &[u8; RECORD_HEADER_LENGTH]) -> Self {
        let b = bytes;
        Self {
            total_length: u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            xid: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
            previous: Lsn(u64::from_le_bytes([
                b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15],
            ])),
            info: b[16],
            resource_manager: b[17],
            crc: u32::from_le_bytes([b[20], b[21], b[22], b[23]]),
        }
    }

    /// The header as it is written.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_HEADER_LENGTH] {
        let mut bytes = [0; RECORD_HEADER_LENGTH];
        bytes[0..4].copy_from_slice(&self.total_length.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.xid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.previous.0.to_le_bytes());
        bytes[16] = self.info;
        bytes[17] = self.resource_manager;
        bytes[20..24].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }

    /// The bytes that follow the header.
    #[must_use]
    pub const fn body_length(&self) -> u32 {
        self.total_length.saturating_sub(LEAST_LENGTH)
    }

    /// The part of `xl_info` that is the resource manager's: with it, what kind of record it is.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        self.info & RM_INFO_MASK
    }

    /// Whether this is an `XLOG_SWITCH`: the record's end is the end of its segment.
    #[must_use]
    pub const fn is_switch(&self) -> bool {
        self.resource_manager == RM_XLOG && self.kind() == XLOG_SWITCH
    }

    /// Whether this is an `XLOG_OVERWRITE_CONTRECORD`.
    #[must_use]
    pub const fn is_overwrite_contrecord(&self) -> bool {
        self.resource_manager == RM_XLOG && self.kind() == XLOG_OVERWRITE_CONTRECORD
    }
}

/// Ends the computation of a record's CRC: `body` is that of all that follows the header.
#[must_use]
#[inline]
pub fn finish_crc(body: u32, header: &[u8; RECORD_HEADER_LENGTH]) -> u32 {
    let [covered @ .., _, _, _, _] = header;
    crc::append_short(body, covered)
}

#[cfg(test)]
mod tests {
    use walproto::MAJORS;

    use super::*;

    #[test]
    fn the_last_built_in_resource_manager_is_that_of_all_versions() {
        for major in &MAJORS {
            assert!(major.has_resource_manager(RM_LAST_BUILTIN));
            assert!(!major.has_resource_manager(RM_LAST_BUILTIN + 1));
        }
    }
}
