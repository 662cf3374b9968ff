use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::wal::generator::{AfterSwitch, GeneratedRecord, Generator};

mod damage;
mod golden;
mod leftovers;

const MIB: u64 = 1 << 20;

fn format() -> WalFormat {
    WalFormat {
        system_id: SystemId(7_654_321_012_345_678_901),
        segment_size: SegmentSize::new(MIB).unwrap(),
        page_magic: Some(0xD110),
        server_version_num: Some(150_018),
    }
}

fn first_timeline() -> TimelineHistory {
    TimelineHistory::without_ancestors(TimelineId::FIRST)
}

fn generator(start: u64, seed: u64) -> Generator {
    Generator::new(format(), first_timeline(), Lsn(start), seed).unwrap()
}

fn validator_of(wal: &Generator) -> Validator {
    Validator::new(wal.format(), wal.history().clone(), wal.start()).unwrap()
}

/// What a visitor saw of complete records.
#[derive(Default, Debug, PartialEq, Eq)]
struct Seen {
    records: Vec<GeneratedRecord>,
    bodies: Vec<Vec<u8>>,
    abandoned: usize,
    open: Option<(Lsn, RecordHeader, Vec<u8>)>,
}

impl RecordVisitor for Seen {
    fn begin(&mut self, start: Lsn, header: &RecordHeader) {
        assert_eq!(self.open, None, "a record begins inside another");
        self.open = Some((start, *header, Vec::new()));
    }

    fn body(&mut self, bytes: &[u8]) {
        self.open.as_mut().unwrap().2.extend_from_slice(bytes);
    }

    fn end(&mut self, end: Lsn) {
        let (start, header, body) = self.open.take().unwrap();
        self.records.push(GeneratedRecord { start, end, header });
        self.bodies.push(body);
    }

    fn abandon(&mut self) {
        self.open.take().unwrap();
        self.abandoned += 1;
    }
}

/// Pushes `bytes` in pieces of the given lengths, over and over, and says how it ended.
fn push_pieces(
    validator: &mut Validator,
    bytes: &[u8],
    lengths: &[usize],
    seen: &mut Seen,
) -> Result<Progress, Corruption> {
    let (mut rest, mut lengths) = (bytes, lengths.iter().cycle());
    let mut last = Ok(validator.progress());
    while !rest.is_empty() && last.is_ok() {
        let (now, later) = rest.split_at(rest.len().min(*lengths.next().unwrap()));
        last = validator.push_with(now, seen);
        rest = later;
    }
    last
}

