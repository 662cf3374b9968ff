//! An archive of made-up WAL, for tests that need no server that wrote it.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use segstore::generator::Generator;
use segstore::{
    Archive, ArchiveOptions, ArchiveView, Compression, OsDisk, Preparation, ServerFacts, WalFormat,
    Writer,
};
use tempfile::TempDir;
use walproto::{Lsn, SegmentSize, SystemId, TimelineHistory, TimelineId};

/// An archive of valid WAL of timeline 1, in segments of 1 MiB, of which more can be written.
pub struct GeneratedArchive {
    directory: TempDir,
    generator: Generator,
    archive: Archive,
    writer: Writer,
}

impl GeneratedArchive {
    /// The cluster that it says it is of.
    pub const SYSTEM_ID: SystemId = SystemId(7_000_000_000_000_000_001);

    /// The first position.
    pub const START: Lsn = Lsn(5 << 20);

    /// Makes one of at least so many bytes of WAL, of a server of that version as a number like
    /// 150018.
    #[must_use]
    pub fn new(length: usize, server_version_num: u32) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("walrecv-generated-")
            .tempdir()
            .unwrap();
        let segment_size = SegmentSize::new(1 << 20).unwrap();
        let format = WalFormat {
            system_id: Self::SYSTEM_ID,
            segment_size,
            page_magic: None,
            server_version_num: Some(server_version_num),
        };
        let history = TimelineHistory::without_ancestors(TimelineId::FIRST);
        let generator = Generator::new(format, history.clone(), Self::START, 1).unwrap();
        let options = ArchiveOptions {
            directory: directory.path().to_owned(),
            sync: true,
            compression: Compression::NONE,
        };
        let mut archive = Archive::open(Arc::new(OsDisk::new()), options).unwrap();
        let facts = ServerFacts {
            system_id: Self::SYSTEM_ID,
            segment_size,
            block_size: 8192,
            server_version_num,
            data_directory_mode: 0o700,
        };
        archive.bind(&facts).unwrap();
        let recovery = archive.recover().unwrap();
        let writer = archive
            .writer(recovery, &history, Self::START, Preparation::Inline)
            .unwrap();
        let mut this = Self {
            directory,
            generator,
            archive,
            writer,
        };
        this.write(length);
        this
    }

    /// Makes at least so many bytes more durable.
    pub fn write(&mut self, length: usize) {
        let before = self.wal().len();
        while self.wal().len() < before + length {
            self.generator.record(5_000);
        }
        let start = Lsn(Self::START.0 + before as u64);
        let pieces: Vec<Bytes> = self.wal()[before..]
            .chunks(100_000)
            .map(Bytes::copy_from_slice)
            .collect();
        self.writer.append(start, &pieces).unwrap();
        let durable = self.writer.sync().unwrap();
        assert_eq!(durable.byte_end, self.end());
    }

    /// A view that hears of what is written as a relay in one process does.
    #[must_use]
    pub fn view(&self) -> ArchiveView {
        self.archive.view().unwrap()
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// All of its WAL.
    #[must_use]
    pub fn wal(&self) -> &[u8] {
        self.generator.bytes()
    }

    /// The end of its WAL.
    #[must_use]
    pub fn end(&self) -> Lsn {
        Lsn(Self::START.0 + self.wal().len() as u64)
    }
}
