//! The files of slots, `slots/NAME` in our own subdirectory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use walproto::copy_data::EpochXid;
use walproto::{SlotName, TimelineId, WalPosition};

use super::SlotData;
use crate::archive::checked_json::{self, Refusal};
use crate::archive::directory::{ArchiveDirectory, Place, UNFINISHED};
use crate::error::{ArchiveError, Damage};

/// The newest format of slots that this version knows, and the one it writes.
const FORMAT_VERSION: u64 = 1;

/// What such a file is said to hold.
const CONTENT: &str = "slot";

/// The longest file that is read.
const MAX_LENGTH: usize = 4096;

/// What the file of a slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stored {
    pub(super) temporary: bool,
    pub(super) data: SlotData,
}

/// The directory of the slots' files.
#[derive(Debug)]
pub(super) struct SlotFiles {
    directory: ArchiveDirectory,
}

impl SlotFiles {
    pub(super) const fn new(directory: ArchiveDirectory) -> Self {
        Self { directory }
    }

    /// Reads all slots, as the process that keeps them. What a crash left unfinished is removed,
    /// and so are temporary slots, whose sessions are gone.
    pub(super) fn load(&self) -> Result<BTreeMap<SlotName, SlotData>, ArchiveError> {
        let place = self.directory.own(Place::Slots);
        for entry in self.directory.list(&place)? {
            if is_unfinished(&entry.name) {
                self.directory.remove(&place.join(&entry.name))?;
            }
        }
        let (temporary, slots): (BTreeMap<_, _>, BTreeMap<_, _>) = self
            .read()?
            .into_iter()
            .partition(|(_, stored)| stored.temporary);
        for name in temporary.into_keys() {
            self.directory.remove(&self.path(name))?;
        }
        // A crash of the process may have come before.
        self.directory.sync(&place)?;
        let slots = slots.into_iter();
        Ok(slots.map(|(name, stored)| (name, stored.data)).collect())
    }

    /// Reads all slots, which another process may keep at the same time, and changes nothing.
    pub(super) fn read(&self) -> Result<BTreeMap<SlotName, Stored>, ArchiveError> {
        let place = self.directory.own(Place::Slots);
        let entries = match self.directory.list(&place) {
            // No slot was ever created here.
            Err(error) if error.is_not_found() => Vec::new(),
            entries => entries?,
        };
        let mut slots = BTreeMap::new();
        for entry in entries {
            let path = place.join(&entry.name);
            if is_unfinished(&entry.name) {
                continue;
            }
            let name = entry.name.to_str().and_then(|name| name.parse().ok());
            let (Some(name), true) = (name, entry.is_file) else {
                return Err(ArchiveError::Damaged {
                    path,
                    reason: Damage::SlotName,
                });
            };
            // Otherwise it was dropped meanwhile.
            if let Some(content) = self.directory.read(&path, MAX_LENGTH)? {
                let stored = decode(&name, &content);
                let stored = stored.map_err(|refusal| refusal.of(&path, FORMAT_VERSION))?;
                slots.insert(name, stored);
            }
        }
        Ok(slots)
    }

    /// Makes a slot durable, in the place of what there is of it.
    pub(super) fn write(&self, name: &SlotName, stored: &Stored) -> Result<(), ArchiveError> {
        let path = self.path(name);
        let content = encode(name, stored).map_err(|error| ArchiveError::Damaged {
            path: path.clone(),
            reason: Damage::Json(error),
        })?;
        Ok(self.directory.replace_beside(&path, &content)?)
    }

    /// Removes a slot, durably.
    pub(super) fn remove(&self, name: &SlotName) -> Result<(), ArchiveError> {
        self.directory.remove(&self.path(name))?;
        Ok(self.directory.sync(&self.directory.own(Place::Slots))?)
    }

    fn path(&self, name: impl std::fmt::Display) -> PathBuf {
        self.directory.own_file(Place::Slots, name)
    }
}

fn is_unfinished(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.ends_with(UNFINISHED))
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSlot {
    name: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    temporary: bool,
    restart: Option<StoredPosition>,
    xmin: Option<StoredXid>,
    catalog_xmin: Option<StoredXid>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPosition {
    timeline: u32,
    lsn: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredXid {
    epoch: u32,
    xid: u32,
}

pub(super) fn encode(name: &SlotName, stored: &Stored) -> Result<Vec<u8>, serde_json::Error> {
    let data = stored.data;
    let xid = |xid: EpochXid| StoredXid {
        epoch: xid.epoch,
        xid: xid.xid,
    };
    let stored = StoredSlot {
        name: name.to_string(),
        temporary: stored.temporary,
        restart: data.restart.map(|restart| StoredPosition {
            timeline: restart.timeline.number(),
            lsn: restart.lsn.to_string(),
        }),
        xmin: data.xmin.map(xid),
        catalog_xmin: data.catalog_xmin.map(xid),
    };
    checked_json::encode(CONTENT, FORMAT_VERSION, &stored)
}

pub(super) fn decode(name: &SlotName, content: &[u8]) -> Result<Stored, Refusal> {
    let stored: StoredSlot = checked_json::decode(CONTENT, FORMAT_VERSION, content)?;
    let out_of_range = |field| Refusal::Damage(Damage::Value { field });
    if stored.name != name.as_str() {
        return Err(out_of_range("name"));
    }
    let position = |stored: StoredPosition| {
        Some(WalPosition {
            timeline: TimelineId::new(stored.timeline)?,
            lsn: stored.lsn.parse().ok()?,
        })
    };
    let restart = match stored.restart {
        Some(restart) => Some(position(restart).ok_or_else(|| out_of_range("restart"))?),
        None => None,
    };
    let xid = |stored: StoredXid| EpochXid {
        epoch: stored.epoch,
        xid: stored.xid,
    };
    let data = SlotData {
        restart,
        xmin: stored.xmin.map(xid),
        catalog_xmin: stored.catalog_xmin.map(xid),
    };
    Ok(Stored {
        temporary: stored.temporary,
        data,
    })
}