#[derive(Clone, Debug)]
enum Step {
    Record(u32),
    Varied(u64),
    FillPageBut(u64),
    Switch(AfterSwitch),
    Overwritten(u32),
    Promote { back: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let after = prop::sample::select(vec![
        AfterSwitch::Zeros,
        AfterSwitch::PageHeaders,
        AfterSwitch::Recycled,
    ]);
    prop_oneof![
        6 => (0u32..300).prop_map(Step::Record),
        2 => (8_000u32..40_000).prop_map(Step::Record),
        4 => (1u64..20_000).prop_map(Step::Varied),
        // Places the next record so that it begins, or its header breaks, at a page's end.
        4 => (0u64..=6).prop_map(|words| Step::FillPageBut(words * 8)),
        1 => after.prop_map(Step::Switch),
        1 => (1u32..4).prop_map(Step::Overwritten),
        1 => (0usize..20).prop_map(|back| Step::Promote { back }),
    ]
}

fn take_step(wal: Generator, step: &Step) -> Generator {
    let mut wal = wal;
    match *step {
        Step::Record(length) => {
            wal.record(length);
        }
        Step::Varied(bytes) => wal.fill(bytes),
        Step::FillPageBut(left) => {
            wal.record(8);
            let room = BLOCK_SIZE - wal.end().0 % BLOCK_SIZE;
            if let Some(body) = room.checked_sub(left + 24)
                && room < BLOCK_SIZE
            {
                wal.record(u32::try_from(body).unwrap());
            }
        }
        Step::Switch(after) => wal.switch(after),
        Step::Overwritten(pages) => {
            wal.overwritten_record(pages);
        }
        Step::Promote { back } => {
            let timeline = TimelineId::new(wal.history().timeline().number() + 2).unwrap();
            let record = wal.records().iter().rev().nth(back);
            if let Some(promoted) = record.and_then(|r| wal.promoted(timeline, r.end)) {
                wal = promoted;
            }
        }
    }
    wal
}

prop_compose! {
    fn wal()(
        page in 0u64..600,
        rest in prop_oneof![Just(0u32), 1u32..20_000],
        seed: u64,
        steps in prop::collection::vec(step(), 1..25),
    ) -> Generator {
        let mut wal = generator(page * BLOCK_SIZE, seed);
        if rest > 0 {
            wal.rest_of_record(rest);
        }
        wal.record(1);
        steps.iter().fold(wal, take_step)
    }
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    let piece = prop_oneof![1usize..10, 1usize..400, 1usize..30_000];
    prop::collection::vec(piece, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn generated_wal_is_valid_and_all_its_records_are_met(wal in wal(), pieces in pieces()) {
        let mut validator = validator_of(&wal);
        let mut seen = Seen::default();
        let progress = push_pieces(&mut validator, wal.bytes(), &pieces, &mut seen).unwrap();
        prop_assert_eq!(&seen.records[..], wal.records());
        prop_assert_eq!(progress.byte_end, wal.end());
        prop_assert_eq!(progress.page_end, wal.end().align_down(BLOCK_SIZE));
        prop_assert_eq!(progress.last_record, wal.records().last().map(|r| r.start));
        let end = wal.records().last().map_or(wal.start(), |r| r.end);
        prop_assert_eq!(progress.record_end, end);
        for (record, body) in seen.records.iter().zip(&seen.bodies) {
            prop_assert_eq!(record.header.total_length as usize, 24 + body.len());
        }
    }

    #[test]
    fn one_piece_or_many_make_no_difference_even_to_damaged_wal(
        wal in wal(),
        pieces in pieces(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 0..3),
    ) {
        let mut bytes = wal.bytes().to_vec();
        for (index, xor) in damage {
            *index.get_mut(&mut bytes) ^= xor;
        }
        let (mut whole, mut cut) = (validator_of(&wal), validator_of(&wal));
        let (mut seen_whole, mut seen_cut) = (Seen::default(), Seen::default());
        let expected = whole.push_with(&bytes, &mut seen_whole);
        let found = push_pieces(&mut cut, &bytes, &pieces, &mut seen_cut);
        prop_assert_eq!(found, expected);
        prop_assert_eq!(cut.progress(), whole.progress());
        prop_assert_eq!(seen_cut, seen_whole);
        if expected.is_err() {
            prop_assert_eq!(cut.push(&[]), expected);
        }
    }

    #[test]
    fn a_stream_begun_again_at_the_last_record_comes_to_the_same_end(
        wal in wal(),
        cut in any::<prop::sample::Index>(),
    ) {
        let (before, after) = wal.bytes().split_at(cut.index(wal.bytes().len() + 1));
        let mut validator = validator_of(&wal);
        let progress = validator.push(before).unwrap();
        if let Some(resume_at) = progress.resume_at() {
            let mut again =
                Validator::new(wal.format(), wal.history().clone(), resume_at).unwrap();
            let skipped = usize::try_from(resume_at.bytes_since(wal.start())).unwrap();
            let resumed = again.push(&before[skipped..]).unwrap();
            prop_assert_eq!(resumed, progress);
            prop_assert_eq!(again.push(after), validator.push(after));
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_taken_but_never_panic(
        page in prop_oneof![any::<u64>(), Just(u64::MAX), 0u64..3],
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        plausible: bool,
        pieces in pieces(),
    ) {
        let start = Lsn(page).align_down(BLOCK_SIZE);
        let unknown = WalFormat { page_magic: None, server_version_num: None, ..format() };
        let mut validator = Validator::new(unknown, first_timeline(), start).unwrap();
        let mut stream = Vec::new();
        if plausible && start.checked_add(BLOCK_SIZE).is_some() {
            let mut wal = Generator::new(format(), first_timeline(), start, page).unwrap();
            wal.record(10);
            stream.extend_from_slice(wal.bytes());
        }
        stream.extend_from_slice(&bytes);
        let mut seen = Seen::default();
        let _ = push_pieces(&mut validator, &stream, &pieces, &mut seen);
        let progress = validator.progress();
        prop_assert!(start <= progress.record_end && progress.record_end <= progress.byte_end);
        prop_assert!(progress.byte_end.0 - start.0 <= stream.len() as u64);
    }
}

#[test]
fn a_stream_begins_at_a_page() {
    let error = Validator::new(format(), first_timeline(), Lsn(8191)).unwrap_err();
    assert_eq!(error, NotPageAligned { lsn: Lsn(8191) });
}

#[test]
fn a_record_ends_only_with_its_padding() {
    let mut wal = generator(MIB, 1);
    let record = wal.record(1);
    let mut validator = validator_of(&wal);
    let (all_but_one, last) = wal.bytes().split_at(wal.bytes().len() - 1);
    assert_eq!(validator.push(all_but_one).unwrap().last_record, None);
    let progress = validator.push(last).unwrap();
    assert_eq!(progress.record_end, Lsn(MIB + 40 + 32));
    assert_eq!(progress.last_record, Some(record.start));
}

#[test]
fn a_record_is_incomplete_from_its_first_byte_to_its_last() {
    let mut wal = generator(MIB + BLOCK_SIZE, 1);
    wal.rest_of_record(20);
    let skipped_until = wal.end();
    for length in [1, 0, 9_000, 8] {
        wal.record(length);
    }
    let mut validator = validator_of(&wal);
    for byte in wal.bytes() {
        validator.push(&[*byte]).unwrap();
        let at = validator.position();
        let inside = |r: &&GeneratedRecord| r.start < at && at < r.end;
        let expected = match wal.records().iter().find(inside) {
            Some(record) => {
                let length = record.header.total_length;
                let known = at.0 - record.start.0 >= 4;
                Some((record.start, known.then_some(length)))
            }
            None if Lsn(wal.start().0 + 24) <= at && at < skipped_until => {
                Some((wal.start(), None))
            }
            None => None,
        };
        let found = validator.incomplete_record();
        let found = found.map(|record| (record.start, record.total_length));
        assert_eq!(found, expected, "at {at}");
    }
}

#[test]
fn a_record_that_fills_its_page_ends_at_the_page_boundary() {
    let mut wal = generator(MIB, 1);
    wal.record(8192 - 40 - 24);
    wal.record(100);
    let mut validator = validator_of(&wal);
    let progress = validator.push(&wal.bytes()[..8192]).unwrap();
    assert_eq!(progress.record_end, Lsn(MIB + 8192));
    let progress = validator.push(&wal.bytes()[8192..]).unwrap();
    assert_eq!(progress.last_record, Some(Lsn(MIB + 8192 + 24)));
}

#[test]
fn a_switch_ends_at_the_segments_end_and_not_before() {
    let mut wal = generator(MIB, 1);
    let record = wal.record(100);
    wal.switch(AfterSwitch::Zeros);
    let mut validator = validator_of(&wal);
    let (all_but_one, last) = wal.bytes().split_at(wal.bytes().len() - 1);
    assert_eq!(validator.push(all_but_one).unwrap().record_end, record.end);
    let progress = validator.push(last).unwrap();
    assert_eq!(progress.record_end, Lsn(2 * MIB));
    assert_eq!(progress.last_record, Some(record.end));
    assert_eq!(progress.resume_at(), Some(Lsn(MIB)));
}

#[test]
fn an_overwritten_record_is_abandoned_and_its_pages_stay() {
    let mut wal = generator(MIB, 1);
    let before = wal.record(100);
    let overwrite = wal.overwritten_record(2);
    assert_eq!(overwrite.start, Lsn(MIB + 2 * 8192 + 24));
    assert_eq!(overwrite.header.previous, before.start);
    let mut validator = validator_of(&wal);
    let mut seen = Seen::default();
    let torn = validator
        .push_with(&wal.bytes()[..2 * 8192], &mut seen)
        .unwrap();
    assert_eq!(
        (torn.record_end, torn.page_end),
        (before.end, Lsn(MIB + 2 * 8192))
    );
    let progress = validator
        .push_with(&wal.bytes()[2 * 8192..], &mut seen)
        .unwrap();
    assert_eq!((progress.record_end, seen.abandoned), (overwrite.end, 1));
}

#[test]
fn the_page_of_a_promotion_keeps_the_old_timeline_and_the_next_has_the_new() {
    let mut old = generator(MIB, 1);
    let fork = old.record(100).end;
    old.fill(10_000);
    let mut wal = old.promoted(TimelineId::new(3).unwrap(), fork).unwrap();
    wal.fill(10_000);
    assert_eq!(wal.bytes()[4..8], [1, 0, 0, 0]);
    assert_eq!(wal.bytes()[8192 + 4..8192 + 8], [3, 0, 0, 0]);
    let progress = validator_of(&wal).push(wal.bytes()).unwrap();
    assert_eq!(progress.record_end, wal.records().last().unwrap().end);
}

#[test]
fn the_magic_number_is_learnt_from_the_first_page() {
    let learning = WalFormat {
        page_magic: None,
        ..format()
    };
    let mut wal = generator(MIB, 1);
    wal.record(1);
    let learn = |version, magic: u16| {
        let mut bytes = wal.bytes().to_vec();
        bytes[..2].copy_from_slice(&magic.to_le_bytes());
        let format = WalFormat {
            server_version_num: version,
            ..learning
        };
        let mut validator = Validator::new(format, first_timeline(), Lsn(MIB)).unwrap();
        assert_eq!(validator.page_magic(), None);
        let pushed = validator.push(&bytes).map_err(|error| error.reason);
        pushed.map(|_| validator.page_magic().unwrap())
    };
    let wrong = |expected, found| Err(CorruptionReason::PageMagic { expected, found });
    let unknown = |found| Err(CorruptionReason::UnknownPageMagic { found });
    assert_eq!(learn(Some(150_018), 0xD110), Ok(0xD110));
    assert_eq!(learn(None, 0xD110), Ok(0xD110));
    assert_eq!(learn(Some(190_001), 0xD120), Ok(0xD120));
    assert_eq!(learn(Some(180_004), 0xD120), wrong(0xD118, 0xD120));
    assert_eq!(learn(Some(150_018), 0xD113), wrong(0xD110, 0xD113));
    assert_eq!(learn(Some(190_001), 0xD118), unknown(0xD118));
    assert_eq!(learn(Some(120_020), 0xD101), unknown(0xD101));
    assert_eq!(learn(None, 0xD120), unknown(0xD120));
}

#[test]
fn a_history_of_many_promotions_names_the_timeline_of_each_page() {
    let mut wal = generator(MIB, 5);
    for timeline in 2..40 {
        wal.fill(3_000);
        let fork = wal.records().iter().rev().nth(1).unwrap().end;
        wal = wal
            .promoted(TimelineId::new(timeline).unwrap(), fork)
            .unwrap();
    }
    let content = Bytes::copy_from_slice(wal.history().content());
    let history = TimelineHistory::parse(wal.history().timeline(), content).unwrap();
    let mut validator = Validator::new(wal.format(), history, wal.start()).unwrap();
    assert_eq!(validator.push(wal.bytes()).unwrap().byte_end, wal.end());
}
