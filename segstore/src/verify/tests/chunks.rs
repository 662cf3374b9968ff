//! How the work is divided makes no difference.

use super::*;

#[derive(Clone, Debug)]
enum Harm {
    Flip(Index, u8),
    ZeroPage(Index),
    Remove(Index),
    Truncate(Index, Index),
    /// In its place, valid WAL of another kind.
    Exchange(Index),
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        4 => (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Harm::Flip(at, bit)),
        1 => any::<Index>().prop_map(Harm::ZeroPage),
        1 => any::<Index>().prop_map(Harm::Remove),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(segment, at)| Harm::Truncate(segment, at)),
        1 => any::<Index>().prop_map(Harm::Exchange),
    ]
}

fn apply(harm: &Harm, files: &mut Files, other: &Files) {
    let names: Vec<String> = files.0.keys().cloned().collect();
    let pick = |index: &Index| names[index.index(names.len())].clone();
    match harm {
        Harm::Flip(at, bit) => {
            let content = files.0.get_mut(&pick(at)).unwrap();
            let at = at.index(content.len());
            content[at] ^= 1 << bit;
        }
        Harm::ZeroPage(at) => {
            let content = files.0.get_mut(&pick(at)).unwrap();
            let page = at.index(content.len() / 8192) * 8192;
            content[page..page + 8192].fill(0);
        }
        Harm::Remove(at) => drop(files.0.remove(&pick(at))),
        Harm::Truncate(segment, at) => {
            let content = files.0.get_mut(&pick(segment)).unwrap();
            content.truncate(at.index(content.len()));
        }
        Harm::Exchange(at) => {
            let name = pick(at);
            if let Some(content) = other.0.get(&name) {
                files.0.insert(name, content.clone());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_outcome_is_the_same_for_any_number_of_jobs_and_chunks(
        harms in proptest::collection::vec(harm(), 0..3),
        jobs in 2..5usize,
    ) {
        let wal = wal(5);
        let mut files = Files::of(&wal);
        let other = Files::of(&self::wal(6));
        for harm in &harms {
            if files.0.len() > 1 {
                apply(harm, &mut files, &other);
            }
        }
        let disk = files.disk();
        let whole = check(&disk, 1, 1 << 40);
        for segments in 1..4 {
            let found = check(&disk, jobs, segments * SEGMENT);
            prop_assert_eq!(&found.good, &whole.good);
            prop_assert_eq!(
                format!("{:?}", found.problems),
                format!("{:?}", whole.problems)
            );
        }
    }
}

#[test]
fn a_segment_of_other_wal_is_found_by_the_link_of_its_first_record() {
    // Both end the segment with the end of a record, so that nothing but the link can tell.
    let same = |seed| {
        let mut wal = generator(seed);
        wal.fill(SEGMENT / 2 + seed * 10_000);
        wal.switch(AfterSwitch::Zeros);
        wal.fill(SEGMENT / 2);
        wal.switch(AfterSwitch::Zeros);
        wal.fill(SEGMENT / 2);
        wal
    };
    let (one, two) = (same(1), same(2));
    let mut files = Files::of(&one);
    let second = Lsn(START.0 + SEGMENT);
    *files.segment(1, second) = Files::of(&two).segment(1, second).clone();
    for chunk in [SEGMENT, 1 << 40] {
        let found = check(&files.disk(), 2, chunk);
        let [problem] = &found.problems[..] else {
            panic!("{:?}", found.problems);
        };
        assert_eq!(problem.lsn, first_record(&two, second));
        assert!(matches!(
            problem.fault,
            Fault::Corrupt(CorruptionReason::PreviousRecord { .. })
        ));
        let third = Lsn(second.0 + SEGMENT);
        let last = one.records().last().unwrap().end;
        assert_eq!(found.good, [range(1, START..second), range(1, third..last)]);
    }
}
