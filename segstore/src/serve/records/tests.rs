use walproto::TimelineId;

use super::*;
use crate::archive::compression::Compression;
use crate::archive::prepare::Preparation;
use crate::serve::feed::tests::{World, timeline, write};
use crate::wal::corruption::CorruptionReason;
use crate::wal::generator::Generator;
use crate::wal::records::PieceEnd;
use crate::wal::sample::{MIB, START, generator, segment_size};
use crate::wal::segment::SegmentName;

const ROOT: &str = "/archive";
/// Records up to this length are given whole.
const WHOLE: usize = 1 << 20;

/// The ends and timelines of all records that are given.
fn ends(records: &mut RecordFeed) -> Vec<(TimelineId, Lsn)> {
    let mut ends = Vec::new();
    while let Some(piece) = records.next_piece().unwrap() {
        let PieceEnd::Complete(end) = piece.end else {
            panic!("{piece:?}");
        };
        ends.push((piece.timeline, end));
    }
    ends
}

fn expected(wal: &Generator, on: u32, from: Lsn, end: Lsn) -> Vec<(TimelineId, Lsn)> {
    let records = wal.records().iter();
    let wanted = records.filter(|record| record.start >= from && record.end <= end);
    wanted.map(|record| (timeline(on), record.end)).collect()
}

#[test]
fn records_follow_a_growing_archive_onto_its_next_timeline() {
    let mut first = generator(1);
    first.fill(2 * MIB - 20_000);
    first.record(60_000);
    first.fill(100_000);
    let left = first.records()[first.records().len() - 3].end;
    let mut second = first.promoted(timeline(2), left).unwrap();
    second.fill(300_000);

    let mut world = World::new();
    let mut writer = world.writer(&first);
    let half = first.records()[first.records().len() / 2].end;
    write(&mut writer, &first, half);
    let from = first.records()[3].start;
    let mut feeds = world.views().map(|view| view.records(from, WHOLE).unwrap());
    for records in &mut feeds {
        assert_eq!(ends(records), expected(&first, 1, from, half));
        assert_eq!(records.position(), half);
    }
    write(&mut writer, &first, left);
    for records in &mut feeds {
        records.view.refresh().unwrap();
        assert_eq!(ends(records), expected(&first, 1, half, left));
    }
    writer.close().unwrap();
    let mut writer = world.writer(&second);
    write(&mut writer, &second, second.end());
    for records in &mut feeds {
        records.view.refresh().unwrap();
        assert_eq!(ends(records), expected(&second, 2, left, second.end()));
        assert_eq!(records.position(), second.end());
    }
    // A start on the ancestor leads along the whole way.
    for view in world.views() {
        let mut all = expected(&first, 1, START, left);
        all.extend(expected(&second, 2, left, second.end()));
        assert_eq!(ends(&mut view.records(START, WHOLE).unwrap()), all);
    }
}

#[test]
fn records_do_not_continue_on_a_timeline_that_began_before_them() {
    let mut first = generator(2);
    first.fill(300_000);
    let end = first.records().last().unwrap().end;
    let left = first.records()[first.records().len() / 2].end;
    let mut second = first.promoted(timeline(2), left).unwrap();
    second.fill(300_000);

    let mut world = World::new();
    let mut writer = world.writer(&first);
    write(&mut writer, &first, end);
    writer.close().unwrap();
    let mut records = world.archive.view().unwrap().records(START, WHOLE).unwrap();
    assert_eq!(ends(&mut records), expected(&first, 1, START, end));
    world.archive.store_history(second.history()).unwrap();
    let recovery = world.archive.recover().unwrap();
    let start = segment_size().start_of(left);
    let preparation = Preparation::Inline;
    let mut writer = world
        .archive
        .writer(recovery, second.history(), start, preparation)
        .unwrap();
    write(&mut writer, &second, second.end());
    let error = records.next_piece().unwrap_err();
    let RecordFeedError::Feed(FeedError::NotInHistory {
        start,
        switch_point,
        ..
    }) = error
    else {
        panic!("{error:?}");
    };
    assert_eq!((start, switch_point), (end, left));
}

#[test]
fn records_of_compressed_segments_end_before_damage() {
    let mut wal = generator(3);
    wal.fill(2 * MIB);
    let mut world = World::new();
    let mut writer = world.writer(&wal);
    write(&mut writer, &wal, wal.end());
    writer.close().unwrap();
    let name = SegmentName::of(timeline(1), START, segment_size());
    world.compress(name, Compression::LZ4);
    for view in world.views() {
        let mut records = view.records(START, WHOLE).unwrap();
        assert_eq!(ends(&mut records), expected(&wal, 1, START, wal.end()));
    }

    // A bit flips in the second segment.
    let bad = wal.records().iter().find(|r| r.start.0 > START.0 + MIB);
    let bad = *bad.unwrap();
    let second = SegmentName::of(timeline(1), bad.start, segment_size());
    let path = format!("{ROOT}/{second}");
    let mut content = world.disk.content(&path).unwrap();
    let offset = usize::try_from(segment_size().offset_of(bad.end)).unwrap() - 9;
    content[offset] ^= 1;
    world.disk.plant(&path, &content).unwrap();
    for view in world.views() {
        let mut records = view.records(START, WHOLE).unwrap();
        for record in wal.records() {
            if record.start == bad.start {
                break;
            }
            let piece = records.next_piece().unwrap().unwrap();
            assert_eq!(piece.start, record.start);
        }
        let error = records.next_piece().unwrap_err();
        let RecordFeedError::Feed(FeedError::Archive(ArchiveError::Corrupt { corruption, .. })) =
            error
        else {
            panic!("{error:?}");
        };
        assert_eq!(corruption.lsn, bad.start);
        assert!(matches!(
            corruption.reason,
            CorruptionReason::Checksum { .. }
        ));
    }
}
