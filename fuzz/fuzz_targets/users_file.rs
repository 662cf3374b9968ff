//! A file of users is read or refused by line, and what is refused is not repeated.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use walsender::users::{Users, UsersError};

fuzz_target!(|data: &[u8]| {
    let lines = data.split(|byte| *byte == b'\n').count();
    match Users::parse(Path::new("users"), data) {
        Ok(users) => assert!(users.names().count() <= lines),
        Err(UsersError::Line { line, .. }) => assert!((1..=lines).contains(&line)),
        Err(_) => unreachable!(),
    }
});
