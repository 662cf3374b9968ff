//! WAL on disk: its pages and records, checked as they arrive, and the archive directory that
//! keeps them.
#![forbid(unsafe_code)]

mod archive;
mod compression;
mod compressor;
mod corruption;
mod directory;
mod discovery;
mod disk;
mod error;
mod flushed;
pub mod generator;
mod history;
mod identity;
mod listing;
mod lock;
mod named_file;
mod os_disk;
pub mod page;
mod position;
mod prepare;
mod read;
pub mod record;
mod records;
mod recovery;
mod segment;
mod segment_files;
mod segment_reader;
pub mod sim;
mod stored_records;
mod takeover;
mod unsynced;
mod validator;
mod writer;

pub use archive::{Archive, ArchiveOptions, published_position};
pub use compression::{Compression, InvalidLevel};
pub use corruption::{Corruption, CorruptionReason};
pub use disk::{Access, DirectoryEntry, Disk, DiskFile, OpenMode};
pub use error::{ArchiveError, Damage, DiskError, Evidence, Operation};
pub use flushed::{Appended, Durable, FlushedLsn};
pub use identity::{FORMAT_VERSION, Identity, ServerFacts};
pub use listing::Listing;
pub use os_disk::OsDisk;
pub use page::BLOCK_SIZE;
pub use position::{ArchivePosition, PublishedPosition, Watermark};
pub use prepare::Preparation;
pub use read::WalReader;
pub use record::RecordHeader;
pub use records::{PieceEnd, RecordPiece, RecordReader};
pub use recovery::{Recovery, Tip};
pub use segment::{Encoding, EntryName, HistoryFile, OWN_DIRECTORY, SegmentFile, SegmentName};
pub use segment_reader::SegmentReader;
pub use stored_records::{ReadRecordError, StoredRecords};
pub use validator::{NotPageAligned, Progress, RecordVisitor, Validator, WalFormat};
pub use writer::{WriteError, Writer};
