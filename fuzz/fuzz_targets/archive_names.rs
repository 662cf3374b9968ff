//! A file's name that is taken for one of the archive's is printed as it was; names of complete
//! segments are always taken.
#![no_main]

use std::ffi::OsStr;

use libfuzzer_sys::fuzz_target;
use segstore::{EntryName, OWN_DIRECTORY};

fuzz_target!(|name: &str| match EntryName::classify(OsStr::new(name)) {
    EntryName::Segment(file) => assert_eq!(file.to_string(), name),
    EntryName::History(file) => assert_eq!(file.to_string(), name),
    EntryName::Own => assert_eq!(name, OWN_DIRECTORY),
    EntryName::Foreign => {
        let hexadecimal = |b| matches!(b, b'0'..=b'9' | b'A'..=b'F');
        let segment = name.len() == 24 && name.bytes().all(hexadecimal);
        assert!(!segment || name.starts_with("00000000"));
    }
});
