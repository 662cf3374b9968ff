//! The text of replication commands.

use std::fmt;

use super::base_backup::{BaseBackup, Checkpoint};
use super::{
    Command, CreateReplicationSlot, Identifier, NewSlot, PluginOption, SlotChange, SnapshotAction,
};
use crate::{Lsn, Major, ServerVersion};

/// Why a command cannot be sent to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandNotSent {
    /// The server is too old for it.
    #[error("{what} needs PostgreSQL {} or later, the server is {server}", since.major())]
    ServerTooOld {
        /// The command or option.
        what: &'static str,
        /// The first version that has it.
        since: ServerVersion,
        /// The server's version.
        server: ServerVersion,
    },
    /// The text is longer than a server of ours would take.
    #[error("the command has {length} bytes, the limit is {}", Command::MAX_LENGTH)]
    TooLong {
        /// The length of the text in bytes.
        length: usize,
    },
}

/// Which syntax the options of a command are written in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Syntax {
    /// Keywords in a row: to 14.
    Keywords,
    /// A list in parentheses: from 15 on.
    Parentheses,
}

impl Command {
    /// The command as a server of this version reads it.
    ///
    /// # Errors
    /// When the server does not know the command or one of its options, or the text is longer
    /// than [`Command::MAX_LENGTH`].
    pub fn for_server(&self, server: ServerVersion) -> Result<String, CommandNotSent> {
        for (what, since) in self.needs().into_iter().flatten() {
            if server < since {
                return Err(CommandNotSent::ServerTooOld {
                    what,
                    since,
                    server,
                });
            }
        }
        let syntax = if server < ServerVersion::V15 {
            Syntax::Keywords
        } else {
            Syntax::Parentheses
        };
        let text = Text(self, syntax).to_string();
        if text.len() > Self::MAX_LENGTH {
            return Err(CommandNotSent::TooLong { length: text.len() });
        }
        Ok(text)
    }

    /// What of the command only some versions have, and the first that has it.
    fn needs(&self) -> [Option<(&'static str, ServerVersion)>; 3] {
        use ServerVersion as V;
        let all = |needed: bool, what, since| needed.then_some((what, since));
        let command = |word: &'static str| {
            let since = Major::since_command(word.as_bytes());
            since.map(|since| (word, since.first_release()))
        };
        match self {
            Self::ReadReplicationSlot(_) => [command("READ_REPLICATION_SLOT"), None, None],
            Self::UploadManifest => [command("UPLOAD_MANIFEST"), None, None],
            Self::AlterReplicationSlot { change, .. } => {
                let failover_only = matches!(change, SlotChange::Failover(_));
                let two_phase = "ALTER_REPLICATION_SLOT with two_phase";
                [
                    command("ALTER_REPLICATION_SLOT"),
                    all(!failover_only, two_phase, V::V18),
                    None,
                ]
            }
            Self::CreateReplicationSlot(CreateReplicationSlot {
                kind:
                    NewSlot::Logical {
                        two_phase,
                        failover,
                        ..
                    },
                ..
            }) => [
                all(*failover, "a slot with failover", V::V17),
                all(*two_phase, "a slot with two_phase", V::V15),
                None,
            ],
            Self::BaseBackup(backup) => [
                all(backup.incremental, "an incremental base backup", V::V17),
                all(backup.target.is_some(), "a base backup's target", V::V15),
                all(
                    backup.compression.is_some(),
                    "a base backup's compression by the server",
                    V::V15,
                ),
            ],
            Self::IdentifySystem
            | Self::Show(_)
            | Self::TimelineHistory(_)
            | Self::CreateReplicationSlot(_)
            | Self::DropReplicationSlot { .. }
            | Self::StartReplication { .. }
            | Self::StartLogicalReplication { .. } => [None; 3],
        }
    }
}

/// The command as the newest server reads it.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Text(self, Syntax::Parentheses).fmt(f)
    }
}

