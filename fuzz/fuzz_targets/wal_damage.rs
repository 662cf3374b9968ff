//! No record is found good of which a byte was changed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use segstore::generator::Generator;
use segstore::{BLOCK_SIZE, Validator, WalFormat};
use walproto::{Lsn, SegmentSize, SystemId, TimelineHistory, TimelineId};

fuzz_target!(|input: (u64, Vec<u16>, u16, u8)| {
    let (seed, lengths, damaged, change) = input;
    let format = WalFormat {
        system_id: SystemId(1),
        segment_size: SegmentSize::new(1 << 20).unwrap(),
        page_magic: None,
        server_version_num: None,
    };
    let start = Lsn((1 << 20) - 2 * BLOCK_SIZE);
    let history = TimelineHistory::without_ancestors(TimelineId::FIRST);
    let mut generator = Generator::new(format, history.clone(), start, seed).unwrap();
    for length in lengths.iter().take(16) {
        generator.record(u32::from(length % 9_000) + 1);
    }
    let (mut wal, mut validator) = (
        generator.bytes().to_vec(),
        Validator::new(generator.format(), history, start).unwrap(),
    );
    let sound = validator.clone().push(&wal).unwrap();
    assert_eq!(
        Some(sound.record_end),
        generator.records().last().map(|r| r.end).or(Some(start))
    );
    let Some(byte) = wal.get_mut(usize::from(damaged)).filter(|_| change != 0) else {
        return;
    };
    *byte ^= change;
    let verdict = validator.push(&wal);
    let lsn = Lsn(start.0 + u64::from(damaged));
    let record_end = validator.progress().record_end;
    // Page headers have bits of no meaning for the records.
    let in_header = lsn.bytes_since(lsn.align_down(BLOCK_SIZE)) < 40;
    let harmless = in_header && verdict.is_ok() && record_end == sound.record_end;
    assert!(record_end <= lsn || harmless);
});
