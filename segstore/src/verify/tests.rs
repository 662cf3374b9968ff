use std::collections::BTreeMap;
use std::ops::Range;

use proptest::prelude::*;
use proptest::sample::Index;
use walproto::{Lsn, SegmentSize, SystemId, TimelineHistory, TimelineId};

use super::*;
use crate::archive::compression::Compression;
use crate::archive::identity::ServerFacts;
use crate::archive::position::{ArchivePosition, PublishedPosition};
use crate::archive::{Archive, ArchiveOptions};
use crate::disk::sim::SimDisk;
use crate::error::{Damage, Evidence};
use crate::wal::corruption::CorruptionReason;
use crate::wal::generator::{AfterSwitch, Generator};
use crate::wal::segment::{Encoding, SegmentFile, SegmentName};

mod chunks;
mod files;
mod growing;
mod timelines;
mod weak;

const ROOT: &str = "/archive";
const SEGMENT: u64 = 1 << 20;
const START: Lsn = Lsn(7 * SEGMENT);

fn size() -> SegmentSize {
    SegmentSize::new(SEGMENT).unwrap()
}

fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

fn generator(seed: u64) -> Generator {
    let format = WalFormat {
        system_id: SystemId(7_000_000_000_000_000_001),
        segment_size: size(),
        page_magic: None,
        server_version_num: Some(150_018),
    };
    let history = TimelineHistory::without_ancestors(TimelineId::FIRST);
    Generator::new(format, history, START, seed).unwrap()
}

/// WAL of four whole segments, with a switch, and a record that covers all of the last but one.
fn wal(seed: u64) -> Generator {
    let mut wal = generator(seed);
    wal.fill(300_000);
    wal.switch(AfterSwitch::Zeros);
    wal.fill(SEGMENT - 30_000);
    wal.record(1_200_000);
    wal.fill(START.0 + 4 * SEGMENT - wal.end().0);
    wal
}

fn index(lsn: Lsn) -> usize {
    usize::try_from(lsn.0 - START.0).unwrap()
}

fn name(timeline_number: u32, lsn: Lsn) -> SegmentName {
    SegmentName::of(timeline(timeline_number), lsn, size())
}

fn segments(wal: &Generator) -> impl Iterator<Item = Lsn> {
    let end = wal.end();
    (0..)
        .map(|number| Lsn(START.0 + number * SEGMENT))
        .take_while(move |start| *start < end)
}

/// The files of an archive, by their names, to be damaged before they are put on a disk.
#[derive(Clone, Default)]
struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    /// The segments that `wal` ends in or fills, the last one growing unless it is full.
    fn of(wal: &Generator) -> Self {
        let mut this = Self::default();
        this.add(wal, START);
        this
    }

    /// The same of the segments from `from` on, and the history.
    fn add(&mut self, wal: &Generator, from: Lsn) {
        let history = wal.history();
        for start in segments(wal).filter(|start| *start >= from) {
            let end = Lsn(start.0 + SEGMENT).min(wal.end());
            let mut content = wal.bytes()[index(start)..index(end)].to_vec();
            let whole = content.len() as u64 == SEGMENT;
            content.resize(usize::try_from(SEGMENT).unwrap(), 0);
            let name = name(history.timeline().number(), start);
            let file = match whole {
                true => SegmentFile::complete(name),
                false => SegmentFile::partial(name),
            };
            self.0.insert(file.to_string(), content);
        }
        if history.timeline() > TimelineId::FIRST {
            let name = history.timeline().history_file_name();
            self.0.insert(name, history.content().to_vec());
        }
    }

    fn segment(&mut self, timeline_number: u32, lsn: Lsn) -> &mut Vec<u8> {
        let name = name(timeline_number, lsn).to_string();
        let partial = format!("{name}.partial");
        let key = if self.0.contains_key(&name) {
            name
        } else {
            partial
        };
        self.0.get_mut(&key).unwrap()
    }

    fn flip(&mut self, timeline_number: u32, lsn: Lsn, bit: u8) {
        let offset = usize::try_from(size().offset_of(lsn)).unwrap();
        self.segment(timeline_number, lsn)[offset] ^= 1 << bit;
    }

    fn disk(&self) -> SimDisk {
        let disk = SimDisk::new(ROOT);
        for (name, content) in &self.0 {
            disk.plant(Path::new(ROOT).join(name), content).unwrap();
        }
        disk
    }

    fn verify(&self) -> Verification {
        check(&self.disk(), 1, LEAST_CHUNK)
    }
}

fn check(disk: &SimDisk, jobs: usize, least_chunk: u64) -> Verification {
    let jobs = NonZeroUsize::new(jobs).unwrap();
    verify_in_chunks(Arc::new(disk.clone()), Path::new(ROOT), jobs, least_chunk).unwrap()
}

/// Makes the files those of a receiver that has told a position.
fn publish(disk: &SimDisk, timeline_number: u32, record_end: Lsn) {
    let options = ArchiveOptions {
        directory: ROOT.into(),
        sync: true,
        compression: Compression::NONE,
    };
    let mut archive = Archive::open(Arc::new(disk.clone()), options).unwrap();
    archive
        .bind(&ServerFacts {
            system_id: SystemId(7_000_000_000_000_000_001),
            segment_size: size(),
            block_size: 8192,
            server_version_num: 150_018,
            data_directory_mode: 0o700,
        })
        .unwrap();
    let directory = ArchiveDirectory::new(Arc::new(disk.clone()), Path::new(ROOT));
    let mut position = PublishedPosition::open(&directory).unwrap();
    position
        .publish(ArchivePosition {
            timeline: timeline(timeline_number),
            record_end,
            byte_end: record_end,
        })
        .unwrap();
}

