//! What the program does: receiving, and a module for each subcommand.

pub(crate) mod await_standby;
pub(crate) mod prune;
pub(crate) mod receive;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod verify;
