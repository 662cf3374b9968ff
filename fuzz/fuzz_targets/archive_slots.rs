//! A slot that is taken from its file is there again after it has moved and was saved; one that is
//! refused is as it was.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use segstore::sim::SimDisk;
use segstore::{Archive, ArchiveOptions, Compression, Disk, ServerFacts, SlotLimits, SlotStore};
use walproto::copy_data::EpochXid;
use walproto::{Lsn, SegmentSize, SlotName, SystemId, TimelineId, WalPosition};

const PATH: &str = "/archive/.wal-receiver/slots/standby_1";

fn archive(disk: &Arc<SimDisk>) -> Archive {
    let options = ArchiveOptions {
        directory: "/archive".into(),
        sync: true,
        compression: Compression::NONE,
    };
    let mut archive = Archive::open(Arc::clone(disk) as Arc<dyn Disk>, options).unwrap();
    let facts = ServerFacts {
        system_id: SystemId(1),
        segment_size: SegmentSize::DEFAULT,
        block_size: 8192,
        server_version_num: 150_018,
        data_directory_mode: 0o700,
    };
    archive.bind(&facts).unwrap();
    archive
}

fn open(archive: &Archive) -> Option<SlotStore> {
    let limits = SlotLimits {
        max_slots: 1,
        max_keep_bytes: None,
    };
    SlotStore::open(archive.view().unwrap(), limits).ok()
}

fuzz_target!(|inner: &str| {
    let disk = Arc::new(SimDisk::new("/archive"));
    let archive = archive(&disk);
    let checksum = crc32c::crc32c(inner.as_bytes());
    let content = format!("{{\"format_version\":1,\"crc32c\":{checksum},\"slot\":{inner}}}\n");
    disk.plant(Path::new(PATH), content.as_bytes()).unwrap();
    let Some(store) = open(&archive) else {
        assert_eq!(disk.content(PATH), Some(content.into_bytes()));
        return;
    };
    let name = SlotName::new("standby_1").unwrap();
    // A temporary one is gone with its session.
    let Some(before) = store.get(&name).unwrap() else {
        assert_eq!(disk.content(PATH), None);
        return;
    };
    assert_eq!(disk.content(PATH), Some(content.into_bytes()));
    let (timeline, lsn) = (TimelineId::FIRST, Lsn(8));
    {
        let session = store.session(1);
        let held = session.acquire(&name).unwrap();
        held.advance(timeline, lsn).unwrap();
        held.set_xmin(before.xmin.unwrap_or_default(), EpochXid::default());
    }
    store.save().unwrap();
    drop(store);
    let after = open(&archive).unwrap().get(&name).unwrap().unwrap();
    assert_eq!(after.restart, Some(WalPosition { timeline, lsn }));
    assert_eq!(after.xmin, before.xmin.filter(|xmin| xmin.xid >= 3));
    assert_eq!(after.catalog_xmin, None);
});
