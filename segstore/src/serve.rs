//! An archive that is read while it grows, what its readers still need, and what can go.

pub(crate) mod begun;
pub(crate) mod feed;
pub(crate) mod follow;
pub(crate) mod ledger;
pub(crate) mod open_file;
pub(crate) mod records;
pub(crate) mod retention;
pub(crate) mod slots;
pub(crate) mod view;
