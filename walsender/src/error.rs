//! Why a server cannot begin.

use std::io;

use segstore::ArchiveError;

use crate::access::AccessError;
use crate::config::ListenAddress;

/// A server that cannot begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The files that say who may connect.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The archive cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The system has no random numbers, which keys and nonces are made of.
    #[error("the system gives no random numbers")]
    NoRandomness,
    /// An address cannot be listened at.
    #[error("listening at {address}")]
    Listen {
        /// The address.
        address: ListenAddress,
        /// Why.
        #[source]
        source: io::Error,
    },
}
