//! Tests against real PostgreSQL servers, by behaviour.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot do its work fails by a panic"
)]

mod apply;
mod archive_files;
mod auth;
mod await_standby;
mod cascade;
mod catch_up;
mod damage;
mod damaged_stream;
mod dropin;
mod examples;
mod first_process;
mod foreign_text;
