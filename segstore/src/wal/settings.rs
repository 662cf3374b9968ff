//! What records say about the settings of the server, as far as a base backup depends on them.
//!
//! | record | `wal_level` | `full_page_writes` |
//! |---|---|---|
//! | `XLOG_PARAMETER_CHANGE`, on a start with other settings than before | offset 20 | |
//! | `XLOG_FPW_CHANGE` | | offset 0 |
//! | `XLOG_CHECKPOINT_SHUTDOWN`, `XLOG_CHECKPOINT_ONLINE` | offset 20 from 17 on | offset 16 |
//! | `XLOG_CHECKPOINT_REDO`, from 17 on | offset 0 | |
//!
//! The offsets are those in the main data of the record.
//!
//! Source: src/include/access/xlog_internal.h, `xl_parameter_change`;
//! src/include/catalog/pg_control.h, `CheckPoint` and the info values;
//! src/backend/access/transam/xlog.c, `XLogReportParameters` and `UpdateFullPageWrites` (PG 13 to
//! 18).

use walproto::{Lsn, Major};

use crate::wal::record::{RM_XLOG, RecordHeader};
use crate::wal::validator::RecordVisitor;

const XLOG_CHECKPOINT_SHUTDOWN: u8 = 0x00;
const XLOG_CHECKPOINT_ONLINE: u8 = 0x10;
const XLOG_PARAMETER_CHANGE: u8 = 0x60;
const XLOG_FPW_CHANGE: u8 = 0x80;
const XLOG_CHECKPOINT_REDO: u8 = 0xE0;

/// `XLR_BLOCK_ID_DATA_SHORT`, the header of main data of less than 256 bytes, which follows.
const DATA_SHORT: u8 = 0xFF;
/// The length of that header.
const DATA_HEADER: usize = 2;
/// What is read of a record's body.
const LONGEST: usize = DATA_HEADER + 24;

/// `WAL_LEVEL_MINIMAL`.
const MINIMAL: u32 = 0;

/// A setting of the server under which WAL is not enough for a base backup, or for some.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum WeakSetting {
    /// `wal_level = minimal`: some changes are not in the WAL. Archive recovery fails at the record
    /// that says so (src/backend/access/transam/xlogrecovery.c, `CheckRequiredParameterValues`), so
    /// that no base backup from before can be recovered past it.
    MinimalWalLevel,
    /// `full_page_writes = off`: pages that a base backup on a standby copied while they were
    /// written cannot be repaired. A base backup on the primary turns them on for itself.
    NoFullPageWrites,
}

impl WeakSetting {
    const ALL: [Self; 2] = [Self::MinimalWalLevel, Self::NoFullPageWrites];

    const fn index(self) -> usize {
        match self {
            Self::MinimalWalLevel => 0,
            Self::NoFullPageWrites => 1,
        }
    }
}

/// A record by which a weak setting begins or ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SettingChange {
    /// The setting.
    pub setting: WeakSetting,
    /// Where the record starts.
    pub lsn: Lsn,
    /// Whether the setting holds from here on.
    pub begins: bool,
}

/// Which settings hold, as far as records have said so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Settings([Option<bool>; WeakSetting::ALL.len()]);

impl Settings {
    /// What a record changes that starts at `lsn` and says so much.
    pub(crate) fn note(
        &mut self,
        lsn: Lsn,
        said: Self,
    ) -> impl Iterator<Item = SettingChange> + use<> {
        let mut changes = [None; WeakSetting::ALL.len()];
        let places = self.0.iter_mut().zip(&mut changes);
        for ((setting, said), (known, change)) in
            WeakSetting::ALL.into_iter().zip(said.0).zip(places)
        {
            let Some(begins) = said else { continue };
            let before = known.replace(begins);
            // That it does not hold is no news at first.
            if before.unwrap_or(false) != begins {
                *change = Some(SettingChange {
                    setting,
                    lsn,
                    begins,
                });
            }
        }
        changes.into_iter().flatten()
    }

    /// Takes over what is said; whether that is anything new.
    pub(crate) fn learn(&mut self, said: Self) -> bool {
        let before = *self;
        for (known, said) in self.0.iter_mut().zip(said.0) {
            *known = said.or(*known);
        }
        *self != before
    }

    fn with(mut self, setting: WeakSetting, holds: Option<bool>) -> Self {
        if let Some(place) = self.0.get_mut(setting.index()) {
            *place = holds;
        }
        self
    }
}

/// Reads the records that say something about settings, and calls `found` with where each of them
/// starts and what it says.
#[derive(Debug)]
pub(crate) struct SettingsVisitor<'a, F> {
    pub(crate) reader: &'a mut SettingsReader,
    pub(crate) found: F,
}

