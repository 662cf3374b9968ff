//! What may follow a switch, and what may not.

use super::*;

const AFTER: usize = 40 + 24 + 104;

/// A segment that ends with a switch on its first page, in the record at `MIB + 144`.
fn switched(after: AfterSwitch) -> Generator {
    let mut wal = generator(MIB, 3);
    wal.record(80);
    wal.switch(after);
    wal.record(10);
    wal
}

fn verdict(wal: &Generator, damage: &[(usize, u8)]) -> Result<Lsn, (u64, u8)> {
    let mut bytes = wal.bytes().to_vec();
    for (offset, byte) in damage {
        bytes[*offset] = *byte;
    }
    let mut validator = validator_of(wal);
    match validator.push(&bytes) {
        Ok(progress) => Ok(progress.record_end),
        Err(Corruption {
            lsn,
            reason: CorruptionReason::AfterSwitch { found },
            ..
        }) => {
            // What is in doubt is no good page.
            assert!(validator.progress().page_end <= lsn);
            Err((lsn.0 - MIB, found))
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn zeros_headers_and_an_older_segments_pages_may_follow() {
    for after in [
        AfterSwitch::Zeros,
        AfterSwitch::PageHeaders,
        AfterSwitch::Recycled,
    ] {
        let wal = switched(after);
        assert_eq!(verdict(&wal, &[]), Ok(wal.records()[2].end), "{after:?}");
    }
}

#[test]
fn a_stray_byte_is_found() {
    let wal = switched(AfterSwitch::Zeros);
    for offset in [AFTER, 511, 8192, 8192 + 24, 8192 + 511] {
        let expected = match offset {
            8192 => (8192, 7),
            other => (other as u64, 7),
        };
        assert_eq!(verdict(&wal, &[(offset, 7)]), Err(expected), "at {offset}");
    }
    // In a later sector, where the page could be torn, if only the next one were left over.
    for offset in [512, 8191, 8192 + 512, (1 << 20) - 1] {
        assert_eq!(verdict(&wal, &[(offset, 7)]), Err((offset as u64, 7)));
    }
    let wal = switched(AfterSwitch::PageHeaders);
    assert_eq!(verdict(&wal, &[(8192 + 8, 7)]), Err((8192, 0x10)));
}

#[test]
fn a_page_may_be_torn_where_an_older_segments_pages_begin() {
    let wal = switched(AfterSwitch::Recycled);
    assert_eq!(verdict(&wal, &[(4096, 7)]), Ok(wal.records()[2].end));
    assert_eq!(verdict(&wal, &[(500, 7)]), Err((500, 7)));
}

#[test]
fn a_file_filled_with_zeros_is_complete_after_its_switch() {
    let wal = switched(AfterSwitch::Zeros);
    let mut file = wal.bytes()[..AFTER].to_vec();
    file.resize(1 << 20, 0);
    let progress = validator_of(&wal).push(&file).unwrap();
    assert_eq!(progress.record_end, Lsn(2 * MIB));
}

#[test]
fn a_switch_whose_header_ends_the_segment_needs_no_zeros() {
    let mut wal = generator(2 * MIB - BLOCK_SIZE, 1);
    wal.record(8192 - 24 - 24 - 24);
    wal.switch(AfterSwitch::Zeros);
    assert_eq!(wal.bytes().len(), 8192);
    let progress = validator_of(&wal).push(wal.bytes()).unwrap();
    assert_eq!(progress.record_end, Lsn(2 * MIB));
    assert_eq!(progress.last_record, Some(Lsn(2 * MIB - 24)));
}
