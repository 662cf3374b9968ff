//! From one timeline to the next.

use super::*;

/// A timeline that was left in its third segment, and what follows on the next one.
fn promoted() -> (Generator, Generator) {
    let mut parent = generator(21);
    parent.fill(2 * SEGMENT + SEGMENT / 4);
    let switch_point = parent.records().last().unwrap().end;
    let mut child = parent.promoted(timeline(2), switch_point).unwrap();
    child.fill(2 * SEGMENT);
    // The old primary went on, and its last record is torn.
    parent.fill(20_000);
    (parent, child)
}

fn third() -> Lsn {
    Lsn(START.0 + 2 * SEGMENT)
}

fn archive(parent: &Generator, child: &Generator) -> Files {
    let mut files = Files::of(parent);
    files.add(child, third());
    files
}

#[test]
fn a_new_timeline_goes_on_with_the_old_one() {
    let (parent, child) = promoted();
    let begin = child.history().begin().unwrap();
    for chunk in [SEGMENT, 1 << 40] {
        let found = check(&archive(&parent, &child).disk(), 2, chunk);
        assert!(found.problems.is_empty(), "{:?}", found.problems);
        let ends = [&parent, &child].map(|wal| wal.records().last().unwrap().end);
        assert_eq!(
            found.good,
            [range(1, START..ends[0]), range(2, begin..ends[1])]
        );
    }
}

#[test]
fn the_copy_of_the_old_timeline_counts_for_the_old_timeline() {
    let (parent, child) = promoted();
    let begin = child.history().begin().unwrap();
    let mut files = archive(&parent, &child);
    files
        .0
        .remove(&SegmentFile::partial(name(1, third())).to_string())
        .unwrap();
    let found = files.verify();
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    let end = child.records().last().unwrap().end;
    assert_eq!(found.good, [range(1, START..begin), range(2, begin..end)]);
}

#[test]
fn a_new_timeline_that_does_not_link_to_the_old_one_is_found() {
    // Two clusters of one history, whose second segments end with a switch at different places.
    let promoted = |seed| {
        let mut parent = generator(seed);
        parent.fill(SEGMENT + 10_000 * seed);
        parent.switch(AfterSwitch::Zeros);
        let switch_point = parent.record(500).end;
        let mut child = parent.promoted(timeline(2), switch_point).unwrap();
        child.fill(SEGMENT / 2);
        (parent, child)
    };
    let (parent, one) = promoted(22);
    let (_, two) = promoted(23);
    assert_eq!(one.history(), two.history());
    let found = archive(&parent, &one).verify();
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    let found = archive(&parent, &two).verify();
    let [problem] = &found.problems[..] else {
        panic!("{:?}", found.problems);
    };
    let place = (problem.timeline, problem.lsn);
    assert_eq!(place, (timeline(2), first_record(&two, third())));
    assert!(matches!(
        problem.fault,
        Fault::Corrupt(CorruptionReason::PreviousRecord { .. })
    ));
}

#[test]
fn damage_below_the_switch_point_is_not_the_end_of_the_old_timeline() {
    let (parent, child) = promoted();
    let begin = child.history().begin().unwrap();
    let mut files = archive(&parent, &child);
    let last = parent
        .records()
        .iter()
        .find(|record| record.end == begin)
        .unwrap();
    files.flip(1, Lsn(last.start.0 + 24), 0);
    let found = files.verify();
    assert_eq!(found.problems.len(), 1);
    assert_eq!(
        (found.problems[0].timeline, found.problems[0].lsn),
        (timeline(1), last.start)
    );
    assert_eq!(
        paths(&found.problems[0]).0,
        SegmentFile::partial(name(1, third())).to_string()
    );
}

#[test]
fn an_old_timeline_that_ends_before_the_new_one_goes_on_has_a_hole() {
    let (parent, child) = promoted();
    let mut files = archive(&parent, &child);
    files
        .0
        .remove(&SegmentFile::partial(name(1, third())).to_string())
        .unwrap();
    let second = SegmentFile::complete(name(1, Lsn(START.0 + SEGMENT)));
    let mut content = files.0.remove(&second.to_string()).unwrap();
    content.truncate(100_000);
    files
        .0
        .insert(SegmentFile::partial(second.name).to_string(), content);
    let found = files.verify();
    let [
        Problem {
            timeline: of,
            lsn,
            fault: Fault::Ends { evidence },
            ..
        },
    ] = &found.problems[..]
    else {
        panic!("{:?}", found.problems);
    };
    assert_eq!((*of, *lsn), (timeline(1), Lsn(START.0 + SEGMENT + 100_000)));
    assert!(matches!(evidence, Evidence::LaterSegment { file } if file.name == name(2, third())));
}

#[test]
fn what_is_missing_between_timelines_is_told() {
    let (parent, child) = promoted();
    let mut files = archive(&parent, &child);
    files
        .0
        .remove(&SegmentFile::complete(name(2, third())).to_string())
        .unwrap();
    let found = files.verify();
    let [
        Problem {
            timeline: of,
            lsn,
            fault: Fault::Missing { first, last, end },
            ..
        },
    ] = &found.problems[..]
    else {
        panic!("{:?}", found.problems);
    };
    assert_eq!(
        (*of, *lsn, *end),
        (timeline(2), third(), Lsn(third().0 + SEGMENT))
    );
    assert_eq!((*first, *last), (name(2, third()), name(2, third())));
}

#[test]
fn a_timeline_without_its_history_is_checked_and_that_is_told() {
    let (parent, child) = promoted();
    let mut files = archive(&parent, &child);
    let history = timeline(2).history_file_name();
    let content = files.0.remove(&history).unwrap();
    let found = files.verify();
    assert!(matches!(
        &found.problems[..],
        [Problem { lsn, fault: Fault::File(ArchiveError::HistoryMissing { timeline: of }), .. }]
            if *of == timeline(2) && *lsn == third()
    ));
    let end = child.records().last().unwrap().end;
    let of_child = |found: &Verification| {
        let ranges = found.good.iter();
        let mut ranges = ranges.filter(|range| range.timeline == timeline(2));
        ranges.next_back().map(|range| range.end)
    };
    assert_eq!(of_child(&found), Some(end));
    // Alone, as barman leaves a directory: what began before has been moved away.
    let mut alone = Files(files.0.clone());
    alone.0.retain(|name, _| name.starts_with("00000002"));
    let found = alone.verify();
    assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
    assert_eq!(of_child(&found), Some(end));
    let last = child.records().last().unwrap().start;
    let at = usize::try_from(size().offset_of(last)).unwrap() + 10;
    alone.segment(2, last)[at] ^= 1;
    assert_eq!(alone.verify().problems.len(), 2);

    for content in [b"2\t0/5000000\n".to_vec(), content] {
        files.0.insert(history.clone(), content);
        let found = files.verify();
        let damaged = matches!(
            &found.problems[..],
            [Problem {
                fault: Fault::File(ArchiveError::Damaged {
                    reason: Damage::History(_),
                    ..
                }),
                ..
            }]
        );
        assert!(damaged || found.problems.is_empty(), "{:?}", found.problems);
        assert_eq!(of_child(&found), Some(end));
    }
}
