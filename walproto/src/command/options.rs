//! The options of commands: from a list of names and values to what they mean.
//!
//! Source: src/backend/replication/walsender.c, `parseCreateReplSlotOptions` and
//! `ParseAlterReplSlotOptions`, src/backend/backup/basebackup.c, `parse_basebackup_options`, and
//! src/backend/commands/define.c (PG 15 to 18).

use super::error::{CommandError, CommandFault, Found};
use super::{
    BackupCompression, BackupManifest, BackupTarget, BaseBackup, Checkpoint, CompressionAlgorithm,
    Identifier, Literal, ManifestChecksums, MaxRate, NewSlot, SnapshotAction,
};

/// An option as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct GivenOption {
    /// The offset of its name, in bytes.
    pub(super) position: usize,
    pub(super) name: String,
    pub(super) value: Option<Value>,
}

/// The value of an option as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Value {
    Text(String),
    Number(u32),
}

/// What follows the keyword of an option in the old syntax.
pub(super) enum KeywordValue {
    /// Nothing: the keyword stands for this value.
    Fixed(Option<Value>),
    /// A text.
    Literal,
    /// A number.
    Number,
}

impl GivenOption {
    pub(super) fn keyword(position: usize, name: &'static str, value: Option<Value>) -> Self {
        Self {
            position,
            name: name.to_owned(),
            value,
        }
    }

