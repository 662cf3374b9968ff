//! A connection string that is taken has the same settings after it was printed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgconn::conninfo::Conninfo;

fuzz_target!(|text: &str| {
    if let Ok(conninfo) = Conninfo::parse(text) {
        let again = Conninfo::parse(&conninfo.to_text()).unwrap();
        assert!(again == conninfo);
    }
});
