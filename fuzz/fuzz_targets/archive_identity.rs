//! An archive whose identity is taken has the same one when it is opened again, and after its
//! server changed what may change; one that is refused is as it was.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use segstore::sim::SimDisk;
use segstore::{Archive, ArchiveOptions, Compression, Disk, Identity, ServerFacts};

fn open(disk: &Arc<SimDisk>) -> Option<Archive> {
    let options = ArchiveOptions {
        directory: "/archive".into(),
        sync: true,
        compression: Compression::NONE,
    };
    Archive::open(Arc::clone(disk) as Arc<dyn Disk>, options).ok()
}

fuzz_target!(|inner: &str| {
    let disk = Arc::new(SimDisk::new("/archive"));
    disk.create_directory(Path::new("/archive/.wal-receiver"))
        .unwrap();
    let path = "/archive/.wal-receiver/identity.json";
    let checksum = crc32c::crc32c(inner.as_bytes());
    let content = format!("{{\"format_version\":1,\"crc32c\":{checksum},\"identity\":{inner}}}\n");
    disk.plant(path, content.as_bytes()).unwrap();
    let identity = open(&disk).and_then(|archive| archive.identity().cloned());
    assert_eq!(disk.content(path), Some(content.into_bytes()));
    let identity_now = || open(&disk).unwrap().identity().cloned();
    let Some(identity) = identity else { return };
    assert_eq!(identity_now().as_ref(), Some(&identity));
    let facts = ServerFacts {
        system_id: identity.system_id(),
        segment_size: identity.segment_size(),
        block_size: 8192,
        server_version_num: 190_001,
        data_directory_mode: 0o750,
    };
    open(&disk).unwrap().bind(&facts).unwrap();
    assert_eq!(
        identity_now().as_ref().map(Identity::server_version_num),
        Some(190_001)
    );
});
