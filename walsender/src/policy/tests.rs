use super::*;
use proptest::prelude::*;

const TIMELINE: TimelineId = TimelineId::FIRST;

fn policy(text: &str) -> SyncPolicy {
    text.parse().unwrap()
}

fn standby(application_name: &str, connected: u64, flush: u64) -> Standby<'_> {
    Standby {
        application_name,
        connected,
        streaming: Some(TIMELINE),
        progress: StandbyProgress {
            write: Some(Lsn(flush + 2)),
            flush: (flush > 0).then_some(Lsn(flush)),
            apply: (flush > 1).then(|| Lsn(flush - 1)),
        },
    }
}

fn flush(confirmed: Confirmed) -> Option<u64> {
    Some(confirmed.progress?.flush?.0)
}

fn unmet(present: usize, needed: usize) -> Confirmed {
    Confirmed {
        timeline: Some(TIMELINE),
        present,
        needed,
        progress: None,
    }
}

#[test]
fn what_postgresql_takes_is_taken() {
    for (text, printed) in [
        ("s1", "FIRST 1 (s1)"),
        ("s1, s2", "FIRST 1 (s1, s2)"),
        ("2 (s1,\ts2\n, s3)", "FIRST 2 (s1, s2, s3)"),
        ("first 2 (s1, s2)", "FIRST 2 (s1, s2)"),
        ("ANY 1(*)", "ANY 1 (*)"),
        ("\"*\"", "FIRST 1 (*)"),
        (
            "AnY 01 (a$1, \"Any\", \"x y\", \"q\"\"q\")",
            "ANY 1 (a$1, \"Any\", \"x y\", \"q\"\"q\")",
        ),
        ("1, 2", "FIRST 1 (\"1\", \"2\")"),
        ("2", "FIRST 1 (\"2\")"),
        ("1 (1)", "FIRST 1 (\"1\")"),
        ("é", "FIRST 1 (é)"),
        ("7 (a, *)", "FIRST 7 (a, *)"),
    ] {
        assert_eq!(policy(text).to_string(), printed, "{text:?}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (text, message) in [
        ("", "at end of input"),
        ("  ", "at end of input"),
        ("s1,", "at end of input"),
        ("s1 s2", "at or near \"s2\""),
        ("any", "at end of input"),
        ("ANY s1", "at or near \"s1\""),
        ("ANY 1 s1", "at or near \"s1\""),
        ("s1, any", "at or near \"any\""),
        ("ANY 1 ()", "at or near \")\""),
        ("ANY 1 (s1", "at end of input"),
        ("ANY 1 (s1))", "at or near \")\""),
        ("s-1", "at or near \"-\""),
        ("(s1)", "at or near \"(\""),
        ("\"s1", "unterminated quoted name"),
        ("ANY 0 (s1)", "(0) must be from 1"),
        ("0 (s1)", "(0) must be from 1"),
        ("2147483648 (*)", "(2147483648) must be from 1"),
        (
            "FIRST 2 (s1, S1)",
            "(2) is greater than the number of names (1)",
        ),
    ] {
        let error = text.parse::<SyncPolicy>().unwrap_err().to_string();
        assert!(error.contains(message), "{text:?}: {error}");
    }
}

#[test]
fn with_first_the_slowest_of_the_first_ones_decides() {
    let two = policy("FIRST 2 (a, b, c)");
    let mut standbys = vec![
        standby("c", 1, 900),
        standby("b", 2, 300),
        standby("a", 3, 500),
    ];
    assert_eq!(flush(two.evaluate(TIMELINE, &standbys)), Some(300));
    assert_eq!(
        two.states(TIMELINE, &standbys),
        [SyncState::Potential, SyncState::Sync, SyncState::Sync]
    );
    standbys.remove(1);
    assert_eq!(flush(two.evaluate(TIMELINE, &standbys)), Some(500));
    standbys.remove(0);
    assert_eq!(two.evaluate(TIMELINE, &standbys), unmet(1, 2));
}

#[test]
fn with_any_so_many_have_to_have_each_position() {
    let two = policy("ANY 2 (a, b, c)");
    let mut standbys = vec![
        standby("a", 1, 300),
        standby("b", 2, 900),
        standby("c", 3, 500),
    ];
    // Written, flushed and applied positions are counted by themselves.
    standbys[0].progress.apply = Some(Lsn(880));
    assert_eq!(
        two.evaluate(TIMELINE, &standbys).progress,
        Some(StandbyProgress {
            write: Some(Lsn(502)),
            flush: Some(Lsn(500)),
            apply: Some(Lsn(880)),
        })
    );
    assert_eq!(two.states(TIMELINE, &standbys), [SyncState::Quorum; 3]);
}

#[test]
fn who_does_not_stream_this_timeline_or_flushes_nothing_is_no_candidate() {
    let policy = policy("a, *");
    let streaming = standby("b", 2, 400);
    for bad in [
        Standby {
            streaming: None,
            ..standby("a", 1, 500)
        },
        Standby {
            streaming: TimelineId::new(2),
            ..standby("a", 1, 500)
        },
        standby("a", 1, 0),
    ] {
        let both = policy.evaluate(TIMELINE, &[bad, streaming]);
        assert_eq!(flush(both), Some(400), "{bad:?}");
        let alone = policy.evaluate(TIMELINE, &[bad]);
        assert_eq!(alone, unmet(0, 1), "{bad:?}");
    }
    let states = policy.states(TIMELINE, &[standby("a", 1, 0), streaming]);
    assert_eq!(states, [SyncState::Async, SyncState::Sync]);
}

#[test]
fn the_newest_connection_of_a_name_counts_once() {
    let policy = policy("ANY 2 (a, b)");
    let standbys = [
        standby("a", 1, 900),
        standby("A", 5, 200),
        standby("a", 3, 800),
    ];
    assert_eq!(flush(policy.evaluate(TIMELINE, &standbys)), None);
    let with_b = [standbys[0], standbys[1], standbys[2], standby("B", 4, 700)];
    assert_eq!(flush(policy.evaluate(TIMELINE, &with_b)), Some(200));
    assert_eq!(
        policy.states(TIMELINE, &with_b),
        [
            SyncState::Potential,
            SyncState::Quorum,
            SyncState::Potential,
            SyncState::Quorum,
        ]
    );
}

#[test]
fn the_priority_is_the_place_of_the_name() {
    let first = policy("s1, \"S 2\", *, s4");
    for (name, priority) in [("S1", 1), ("s 2", 2), ("s4", 3), ("", 3)] {
        assert_eq!(first.priority(name), priority, "{name:?}");
    }
    let any = policy("ANY 1 (s1, s2)");
    assert_eq!((any.priority("S2"), any.priority("s3")), (1, 0));
}

fn any_policy() -> impl Strategy<Value = SyncPolicy> {
    let name = prop_oneof![
        1 => Just(Name::Every),
        6 => "[a-e]".prop_map(Name::Is),
        1 => "[ -~é]{1,5}".prop_filter("wildcard", |n| n != "*").prop_map(Name::Is),
    ];
    let method = prop_oneof![Just(Method::First), Just(Method::Any)];
    (method, proptest::collection::vec(name, 1..5), 1usize..4).prop_filter_map(
        "more than there are names",
        |(method, names, needed)| {
            let text = SyncPolicy {
                method,
                needed,
                names,
            };
            text.to_string().parse().ok()
        },
    )
}

type Row = (String, u64, bool, u64);

fn any_standbys() -> impl Strategy<Value = Vec<Row>> {
    let row = ("[a-fA-F]", 0..4u64, any::<bool>(), 0u64..6);
    proptest::collection::vec(row, 0..8).prop_map(|mut rows| {
        for (connected, row) in (0..).zip(&mut rows) {
            row.1 = row.1 * 10 + connected;
        }
        rows
    })
}

/// The candidates by the manual's words, looked up name by name.
fn candidates<'a>(policy: &SyncPolicy, rows: &'a [Row]) -> Vec<&'a Row> {
    let counts = |row: &&Row| row.2 && row.3 > 0 && policy.priority(&row.0) > 0;
    let same = |a: &Row, b: &Row| a.0.eq_ignore_ascii_case(&b.0);
    let is_newest = |row: &&Row| {
        !rows
            .iter()
            .any(|r| counts(&r) && same(r, row) && r.1 > row.1)
    };
    let mut found: Vec<&Row> = rows.iter().filter(|r| counts(r) && is_newest(r)).collect();
    found.sort_by_key(|row| (policy.priority(&row.0), row.1));
    found
}

