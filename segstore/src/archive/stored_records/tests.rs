use bytes::Bytes;
use proptest::prelude::*;
use walproto::TimelineId;

use super::*;
use crate::archive::compression::Compression;
use crate::archive::compressor::compress;
use crate::archive::directory::ArchiveDirectory;
use crate::disk::sim::SimDisk;
use crate::wal::generator::{AfterSwitch, GeneratedRecord, Generator};
use crate::wal::sample::{self, MIB, START, facts, generator};
use crate::wal::segment::{Encoding, SegmentFile, SegmentName};
use crate::{CorruptionReason, PieceEnd, Preparation, RecordPiece, Writer};

const ROOT: &str = "/archive";
/// WAL over three segments, records across both borders, and one longer than what is read at
/// once.
fn long_wal(seed: u64) -> Generator {
    let mut wal = generator(seed);
    wal.fill(MIB - 20_000);
    wal.record(50_000);
    wal.record(400_000);
    wal.overwritten_record(2);
    wal.fill(MIB / 2);
    wal.record(500_000);
    wal.fill(100_000);
    wal
}

/// An archive on a disk in memory.
struct Stored {
    disk: SimDisk,
    archive: Archive,
}

impl Stored {
    fn new() -> Self {
        let disk = SimDisk::new(ROOT);
        let archive = sample::archive(disk.clone(), ROOT.as_ref(), true);
        Self { disk, archive }
    }

    /// An archive that was filled from `wal`.
    fn of(wal: &Generator) -> Self {
        let mut stored = Self::new();
        stored.receive(wal);
        stored
    }

    fn writer(&mut self, wal: &Generator) -> Writer {
        if !wal.history().ancestors().is_empty() {
            self.archive.store_history(wal.history()).unwrap();
        }
        let recovery = self.archive.recover().unwrap();
        let start = recovery.tip().map_or(wal.start(), |tip| tip.resume_at);
        self.archive
            .writer(recovery, wal.history(), start, Preparation::Inline)
            .unwrap()
    }

    fn receive(&mut self, wal: &Generator) {
        let mut writer = self.writer(wal);
        append(&mut writer, wal, wal.end());
        let durable = writer.close().unwrap();
        assert_eq!(durable.record_end.lsn(), wal.records().last().unwrap().end);
    }

    fn records(&self, wal: &Generator, from: Lsn, whole_length: usize) -> StoredRecords {
        let history = Arc::new(wal.history().clone());
        self.archive.records(history, from, whole_length).unwrap()
    }

    /// Compresses a complete segment, counted from that of [`START`].
    fn compress(&self, number: u64, compression: Compression) {
        let lsn = Lsn(START.0 + number * MIB);
        let name = SegmentName::of(TimelineId::FIRST, lsn, facts().segment_size);
        let directory = ArchiveDirectory::new(Arc::new(self.disk.clone()), ROOT.as_ref());
        compress(&directory, compression, name, &|| true).unwrap();
        let path = directory.path(SegmentFile::complete(name));
        let is_compressed = compression.encoding() != Encoding::Plain;
        assert_eq!(self.disk.content(path).is_none(), is_compressed);
    }
}

/// Writes what the archive lacks up to `end`, and syncs it.
fn append(writer: &mut Writer, wal: &Generator, end: Lsn) {
    let from = writer.position();
    let index = |lsn: Lsn| usize::try_from(lsn.0 - wal.start().0).unwrap();
    let bytes = Bytes::copy_from_slice(&wal.bytes()[index(from)..index(end)]);
    writer.append(from, &[bytes]).unwrap();
    writer.sync().unwrap();
}

fn read_before(records: &mut StoredRecords, end: Lsn) -> Vec<RecordPiece> {
    let mut pieces = Vec::new();
    while let Some(piece) = records.next_before(end).unwrap() {
        pieces.push(piece);
    }
    pieces
}

/// The complete records among `pieces`, whose lengths have to add up.
fn complete(pieces: &[RecordPiece]) -> Vec<GeneratedRecord> {
    let mut length = 0;
    let mut records = Vec::new();
    for piece in pieces {
        assert_eq!(piece.offset, length);
        length += u32::try_from(piece.bytes.len()).unwrap();
        match piece.end {
            PieceEnd::Continues => continue,
            PieceEnd::Complete(end) => {
                assert_eq!(length, piece.header.body_length());
                records.push(GeneratedRecord {
                    start: piece.start,
                    end,
                    header: piece.header,
                });
            }
            PieceEnd::Abandoned => {}
        }
        length = 0;
    }
    assert_eq!(length, 0);
    records
}

