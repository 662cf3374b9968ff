//! Each thing that can be wrong is found, and named.

use super::*;
use crate::wal::page::{BKP_REMOVABLE, FIRST_IS_CONTRECORD, FIRST_IS_OVERWRITE_CONTRECORD};
use crate::wal::record;

/// Four records at the start of a segment, the last of which crosses into the second page, and
/// two more there.
fn small_wal() -> Generator {
    let mut wal = generator(MIB, 11);
    wal.record(1);
    wal.record(75);
    let room = BLOCK_SIZE - wal.end().0 % BLOCK_SIZE;
    wal.record(u32::try_from(room).unwrap() - 24 - 600);
    wal.record(700);
    wal.record(16);
    wal.record(3);
    wal
}

/// The reason for refusing `wal` with the bytes at `offset` replaced.
fn reason_with(wal: &Generator, offset: usize, bytes: &[u8]) -> (Lsn, CorruptionReason) {
    let mut damaged = wal.bytes().to_vec();
    damaged[offset..offset + bytes.len()].copy_from_slice(bytes);
    let error = validator_of(wal).push(&damaged).unwrap_err();
    assert_eq!(error.timeline, wal.history().timeline());
    (error.lsn, error.reason)
}

#[test]
fn no_flipped_bit_is_ever_inside_a_record_called_valid() {
    let wal = small_wal();
    // Where to begin again for each byte: the validator as it was before the record.
    let mut snapshots = vec![(0, validator_of(&wal))];
    let mut validator = validator_of(&wal);
    for (offset, byte) in wal.bytes().iter().enumerate() {
        let before = validator.progress().record_end;
        let progress = validator.push(&[*byte]).unwrap();
        if progress.record_end != before || progress.byte_end.0.is_multiple_of(BLOCK_SIZE) {
            snapshots.push((offset + 1, validator.clone()));
        }
    }
    let mut bytes = wal.bytes().to_vec();
    for offset in 0..bytes.len() {
        let (from, snapshot) = snapshots.iter().rfind(|s| s.0 <= offset).unwrap();
        for bit in 0..8 {
            bytes[offset] ^= 1 << bit;
            let mut validator = snapshot.clone();
            let pushed = validator.push(&bytes[*from..]);
            bytes[offset] ^= 1 << bit;
            let lsn = Lsn(MIB + offset as u64);
            // Nothing tells whether a backup ran, and nobody needs it.
            if offset as u64 % BLOCK_SIZE == 2 && 1 << bit == BKP_REMOVABLE {
                assert_eq!(pushed.unwrap().byte_end, wal.end());
                continue;
            }
            let record_end = validator.progress().record_end;
            assert!(
                record_end <= lsn,
                "bit {bit} at {lsn}: valid up to {record_end}"
            );
            // A record that has become longer waits for bytes that are not there yet.
            if pushed.is_ok() {
                let record = wal.records().iter().find(|r| r.start <= lsn && lsn < r.end);
                assert!(
                    lsn.0 - record.unwrap().start.0 < 4,
                    "bit {bit} at {lsn}: unnoticed"
                );
            }
        }
    }
}

#[test]
fn a_record_made_longer_is_found_at_the_next_page() {
    let mut wal = small_wal();
    let record = wal.records()[4];
    wal.fill(BLOCK_SIZE);
    let offset = usize::try_from(record.start.0 - MIB).unwrap();
    let (lsn, reason) = reason_with(&wal, offset, &1_000_000u32.to_le_bytes());
    assert_eq!(lsn, Lsn(MIB + 2 * BLOCK_SIZE));
    let on_page = u32::try_from(lsn.0 - record.start.0).unwrap();
    let expected = 1_000_000 - on_page;
    assert!(
        matches!(reason, CorruptionReason::MissingContrecord { record: r, remaining }
            if r == record.start && remaining == expected)
            || matches!(reason, CorruptionReason::ContrecordLength { expected: e, .. }
                if e == expected),
        "{reason:?}"
    );
}

