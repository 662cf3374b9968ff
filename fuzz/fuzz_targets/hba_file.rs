//! Access rules are read or refused by line, and a user in quotes is that user and no other.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use walsender::hba::{ClientOrigin, HbaError, HbaRules};

fuzz_target!(|data: &[u8]| {
    let lines = data.split(|byte| *byte == b'\n').count();
    match HbaRules::parse(Path::new("hba"), data) {
        Ok(rules) => {
            let found = rules.find(ClientOrigin::Local, "a user that no file names");
            assert!(found.is_none_or(|rule| (1..=lines).contains(&rule.line)));
            assert!(rules.unused().iter().all(|line| (1..=lines).contains(line)));
            // One more rule decides only what none before it did.
            let mut longer = data.to_vec();
            longer.extend_from_slice(b"\n\nlocal replication all reject\n");
            if let Ok(longer) = HbaRules::parse(Path::new("hba"), &longer) {
                let last = longer.find(ClientOrigin::Local, "a user that no file names");
                let last = last.expect("the last rule is for all");
                assert!(found.is_none_or(|found| found == last));
            }
        }
        Err(HbaError::Line { line, .. }) => assert!((1..=lines).contains(&line)),
        Err(_) => unreachable!(),
    }
});
