//! The tables that come with a base backup.
//!
//! Source: src/backend/backup/basebackup_copy.c (PG 15).

use super::table::{Row, table, value};
use super::{DataType, Reply, ResultError, ResultSet};
use crate::WalPosition;

/// The first and the last table of a base backup: where the WAL that it needs begins, and ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackupPosition(pub WalPosition);

impl BackupPosition {
    /// Reads the table.
    ///
    /// # Errors
    /// When the table is none of a base backup's position.
    pub fn decode(result: &ResultSet) -> Result<Self, ResultError> {
        let mut row = Row::only(result, Reply::BaseBackup, 2)?;
        Ok(Self(WalPosition {
            lsn: row.lsn("recptr")?,
            timeline: row.timeline("tli")?,
        }))
    }

    /// The table as servers send it.
    #[must_use]
    pub fn encode(&self) -> ResultSet {
        table(
            [("recptr", DataType::TEXT), ("tli", DataType::INT8)],
            [[value(self.0.lsn), value(self.0.timeline)]],
        )
    }
}

/// The second table of a base backup: its tablespaces.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BackupTablespaces {
    /// The tablespaces, in the order in which they come.
    pub tablespaces: Vec<BackupTablespace>,
}

/// A tablespace of a base backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackupTablespace {
    /// The object identifier and directory of the tablespace, none for the data directory
    /// itself.
    pub directory: Option<(u32, String)>,
    /// The estimated size in KiB, if the command asked for progress.
    pub size_kib: Option<u64>,
}

impl BackupTablespaces {
    /// Reads the table.
    ///
    /// # Errors
    /// When the table is none of tablespaces.
    pub fn decode(result: &ResultSet) -> Result<Self, ResultError> {
        let mut tablespaces = Vec::with_capacity(result.rows().len());
        for row in result.rows() {
            let mut row = Row::of(row, Reply::BaseBackup, 3)?;
            let oid = row.optional("spcoid", "a number", |text| text.parse().ok())?;
            let directory = match oid {
                Some(oid) => Some((oid, row.text("spclocation")?.to_owned())),
                None => row.none("spclocation")?,
            };
            tablespaces.push(BackupTablespace {
                directory,
                size_kib: row.optional("size", "a number", |text| text.parse().ok())?,
            });
        }
        Ok(Self { tablespaces })
    }

    /// The table as servers send it.
    #[must_use]
    pub fn encode(&self) -> ResultSet {
        let columns = [
            ("spcoid", DataType::OID),
            ("spclocation", DataType::TEXT),
            ("size", DataType::INT8),
        ];
        let rows = self.tablespaces.iter().map(|tablespace| {
            let directory = tablespace.directory.as_ref();
            [
                directory.and_then(|(oid, _)| value(oid)),
                directory.and_then(|(_, location)| value(location)),
                tablespace.size_kib.and_then(value),
            ]
        });
        table(columns, rows)
    }
}
