//! WAL on disk: its pages and records, checked as they arrive, and the archive directory that
//! keeps them.
//!
//! Nothing becomes a [`FlushedLsn`] that is not contiguous, valid record by record, and covered by
//! a successful sync of its file and directory entry, and what has become one is never replaced by
//! other bytes. Damage is an error that names timeline, position, file, what was expected and what
//! was found; the archive stays as it was.
//!
//! - To keep WAL: [`Archive::open`], [`Archive::bind`] to a cluster, [`Archive::recover`], and a
//!   [`Writer`] from [`Archive::writer`].
//! - To read it back: [`Archive::records`] for records, [`Archive::reader`] for bytes. Both take
//!   growing, complete and compressed segments, and follow a timeline's ancestors. Beside a
//!   receiver in another process: [`ArchiveView::records`].
//! - To hand it on while it arrives: an [`ArchiveView`], in the process that writes
//!   ([`Archive::view`]) or in another, and a [`Feed`] for each one who asks. [`SlotStore`] keeps
//!   what they need from [`prune`].
//! - To check a whole archive as it lies there: [`verify`].
//! - To check WAL that lies elsewhere: [`Validator`], or [`RecordReader`] for its records.
//! - To test with: [`generator`] makes valid WAL, [`sim`] is a disk that loses power.
//!
//! ```
//! use std::sync::Arc;
//!
//! use bytes::Bytes;
//! use segstore::generator::Generator;
//! use segstore::sim::SimDisk;
//! use segstore::{
//!     Archive, ArchiveOptions, Compression, FeedStep, Preparation, ServerFacts, WalFormat,
//! };
//! use walproto::{Lsn, SegmentSize, SystemId, TimelineHistory, TimelineId};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // What a server has written; a receiver gets it from the network.
//! let start = Lsn(7 << 24);
//! let format = WalFormat {
//!     system_id: SystemId(7_000_000_000_000_000_001),
//!     segment_size: SegmentSize::DEFAULT,
//!     page_magic: None,
//!     server_version_num: Some(150_018),
//! };
//! let history = TimelineHistory::without_ancestors(TimelineId::FIRST);
//! let mut wal = Generator::new(format, history.clone(), start, 1)?;
//! let last = wal.record(1_000);
//!
//! // An `OsDisk` in place of the simulated one keeps it for real.
//! let disk = SimDisk::new("/wal");
//! let options = ArchiveOptions {
//!     directory: "/wal".into(),
//!     sync: true,
//!     compression: Compression::NONE,
//! };
//! let mut archive = Archive::open(Arc::new(disk), options)?;
//! archive.bind(&ServerFacts {
//!     system_id: format.system_id,
//!     segment_size: format.segment_size,
//!     block_size: 8192,
//!     server_version_num: 150_018,
//!     data_directory_mode: 0o700,
//! })?;
//! let recovery = archive.recover()?;
//! let mut writer = archive.writer(recovery, &history, start, Preparation::Inline)?;
//! writer.append(start, &[Bytes::copy_from_slice(wal.bytes())])?;
//! let durable = writer.sync()?;
//! assert_eq!(durable.record_end.lsn(), last.end);
//!
//! let mut records = archive.records(Arc::new(history), start, 1 << 20)?;
//! let record = records.next_before(last.end)?.ok_or("no record")?;
//! assert_eq!((record.start, record.header.body_length()), (last.start, 1_000));
//!
//! // The same for one who asks for the bytes; more follows with each sync.
//! let view = archive.view()?;
//! let mut feed = view.feed(None, start)?;
//! assert!(matches!(feed.next_step()?, FeedStep::Chunk(chunk) if chunk.end == last.end));
//! assert!(matches!(feed.next_step()?, FeedStep::CaughtUp));
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod archive;
mod disk;
mod error;
mod serve;
mod verify;
mod wal;

pub use disk::sim;
pub use wal::{generator, page, record};

pub use archive::compression::{Compression, InvalidLevel};
pub use archive::flushed::{Appended, Durable, FlushedLsn};
pub use archive::identity::{FORMAT_VERSION, Identity, ServerFacts};
pub use archive::listeners::Subscription;
pub use archive::listing::Listing;
pub use archive::live::DEFAULT_TAIL_BYTES;
pub use archive::missing::MissingSegments;
pub use archive::position::ArchivePosition;
pub use archive::prepare::Preparation;
pub use archive::read::WalReader;
pub use archive::recovery::{Recovery, Tip};
pub use archive::segment_reader::SegmentReader;
pub use archive::stored_records::{ReadRecordError, StoredRecords};
pub use archive::writer::{WriteError, Writer};
pub use archive::{Archive, ArchiveOptions, published_position};
pub use disk::os_disk::OsDisk;
pub use disk::{Access, DirectoryEntry, Disk, DiskDirectory, DiskFile, OpenMode};
pub use error::{ArchiveError, Damage, DiskError, ErrorKind, Evidence, Operation};
pub use serve::feed::{Chunk, ChunkData, ChunkFile, Feed, FeedError, FeedStep};
pub use serve::follow::Follower;
pub use serve::records::{RecordFeed, RecordFeedError};
pub use serve::retention::{Holder, Pruned, Removable, prune};
pub use serve::slots::{
    HeldSlot, MOCK_NONCE_LENGTH, NewSlot, Slot, SlotError, SlotLimits, SlotSession, SlotStore,
    WalStatus,
};
pub use serve::view::{ArchiveView, Followed};
pub use verify::{Fault, GoodRange, Problem, Verification, WeakRange, verify};
pub use wal::corruption::{Corruption, CorruptionReason};
pub use wal::page::BLOCK_SIZE;
pub use wal::record::RecordHeader;
pub use wal::records::{PieceEnd, RecordPiece, RecordReader};
pub use wal::segment::{Encoding, EntryName, HistoryFile, OWN_DIRECTORY, SegmentFile, SegmentName};
pub use wal::settings::{SettingChange, WeakSetting};
pub use wal::validator::{
    IncompleteRecord, NotPageAligned, Progress, RecordVisitor, Validator, WalFormat,
};
