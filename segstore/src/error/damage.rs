//! What can be wrong with a small file.

use std::io;

/// What is wrong with a small file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// It is longer than any such file.
    #[error("it is longer than {limit} bytes")]
    TooLong {
        /// The longest such file in bytes.
        limit: u64,
    },
    /// Its checksum is not that of its content.
    #[error("checksum is {found:08X}, expected {expected:08X}")]
    Checksum {
        /// The checksum that was recorded.
        expected: u32,
        /// The checksum of what is there.
        found: u32,
    },
    /// Its length is not what was recorded.
    #[error("it has {found} bytes, expected {expected}")]
    Length {
        /// The length recorded.
        expected: u64,
        /// The length found.
        found: u64,
    },
    /// It is not JSON of the expected form.
    #[error("{0}")]
    Json(serde_json::Error),
    /// It has other fields.
    #[error("expected the fields format_version, crc32c and {name}")]
    Fields {
        /// What the file holds.
        name: &'static str,
    },
    /// A value in it is out of range.
    #[error("{field} is out of range")]
    Value {
        /// The name of the value.
        field: &'static str,
    },
    /// Its name is no replication slot's.
    #[error("no replication slot has that name")]
    SlotName,
    /// It has no valid content at all.
    #[error("no valid content")]
    Empty,
    /// It does not decompress.
    #[error("it does not decompress: {0}")]
    Compression(io::Error),
    /// It is no timeline history.
    #[error(transparent)]
    History(walproto::ParseHistoryError),
}
