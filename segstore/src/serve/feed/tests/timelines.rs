//! From one timeline to the next.

use walproto::result::TimelineEnd;

use super::*;

/// WAL of a timeline, and of one that a standby began in the middle of its second segment.
fn promoted(seed: u64) -> (Generator, Generator) {
    let first = wal(seed);
    let middle = START.0 + 3 * MIB / 2;
    let records = first.records().iter();
    let record = *records.clone().find(|r| r.end.0 > middle).unwrap();
    let mut second = first.promoted(timeline(2), record.end).unwrap();
    second.fill(1_500_000);
    (first, second)
}

fn switch_point(second: &Generator) -> Lsn {
    second.history().begin().unwrap()
}

/// An archive that followed `first` up to `end` and then `second`.
fn followed(first: &Generator, end: Lsn, second: &Generator) -> World {
    let mut world = World::new();
    let mut writer = world.writer(first);
    write(&mut writer, first, end);
    writer.close().unwrap();
    let mut writer = world.writer(second);
    write(&mut writer, second, second.end());
    writer.close().unwrap();
    world
}

#[test]
fn an_old_timeline_ends_where_it_was_left() {
    let (first, second) = promoted(11);
    let left = switch_point(&second);
    // All of it, and more than the new timeline has of it.
    for end in [left, first.end()] {
        let world = followed(&first, end, &second);
        for view in world.views() {
            let end = Pause::EndOfTimeline(left, timeline(2));
            let mut feed = view.feed(Some(timeline(1)), START).unwrap();
            let known = TimelineEnd {
                switch_point: left,
                next_timeline: timeline(2),
            };
            assert_eq!(feed.end(), Some(known));
            assert_eq!(view.feed(None, START).unwrap().end(), None);
            assert_goes_on(&mut feed, &first, left, end);
            let mut feed = view.feed(Some(timeline(1)), left).unwrap();
            assert!(matches!(
                feed.ready_step().unwrap(),
                Some(FeedStep::EndOfTimeline { switch_point, .. }) if switch_point == left
            ));
            let error = view.feed(Some(timeline(1)), Lsn(left.0 + 8)).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "requested starting point {} on timeline 1 is not in this server's history, \
                     which forked from timeline 1 at {left}",
                    Lsn(left.0 + 8)
                )
            );
        }
    }
}

#[test]
fn a_new_timeline_is_given_from_the_start_of_its_first_segment_or_from_an_ancestors() {
    let (first, second) = promoted(12);
    let world = followed(&first, switch_point(&second), &second);
    let segment = segment_size().start_of(switch_point(&second));
    for view in world.views() {
        for start in [START, segment, switch_point(&second)] {
            for asked in [None, Some(timeline(2))] {
                let mut feed = view.feed(asked, start).unwrap();
                assert_goes_on(&mut feed, &second, second.end(), Pause::CaughtUp);
            }
        }
    }
}

#[test]
fn the_segment_of_a_switch_point_is_read_from_the_newest_timelines_file() {
    let (first, second) = promoted(13);
    let left = switch_point(&second);
    let world = followed(&first, left, &second);
    let old = SegmentFile::partial(name(1, left));
    assert!(world.disk.content(path(old)).is_some());
    world.disk.remove(Path::new(&path(old))).unwrap();
    for view in world.views() {
        let mut feed = view.feed(Some(timeline(1)), START).unwrap();
        let end = Pause::EndOfTimeline(left, timeline(2));
        assert_goes_on(&mut feed, &first, left, end);
    }
}

#[test]
fn a_switch_is_learned_in_the_middle() {
    let (first, second) = promoted(14);
    let left = switch_point(&second);
    for end in [left, first.end()] {
        let mut world = World::new();
        let mut writer = world.writer(&first);
        write(&mut writer, &first, end);
        let mut feeds: Vec<Feed> = world
            .views()
            .iter()
            .map(|view| view.feed(None, START).unwrap())
            .collect();
        for feed in &mut feeds {
            assert_goes_on(feed, &first, end, Pause::CaughtUp);
        }
        drop(writer);
        let mut writer = world.writer(&second);
        for feed in &mut feeds {
            feed.view.refresh().unwrap();
            // A history has to be read.
            assert!(feed.ready_step().unwrap().is_none());
            let position = feed.position();
            let end = Pause::EndOfTimeline(left, timeline(2));
            assert_goes_on(feed, &first, position, end);
            // Before its first byte has come, the new timeline is what its parent has.
            let start = segment_size().start_of(left);
            let mut next = feed.view.feed(Some(timeline(2)), start).unwrap();
            assert_goes_on(&mut next, &first, left, Pause::CaughtUp);
            *feed = next;
        }
        write(&mut writer, &second, second.end());
        for feed in &mut feeds {
            feed.view.refresh().unwrap();
            assert_goes_on(feed, &second, second.end(), Pause::CaughtUp);
        }
    }
}

#[test]
fn the_next_timeline_is_the_one_of_the_history_not_the_next_number() {
    let (first, second) = promoted(15);
    let last = *second.records().last().unwrap();
    let mut fifth = second.promoted(timeline(5), last.end).unwrap();
    fifth.fill(300_000);
    let mut world = followed(&first, switch_point(&second), &second);
    let mut writer = world.writer(&fifth);
    write(&mut writer, &fifth, fifth.end());
    for view in world.views() {
        let mut feed = view.feed(Some(timeline(2)), START).unwrap();
        let end = Pause::EndOfTimeline(last.end, timeline(5));
        assert_goes_on(&mut feed, &second, last.end, end);
        let mut feed = view.feed(Some(timeline(1)), START).unwrap();
        let left = switch_point(&second);
        let end = Pause::EndOfTimeline(left, timeline(2));
        assert_goes_on(&mut feed, &first, left, end);
        let mut feed = view.feed(None, START).unwrap();
        assert_eq!(feed.timeline(), timeline(5));
        assert_goes_on(&mut feed, &fifth, fifth.end(), Pause::CaughtUp);
    }
}

#[test]
fn a_timeline_of_another_branch_is_not_given() {
    let (first, second) = promoted(16);
    let mut world = followed(&first, switch_point(&second), &second);
    // The history of an abandoned branch is kept, and may be asked for.
    let content = format!("1\t{}\tabandoned\n", first.records()[9].end);
    let branch = TimelineHistory::parse(timeline(3), content.into()).unwrap();
    world.archive.store_history(&branch).unwrap();
    for view in world.views() {
        assert_eq!(*view.history(timeline(3)).unwrap().unwrap(), branch);
        assert_eq!(view.history(timeline(4)).unwrap(), None);
        for number in [3, 4] {
            let error = view.feed(Some(timeline(number)), START).unwrap_err();
            assert!(
                matches!(error, FeedError::UnknownTimeline { newest, .. } if newest == timeline(2)),
                "{error}"
            );
        }
    }
}
