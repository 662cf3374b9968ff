//! The commands of a replication connection: parsed from the text of a query, and printed.
//!
//! The grammar is that of PostgreSQL 13 to 18 together. Where the versions write the same thing
//! differently, both forms are parsed to the same value, and [`Command::for_server`] prints the
//! form that a server understands.
//!
//! ```
//! use walproto::ServerVersion;
//! use walproto::command::Command;
//! let command = Command::parse("CREATE_REPLICATION_SLOT standby_1 PHYSICAL RESERVE_WAL;")?;
//! assert_eq!(
//!     command.to_string(),
//!     r#"CREATE_REPLICATION_SLOT "standby_1" PHYSICAL (RESERVE_WAL)"#,
//! );
//! assert_eq!(
//!     command.for_server(ServerVersion(140_023)).as_deref(),
//!     Ok(r#"CREATE_REPLICATION_SLOT "standby_1" PHYSICAL RESERVE_WAL"#),
//! );
//! # Ok::<(), walproto::command::CommandError>(())
//! ```
//!
//! Source: src/backend/replication/repl_gram.y, repl_scanner.l and walsender.c (PG 13 to 18).

mod base_backup;
mod error;
mod lexer;
mod name;
mod options;
mod parser;
mod print;
#[cfg(test)]
mod tests;

pub use base_backup::{
    BackupCompression, BackupManifest, BackupTarget, BaseBackup, Checkpoint, CompressionAlgorithm,
    InvalidMaxRate, ManifestChecksums, MaxRate,
};
pub use error::{CommandError, CommandFault, Found};
pub use name::{Identifier, InvalidText, Literal, SettingName};
pub use print::CommandNotSent;

use crate::{Lsn, TimelineId};

/// A replication command.
///
/// What is printed is parsed back to the same value, and nothing in a name or text of it can
/// change what is executed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Command {
    /// `IDENTIFY_SYSTEM`: answered by [`IdentifySystem`](crate::result::IdentifySystem).
    IdentifySystem,
    /// `SHOW`: the value of a configuration parameter.
    Show(SettingName),
    /// `TIMELINE_HISTORY`: answered by
    /// [`TimelineHistoryFile`](crate::result::TimelineHistoryFile).
    TimelineHistory(TimelineId),
    /// `CREATE_REPLICATION_SLOT`: answered by [`CreatedSlot`](crate::result::CreatedSlot).
    CreateReplicationSlot(CreateReplicationSlot),
    /// `READ_REPLICATION_SLOT` (15 and later): answered by
    /// [`SlotInfo`](crate::result::SlotInfo).
    ReadReplicationSlot(Identifier),
    /// `ALTER_REPLICATION_SLOT` (17 and later), which servers refuse for physical slots.
    AlterReplicationSlot {
        /// The slot.
        slot: Identifier,
        /// What changes.
        change: SlotChange,
    },
    /// `DROP_REPLICATION_SLOT`
    DropReplicationSlot {
        /// The slot.
        slot: Identifier,
        /// Whether to wait until nobody uses the slot any more, rather than to fail.
        wait: bool,
    },
    /// `START_REPLICATION ... PHYSICAL`: a CopyBoth stream of WAL.
    StartReplication {
        /// The slot whose positions the stream advances.
        slot: Option<Identifier>,
        /// The first position wanted.
        start: Lsn,
        /// The timeline wanted, the server's latest without one.
        timeline: Option<TimelineId>,
    },
    /// `START_REPLICATION ... LOGICAL`: a CopyBoth stream of what an output plugin makes of the
    /// WAL.
    StartLogicalReplication {
        /// The slot, which fixes the database and the output plugin.
        slot: Identifier,
        /// The first position wanted, or `0/0` for that of the slot.
        start: Lsn,
        /// What the output plugin is told.
        options: Vec<PluginOption>,
    },
    /// `BASE_BACKUP`
    BaseBackup(Box<BaseBackup>),
    /// `UPLOAD_MANIFEST` (17 and later): the manifest that an incremental backup builds on.
    UploadManifest,
}

/// `CREATE_REPLICATION_SLOT`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateReplicationSlot {
    /// The name of the slot.
    pub slot: Identifier,
    /// Whether the slot goes away when the connection ends.
    pub temporary: bool,
    /// What the slot is for.
    pub kind: NewSlot,
}

/// What a slot is created for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NewSlot {
    /// A stream of WAL.
    Physical {
        /// Whether WAL is kept from now on, not only from the first stream on.
        reserve_wal: bool,
    },
    /// A stream of what an output plugin makes of the WAL.
    Logical {
        /// The output plugin.
        plugin: Identifier,
        /// What becomes of the snapshot that shows the database as of the slot's beginning.
        snapshot: SnapshotAction,
        /// Whether prepared transactions are decoded (15 and later).
        two_phase: bool,
        /// Whether standbys keep the slot too (17 and later).
        failover: bool,
    },
}

/// What becomes of the snapshot that the creation of a logical slot takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SnapshotAction {
    /// It is exported until the next command, for others to use. This is what servers do if they
    /// are not told otherwise.
    #[default]
    Export,
    /// It is dropped.
    Nothing,
    /// The current transaction uses it.
    Use,
}

/// What `ALTER_REPLICATION_SLOT` changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotChange {
    /// Whether standbys keep the slot too.
    Failover(bool),
    /// Whether prepared transactions are decoded (18 and later).
    TwoPhase(bool),
    /// Both of them (18 and later).
    FailoverAndTwoPhase {
        /// Whether standbys keep the slot too.
        failover: bool,
        /// Whether prepared transactions are decoded.
        two_phase: bool,
    },
}

/// An option for an output plugin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PluginOption {
    /// The option's name.
    pub name: Identifier,
    /// The option's value, if it has one.
    pub value: Option<Literal>,
}

impl Command {
    /// The longest command in bytes that is taken or sent. Only the options of output plugins,
    /// as a list of publications, come anywhere near; it bounds what a peer can make us hold.
    pub const MAX_LENGTH: usize = 64 << 10;

    /// Reads the text of a query, without the NUL that ends it on the wire.
    ///
    /// One semicolon may follow the command. Names longer than [`Identifier::MAX_LENGTH`] are
    /// cut off, as PostgreSQL does.
    ///
    /// Unlike PostgreSQL, numbers beyond 32 bits and positions with too many digits are refused
    /// rather than wrapped, and so is text that is not UTF-8.
    ///
    /// # Errors
    /// When the text is no replication command; [`CommandFault::NotReplicationCommand`] is what
    /// a connection with a database would take for SQL.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Self, CommandError> {
        parser::parse(text.as_ref())
    }
}

impl std::str::FromStr for Command {
    type Err = CommandError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}
