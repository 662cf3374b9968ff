//! WAL itself, wherever its bytes lie: pages, records, the names of segments, and the check.

pub(crate) mod corruption;
pub(crate) mod crc;
pub mod generator;
pub mod page;
pub mod record;
pub(crate) mod records;
#[cfg(test)]
pub(crate) mod sample;
pub(crate) mod segment;
pub(crate) mod settings;
pub(crate) mod validator;
