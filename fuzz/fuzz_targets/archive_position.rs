//! Whatever the files of positions hold, an archive either says so or is received into, and what
//! was made durable then is found and told.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use segstore::generator::Generator;
use segstore::sim::SimDisk;
use segstore::{
    Archive, ArchiveOptions, Compression, Disk, Preparation, ServerFacts, WalFormat,
    published_position,
};
use walproto::{Lsn, SegmentSize, SystemId, TimelineHistory, TimelineId};

const START: Lsn = Lsn(3 << 20);

fn facts() -> ServerFacts {
    ServerFacts {
        system_id: SystemId(1),
        segment_size: SegmentSize::new(1 << 20).unwrap(),
        block_size: 8192,
        server_version_num: 150_018,
        data_directory_mode: 0o700,
    }
}

fn archive(disk: &Arc<SimDisk>) -> Archive {
    let options = ArchiveOptions {
        directory: "/archive".into(),
        sync: true,
        compression: Compression::NONE,
    };
    let mut archive = Archive::open(Arc::clone(disk) as Arc<dyn Disk>, options).unwrap();
    archive.bind(&facts()).unwrap();
    archive
}

/// A file of two slots with right checksums.
fn file(slots: [[u8; 40]; 2]) -> Vec<u8> {
    let mut content = vec![0; 8192];
    for (page, slot) in content.chunks_mut(4096).zip(slots) {
        page[..40].copy_from_slice(&slot);
        page[40..44].copy_from_slice(&crc32c::crc32c(&slot).to_le_bytes());
    }
    content
}

fuzz_target!(|input: ([[u8; 40]; 2], [[u8; 40]; 2])| {
    let (watermark, position) = input;
    let disk = Arc::new(SimDisk::new("/archive"));
    let receiving = archive(&disk);
    disk.plant("/archive/.wal-receiver/watermark", &file(watermark))
        .unwrap();
    disk.plant("/archive/.wal-receiver/position", &file(position))
        .unwrap();
    let _ = published_position(Arc::clone(&disk) as Arc<dyn Disk>, Path::new("/archive"));
    let Ok(recovery) = receiving.recover() else {
        return;
    };
    let history = TimelineHistory::without_ancestors(TimelineId::FIRST);
    let Ok(mut writer) = receiving.writer(recovery, &history, START, Preparation::Inline) else {
        return;
    };
    let format = WalFormat {
        system_id: facts().system_id,
        segment_size: facts().segment_size,
        page_magic: None,
        server_version_num: Some(facts().server_version_num),
    };
    let mut wal = Generator::new(format, history, START, 1).unwrap();
    wal.record(100);
    writer
        .append(START, &[Bytes::copy_from_slice(wal.bytes())])
        .unwrap();
    let durable = writer.close().unwrap();
    let published = published_position(disk.clone(), Path::new("/archive")).unwrap();
    assert_eq!(published.unwrap().record_end, durable.record_end.lsn());
    drop(receiving);
    let found = archive(&disk).recover().unwrap().tip().unwrap();
    assert_eq!(found.record_end, durable.record_end);
});