/// The record that is being read. It may span any number of pushes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SettingsReader {
    /// The kind of the record, `None` for any other record than those above.
    kind: Option<u8>,
    start: Lsn,
    body: [u8; LONGEST],
    have: usize,
    /// Whether checkpoints say `wal_level`.
    since_17: bool,
}

impl SettingsReader {
    /// Of WAL whose pages carry this magic number; what is not known of it is not read.
    pub(crate) fn set_page_magic(&mut self, magic: Option<u16>) {
        let major = magic.and_then(Major::of_page_magic);
        self.since_17 = major.is_some_and(|major| major.number >= 17);
    }

    const fn says_something(header: &RecordHeader) -> bool {
        header.resource_manager == RM_XLOG
            && matches!(
                header.kind(),
                XLOG_CHECKPOINT_SHUTDOWN
                    | XLOG_CHECKPOINT_ONLINE
                    | XLOG_PARAMETER_CHANGE
                    | XLOG_FPW_CHANGE
                    | XLOG_CHECKPOINT_REDO
            )
    }

    fn said(&self) -> Settings {
        let none = Settings::default();
        let minimal = |holds| none.with(WeakSetting::MinimalWalLevel, holds);
        match self.kind {
            Some(XLOG_PARAMETER_CHANGE) => minimal(self.wal_level_at(20)),
            Some(XLOG_CHECKPOINT_REDO) if self.since_17 => minimal(self.wal_level_at(0)),
            Some(XLOG_FPW_CHANGE) => none.with(WeakSetting::NoFullPageWrites, self.off_at(0)),
            Some(XLOG_CHECKPOINT_SHUTDOWN | XLOG_CHECKPOINT_ONLINE) => {
                let level = self.since_17.then(|| self.wal_level_at(20)).flatten();
                minimal(level).with(WeakSetting::NoFullPageWrites, self.off_at(16))
            }
            _ => none,
        }
    }

    fn wal_level_at(&self, offset: usize) -> Option<bool> {
        let bytes = self.data()?.get(offset..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes) == MINIMAL)
    }

    fn off_at(&self, offset: usize) -> Option<bool> {
        Some(*self.data()?.get(offset)? == 0)
    }

    /// The beginning of the main data, `None` if the record begins with anything else.
    fn data(&self) -> Option<&[u8]> {
        let (header, data) = self.body.get(..self.have)?.split_at_checked(DATA_HEADER)?;
        let (&id, &length) = (header.first()?, header.last()?);
        let data = data.get(..data.len().min(usize::from(length)))?;
        (id == DATA_SHORT).then_some(data)
    }
}

impl<F: FnMut(Lsn, Settings)> RecordVisitor for SettingsVisitor<'_, F> {
    #[inline]
    fn begin(&mut self, start: Lsn, header: &RecordHeader) {
        let reader = &mut *self.reader;
        reader.kind = None;
        if SettingsReader::says_something(header) {
            reader.kind = Some(header.kind());
            reader.start = start;
            reader.have = 0;
        }
    }

    #[inline]
    fn body(&mut self, bytes: &[u8]) {
        let reader = &mut *self.reader;
        if reader.kind.is_some()
            && let Some(place) = reader.body.get_mut(reader.have..)
        {
            let count = place.len().min(bytes.len());
            if let (Some(place), Some(bytes)) = (place.get_mut(..count), bytes.get(..count)) {
                place.copy_from_slice(bytes);
                reader.have += count;
            }
        }
    }

    #[inline]
    fn end(&mut self, _: Lsn) {
        if self.reader.kind.is_some() {
            (self.found)(self.reader.start, self.reader.said());
            self.reader.kind = None;
        }
    }

    fn abandon(&mut self) {
        self.reader.kind = None;
    }
}

/// The maximum number of changes that are kept until they are taken.
const MAX_CHANGES: usize = 4;

/// Notes the changes in a stream of WAL, without allocating.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SettingsWatch {
    reader: SettingsReader,
    settings: Settings,
    changes: [Option<SettingChange>; MAX_CHANGES],
}

impl SettingsWatch {
    /// What is to see the records that follow, of WAL whose pages carry this magic number.
    #[inline]
    pub(crate) fn visitor(
        &mut self,
        magic: Option<u16>,
    ) -> SettingsVisitor<'_, impl FnMut(Lsn, Settings)> {
        let Self {
            reader,
            settings,
            changes,
        } = self;
        reader.set_page_magic(magic);
        SettingsVisitor {
            reader,
            found: |lsn, said| {
                for change in settings.note(lsn, said) {
                    // More of them at once than a server makes are left out.
                    if let Some(free) = changes.iter_mut().find(|change| change.is_none()) {
                        *free = Some(change);
                    }
                }
            },
        }
    }

    /// The changes since this was last asked, in their order.
    pub(crate) fn take_changes(&mut self) -> impl Iterator<Item = SettingChange> + use<> {
        std::mem::take(&mut self.changes).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests;
