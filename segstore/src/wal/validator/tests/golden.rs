//! The beginnings of segments that real servers wrote, 16 MiB each: the page header and two
//! records. `pg_waldump` of PostgreSQL 15 says of the first one:
//!
//! ```text
//! Standby  len (rec/tot): 42/42, tx: 2737, lsn: 0/05000028, prev 0/0444DEC0, desc: LOCK ...
//! Storage  len (rec/tot): 42/42, tx: 2737, lsn: 0/05000058, prev 0/05000028, desc: CREATE ...
//! ```

use super::*;

const POSTGRESQL_15_18: &str = "\
    10d1060001000000000000050000000000000000000000008b229a41099b046b0000000100200000\
    2a000000b10a0000c0de44040000000000080000fabdefc5ff1001000000b10a0000004000001840\
    00000000000000002a000000b10a00002800000500000000110200009e94bfdfff107f0600000040\
    00001840000000000000000000000000";

const POSTGRESQL_18_4: &str = "\
    18d1060001000000000000050000000000000000000000008a4fbecc779c046b0000000100200000\
    2a000000ce0a0000e0de44040000000000080000eecd957cff1001000000ce0a0000004000001b40\
    00000000000000002a000000ce0a000028000005000000001102000031478602ff107f0600000040\
    00001b40000000000000000000000000";

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits: Vec<_> = hexadecimal.chars().filter_map(|c| c.to_digit(16)).collect();
    let pairs = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]);
    pairs.map(|byte| u8::try_from(byte).unwrap()).collect()
}

#[test]
fn wal_of_real_servers_is_valid() {
    for (hexadecimal, system_id, version, previous) in [
        (
            POSTGRESQL_15_18,
            0x6b04_9b09_419a_228b,
            150_018,
            0x0444_DEC0,
        ),
        (POSTGRESQL_18_4, 0x6b04_9c77_ccbe_4f8a, 180_004, 0x0444_DEE0),
    ] {
        let format = WalFormat {
            system_id: SystemId(system_id),
            segment_size: SegmentSize::DEFAULT,
            page_magic: None,
            server_version_num: Some(version),
        };
        let mut validator = Validator::new(format, first_timeline(), Lsn(0x0500_0000)).unwrap();
        let mut seen = Seen::default();
        let progress = validator.push_with(&bytes(hexadecimal), &mut seen).unwrap();
        assert_eq!(progress.record_end, Lsn(0x0500_0088));
        let record = |start, end, previous, resource_manager| {
            (Lsn(start), Lsn(end), 42, Lsn(previous), resource_manager)
        };
        let records = seen.records.iter().map(|r| {
            let h = &r.header;
            (
                r.start,
                r.end,
                h.total_length,
                h.previous,
                h.resource_manager,
            )
        });
        assert_eq!(
            records.collect::<Vec<_>>(),
            [
                record(0x0500_0028, 0x0500_0058, previous, 8),
                record(0x0500_0058, 0x0500_0088, 0x0500_0028, 2),
            ]
        );
    }
}
