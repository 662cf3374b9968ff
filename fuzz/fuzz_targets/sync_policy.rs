//! A policy is printed as what it is read back to, and is met by enough standbys of its names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walproto::{Lsn, StandbyProgress, TimelineId};
use walsender::policy::{Standby, SyncPolicy};

fuzz_target!(|text: &str| {
    let Ok(policy) = text.parse::<SyncPolicy>() else {
        return;
    };
    assert_eq!(policy.to_string().parse(), Ok(policy.clone()));
    let at = |lsn| StandbyProgress {
        write: Some(Lsn(lsn)),
        flush: Some(Lsn(lsn)),
        apply: Some(Lsn(lsn)),
    };
    let names = text.split(|c: char| " ,()\"".contains(c)).take(64);
    let standbys: Vec<Standby<'_>> = (1..)
        .zip(names)
        .map(|(connected, application_name)| Standby {
            application_name,
            connected,
            streaming: Some(TimelineId::FIRST),
            progress: at(connected * 100),
        })
        .collect();
    let confirmed = policy.evaluate(TimelineId::FIRST, &standbys);
    match confirmed.progress {
        Some(progress) => {
            let named = |s: &&Standby<'_>| policy.priority(s.application_name) > 0;
            let flushed = standbys.iter().filter(named).map(|s| s.progress.flush);
            assert!(progress.flush <= flushed.max().flatten());
        }
        None => assert!(confirmed.present < confirmed.needed),
    }
});