#[test]
fn each_field_of_a_page_header_is_checked() {
    let wal = small_wal();
    let second = Lsn(MIB + BLOCK_SIZE);
    let at = |offset: usize, bytes: &[u8]| reason_with(&wal, offset, bytes);
    let at_second = |offset: usize, bytes: &[u8]| {
        let (lsn, reason) = reason_with(&wal, 8192 + offset, bytes);
        assert_eq!(lsn, second);
        reason
    };
    let missing = u32::from_le_bytes(wal.bytes()[8192 + 16..8192 + 20].try_into().unwrap());
    assert_eq!(
        at_second(0, &[0x13, 0xD1]),
        CorruptionReason::PageMagic {
            expected: 0xD110,
            found: 0xD113
        }
    );
    assert_eq!(
        at_second(2, &[0x15]),
        CorruptionReason::PageFlags { found: 0x15 }
    );
    assert_eq!(
        at_second(2, &[0x07]),
        CorruptionReason::PageFlags { found: 0x07 }
    );
    assert_eq!(
        at(2, &[0x04]),
        (Lsn(MIB), CorruptionReason::PageFlags { found: 0x04 })
    );
    let both = (FIRST_IS_CONTRECORD | FIRST_IS_OVERWRITE_CONTRECORD).to_le_bytes();
    assert_eq!(
        at_second(2, &both),
        CorruptionReason::PageFlags { found: 9 }
    );
    assert_eq!(
        at_second(4, &[2]),
        CorruptionReason::PageTimeline {
            expected: TimelineId::FIRST,
            found: 2
        }
    );
    assert_eq!(
        at_second(8, &MIB.to_le_bytes()),
        CorruptionReason::PageAddress {
            expected: second,
            found: Lsn(MIB)
        }
    );
    assert_eq!(
        at_second(16, &7u32.to_le_bytes()),
        CorruptionReason::ContrecordLength {
            expected: missing,
            found: 7
        }
    );
    assert_eq!(
        at_second(2, &[0x04]),
        CorruptionReason::MissingContrecord {
            record: wal.records()[3].start,
            remaining: missing
        }
    );
    assert_eq!(
        at_second(20, &[1]),
        CorruptionReason::PagePadding { found: 1 }
    );
    assert_eq!(at_second(0, &[0; 24]), CorruptionReason::NoPage);
    assert!(at_second(0, &[0; 24]).is_unwritten());
}

#[test]
fn each_field_of_a_segments_header_is_checked() {
    let wal = small_wal();
    let at = |offset: usize, bytes: &[u8]| {
        let (lsn, reason) = reason_with(&wal, offset, bytes);
        assert_eq!(lsn, Lsn(MIB));
        reason
    };
    assert_eq!(
        at(24, &7u64.to_le_bytes()),
        CorruptionReason::SystemId {
            expected: format().system_id,
            found: SystemId(7)
        }
    );
    assert_eq!(
        at(32, &(16u32 << 20).to_le_bytes()),
        CorruptionReason::SegmentSize {
            expected: MIB,
            found: 16 << 20
        }
    );
    assert_eq!(
        at(36, &4096u32.to_le_bytes()),
        CorruptionReason::BlockSize {
            expected: BLOCK_SIZE,
            found: 4096
        }
    );
}

#[test]
fn a_page_may_not_go_on_with_a_record_that_is_complete() {
    let mut wal = generator(MIB, 1);
    let record = wal.record(8192 - 40 - 24);
    assert_eq!(record.end, Lsn(MIB + BLOCK_SIZE));
    wal.record(10);
    assert_eq!(
        reason_with(&wal, 8192 + 2, &[0x05]).1,
        CorruptionReason::UnexpectedContrecord { found: 0 }
    );
    assert_eq!(
        reason_with(&wal, 8192 + 16, &[9]).1,
        CorruptionReason::UnexpectedContrecord { found: 9 }
    );
    assert_eq!(
        reason_with(&wal, 8192 + 2, &[0x0C]).1,
        CorruptionReason::UnexpectedOverwrite
    );
}

