//! What the benchmarks of the hot paths share: WAL, and two sessions that stream it.

#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a benchmark that cannot run has nothing to report"
)]

pub mod hot;
mod pair;

use std::path::Path;
use std::sync::Arc;

use segstore::generator::{GeneratedStream, Generator, RecordMix};
use segstore::{
    Archive, ArchiveOptions, BLOCK_SIZE, Compression, OsDisk, Preparation, ServerFacts, WalFormat,
    Writer,
};
use walproto::{Lsn, SegmentSize, SystemId, TimelineHistory, TimelineId};

pub use pair::Pair;

/// Where generated WAL starts: in a new cluster's second segment.
pub const START: Lsn = Lsn(16 << 20);

/// What the reports call a mix.
#[must_use]
pub const fn name(mix: RecordMix) -> &'static str {
    match mix {
        RecordMix::Small => "small records",
        RecordMix::Varied => "varied records",
        RecordMix::Large => "large records",
        RecordMix::FullPages => "full pages",
    }
}

/// What has not generated any WAL yet.
#[must_use]
pub fn generator() -> Generator {
    let format = WalFormat {
        system_id: SystemId(7_000_000_000_000_000_001),
        segment_size: SegmentSize::DEFAULT,
        page_magic: Some(0xD110),
        server_version_num: Some(150_018),
    };
    let history = TimelineHistory::without_ancestors(TimelineId::FIRST);
    Generator::new(format, history, START, 1).expect("a segment starts with a page")
}

/// `length` bytes of WAL and what the last record takes more.
#[must_use]
pub fn generate(mix: RecordMix, length: u64) -> Generator {
    let mut generated = generator();
    while generated.end().bytes_since(START) < length {
        generated.record_of(mix);
    }
    generated
}

/// WAL without an end.
#[must_use]
pub fn stream(mix: RecordMix) -> GeneratedStream {
    GeneratedStream::new(generator(), mix)
}

/// An empty archive in `directory` for the WAL that was generated, and its writer.
///
/// # Panics
/// When the directory is not empty, or the disk refuses.
#[must_use]
pub fn archive(directory: &Path, generated: &Generator, sync: bool) -> (Archive, Writer) {
    let options = ArchiveOptions {
        directory: directory.to_owned(),
        sync,
        compression: Compression::NONE,
    };
    let mut archive = Archive::open(Arc::new(OsDisk::new()), options).expect("a directory");
    let format = generated.format();
    let facts = ServerFacts {
        system_id: format.system_id,
        segment_size: format.segment_size,
        block_size: u32::try_from(BLOCK_SIZE).expect("8192"),
        server_version_num: 150_018,
        data_directory_mode: 0o700,
    };
    archive.bind(&facts).expect("an empty archive");
    let recovery = archive.recover().expect("an empty archive");
    let writer = archive.writer(
        recovery,
        generated.history(),
        generated.start(),
        Preparation::Background,
    );
    let writer = writer.expect("an empty archive");
    (archive, writer)
}
