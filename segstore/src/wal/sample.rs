//! A cluster's WAL and an archive of it, for tests.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use walproto::{Lsn, SegmentSize, SystemId, TimelineHistory, TimelineId};

use crate::archive::compression::Compression;
use crate::archive::identity::ServerFacts;
use crate::archive::{Archive, ArchiveOptions};
use crate::disk::Disk;
use crate::wal::generator::Generator;
use crate::wal::validator::WalFormat;

pub(crate) const MIB: u64 = 1 << 20;

/// Where the WAL begins: with a segment.
pub(crate) const START: Lsn = Lsn(7 * MIB);

pub(crate) fn segment_size() -> SegmentSize {
    SegmentSize::new(MIB).unwrap()
}

pub(crate) fn facts() -> ServerFacts {
    ServerFacts {
        system_id: SystemId(7_000_000_000_000_000_001),
        segment_size: segment_size(),
        block_size: 8192,
        server_version_num: 150_018,
        data_directory_mode: 0o700,
    }
}

/// WAL of the cluster of [`facts`], from [`START`] on.
pub(crate) fn generator(seed: u64) -> Generator {
    let format = WalFormat {
        system_id: facts().system_id,
        segment_size: segment_size(),
        page_magic: None,
        server_version_num: Some(facts().server_version_num),
    };
    let history = TimelineHistory::without_ancestors(TimelineId::FIRST);
    Generator::new(format, history, START, seed).unwrap()
}

/// What was generated from `from` up to `end`.
pub(crate) fn bytes(wal: &Generator, from: Lsn, end: Lsn) -> Bytes {
    let index = |lsn: Lsn| usize::try_from(lsn.bytes_since(wal.start())).unwrap();
    Bytes::copy_from_slice(&wal.bytes()[index(from)..index(end)])
}

pub(crate) fn options(directory: &Path, sync: bool) -> ArchiveOptions {
    ArchiveOptions {
        directory: directory.to_owned(),
        sync,
        compression: Compression::NONE,
    }
}

/// An archive that is the cluster's of [`facts`].
pub(crate) fn archive(disk: impl Disk + 'static, directory: &Path, sync: bool) -> Archive {
    let mut archive = Archive::open(Arc::new(disk), options(directory, sync)).unwrap();
    archive.bind(&facts()).unwrap();
    archive
}
