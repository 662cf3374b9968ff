//! Where WAL may end, and where not.

use super::*;

/// Two whole segments and a part of the third.
fn growing() -> Generator {
    let mut wal = generator(11);
    wal.fill(2 * SEGMENT + SEGMENT / 2);
    wal
}

fn tip_start() -> Lsn {
    Lsn(START.0 + 2 * SEGMENT)
}

#[test]
fn wal_ends_in_the_growing_segment_at_any_byte() {
    let wal = growing();
    let records = wal.records();
    for cut in [
        tip_start().0 + 10,
        tip_start().0 + 8192 + 24,
        records[records.len() - 2].start.0 + 3,
        records[records.len() - 1].end.0,
    ] {
        let mut files = Files::of(&wal);
        let offset = usize::try_from(cut - tip_start().0).unwrap();
        // Either the file is shorter, or it goes on with zeros.
        let tip = files.segment(1, tip_start());
        tip[offset..].fill(0);
        let padded = files.verify();
        files.segment(1, tip_start()).truncate(offset);
        let short = files.verify();
        for found in [padded, short] {
            assert!(found.problems.is_empty(), "{cut}: {:?}", found.problems);
            assert_eq!(found.good, [range(1, START..good_end(&wal, Lsn(cut)))]);
        }
    }
}

#[test]
fn damage_before_later_pages_is_not_the_end_of_wal() {
    let wal = growing();
    let bad = wal
        .records()
        .iter()
        .find(|record| record.start > tip_start())
        .unwrap();
    let mut files = Files::of(&wal);
    files.flip(1, Lsn(bad.start.0 + 25), 3);
    let found = files.verify();
    assert_eq!(found.problems.len(), 1);
    assert_eq!(found.problems[0].lsn, bad.start);
    assert_eq!(found.good, [range(1, START..good_end(&wal, bad.start))]);
}

#[test]
fn what_was_durable_must_be_there_and_what_lies_behind_it_need_not() {
    let wal = growing();
    let records = wal.records();
    let (early, late) = (&records[records.len() - 40], &records[records.len() - 20]);
    let mut files = Files::of(&wal);
    files.flip(1, Lsn(late.start.0 + 24), 1);
    for (durable, bad) in [(early.end, false), (late.start, false), (late.end, true)] {
        let disk = files.disk();
        publish(&disk, 1, durable);
        let found = check(&disk, 1, LEAST_CHUNK);
        assert_eq!(
            found.problems.len(),
            usize::from(bad),
            "{:?}",
            found.problems
        );
        assert_eq!(found.good, [range(1, START..late.start)]);
        assert_eq!(found.durable.unwrap().record_end, durable);
    }
    let mut files = Files::of(&wal);
    let offset = usize::try_from(late.start.0 - tip_start().0).unwrap();
    files.segment(1, tip_start()).truncate(offset);
    let disk = files.disk();
    publish(&disk, 1, late.end);
    let found = check(&disk, 1, LEAST_CHUNK);
    let [
        Problem {
            lsn,
            fault: Fault::Ends { evidence },
            ..
        },
    ] = &found.problems[..]
    else {
        panic!("{:?}", found.problems);
    };
    assert_eq!(*lsn, late.start);
    assert!(matches!(evidence, Evidence::Durable { lsn } if *lsn == late.end));
}

#[test]
fn a_last_record_that_was_begun_in_the_segment_before_may_be_torn_unless_it_was_durable() {
    let mut wal = generator(14);
    wal.fill(2 * SEGMENT - 60_000);
    let last = wal.record(80_000);
    assert!(last.start < tip_start() && last.end > tip_start());
    let mut files = Files::of(&wal);
    // In the complete segment.
    files.flip(1, Lsn(last.start.0 + 24), 0);
    for (durable, bad) in [(None, 0), (Some(last.start), 0), (Some(last.end), 1)] {
        let disk = files.disk();
        if let Some(durable) = durable {
            publish(&disk, 1, durable);
        }
        for chunk in [SEGMENT, 1 << 40] {
            let found = check(&disk, 2, chunk);
            assert_eq!(found.problems.len(), bad, "{:?}", found.problems);
            assert_eq!(found.good, [range(1, START..last.start)]);
            assert!(
                found
                    .problems
                    .iter()
                    .all(|problem| problem.lsn == last.start)
            );
        }
    }
}

#[test]
fn segments_that_are_gone_although_they_were_durable_are_lost() {
    let wal = growing();
    let last = wal.records().last().unwrap().end;
    let mut files = Files::of(&wal);
    files.0.pop_last();
    let disk = files.disk();
    publish(&disk, 1, last);
    let found = check(&disk, 1, LEAST_CHUNK);
    let [
        Problem {
            lsn,
            fault: Fault::Lost { expected },
            ..
        },
    ] = &found.problems[..]
    else {
        panic!("{:?}", found.problems);
    };
    assert_eq!((*lsn, *expected), (good_end(&wal, tip_start()), last));
}

#[test]
fn a_growing_segment_without_content_is_no_segment() {
    let mut wal = generator(12);
    wal.fill(SEGMENT + SEGMENT / 2);
    let mut files = Files::of(&wal);
    let empty = SegmentFile::partial(name(1, tip_start()));
    files.0.insert(
        empty.to_string(),
        vec![0; usize::try_from(SEGMENT).unwrap()],
    );
    let found = files.verify();
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    assert_eq!(
        found.good,
        [range(1, START..wal.records().last().unwrap().end)]
    );
}

#[test]
fn a_growing_segment_must_be_whole_when_another_follows() {
    let wal = growing();
    let mut files = Files::of(&wal);
    let second = Lsn(START.0 + SEGMENT);
    let complete = SegmentFile::complete(name(1, second)).to_string();
    let mut content = files.0.remove(&complete).unwrap();
    content.truncate(500_000);
    files.0.insert(format!("{complete}.partial"), content);
    let found = files.verify();
    let [
        Problem {
            lsn,
            fault: Fault::Ends { evidence },
            ..
        },
    ] = &found.problems[..]
    else {
        panic!("{:?}", found.problems);
    };
    assert_eq!(*lsn, Lsn(second.0 + 500_000));
    let next = SegmentFile::partial(name(1, tip_start()));
    assert!(matches!(evidence, Evidence::LaterSegment { file } if *file == next));
}

#[test]
fn a_complete_segment_must_be_whole() {
    let wal = wal(13);
    let mut files = Files::of(&wal);
    let third = Lsn(START.0 + 2 * SEGMENT);
    files.segment(1, third).truncate(81_920);
    let found = files.verify();
    let problem = &found.problems[0];
    assert_eq!(problem.lsn, Lsn(third.0 + 81_920));
    assert!(matches!(
        problem.fault,
        Fault::Ends {
            evidence: Evidence::Complete
        }
    ));
    assert_eq!(paths(problem), (name(1, third).to_string(), 81_920));
}
