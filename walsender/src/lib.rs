//! Serves an archive of WAL as a PostgreSQL server would: standbys, `pg_receivewal` and other
//! receivers stream from it.
#![forbid(unsafe_code)]

pub mod feedback;
pub mod hba;
pub mod policy;
pub mod tls;