#[test]
fn each_field_of_a_record_header_is_checked() {
    let wal = small_wal();
    let (previous, record) = (wal.records()[0], wal.records()[1]);
    let start = usize::try_from(record.start.0 - MIB).unwrap();
    let at = |offset: usize, bytes: &[u8]| {
        let (lsn, reason) = reason_with(&wal, start + offset, bytes);
        assert_eq!(lsn, record.start);
        reason
    };
    assert_eq!(at(0, &[0; 4]), CorruptionReason::NoRecord);
    assert!(at(0, &[0; 4]).is_unwritten());
    assert_eq!(
        at(0, &23u32.to_le_bytes()),
        CorruptionReason::RecordLength { found: 23 }
    );
    assert_eq!(
        at(8, &9u64.to_le_bytes()),
        CorruptionReason::PreviousRecord {
            expected: previous.start,
            found: Lsn(9)
        }
    );
    assert_eq!(
        at(17, &[22]),
        CorruptionReason::ResourceManager { found: 22 }
    );
    assert_eq!(
        at(17, &[127]),
        CorruptionReason::ResourceManager { found: 127 }
    );
    for covered in [4, 16, 18, 24, 98] {
        let old = wal.bytes()[start + covered];
        assert!(
            matches!(at(covered, &[old ^ 1]), CorruptionReason::Checksum { expected, found }
                if expected == record.header.crc && found != expected)
        );
    }
    assert!(matches!(
        at(20, &[0; 4]),
        CorruptionReason::Checksum { expected: 0, found } if found == record.header.crc
    ));
    assert_eq!(at(99, &[1]), CorruptionReason::RecordPadding { found: 1 });
}

#[test]
fn resource_managers_of_extensions_exist_from_15_on() {
    let push = |magic, id| {
        let format = WalFormat {
            page_magic: Some(magic),
            ..format()
        };
        let mut wal = Generator::new(format, first_timeline(), Lsn(MIB), 1).unwrap();
        wal.append(id, 0, b"body");
        let pushed = validator_of(&wal).push(wal.bytes());
        pushed.map(|_| ()).map_err(|error| error.reason)
    };
    assert_eq!(push(0xD110, 128), Ok(()));
    assert_eq!(push(0xD118, 255), Ok(()));
    let refused = CorruptionReason::ResourceManager { found: 128 };
    assert_eq!(push(0xD10D, 128), Err(refused));
    // Of a version that is not known yet.
    assert_eq!(push(0xD1FF, 22), Ok(()));
}

#[test]
fn the_first_record_must_link_to_a_place_before_the_stream() {
    let wal = small_wal();
    let link = |previous: u64| reason_with(&wal, 40 + 8, &previous.to_le_bytes()).1;
    for previous in [MIB, MIB + 40, u64::MAX - 7, MIB - 60, MIB - BLOCK_SIZE + 16] {
        assert_eq!(
            link(previous),
            CorruptionReason::PreviousRecordPosition {
                start: Lsn(MIB),
                found: Lsn(previous)
            }
        );
    }
    // No record comes before a cluster's first one.
    assert!(matches!(link(0), CorruptionReason::Checksum { .. }));
}

#[test]
fn the_overwrite_flag_and_its_record_need_each_other() {
    let mut wal = generator(MIB, 1);
    let record = wal.overwritten_record(1);
    assert_eq!(
        reason_with(&wal, 8192 + 24 + 16, &[0x20]),
        (
            record.start,
            CorruptionReason::OverwriteRecord {
                resource_manager: 0,
                info: 0x20
            }
        )
    );
    let cold = wal.bytes()[8192..].to_vec();
    let start = Lsn(MIB + BLOCK_SIZE);
    let push = |bytes: &[u8]| {
        let mut validator = Validator::new(format(), first_timeline(), start).unwrap();
        validator.push(bytes)
    };
    assert_eq!(push(&cold).unwrap().record_end, record.end);
    let mut unflagged = cold.clone();
    unflagged[2] = 0;
    assert!(matches!(
        push(&unflagged).unwrap_err().reason,
        CorruptionReason::OverwriteRecord { .. }
    ));
}

