//! What is parsed is the same command after it was printed for any server that knows it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walproto::ServerVersion;
use walproto::command::Command;

fuzz_target!(|text: &[u8]| match Command::parse(text) {
    Ok(command) => {
        assert_eq!(Command::parse(command.to_string()).as_ref(), Ok(&command));
        for major in 13..=18 {
            if let Ok(printed) = command.for_server(ServerVersion(major * 10_000)) {
                assert_eq!(Command::parse(printed).as_ref(), Ok(&command));
            }
        }
    }
    Err(error) => assert!(error.position <= text.len()),
});
