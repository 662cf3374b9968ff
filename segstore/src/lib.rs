//! WAL on disk: its pages and records, checked as they arrive, and the archive directory that
//! keeps them.
#![forbid(unsafe_code)]

mod disk;
mod error;
mod os_disk;
mod segment;

pub use disk::{Access, DirectoryEntry, Disk, DiskFile, OpenMode};
pub use error::{ArchiveError, Damage, DiskError, Operation};
pub use os_disk::OsDisk;
pub use segment::{Encoding, EntryName, HistoryFile, OWN_DIRECTORY, SegmentFile, SegmentName};
