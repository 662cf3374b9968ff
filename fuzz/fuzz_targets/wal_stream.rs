//! WAL is found as good or as bad however its bytes arrive.
#![no_main]

use libfuzzer_sys::fuzz_target;
use segstore::{Validator, WalFormat};
use walproto::{Lsn, SegmentSize, SystemId, TimelineHistory, TimelineId};

fuzz_target!(|data: &[u8]| {
    let Some((&step, wal)) = data.split_first() else {
        return;
    };
    let format = WalFormat {
        system_id: SystemId(1),
        segment_size: SegmentSize::DEFAULT,
        page_magic: None,
        server_version_num: None,
    };
    let history = TimelineHistory::without_ancestors(TimelineId::FIRST);
    let mut whole = Validator::new(format, history, Lsn(0x100_0000)).unwrap();
    let mut parts = whole.clone();
    let verdict = whole.push(wal).map(drop);
    let mut chunks = wal.chunks(usize::from(step) + 1);
    let in_parts = chunks.try_for_each(|chunk| parts.push(chunk).map(drop));
    assert_eq!((in_parts, parts.progress()), (verdict, whole.progress()));
});