/// The text of a command. Names of slots are in quotes always, other names where they need
/// them: so do libpq's clients, and servers that are not PostgreSQL know their texts.
struct Text<'a>(&'a Command, Syntax);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Command::IdentifySystem => f.write_str("IDENTIFY_SYSTEM"),
            Command::Show(name) => write!(f, "SHOW {name}"),
            Command::TimelineHistory(timeline) => write!(f, "TIMELINE_HISTORY {timeline}"),
            Command::CreateReplicationSlot(create) => write_create(f, create, self.1),
            Command::ReadReplicationSlot(slot) => write!(f, "READ_REPLICATION_SLOT {slot}"),
            Command::AlterReplicationSlot { slot, change } => write_alter(f, slot, *change),
            Command::DropReplicationSlot { slot, wait } => {
                let wait = if *wait { " WAIT" } else { "" };
                write!(f, "DROP_REPLICATION_SLOT {}{wait}", slot.quoted())
            }
            Command::StartReplication {
                slot,
                start,
                timeline,
            } => {
                f.write_str("START_REPLICATION")?;
                if let Some(slot) = slot {
                    write!(f, " SLOT {}", slot.quoted())?;
                }
                write!(f, " {start}")?;
                if let Some(timeline) = timeline {
                    write!(f, " TIMELINE {timeline}")?;
                }
                Ok(())
            }
            Command::StartLogicalReplication {
                slot,
                start,
                options,
            } => write_start_logical(f, slot, *start, options),
            Command::BaseBackup(backup) => write_base_backup(f, backup, self.1),
            Command::UploadManifest => f.write_str("UPLOAD_MANIFEST"),
        }
    }
}

fn write_create(
    f: &mut fmt::Formatter<'_>,
    create: &CreateReplicationSlot,
    syntax: Syntax,
) -> fmt::Result {
    let temporary = if create.temporary { " TEMPORARY" } else { "" };
    write!(
        f,
        "CREATE_REPLICATION_SLOT {}{temporary}",
        create.slot.quoted()
    )?;
    let mut options = OptionList::new(f, syntax);
    match &create.kind {
        NewSlot::Physical { reserve_wal } => {
            options.f.write_str(" PHYSICAL")?;
            if *reserve_wal {
                options.add(format_args!("RESERVE_WAL"))?;
            }
        }
        NewSlot::Logical {
            plugin,
            snapshot,
            two_phase,
            failover,
        } => {
            write!(options.f, " LOGICAL {plugin}")?;
            let (keyword, value) = match snapshot {
                SnapshotAction::Export => ("EXPORT_SNAPSHOT", "SNAPSHOT 'export'"),
                SnapshotAction::Nothing => ("NOEXPORT_SNAPSHOT", "SNAPSHOT 'nothing'"),
                SnapshotAction::Use => ("USE_SNAPSHOT", "SNAPSHOT 'use'"),
            };
            options.add_either(keyword, value)?;
            if *two_phase {
                options.add(format_args!("TWO_PHASE"))?;
            }
            if *failover {
                options.add(format_args!("FAILOVER"))?;
            }
        }
    }
    options.end()
}

fn write_alter(f: &mut fmt::Formatter<'_>, slot: &Identifier, change: SlotChange) -> fmt::Result {
    write!(f, "ALTER_REPLICATION_SLOT {} ", slot.quoted())?;
    match change {
        SlotChange::Failover(failover) => write!(f, "(FAILOVER {failover})"),
        SlotChange::TwoPhase(two_phase) => write!(f, "(TWO_PHASE {two_phase})"),
        SlotChange::FailoverAndTwoPhase {
            failover,
            two_phase,
        } => write!(f, "(FAILOVER {failover}, TWO_PHASE {two_phase})"),
    }
}

