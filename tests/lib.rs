//! What the tests against real servers share: throwaway clusters of every supported version,
//! receivers as child processes, a proxy that damages the stream, and comparisons with what
//! PostgreSQL itself wrote.
//!
//! Everything here panics when it cannot do its work: a test that has no server fails. A version
//! is left out only if `WAL_RECEIVER_SKIP_POSTGRES` names it (`"13 14"`), and the test says so.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    reason = "a test that cannot do its work fails by a panic"
)]

mod archive;
mod backup;
pub mod beside;
mod builder;
mod cluster;
mod embedded;
mod generated;
mod link;
mod load;
mod postgres_programs;
mod process;
mod proxy;
mod receiver;
mod relay;
mod replication;
mod server;
mod serving;
mod wait;

pub use archive::{ArchiveDirectory, segment_name};
pub use backup::BaseBackup;
pub use builder::ClusterBuilder;
pub use cluster::Cluster;
pub use embedded::{Embedded, Records};
pub use generated::GeneratedArchive;
pub use link::{Claimed, Link};
pub use load::{Commit, Load};
pub use postgres_programs::{Version, unprivileged_user};
pub use process::{children_of, signal, unprivileged_output};
pub use proxy::{Message, Proxy, Verdict};
pub use receiver::{Receiver, ReceiverBuilder};
pub use relay::Relay;
pub use rustix::process::Signal;
pub use server::EmbeddedServer;
pub use serving::Serving;
pub use wait::{DEADLINE, wait_for, wait_until};
