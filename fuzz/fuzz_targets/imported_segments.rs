//! Of a compressed growing segment that another program left, whatever it holds, no byte is lost:
//! it goes as it was into quarantine beside what was made of it. A cut file gives no other bytes than
//! the whole one.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use segstore::sim::SimDisk;
use segstore::{Archive, ArchiveError, ArchiveOptions, Compression, Disk, ServerFacts};
use walproto::{SegmentSize, SystemId};

const NAME: &str = "000000010000000000000003";
const SEGMENT: usize = 1 << 20;

/// What becomes of it, without the zeros at its end.
fn imported(suffix: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let name = format!("{NAME}.{suffix}.partial");
    let (path, aside) = (
        format!("/archive/{name}"),
        format!("/archive/.wal-receiver/quarantine/{name}.1"),
    );
    let disk = Arc::new(SimDisk::new("/archive"));
    disk.plant(Path::new(&path), bytes).unwrap();
    let options = ArchiveOptions {
        directory: "/archive".into(),
        sync: true,
        compression: Compression::NONE,
    };
    let facts = ServerFacts {
        system_id: SystemId(1),
        segment_size: SegmentSize::new(SEGMENT as u64).unwrap(),
        block_size: 8192,
        server_version_num: 150_018,
        data_directory_mode: 0o700,
    };
    let opened = Archive::open(Arc::clone(&disk) as Arc<dyn Disk>, options);
    let bound = opened.and_then(|mut archive| archive.bind(&facts));
    let plain = disk.content(format!("/archive/{NAME}.partial"));
    if let Err(error) = bound {
        // It tells of a segment of another cluster, or of none.
        assert!(!matches!(error, ArchiveError::Disk(_)), "{error}");
        assert_eq!(plain, None);
        assert!(disk.content(path).unwrap() == bytes);
        return None;
    }
    assert!(disk.content(aside).unwrap() == bytes);
    let mut plain = plain.unwrap();
    assert_eq!(plain.len(), SEGMENT);
    let end = plain.iter().rposition(|byte| *byte != 0);
    plain.truncate(end.map_or(0, |last| last + 1));
    Some(plain)
}

fuzz_target!(|input: (bool, u16, &[u8])| {
    let (lz4, cut, bytes) = input;
    let suffix = if lz4 { "lz4" } else { "gz" };
    let cut = usize::from(cut).min(bytes.len());
    let whole = imported(suffix, bytes);
    let part = imported(suffix, &bytes[..cut]);
    if let (Some(whole), Some(part)) = (whole, part) {
        assert!(whole.iter().zip(&part).all(|(a, b)| a == b));
    }
});