fn range(timeline_number: u32, range: Range<Lsn>) -> GoodRange {
    GoodRange {
        timeline: timeline(timeline_number),
        start: range.start,
        end: range.end,
    }
}

/// The end of the last record that is complete at `lsn` in WAL that is damaged there.
fn good_end(wal: &Generator, lsn: Lsn) -> Lsn {
    let before = wal.records().iter().take_while(|record| record.end <= lsn);
    before.last().map_or(START, |record| record.end)
}

/// The start of the first record that starts in the segment of `lsn`.
fn first_record(wal: &Generator, lsn: Lsn) -> Lsn {
    let first = wal
        .records()
        .iter()
        .find(|record| record.start >= size().start_of(lsn));
    first.unwrap().start
}

fn paths(problem: &Problem) -> (String, u64) {
    let (path, offset) = problem.place.clone().unwrap();
    (
        path.file_name().unwrap().to_str().unwrap().to_owned(),
        offset,
    )
}

#[test]
fn whole_wal_is_one_good_range() {
    let wal = wal(1);
    let found = Files::of(&wal).verify();
    let last = wal.records().last().unwrap();
    assert_eq!(found.good, [range(1, START..last.end)]);
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    assert_eq!(found.segments, segments(&wal).count() as u64);
    assert_eq!(found.durable, None);
}

#[test]
fn the_rest_of_a_record_that_began_before_is_not_vouched_for() {
    let mut wal = generator(2);
    wal.rest_of_record(20_000);
    let first = wal.record(100);
    wal.fill(2 * SEGMENT);
    let last = wal.records().last().unwrap();
    let found = Files::of(&wal).verify();
    assert_eq!(found.good, [range(1, first.start..last.end)]);
    assert!(found.problems.is_empty());
}

#[test]
fn a_bad_record_is_named_with_its_file_and_the_next_segment_is_good_again() {
    let wal = wal(3);
    let bad = wal
        .records()
        .iter()
        .find(|r| r.start > Lsn(START.0 + SEGMENT + 1000))
        .unwrap();
    let mut files = Files::of(&wal);
    files.flip(1, Lsn(bad.start.0 + 24), 0);
    let found = files.verify();
    let [problem] = &found.problems[..] else {
        panic!("{:?}", found.problems);
    };
    assert_eq!(
        (problem.timeline, problem.lsn),
        (TimelineId::FIRST, bad.start)
    );
    assert!(matches!(
        problem.fault,
        Fault::Corrupt(CorruptionReason::Checksum { expected, found }) if expected != found
    ));
    let name = name(1, bad.start).to_string();
    assert_eq!(paths(problem), (name, size().offset_of(bad.start)));
    let last = wal.records().last().unwrap().end;
    // The next segment belongs to one record as a whole.
    let again = first_record(&wal, Lsn(bad.start.0 + 2 * SEGMENT));
    assert_eq!(
        found.good,
        [range(1, START..bad.start), range(1, again..last)]
    );
}

#[test]
fn a_problem_reads_as_one_line() {
    let wal = wal(3);
    let mut files = Files::of(&wal);
    files.flip(1, Lsn(START.0 + 8192 + 8), 0);
    let found = files.verify();
    assert_eq!(
        found.problems[0].to_string(),
        "timeline 1, 0/702000: page address: expected 0/702000, found 0/702001 \
         (\"/archive/000000010000000000000007\", offset 8192)"
    );
    assert_eq!(found.problems[0].fault.kind(), "corrupt");
    let good = range(1, START..Lsn(START.0 + 0x12_3456));
    assert_eq!(good.to_string(), "timeline 1 from 0/700000 to 0/823456");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_flipped_bit_is_found_where_it_is(at: Index, bit in 0..8u8) {
        let wal = wal(4);
        let lsn = Lsn(START.0 + at.index(wal.bytes().len()) as u64);
        let last = wal.records().last().unwrap().end;
        // XLP_BKP_REMOVABLE means nothing, and no checksum covers it.
        prop_assume!(lsn < last && !(lsn.0 % 8192 == 2 && bit == 2));
        let mut files = Files::of(&wal);
        files.flip(1, lsn, bit);
        // Or the last record could be one that was never written to its end.
        let disk = files.disk();
        publish(&disk, 1, last);
        let found = check(&disk, 1, LEAST_CHUNK);
        let [problem] = &found.problems[..] else {
            panic!("{:?}", found.problems);
        };
        let good = good_end(&wal, lsn);
        let corrupt = matches!(problem.fault, Fault::Corrupt(_));
        prop_assert!(corrupt);
        // A damaged length may show on a later page only.
        prop_assert!(problem.lsn >= good && good <= lsn);
        let start = found.good.first().filter(|range| range.start == START);
        prop_assert_eq!(start.map_or(START, |range| range.end), good);
    }
}
