use bytes::Bytes;

use super::*;

const SEGMENT: SegmentSize = SegmentSize::DEFAULT;

fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

fn upstream(number: u32, history: &'static str, flush: u64) -> Upstream {
    let content = Bytes::from_static(history.as_bytes());
    Upstream {
        history: TimelineHistory::parse(timeline(number), content).unwrap(),
        flush: Lsn(flush),
        is_standby: false,
    }
}

fn held(number: u32, record_end: u64) -> Held {
    Held {
        timeline: timeline(number),
        record_end: Lsn(record_end),
        resume_at: Lsn(record_end).align_down(8192),
    }
}

fn plan(held: &Held, upstream: &Upstream) -> Result<Course, Refusal> {
    resume(held, upstream, SEGMENT, false)
}

#[test]
fn the_same_timeline_is_streamed_from_the_last_record() {
    let course = plan(&held(1, 0x300_4010), &upstream(1, "", 0x300_4010));
    assert_eq!(
        course,
        Ok(Course::Stream {
            timeline: timeline(1),
            start: Lsn(0x300_4000)
        })
    );
}

#[test]
fn a_primary_that_lost_wal_is_refused_and_a_standby_is_waited_for() {
    let mut server = upstream(1, "", 0x300_4008);
    assert_eq!(
        plan(&held(1, 0x300_4010), &server),
        Err(Refusal::LostWal {
            timeline: timeline(1),
            flush: Lsn(0x300_4008),
            record_end: Lsn(0x300_4010),
        })
    );
    server.is_standby = true;
    assert_eq!(
        plan(&held(1, 0x300_4010), &server),
        Ok(Course::Wait {
            flush: Lsn(0x300_4008)
        })
    );
}

#[test]
fn a_zombie_primary_is_refused_even_when_it_is_ahead() {
    let refused = plan(&held(2, 0x300_4010), &upstream(1, "", 0x900_0000));
    assert!(matches!(refused, Err(Refusal::OlderTimeline { .. })));
}

#[test]
fn a_standby_that_has_not_followed_a_promotion_is_waited_for() {
    let mut server = upstream(1, "", 0x900_0000);
    server.is_standby = true;
    assert_eq!(
        plan(&held(2, 0x300_4010), &server),
        Ok(Course::Wait {
            flush: Lsn(0x900_0000)
        })
    );
}

#[test]
fn another_branch_is_refused() {
    let refused = plan(
        &held(2, 0x300_4010),
        &upstream(3, "1\t0/3000000\tx\n", 0x900_0000),
    );
    assert!(matches!(refused, Err(Refusal::ForeignTimeline { .. })));
}

#[test]
fn a_promotion_with_our_tail_is_followed_once_we_are_at_the_fork() {
    let server = upstream(3, "1\t0/3004018\tx\n", 0x900_0000);
    let course = plan(&held(1, 0x300_4010), &server);
    assert_eq!(
        course,
        Ok(Course::Stream {
            timeline: timeline(1),
            start: Lsn(0x300_4000)
        })
    );
    let course = plan(&held(1, 0x300_4018), &server);
    assert_eq!(
        course,
        Ok(Course::Stream {
            timeline: timeline(3),
            start: Lsn(0x300_4000)
        })
    );
}

#[test]
fn a_fork_at_a_segments_start_is_followed_from_there() {
    let server = upstream(2, "1\t0/3000000\tx\n", 0x900_0000);
    let mut held = held(1, 0x300_0000);
    held.resume_at = Lsn(0x2FF_E000);
    let course = plan(&held, &server);
    assert_eq!(
        course,
        Ok(Course::Stream {
            timeline: timeline(2),
            start: Lsn(0x300_0000)
        })
    );
}

#[test]
fn a_promotion_without_our_tail_is_followed_only_when_told() {
    let server = upstream(4, "1\t0/3000100\tx\n3\t0/5000000\tx\n", 0x900_0000);
    let fork = Fork {
        timeline: timeline(1),
        successor: timeline(3),
        switch_point: Lsn(0x300_0100),
        record_end: Lsn(0x300_4010),
    };
    assert_eq!(
        plan(&held(1, 0x300_4010), &server),
        Err(Refusal::Forked(fork))
    );
    assert_eq!(
        resume(&held(1, 0x300_4010), &server, SEGMENT, true),
        Ok(Course::StreamFork {
            timeline: timeline(3),
            start: Lsn(0x300_0000),
            fork
        })
    );
}