fn write_start_logical(
    f: &mut fmt::Formatter<'_>,
    slot: &Identifier,
    start: Lsn,
    options: &[PluginOption],
) -> fmt::Result {
    write!(
        f,
        "START_REPLICATION SLOT {} LOGICAL {start}",
        slot.quoted()
    )?;
    let mut list = OptionList::new(f, Syntax::Parentheses);
    for option in options {
        let name = option.name.quoted();
        match &option.value {
            Some(value) => list.add(format_args!("{name} {value}"))?,
            None => list.add(format_args!("{name}"))?,
        }
    }
    list.end()
}

/// Says only what differs from what a server does unasked; but the label always.
fn write_base_backup(
    f: &mut fmt::Formatter<'_>,
    backup: &BaseBackup,
    syntax: Syntax,
) -> fmt::Result {
    f.write_str("BASE_BACKUP")?;
    let mut options = OptionList::new(f, syntax);
    options.add(format_args!("LABEL {}", backup.label))?;
    if backup.progress {
        options.add(format_args!("PROGRESS"))?;
    }
    if backup.wal {
        options.add(format_args!("WAL"))?;
    }
    if backup.checkpoint == Checkpoint::Fast {
        options.add_either("FAST", "CHECKPOINT 'fast'")?;
    }
    if !backup.wait {
        options.add_either("NOWAIT", "WAIT 0")?;
    }
    if let Some(rate) = backup.max_rate {
        options.add(format_args!("MAX_RATE {}", rate.kib_per_second()))?;
    }
    if backup.tablespace_map {
        options.add(format_args!("TABLESPACE_MAP"))?;
    }
    if !backup.verify_checksums {
        options.add_either("NOVERIFY_CHECKSUMS", "VERIFY_CHECKSUMS 0")?;
    }
    if let Some(manifest) = &backup.manifest {
        let kind = if manifest.force_encode {
            "force-encode"
        } else {
            "yes"
        };
        options.add(format_args!("MANIFEST '{kind}'"))?;
        let checksums = manifest.checksums.name();
        options.add(format_args!("MANIFEST_CHECKSUMS '{checksums}'"))?;
    }
    if let Some(target) = &backup.target {
        options.add(format_args!("TARGET {}", target.name))?;
        if let Some(detail) = &target.detail {
            options.add(format_args!("TARGET_DETAIL {detail}"))?;
        }
    }
    if let Some(compression) = &backup.compression {
        let algorithm = compression.algorithm.name();
        options.add(format_args!("COMPRESSION '{algorithm}'"))?;
        if let Some(detail) = &compression.detail {
            options.add(format_args!("COMPRESSION_DETAIL {detail}"))?;
        }
    }
    if backup.incremental {
        options.add(format_args!("INCREMENTAL"))?;
    }
    options.end()
}

/// Writes options in one of the two syntaxes; an empty list is left out.
struct OptionList<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    syntax: Syntax,
    empty: bool,
}

impl<'a, 'b> OptionList<'a, 'b> {
    const fn new(f: &'a mut fmt::Formatter<'b>, syntax: Syntax) -> Self {
        Self {
            f,
            syntax,
            empty: true,
        }
    }

    fn add(&mut self, option: fmt::Arguments<'_>) -> fmt::Result {
        self.f.write_str(match (self.syntax, self.empty) {
            (Syntax::Keywords, _) => " ",
            (Syntax::Parentheses, true) => " (",
            (Syntax::Parentheses, false) => ", ",
        })?;
        self.empty = false;
        self.f.write_fmt(option)
    }

    /// Adds an option that the two syntaxes spell differently.
    fn add_either(&mut self, keyword: &str, parenthesised: &str) -> fmt::Result {
        match self.syntax {
            Syntax::Keywords => self.add(format_args!("{keyword}")),
            Syntax::Parentheses => self.add(format_args!("{parenthesised}")),
        }
    }

    fn end(self) -> fmt::Result {
        if self.empty || self.syntax == Syntax::Keywords {
            return Ok(());
        }
        self.f.write_str(")")
    }
}
