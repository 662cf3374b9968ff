//! A watermark rises from whatever its file holds, and is there when it is read again.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use segstore::sim::SimDisk;
use segstore::{Archive, ArchiveOptions, ArchivePosition, Compression, Disk};
use walproto::{Lsn, TimelineId};

fuzz_target!(|slots: [[u8; 40]; 2]| {
    let disk = Arc::new(SimDisk::new("/archive"));
    disk.create_directory(Path::new("/archive/.wal-receiver"))
        .unwrap();
    let mut content = vec![0; 8192];
    for (page, slot) in content.chunks_mut(4096).zip(slots) {
        page[..40].copy_from_slice(&slot);
        page[40..44].copy_from_slice(&crc32c::crc32c(&slot).to_le_bytes());
    }
    disk.plant("/archive/.wal-receiver/watermark", &content)
        .unwrap();
    let options = ArchiveOptions {
        directory: "/archive".into(),
        sync: true,
        compression: Compression::NONE,
    };
    let archive = Archive::open(disk, options).unwrap();
    let Ok(mut watermark) = archive.watermark() else {
        return;
    };
    let before = watermark.get();
    let position = ArchivePosition {
        timeline: TimelineId::new(7).unwrap(),
        record_end: Lsn(8),
        byte_end: Lsn(9),
    };
    for _ in 0..2 {
        watermark.raise(position).unwrap();
        assert_eq!(watermark.get(), before.max(Some(position)));
        assert_eq!(archive.watermark().unwrap().get(), watermark.get());
    }
});
