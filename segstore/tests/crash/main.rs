//! What was acknowledged is never lost, and valid durable bytes are never replaced by others:
//! held against power cuts at every operation of the disk, failed syncs, a full disk and damage.
//!
//! A life of the receiver opens the archive, recovers, resumes and streams until it is done or
//! the disk stops it; what it acknowledged is what the next life must find. The same seed gives
//! the same operations, so each of them can be the last one.
#![cfg(test)]

mod damage;
mod faults;
mod found;
mod power;
mod reconnect;
mod resources;
mod served;
mod timelines;
mod unclean;
mod world;