proptest! {
    #[test]
    fn what_is_printed_is_read_back(policy in any_policy()) {
        prop_assert_eq!(policy.to_string().parse(), Ok(policy));
    }

    #[test]
    fn any_text_is_a_policy_or_an_error(text in "[ -~é\t]{0,24}") {
        if let Ok(policy) = text.parse::<SyncPolicy>() {
            prop_assert!(policy.needed() > 0);
            prop_assert_eq!(policy.to_string().parse(), Ok(policy));
        }
    }

    #[test]
    fn a_position_is_reached_when_enough_of_those_that_count_have_it(
        policy in any_policy(), rows in any_standbys(),
    ) {
        let standbys: Vec<Standby<'_>> = rows
            .iter()
            .map(|(name, connected, streaming, flush)| Standby {
                streaming: streaming.then_some(TIMELINE),
                ..standby(name, *connected, *flush)
            })
            .collect();
        let candidates = candidates(&policy, &rows);
        let verdict = flush(policy.evaluate(TIMELINE, &standbys));
        prop_assert_eq!(verdict.is_some(), candidates.len() >= policy.needed());
        let reached = |position: u64| match policy.method() {
            Method::First => candidates.iter().take(policy.needed()).all(|row| row.3 >= position),
            Method::Any => {
                candidates.iter().filter(|row| row.3 >= position).count() >= policy.needed()
            }
        };
        if let Some(flush) = verdict {
            prop_assert!(reached(flush) && !reached(flush + 1));
        }
    }
}
