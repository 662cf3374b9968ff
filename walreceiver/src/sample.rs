//! An archive on a simulated disk, and WAL for it, for tests.

use std::path::Path;
use std::sync::Arc;

use segstore::generator::Generator;
use segstore::sim::SimDisk;
use segstore::{Archive, ArchiveOptions, Compression, Disk, ServerFacts, WalFormat};
use walproto::{Lsn, SegmentSize, SystemId, TimelineHistory, TimelineId};

pub(crate) const MIB: u64 = 1 << 20;

/// Where the WAL begins.
pub(crate) const START: Lsn = Lsn(3 * MIB);

/// The directory of the archive.
pub(crate) const ROOT: &str = "/archive";

pub(crate) fn segment_size() -> SegmentSize {
    SegmentSize::new(MIB).unwrap()
}

pub(crate) fn first_timeline() -> TimelineHistory {
    TimelineHistory::without_ancestors(TimelineId::FIRST)
}

pub(crate) fn generator() -> Generator {
    generator_of(first_timeline())
}

/// WAL of a timeline that has all of it from the start on.
pub(crate) fn generator_of(history: TimelineHistory) -> Generator {
    let format = WalFormat {
        system_id: SystemId(1),
        segment_size: segment_size(),
        page_magic: None,
        server_version_num: None,
    };
    Generator::new(format, history, START, 1).unwrap()
}

/// An empty archive that is the server's.
pub(crate) fn archive(disk: &SimDisk) -> Archive {
    archive_at(disk.clone(), Path::new(ROOT))
}

/// The same on any disk, in `directory`.
pub(crate) fn archive_at(disk: impl Disk + 'static, directory: &Path) -> Archive {
    let options = ArchiveOptions {
        directory: directory.into(),
        sync: true,
        compression: Compression::NONE,
    };
    let mut archive = Archive::open(Arc::new(disk), options).unwrap();
    archive
        .bind(&ServerFacts {
            system_id: SystemId(1),
            segment_size: segment_size(),
            block_size: 8192,
            server_version_num: 150_018,
            data_directory_mode: 0o700,
        })
        .unwrap();
    archive
}
