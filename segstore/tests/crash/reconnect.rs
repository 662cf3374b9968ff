//! What a new connection costs on the disk.

use std::sync::Arc;

use bytes::Bytes;
use segstore::generator::Generator;
use segstore::sim::SimDisk;
use segstore::{Archive, ArchiveOptions, Compression, Preparation, ServerFacts, WalFormat};
use walproto::{Lsn, SegmentSize, TimelineHistory, TimelineId};

use crate::world::{ROOT, facts};

/// Connects several times, and asserts that no connection but the first writes more than what it
/// receives and a page.
fn reconnect(segment_size: u64, preparation: Preparation) {
    let facts = ServerFacts {
        segment_size: SegmentSize::new(segment_size).unwrap(),
        ..facts()
    };
    let format = WalFormat {
        system_id: facts.system_id,
        segment_size: facts.segment_size,
        page_magic: None,
        server_version_num: Some(facts.server_version_num),
    };
    let start = Lsn(segment_size);
    let history = TimelineHistory::without_ancestors(TimelineId::FIRST);
    let mut wal = Generator::new(format, history.clone(), start, 71).unwrap();
    let disk = SimDisk::new(ROOT);
    let options = ArchiveOptions {
        directory: ROOT.into(),
        sync: true,
        compression: Compression::NONE,
    };
    let mut archive = Archive::open(Arc::new(disk.clone()), options).unwrap();
    archive.bind(&facts).unwrap();
    for connection in 0..6 {
        for _ in 0..3 {
            wal.record(100);
        }
        let before = disk.bytes_written();
        let recovery = archive.recover().unwrap();
        let resume_at = recovery.tip().map_or(start, |tip| tip.resume_at);
        let mut writer = archive
            .writer(recovery, &history, resume_at, preparation)
            .unwrap();
        let index = usize::try_from(resume_at.0 - start.0).unwrap();
        let bytes = Bytes::copy_from_slice(&wal.bytes()[index..]);
        let received = bytes.len() as u64;
        writer.append(resume_at, &[bytes]).unwrap();
        let durable = writer.close().unwrap();
        assert_eq!(durable.record_end.lsn(), wal.end());
        if connection > 0 {
            let written = disk.bytes_written() - before;
            assert!(written <= received + 8192, "{connection}: {written} bytes");
        }
    }
    let whole = disk.bytes_written();
    // The first segment, with zeros once.
    assert!(whole < segment_size + 50_000, "{whole} bytes in all");
}

#[test]
fn a_connection_writes_no_segment_with_zeros_that_is_ready() {
    for size in [1 << 20, 16 << 20] {
        reconnect(size, Preparation::Inline);
    }
    reconnect(1 << 20, Preparation::Background);
}
