//! Receives WAL from a PostgreSQL primary, keeps it in a durable archive and acknowledges it.
#![forbid(unsafe_code)]
