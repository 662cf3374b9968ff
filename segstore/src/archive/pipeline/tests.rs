use std::sync::mpsc::{Sender, channel};

use super::*;
use crate::archive::directory::ArchiveDirectory;
use crate::disk::sim::SimDisk;

fn name(number: u32) -> SegmentName {
    SegmentName::parse(&format!("0000000100000000{number:08X}")).unwrap()
}

/// A stage that tells what it processes, and fails for some segments.
#[derive(Debug)]
struct Told {
    stage: &'static str,
    tell: Sender<(&'static str, SegmentName)>,
    left: Vec<SegmentName>,
    fails_for: Option<SegmentName>,
}

impl Stage for Told {
    fn left(&self, _: &Listing) -> Vec<SegmentName> {
        self.left.clone()
    }

    fn process(&self, name: SegmentName, go_on: &dyn Fn() -> bool) -> Result<(), ArchiveError> {
        assert!(go_on());
        self.tell.send((self.stage, name)).unwrap();
        if self.fails_for == Some(name) {
            let failed = std::io::Error::from_raw_os_error(5);
            return Err(DiskError::at(Operation::Write, Path::new("/a"))(failed).into());
        }
        Ok(())
    }
}

/// What two stages processed of `queued`, and the first failure.
fn processed(
    [left_of_first, left_of_second]: [&[u32]; 2],
    queued: &[u32],
    fails_in_first_for: Option<u32>,
) -> (Vec<(&'static str, SegmentName)>, Option<ArchiveError>) {
    let (tell, told) = channel();
    let names = |numbers: &[u32]| numbers.iter().copied().map(name).collect();
    let first = Told {
        stage: "first",
        tell: tell.clone(),
        left: names(left_of_first),
        fails_for: fails_in_first_for.map(name),
    };
    let second = Told {
        stage: "second",
        tell,
        left: names(left_of_second),
        fails_for: None,
    };
    let pipeline = start(vec![Box::new(first), Box::new(second)]);
    for number in queued {
        assert!(pipeline.enqueue(name(*number)));
    }
    let failure = pipeline.finish(Duration::MAX);
    (told.iter().collect(), failure)
}

fn start(stages: Vec<Box<dyn Stage>>) -> Pipeline {
    let disk = SimDisk::new("/a");
    let directory = ArchiveDirectory::new(Arc::new(disk), Path::new("/a"));
    let listing = Listing::read(&directory).unwrap();
    Pipeline::start(directory.root(), stages, &listing).unwrap()
}

#[test]
fn a_segment_passes_all_stages_before_the_next_one() {
    let (told, failure) = processed([&[], &[]], &[3, 4], None);
    let expected = [3, 4].map(|number| [("first", name(number)), ("second", name(number))]);
    assert_eq!(told, expected.concat());
    assert!(failure.is_none());
}

#[test]
fn what_any_stage_has_left_comes_before_a_later_segment() {
    let (told, failure) = processed([&[2], &[1, 2, 9]], &[3], None);
    let numbers: Vec<_> = told.iter().map(|(_, name)| *name).collect();
    assert_eq!(numbers, [1, 1, 2, 2, 3, 3].map(name));
    assert!(failure.is_none());
    // Nothing later is queued, so there is nothing to wait for.
    assert_eq!(processed([&[2], &[]], &[], None).0, []);
}

#[test]
fn a_segment_that_fails_in_a_stage_does_not_reach_the_next_one() {
    let (told, failure) = processed([&[], &[]], &[3, 4], Some(3));
    let expected = [("first", name(3)), ("first", name(4)), ("second", name(4))];
    assert_eq!(told, expected);
    assert!(
        matches!(failure, Some(ArchiveError::Disk(_))),
        "{failure:?}"
    );
}

#[test]
fn a_segment_that_there_is_no_time_for_is_not_processed() {
    let (tell, told) = channel();
    let stage = Told {
        stage: "first",
        tell,
        left: Vec::new(),
        fails_for: None,
    };
    let pipeline = start(vec![Box::new(stage)]);
    pipeline.shared.stop.store(true, Ordering::Relaxed);
    assert!(pipeline.enqueue(name(3)));
    assert!(pipeline.finish(Duration::ZERO).is_none());
    assert_eq!(told.iter().count(), 0);
}
