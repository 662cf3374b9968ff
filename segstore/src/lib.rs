//! WAL on disk: its pages and records, checked as they arrive, and the archive directory that
//! keeps them.
#![forbid(unsafe_code)]