fn any_compression() -> impl Strategy<Value = Compression> {
    prop::sample::select(vec![
        Compression::NONE,
        Compression::gzip(None).unwrap(),
        Compression::LZ4,
        Compression::zstd(None).unwrap(),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn records_are_read_from_plain_growing_and_compressed_segments(
        seed: u64,
        compressions in prop::array::uniform2(any_compression()),
        whole_length in prop_oneof![Just(0), 100usize..20_000, Just(1 << 20)],
        first: prop::sample::Index,
        ends in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let wal = long_wal(seed);
        let stored = Stored::of(&wal);
        for (number, compression) in (0..).zip(compressions) {
            stored.compress(number, compression);
        }
        let expected = wal.records();
        let first = first.index(expected.len());
        let mut records = stored.records(&wal, expected[first].start, whole_length);
        let mut ends: Vec<_> = ends.iter().map(|end| end.index(expected.len())).collect();
        ends.push(expected.len() - 1);
        ends.sort_unstable();
        let mut pieces = Vec::new();
        for end in ends {
            pieces.extend(read_before(&mut records, expected[end].end));
            // All that ends there has come, and nothing else.
            if first <= end {
                prop_assert_eq!(&complete(&pieces)[..], &expected[first..=end]);
            } else {
                prop_assert_eq!(&pieces[..], &[]);
            }
        }
        prop_assert!(pieces.iter().all(|piece| piece.timeline == TimelineId::FIRST));
    }
}

#[test]
fn what_is_written_later_is_read_on_while_segments_get_other_names() {
    let wal = long_wal(3);
    let mut stored = Stored::new();
    let mut writer = stored.writer(&wal);
    let mut records = stored.records(&wal, START, 1 << 20);
    let (mut pieces, mut compressed) = (Vec::new(), 0);
    for record in wal.records() {
        append(&mut writer, &wal, record.end);
        let complete = (record.end.0 - START.0) / MIB;
        // One record later than it was completed, so that it is open.
        while compressed + 1 < complete {
            stored.compress(compressed, Compression::LZ4);
            compressed += 1;
        }
        pieces.extend(read_before(&mut records, record.end));
        assert_eq!(records.position(), record.end);
    }
    assert_eq!(complete(&pieces), wal.records());
    assert_eq!(compressed, 1);
}

#[test]
fn nothing_after_the_end_is_read() {
    let wal = long_wal(4);
    let stored = Stored::of(&wal);
    let [.., before, last] = wal.records() else {
        panic!("too few records");
    };
    let mut records = stored.records(&wal, last.start, 1 << 20);
    assert_eq!(read_before(&mut records, before.end), []);
    assert_eq!(complete(&read_before(&mut records, last.end)), [*last]);
    assert_eq!(records.next_before(before.end).unwrap(), None);
}

#[test]
fn records_are_read_across_a_promotion_and_know_their_timeline() {
    let mut wal = generator(5);
    wal.fill(MIB + 300_000);
    let switch_point = wal.records()[wal.records().len() - 20].end;
    let mut stored = Stored::of(&wal);
    let timeline = TimelineId::new(2).unwrap();
    let mut promoted = wal.promoted(timeline, switch_point).unwrap();
    promoted.fill(MIB);
    let lost = wal.records().last().unwrap().end;
    let recovery = {
        stored.archive.store_history(promoted.history()).unwrap();
        stored.archive.recover().unwrap()
    };
    let start = facts().segment_size.start_of(switch_point);
    let mut writer = stored
        .archive
        .writer(recovery, promoted.history(), start, Preparation::Inline)
        .unwrap();
    append(&mut writer, &promoted, promoted.end());
    for (wal, end) in [(&promoted, promoted.end()), (&wal, lost)] {
        let pieces = read_before(&mut stored.records(wal, START, 1 << 20), end);
        assert_eq!(complete(&pieces), wal.records());
        for piece in pieces {
            let after = wal.history() == promoted.history() && piece.start >= switch_point;
            let expected = if after { timeline } else { TimelineId::FIRST };
            assert_eq!(piece.timeline, expected, "{}", piece.start);
        }
    }
}

#[test]
fn a_record_that_begins_after_a_switch_is_the_next_one() {
    let mut wal = generator(6);
    wal.fill(10_000);
    wal.switch(AfterSwitch::Zeros);
    let switch = *wal.records().last().unwrap();
    let next = wal.record(100);
    let stored = Stored::of(&wal);
    let mut records = stored.records(&wal, switch.end, 1 << 20);
    assert_eq!(complete(&read_before(&mut records, next.end)), [next]);
}

#[test]
fn a_position_that_the_archive_lacks_is_an_error() {
    let wal = long_wal(7);
    let stored = Stored::of(&wal);
    let from = Lsn(START.0 - MIB / 2);
    let mut records = stored.records(&wal, from, 1 << 20);
    let error = records.next_before(wal.end()).unwrap_err();
    assert!(
        matches!(error, ReadRecordError::Missing { lsn } if lsn == from),
        "{error}"
    );
}

#[test]
fn a_damaged_record_is_an_error_after_those_before_it() {
    let mut wal = generator(8);
    wal.fill(50_000);
    let good = *wal.records().last().unwrap();
    let bad = wal.record(20_000);
    wal.fill(10_000);
    let stored = Stored::of(&wal);
    let path = format!("{ROOT}/000000010000000000000007.partial");
    let mut content = stored.disk.content(&path).unwrap();
    content[usize::try_from(bad.start.0 - START.0).unwrap() + 10_000] ^= 0x10;
    stored.disk.plant(&path, &content).unwrap();
    let mut records = stored.records(&wal, START, 1 << 20);
    let mut last = None;
    let error = loop {
        match records.next_before(wal.end()) {
            Ok(piece) => last = Some(piece.unwrap()),
            Err(error) => break error,
        }
    };
    assert_eq!(last.unwrap().end, PieceEnd::Complete(good.end));
    for error in [error, records.next_before(wal.end()).unwrap_err()] {
        let ReadRecordError::Corrupt(corruption) = error else {
            panic!("{error}");
        };
        assert_eq!(corruption.lsn, bad.start);
        assert!(matches!(
            corruption.reason,
            CorruptionReason::Checksum { .. }
        ));
    }
}
