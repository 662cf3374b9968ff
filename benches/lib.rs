//! Benchmarks of the hot paths, and the WAL that they share.

use std::path::Path;
use std::sync::Arc;

use segstore::generator::Generator;
use segstore::{
    Archive, ArchiveOptions, BLOCK_SIZE, Compression, OsDisk, Preparation, ServerFacts, WalFormat,
    Writer,
};
use walproto::{Lsn, SegmentSize, SystemId, TimelineHistory, TimelineId};

/// A kind of WAL, by what its records are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Short records as of small transactions, 80 bytes on average.
    Small,
    /// The mixture that real servers write between checkpoints.
    Mixed,
    /// Images of whole pages, as after a checkpoint.
    FullPages,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Small, Self::Mixed, Self::FullPages];

    /// The name in the reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Small => "small records",
            Self::Mixed => "mixed records",
            Self::FullPages => "full pages",
        }
    }
}

/// WAL of a new cluster from the start of its second segment on: `length` bytes of 16 MiB
/// segments and what the last record takes more.
///
/// # Panics
/// Never: the start is a page.
#[must_use]
pub fn generate(kind: Kind, length: u64) -> Generator {
    let format = WalFormat {
        system_id: SystemId(7_000_000_000_000_000_001),
        segment_size: SegmentSize::DEFAULT,
        page_magic: Some(0xD110),
        server_version_num: Some(150_018),
    };
    let history = TimelineHistory::without_ancestors(TimelineId::FIRST);
    let start = Lsn(SegmentSize::DEFAULT.bytes());
    #[expect(clippy::expect_used, reason = "a segment starts with a page")]
    let mut generated = Generator::new(format, history, start, 1).expect("a page");
    let mut body = 20;
    while generated.end().bytes_since(start) < length {
        match kind {
            Kind::Small => {
                generated.record(body);
                body = if body < 92 { body + 7 } else { 20 };
            }
            Kind::Mixed => {
                generated.any_record();
            }
            Kind::FullPages => {
                generated.record(8_192 + 50);
            }
        }
    }
    generated
}

/// An empty archive in `directory` for the WAL that was generated, and its writer.
///
/// # Panics
/// When the directory is not empty, or the disk refuses.
#[must_use]
#[expect(
    clippy::expect_used,
    reason = "a benchmark that cannot run has nothing to report"
)]
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