#[test]
fn timelines_that_end_where_they_begin_are_passed_over() {
    let content = "1\t0/3000100\tx\n2\t0/3004018\tx\n3\t0/3004018\tx\n4\t0/3004018\tx\n";
    let server = upstream(5, content, 0x900_0000);
    let start = Lsn(0x300_4000);
    assert_eq!(
        plan(&held(2, 0x300_4018), &server),
        Ok(Course::Stream {
            timeline: timeline(5),
            start
        })
    );
    // Another program may have stored the copy that one of them begins with.
    assert_eq!(
        plan(&held(3, 0x300_4018), &server),
        Ok(Course::Stream {
            timeline: timeline(5),
            start
        })
    );
    assert_eq!(
        resume(&held(2, 0x300_6000), &server, SEGMENT, true),
        Ok(Course::StreamFork {
            timeline: timeline(5),
            start: Lsn(0x300_0000),
            fork: Fork {
                timeline: timeline(2),
                successor: timeline(3),
                switch_point: Lsn(0x300_4018),
                record_end: Lsn(0x300_6000),
            }
        })
    );
}

#[test]
fn a_first_start_begins_with_its_segment_on_the_timeline_it_lies_on() {
    let server = upstream(2, "1\t0/3000100\tx\n", 0x900_0000);
    assert_eq!(
        begin(Lsn(0x300_0080), &server, SEGMENT),
        Ok(Course::Stream {
            timeline: timeline(1),
            start: Lsn(0x300_0000)
        })
    );
    assert_eq!(
        begin(Lsn(0x300_0100), &server, SEGMENT),
        Ok(Course::Stream {
            timeline: timeline(2),
            start: Lsn(0x300_0000)
        })
    );
    assert_eq!(
        begin(Lsn(0x900_0001), &server, SEGMENT),
        Err(Refusal::StartPastEnd {
            timeline: timeline(2),
            start: Lsn(0x900_0001),
            flush: Lsn(0x900_0000),
        })
    );
}

#[test]
fn where_wal_ends_with_a_segment_its_last_page_is_compared_if_the_server_has_it() {
    let server = upstream(1, "", 0x500_0000);
    let next = |start| {
        let held = Held {
            resume_at: Lsn(start),
            ..held(1, 0x300_0000)
        };
        without_removed(&held, &server, SEGMENT, (timeline(1), Lsn(start)))
    };
    let last_page = Some((timeline(1), Lsn(0x2FF_E000)));
    let end = Some((timeline(1), Lsn(0x300_0000)));
    // A record that begins two segments before.
    assert_eq!(next(0x1FF_E000), last_page);
    // Another start in the segment that was removed is of no use.
    assert_eq!(next(0x200_0000), end);
    assert_eq!(next(0x2FF_E000), end);
    assert_eq!(next(0x300_0000), None);
}

#[test]
fn what_a_server_has_removed_is_taken_from_the_last_timeline_begun_in_the_segment() {
    let history = "1\t0/3004000\ta\n2\t0/3005000\tb\n3\t0/4006000\tc\n";
    let server = upstream(4, history, 0x500_0000);
    let other = |held: &Held, number, start| {
        without_removed(held, &server, SEGMENT, (timeline(number), Lsn(start)))
    };
    // From the segment of our last record's end first, which is what slots keep.
    let long = Held {
        resume_at: Lsn(0x2FF_E000),
        ..held(1, 0x300_2010)
    };
    let same = Some((timeline(1), Lsn(0x300_0000)));
    assert_eq!(other(&long, 1, 0x2FF_E000), same);
    // Timeline 4 begins in a later segment.
    let third = Some((timeline(3), Lsn(0x300_0000)));
    assert_eq!(other(&long, 1, 0x300_0000), third);
    let third = Some((timeline(3), Lsn(0x300_2000)));
    assert_eq!(other(&held(1, 0x300_2010), 1, 0x300_2000), third);
    // At the end of our timeline, where the one that follows was asked for.
    assert_eq!(other(&held(1, 0x300_4000), 2, 0x300_2000), third);
    // Past it, where a fork is followed from its segment on.
    let third = Some((timeline(3), Lsn(0x300_0000)));
    assert_eq!(other(&held(1, 0x300_6010), 2, 0x300_0000), third);
    assert_eq!(other(&held(1, 0x300_4010), 3, 0x300_0000), None);
    // What comes next lies in a segment that no newer timeline began in.
    assert_eq!(other(&held(1, 0x2FF_4010), 1, 0x2FF_4000), None);
    assert_eq!(other(&held(4, 0x401_0010), 4, 0x401_0000), None);
}
