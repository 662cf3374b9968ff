//! WAL on disk: its pages and records, checked as they arrive, and the archive directory that
//! keeps them.
#![forbid(unsafe_code)]

mod corruption;
mod disk;
mod error;
pub mod generator;
mod os_disk;
pub mod page;
pub mod record;
mod segment;
pub mod sim;
mod validator;

pub use corruption::{Corruption, CorruptionReason};
pub use disk::{Access, DirectoryEntry, Disk, DiskFile, OpenMode};
pub use error::{ArchiveError, Damage, DiskError, Operation};
pub use os_disk::OsDisk;
pub use page::BLOCK_SIZE;
pub use record::RecordHeader;
pub use segment::{Encoding, EntryName, HistoryFile, OWN_DIRECTORY, SegmentFile, SegmentName};
pub use validator::{NotPageAligned, Progress, RecordVisitor, Validator, WalFormat};
