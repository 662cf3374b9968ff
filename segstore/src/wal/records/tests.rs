use proptest::prelude::*;
use walproto::{SegmentSize, SystemId, TimelineHistory, TimelineId};

use super::*;
use crate::wal::generator::{AfterSwitch, GeneratedRecord, Generator};
use crate::{CorruptionReason, WalFormat};

const MIB: u64 = 1 << 20;

fn generator(seed: u64) -> Generator {
    let format = WalFormat {
        system_id: SystemId(1),
        segment_size: SegmentSize::new(MIB).unwrap(),
        page_magic: None,
        server_version_num: None,
    };
    let history = TimelineHistory::without_ancestors(TimelineId::FIRST);
    Generator::new(format, history, Lsn(MIB), seed).unwrap()
}

fn reader(wal: &Generator, from: Lsn, whole_length: usize) -> RecordReader {
    let validator = Validator::new(wal.format(), wal.history().clone(), wal.start()).unwrap();
    RecordReader::new(validator, from, whole_length)
}

fn pieces_of(reader: &mut RecordReader, bytes: &[u8], feed: usize) -> Vec<RecordPiece> {
    let mut pieces = Vec::new();
    for chunk in bytes.chunks(feed) {
        reader.feed(Bytes::copy_from_slice(chunk)).unwrap();
        while let Some(piece) = reader.next_piece() {
            pieces.push(piece);
        }
    }
    pieces
}

/// Puts pieces together and checks what each says; what was abandoned is left out.
fn join(pieces: &[RecordPiece]) -> Vec<(GeneratedRecord, Vec<u8>)> {
    let mut records = Vec::new();
    let mut body: Vec<u8> = Vec::new();
    for piece in pieces {
        assert_eq!(piece.offset as usize, body.len());
        body.extend_from_slice(&piece.bytes);
        match piece.end {
            PieceEnd::Continues => assert!(!piece.bytes.is_empty()),
            PieceEnd::Complete(end) => {
                assert_eq!(piece.header.body_length() as usize, body.len());
                let (start, header) = (piece.start, piece.header);
                let record = GeneratedRecord { start, end, header };
                records.push((record, mem::take(&mut body)));
            }
            PieceEnd::Abandoned => body.clear(),
        }
    }
    assert!(body.is_empty());
    records
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn records_come_out_as_they_went_in(
        seed: u64,
        bodies in prop::collection::vec((any::<u8>(), 0usize..30_000), 1..12),
        overwritten in prop::option::of(1u32..4),
        whole_length in 0usize..20_000,
        feed in prop_oneof![1usize..100, 1000usize..50_000],
        first: prop::sample::Index,
    ) {
        let mut wal = generator(seed);
        let mut expected = Vec::new();
        for (info, length) in bodies {
            // No two places of a body look the same.
            let words = (0u32..).flat_map(u32::to_le_bytes);
            let body: Vec<u8> = words.take(length).collect();
            expected.push((wal.append(10, info, &body), body));
        }
        if let Some(pages) = overwritten {
            let record = wal.overwritten_record(pages);
            let from = usize::try_from(record.start.0 - MIB).unwrap() + 24;
            expected.push((record, wal.bytes()[from..from + 18].to_vec()));
            expected.push((wal.append(10, 0, b"after"), b"after".to_vec()));
        }
        let first = first.index(expected.len());
        let mut reader = reader(&wal, expected[first].0.start, whole_length);
        let pieces = pieces_of(&mut reader, wal.bytes(), feed);
        for piece in &pieces {
            if piece.header.body_length() as usize <= whole_length {
                prop_assert!(matches!(piece.end, PieceEnd::Complete(_)));
                prop_assert_eq!(piece.offset, 0);
            }
        }
        prop_assert_eq!(join(&pieces), &expected[first..]);
        prop_assert_eq!(reader.position(), wal.end());
    }
}

#[test]
fn a_record_of_the_whole_length_is_whole_and_one_byte_more_is_not() {
    let mut wal = generator(1);
    wal.record(9_000);
    wal.record(9_001);
    let mut reader = reader(&wal, Lsn::INVALID, 9_000);
    let pieces = pieces_of(&mut reader, wal.bytes(), 100_000);
    let lengths: Vec<_> = pieces.iter().map(|p| p.bytes.len()).collect();
    assert_eq!(lengths[0], 9_000);
    assert_eq!(lengths[1..].iter().sum::<usize>(), 9_001);
    assert!(lengths.len() > 2);
}

#[test]
fn a_record_on_one_page_is_not_copied() {
    let mut wal = generator(1);
    wal.record(500);
    let mut reader = reader(&wal, Lsn::INVALID, 1_000);
    let fed = Bytes::copy_from_slice(wal.bytes());
    reader.feed(fed.clone()).unwrap();
    let piece = reader.next_piece().unwrap();
    assert_eq!(piece.bytes.as_ptr(), fed[40 + 24..].as_ptr());
    assert_eq!(reader.next_piece(), None);
}

#[test]
fn pieces_of_a_lost_record_are_taken_back() {
    let mut wal = generator(1);
    let overwrite = wal.overwritten_record(3);
    let mut reader = reader(&wal, Lsn::INVALID, 100);
    let pieces = pieces_of(&mut reader, wal.bytes(), 100_000);
    let ends: Vec<_> = pieces.iter().map(|p| (p.start, p.end)).collect();
    let lost = Lsn(MIB + 40);
    assert_eq!(
        ends,
        [
            (lost, PieceEnd::Continues),
            (lost, PieceEnd::Continues),
            (lost, PieceEnd::Abandoned),
            (overwrite.start, PieceEnd::Complete(overwrite.end)),
        ]
    );
}

#[test]
fn a_switch_is_a_record_that_ends_with_its_segment() {
    let mut wal = generator(1);
    let before = wal.record(10);
    wal.switch(AfterSwitch::Zeros);
    let mut reader = reader(&wal, before.end, 100);
    let pieces = pieces_of(&mut reader, wal.bytes(), 4_096);
    assert_eq!(pieces.len(), 1);
    assert!(pieces[0].header.is_switch());
    assert_eq!(pieces[0].end, PieceEnd::Complete(Lsn(2 * MIB)));
}

#[test]
fn the_last_piece_is_held_back_until_the_crc_is_checked() {
    let mut wal = generator(1);
    let good = wal.record(10);
    let bad = wal.record(5_000);
    let mut bytes = wal.bytes().to_vec();
    bytes[3_000] ^= 1;
    let mut reader = reader(&wal, Lsn::INVALID, 100);
    let error = reader.feed(bytes.into()).unwrap_err();
    assert_eq!(error.lsn, bad.start);
    assert!(matches!(error.reason, CorruptionReason::Checksum { .. }));
    let piece = reader.next_piece().unwrap();
    assert_eq!(piece.end, PieceEnd::Complete(good.end));
    assert_eq!(reader.next_piece(), None);
    assert_eq!(reader.progress().record_end, good.end);
}
