//! `wal-receiver`: a synchronous standby that keeps the WAL.
#![forbid(unsafe_code)]

fn main() {}