    /// Stores the option's value, and refuses a second one.
    fn set<T>(
        &self,
        place: &mut Option<T>,
        option: &'static str,
        read: impl FnOnce(&Self, &'static str) -> Result<T, CommandError>,
    ) -> Result<(), CommandError> {
        if place.is_some() {
            return Err(self.fault(CommandFault::DuplicateOption { option }));
        }
        *place = Some(read(self, option)?);
        Ok(())
    }

    /// `defGetBoolean`: no value is true.
    fn boolean(&self, option: &'static str) -> Result<bool, CommandError> {
        match &self.value {
            None | Some(Value::Number(1)) => Ok(true),
            Some(Value::Number(0)) => Ok(false),
            Some(Value::Text(text)) if is_any(text, &["true", "on"]) => Ok(true),
            Some(Value::Text(text)) if is_any(text, &["false", "off"]) => Ok(false),
            Some(Value::Text(_) | Value::Number(_)) => {
                Err(self.invalid(option, "true, false, on, off, 1 or 0"))
            }
        }
    }

    /// `defGetString`: a number is taken for its digits.
    fn text(&self, option: &'static str) -> Result<String, CommandError> {
        match &self.value {
            Some(Value::Text(text)) => Ok(text.clone()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            None => Err(self.invalid(option, "a value")),
        }
    }

    fn literal(&self, option: &'static str) -> Result<Literal, CommandError> {
        self.text(option).map(Literal::from_checked)
    }

    fn snapshot(&self, option: &'static str) -> Result<SnapshotAction, CommandError> {
        match self.text(option)?.as_str() {
            "export" => Ok(SnapshotAction::Export),
            "nothing" => Ok(SnapshotAction::Nothing),
            "use" => Ok(SnapshotAction::Use),
            _ => Err(self.invalid(option, "export, nothing or use")),
        }
    }

    fn checkpoint(&self, option: &'static str) -> Result<Checkpoint, CommandError> {
        match self.text(option)? {
            text if is_any(&text, &["fast"]) => Ok(Checkpoint::Fast),
            text if is_any(&text, &["spread"]) => Ok(Checkpoint::Spread),
            _ => Err(self.invalid(option, "fast or spread")),
        }
    }

    fn max_rate(&self, option: &'static str) -> Result<MaxRate, CommandError> {
        match self.value {
            Some(Value::Number(rate)) => MaxRate::new(rate).ok(),
            Some(Value::Text(_)) | None => None,
        }
        .ok_or_else(|| self.invalid(option, "a number from 32 to 1048576"))
    }

    /// Whether there is a manifest, and then whether it encodes all names.
    fn manifest(&self, option: &'static str) -> Result<Option<bool>, CommandError> {
        let text = self.text(option)?;
        match parse_bool(&text) {
            Some(true) => Ok(Some(false)),
            Some(false) => Ok(None),
            None if is_any(&text, &["force-encode"]) => Ok(Some(true)),
            None => Err(self.invalid(option, "yes, no or force-encode")),
        }
    }

    fn checksums(&self, option: &'static str) -> Result<ManifestChecksums, CommandError> {
        let text = self.text(option)?;
        ManifestChecksums::ALL
            .into_iter()
            .find(|algorithm| is_any(&text, &[algorithm.name()]))
            .ok_or_else(|| self.invalid(option, "none, crc32c, sha224, sha256, sha384 or sha512"))
    }

    fn compression(&self, option: &'static str) -> Result<CompressionAlgorithm, CommandError> {
        let text = self.text(option)?;
        CompressionAlgorithm::ALL
            .into_iter()
            .find(|algorithm| text == algorithm.name())
            .ok_or_else(|| self.invalid(option, "none, gzip, lz4 or zstd"))
    }

    fn invalid(&self, option: &'static str, expected: &'static str) -> CommandError {
        let found = match &self.value {
            Some(Value::Text(text)) => Found::text(text),
            Some(Value::Number(number)) => Found::Text(number.to_string()),
            None => Found::NoValue,
        };
        self.fault(CommandFault::InvalidValue {
            option,
            expected,
            found,
        })
    }

    fn unknown(&self, command: &'static str) -> CommandError {
        self.fault(CommandFault::UnknownOption {
            command,
            option: self.name.chars().take(64).collect(),
        })
    }

    const fn fault(&self, reason: CommandFault) -> CommandError {
        CommandError::new(self.position, reason)
    }
}

/// The keyword of an option of a new slot in the old syntax.
pub(super) fn slot_keyword(word: &str) -> Option<(&'static str, Option<Value>)> {
    let snapshot = |action: &str| Some(("snapshot", Some(Value::Text(action.to_owned()))));
    match word {
        "EXPORT_SNAPSHOT" => snapshot("export"),
        "NOEXPORT_SNAPSHOT" => snapshot("nothing"),
        "USE_SNAPSHOT" => snapshot("use"),
        "RESERVE_WAL" => Some(("reserve_wal", None)),
        "TWO_PHASE" => Some(("two_phase", None)),
        _ => None,
    }
}

/// The keyword of an option of a base backup in the old syntax.
///
/// Source: src/backend/replication/repl_gram.y, `base_backup_opt` (PG 14).
pub(super) fn backup_keyword(word: &str) -> Option<(&'static str, KeywordValue)> {
    let off = || KeywordValue::Fixed(Some(Value::Number(0)));
    Some(match word {
        "LABEL" => ("label", KeywordValue::Literal),
        "PROGRESS" => ("progress", KeywordValue::Fixed(None)),
        "FAST" => {
            let fast = Value::Text("fast".to_owned());
            ("checkpoint", KeywordValue::Fixed(Some(fast)))
        }
        "WAL" => ("wal", KeywordValue::Fixed(None)),
        "NOWAIT" => ("wait", off()),
        "MAX_RATE" => ("max_rate", KeywordValue::Number),
        "TABLESPACE_MAP" => ("tablespace_map", KeywordValue::Fixed(None)),
        "NOVERIFY_CHECKSUMS" => ("verify_checksums", off()),
        "MANIFEST" => ("manifest", KeywordValue::Literal),
        "MANIFEST_CHECKSUMS" => ("manifest_checksums", KeywordValue::Literal),
        _ => return None,
    })
}

pub(super) fn physical_slot(given: Vec<GivenOption>) -> Result<NewSlot, CommandError> {
    let mut reserve_wal = None;
    for option in given {
        match option.name.as_str() {
            "reserve_wal" => {
                option.set(&mut reserve_wal, "reserve_wal", GivenOption::boolean)?;
            }
            "snapshot" => return Err(other_kind(&option, "snapshot", "physical")),
            "two_phase" => return Err(other_kind(&option, "two_phase", "physical")),
            "failover" => return Err(other_kind(&option, "failover", "physical")),
            _ => return Err(option.unknown("CREATE_REPLICATION_SLOT")),
        }
    }
    Ok(NewSlot::Physical {
        reserve_wal: reserve_wal.unwrap_or(false),
    })
}

pub(super) fn logical_slot(
    plugin: Identifier,
    given: Vec<GivenOption>,
) -> Result<NewSlot, CommandError> {
    let (mut snapshot, mut two_phase, mut failover) = (None, None, None);
    for option in given {
        match option.name.as_str() {
            "snapshot" => option.set(&mut snapshot, "snapshot", GivenOption::snapshot)?,
            "two_phase" => option.set(&mut two_phase, "two_phase", GivenOption::boolean)?,
            "failover" => option.set(&mut failover, "failover", GivenOption::boolean)?,
            "reserve_wal" => return Err(other_kind(&option, "reserve_wal", "logical")),
            _ => return Err(option.unknown("CREATE_REPLICATION_SLOT")),
        }
    }
    Ok(NewSlot::Logical {
        plugin,
        snapshot: snapshot.unwrap_or_default(),
        two_phase: two_phase.unwrap_or(false),
        failover: failover.unwrap_or(false),
    })
}

const fn other_kind(given: &GivenOption, option: &'static str, kind: &'static str) -> CommandError {
    given.fault(CommandFault::OptionOfOtherKind { option, kind })
}

/// What `ALTER_REPLICATION_SLOT` says about failover and about two-phase commit.
pub(super) fn altered_slot(
    given: Vec<GivenOption>,
) -> Result<(Option<bool>, Option<bool>), CommandError> {
    let (mut failover, mut two_phase) = (None, None);
    for option in given {
        match option.name.as_str() {
            "failover" => option.set(&mut failover, "failover", GivenOption::boolean)?,
            "two_phase" => option.set(&mut two_phase, "two_phase", GivenOption::boolean)?,
            _ => return Err(option.unknown("ALTER_REPLICATION_SLOT")),
        }
    }
    Ok((failover, two_phase))
}

/// The options of a base backup before those that belong together are joined.
#[derive(Default)]
struct BackupOptions {
    label: Option<Literal>,
    progress: Option<bool>,
    checkpoint: Option<Checkpoint>,
    wal: Option<bool>,
    wait: Option<bool>,
    max_rate: Option<MaxRate>,
    tablespace_map: Option<bool>,
    verify_checksums: Option<bool>,
    manifest: Option<Option<bool>>,
    manifest_checksums: Option<ManifestChecksums>,
    target: Option<Literal>,
    target_detail: Option<Literal>,
    compression: Option<CompressionAlgorithm>,
    compression_detail: Option<Literal>,
    incremental: Option<bool>,
}

impl BackupOptions {
    fn take(&mut self, o: &GivenOption) -> Result<(), CommandError> {
        use GivenOption as G;
        match o.name.as_str() {
            "label" => o.set(&mut self.label, "label", G::literal),
            "progress" => o.set(&mut self.progress, "progress", G::boolean),
            "checkpoint" => o.set(&mut self.checkpoint, "checkpoint", G::checkpoint),
            "wal" => o.set(&mut self.wal, "wal", G::boolean),
            "wait" => o.set(&mut self.wait, "wait", G::boolean),
            "max_rate" => o.set(&mut self.max_rate, "max_rate", G::max_rate),
            "tablespace_map" => o.set(&mut self.tablespace_map, "tablespace_map", G::boolean),
            "verify_checksums" => o.set(&mut self.verify_checksums, "verify_checksums", G::boolean),
            "manifest" => o.set(&mut self.manifest, "manifest", G::manifest),
            "manifest_checksums" => {
                let place = &mut self.manifest_checksums;
                o.set(place, "manifest_checksums", G::checksums)
            }
            "target" => o.set(&mut self.target, "target", G::literal),
            "target_detail" => o.set(&mut self.target_detail, "target_detail", G::literal),
            "compression" => o.set(&mut self.compression, "compression", G::compression),
            "compression_detail" => {
                let place = &mut self.compression_detail;
                o.set(place, "compression_detail", G::literal)
            }
            "incremental" => o.set(&mut self.incremental, "incremental", G::boolean),
            _ => Err(o.unknown("BASE_BACKUP")),
        }
    }
}

pub(super) fn base_backup(given: Vec<GivenOption>) -> Result<BaseBackup, CommandError> {
    let mut options = BackupOptions::default();
    for option in &given {
        options.take(option)?;
    }
    let alone = |option: &'static str, needed| {
        let given = given.iter().find(|o| o.name == option);
        let position = given.map_or(0, |o| o.position);
        CommandError::new(position, CommandFault::OptionNeedsOther { option, needed })
    };
    let manifest = match (options.manifest.flatten(), options.manifest_checksums) {
        (Some(force_encode), checksums) => Some(BackupManifest {
            force_encode,
            checksums: checksums.unwrap_or_default(),
        }),
        (None, None) => None,
        (None, Some(_)) => return Err(alone("manifest_checksums", "manifest")),
    };
    let target = match (options.target, options.target_detail) {
        (Some(name), detail) => Some(BackupTarget { name, detail }),
        (None, None) => None,
        (None, Some(_)) => return Err(alone("target_detail", "target")),
    };
    let compression = match (options.compression, options.compression_detail) {
        (Some(algorithm), detail) => Some(BackupCompression { algorithm, detail }),
        (None, None) => None,
        (None, Some(_)) => return Err(alone("compression_detail", "compression")),
    };
    let unsaid = BaseBackup::default();
    Ok(BaseBackup {
        label: options.label.unwrap_or(unsaid.label),
        progress: options.progress.unwrap_or(unsaid.progress),
        checkpoint: options.checkpoint.unwrap_or(unsaid.checkpoint),
        wal: options.wal.unwrap_or(unsaid.wal),
        wait: options.wait.unwrap_or(unsaid.wait),
        max_rate: options.max_rate,
        tablespace_map: options.tablespace_map.unwrap_or(unsaid.tablespace_map),
        verify_checksums: options.verify_checksums.unwrap_or(unsaid.verify_checksums),
        manifest,
        target,
        compression,
        incremental: options.incremental.unwrap_or(unsaid.incremental),
    })
}

fn is_any(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// A truth value as PostgreSQL reads one: the words can be shortened as long as they are unique.
///
/// Source: src/backend/utils/adt/bool.c, `parse_bool_with_len` (PG 15).
fn parse_bool(text: &str) -> Option<bool> {
    let shortens = |word: &str, shortest: usize| {
        text.len() >= shortest
            && word
                .get(..text.len())
                .is_some_and(|start| text.eq_ignore_ascii_case(start))
    };
    if shortens("true", 1) || shortens("yes", 1) || shortens("on", 2) || text == "1" {
        Some(true)
    } else if shortens("false", 1) || shortens("no", 1) || shortens("off", 2) || text == "0" {
        Some(false)
    } else {
        None
    }
}
