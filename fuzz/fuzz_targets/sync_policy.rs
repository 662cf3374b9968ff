//! A policy is printed as what it is read back to, and is met by enough standbys of its names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walproto::{Lsn, TimelineId};
use walsender::policy::{Positions, Standby, SyncPolicy, Verdict};

fuzz_target!(|text: &str| {
    let Ok(policy) = text.parse::<SyncPolicy>() else {
        return;
    };
    assert_eq!(policy.to_string().parse(), Ok(policy.clone()));
    let at = |lsn| Positions {
        write: Lsn(lsn),
        flush: Lsn(lsn),
        apply: Lsn(lsn),
    };
    let names = text.split(|c: char| " ,()\"".contains(c)).take(64);
    let standbys: Vec<Standby<'_>> = (1..)
        .zip(names)
        .map(|(connected, application_name)| Standby {
            application_name,
            connected,
            streaming: Some(TimelineId::FIRST),
            positions: at(connected * 100),
        })
        .collect();
    match policy.evaluate(TimelineId::FIRST, &standbys) {
        Verdict::Met(positions) => {
            let named = |s: &&Standby<'_>| policy.priority(s.application_name) > 0;
            let best = standbys
                .iter()
                .filter(named)
                .map(|s| s.positions.flush)
                .max();
            assert!(Some(positions.flush) <= best);
        }
        Verdict::Unmet { present, needed } => assert!(present < needed),
    }
});