#[test]
fn an_overwrite_must_name_the_record_that_was_lost() {
    let mut other = generator(MIB, 1);
    other.record(50);
    let named = other.overwritten_record(1);
    let mut wal = generator(MIB, 1);
    wal.record(100);
    let record = wal.overwritten_record(1);
    let expected = Lsn(wal.records()[0].end.0);
    let found = Lsn(other.records()[0].end.0);
    // The other one's record in the place of this one's, with the same link and a CRC to match.
    let header = RecordHeader {
        crc: 0,
        ..record.header
    };
    let at = usize::try_from(named.start.0 - MIB).unwrap();
    let body = &other.bytes()[at + 24..at + 42];
    let crc = record::finish_crc(crc32c::crc32c(body), &header.encode());
    let mut bytes = RecordHeader { crc, ..header }.encode().to_vec();
    bytes.extend_from_slice(body);
    assert_eq!(
        reason_with(&wal, at, &bytes),
        (
            record.start,
            CorruptionReason::OverwrittenRecord { expected, found }
        )
    );
}

#[test]
fn bytes_of_another_timeline_are_refused_on_both_sides_of_the_switch_point() {
    let mut old = generator(MIB, 1);
    old.fill(30_000);
    let fork = old.records()[old.records().len() / 2].end;
    let new = old.promoted(TimelineId::new(2).unwrap(), fork).unwrap();
    let mut validator = validator_of(&new);
    let error = validator.push(old.bytes()).unwrap_err();
    assert_eq!(
        error.reason,
        CorruptionReason::PageTimeline {
            expected: TimelineId::new(2).unwrap(),
            found: 1
        }
    );
    assert_eq!(error.timeline, TimelineId::new(2).unwrap());
    assert_eq!(error.lsn, Lsn(fork.0.next_multiple_of(BLOCK_SIZE)));
}

#[test]
fn an_error_is_final_and_leaves_the_progress_before_it() {
    let wal = small_wal();
    let (first, second) = (wal.records()[0], wal.records()[1]);
    let mut damaged = wal.bytes().to_vec();
    let last = usize::try_from(second.end.0 - MIB).unwrap() - 1;
    damaged[last - 20] ^= 1;
    let mut validator = validator_of(&wal);
    let error = validator.push(&damaged).unwrap_err();
    assert_eq!(error.lsn, second.start);
    let progress = validator.progress();
    assert_eq!(progress.record_end, first.end);
    assert_eq!(progress.last_record, Some(first.start));
    assert_eq!(progress.page_end, Lsn(MIB));
    // 24 + 75 bytes of the record, the last of which gave it away.
    assert_eq!(progress.byte_end, Lsn(second.start.0 + 98));
    assert_eq!(validator.push(&wal.bytes()[last + 1..]), Err(error));
    assert_eq!(validator.progress(), progress);
}

#[test]
fn a_corruption_is_told_in_one_line() {
    let wal = small_wal();
    let mut validator = validator_of(&wal);
    let error = validator.push(&[0; 40]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid WAL at 0/100000 on timeline 1: expected a page header, found zeros"
    );
}

#[test]
fn no_wal_is_taken_on_the_last_page_of_all() {
    let start = Lsn(u64::MAX).align_down(BLOCK_SIZE);
    let mut validator = Validator::new(format(), first_timeline(), start).unwrap();
    let error = validator.push(&[1]).unwrap_err();
    assert_eq!(error.reason, CorruptionReason::PastTheEnd);
}
