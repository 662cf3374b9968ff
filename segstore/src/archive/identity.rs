//! Which cluster an archive is of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use walproto::{SegmentSize, SystemId, TimelineHistory, TimelineId};

use crate::archive::checked_json::{self, Refusal};
use crate::archive::directory::{ArchiveDirectory, Place};
use crate::disk::Access;
use crate::error::{ArchiveError, Damage};
use crate::wal::page::BLOCK_SIZE;
use crate::wal::validator::WalFormat;

/// The newest format of archives that this version knows, and the one it writes.
pub const FORMAT_VERSION: u64 = 1;

/// The longest identity file that is read. It grows with the number of timelines.
pub(crate) const MAX_LENGTH: usize = 16 << 20;

/// What a server says about itself that decides whether an archive is its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServerFacts {
    /// Its cluster's system identifier.
    pub system_id: SystemId,
    /// `wal_segment_size`.
    pub segment_size: SegmentSize,
    /// `wal_block_size` in bytes.
    pub block_size: u32,
    /// `server_version_num`, such as 150018.
    pub server_version_num: u32,
    /// `data_directory_mode`, such as 0o700.
    pub data_directory_mode: u32,
}

/// Which cluster an archive is of, and what its WAL looks like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    system_id: SystemId,
    segment_size: SegmentSize,
    page_magic: Option<u16>,
    server_version_num: u32,
    data_directory_mode: u32,
    histories: BTreeMap<TimelineId, ContentSum>,
}

/// What content must have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ContentSum {
    length: u64,
    crc32c: u32,
}

impl ContentSum {
    pub(crate) fn of(content: &[u8]) -> Self {
        Self {
            length: content.len() as u64,
            crc32c: crc32c::crc32c(content),
        }
    }

    pub(crate) fn check(self, content: &[u8]) -> Result<(), Damage> {
        let found = Self::of(content);
        if found.length != self.length {
            return Err(Damage::Length {
                expected: self.length,
                found: found.length,
            });
        }
        if found.crc32c != self.crc32c {
            return Err(Damage::Checksum {
                expected: self.crc32c,
                found: found.crc32c,
            });
        }
        Ok(())
    }
}

impl Identity {
    pub(crate) const fn new(facts: &ServerFacts, page_magic: Option<u16>) -> Self {
        Self {
            system_id: facts.system_id,
            segment_size: facts.segment_size,
            page_magic,
            server_version_num: facts.server_version_num,
            data_directory_mode: facts.data_directory_mode,
            histories: BTreeMap::new(),
        }
    }

    /// The cluster's system identifier.
    #[must_use]
    pub const fn system_id(&self) -> SystemId {
        self.system_id
    }

    /// The size of its WAL segments.
    #[must_use]
    pub const fn segment_size(&self) -> SegmentSize {
        self.segment_size
    }

    /// The magic number of its WAL pages, `None` until a page was seen.
    #[must_use]
    pub const fn page_magic(&self) -> Option<u16> {
        self.page_magic
    }

    /// The `server_version_num` of the server last connected to, such as 150018.
    #[must_use]
    pub const fn server_version_num(&self) -> u32 {
        self.server_version_num
    }

    /// The `data_directory_mode` of the server last connected to, such as 0o700.
    #[must_use]
    pub const fn data_directory_mode(&self) -> u32 {
        self.data_directory_mode
    }

    /// What its WAL looks like.
    #[must_use]
    pub const fn wal_format(&self) -> WalFormat {
        WalFormat {
            system_id: self.system_id,
            segment_size: self.segment_size,
            page_magic: self.page_magic,
            server_version_num: Some(self.server_version_num),
        }
    }

    pub(crate) const fn access(&self) -> Access {
        Access::of_data_directory(self.data_directory_mode)
    }

    pub(crate) const fn set_page_magic(&mut self, magic: u16) {
        self.page_magic = Some(magic);
    }

    /// Takes over what may change in the life of a cluster.
    pub(crate) const fn update(&mut self, facts: &ServerFacts) {
        self.server_version_num = facts.server_version_num;
        self.data_directory_mode = facts.data_directory_mode;
    }

    pub(crate) fn history_sum(&self, timeline: TimelineId) -> Option<ContentSum> {
        self.histories.get(&timeline).copied()
    }

    /// The timelines whose histories were kept.
    pub(crate) fn recorded_histories(&self) -> impl Iterator<Item = TimelineId> {
        self.histories.keys().copied()
    }

    pub(crate) fn record_history(&mut self, history: &TimelineHistory) {
        let sum = ContentSum::of(history.content());
        self.histories.insert(history.timeline(), sum);
    }

    /// Reads the identity of an archive, `None` when it has none yet.
    pub(crate) fn load(directory: &ArchiveDirectory) -> Result<Option<Self>, ArchiveError> {
        let path = directory.own(Place::Identity);
        let Some(content) = directory.read(&path, MAX_LENGTH)? else {
            return Ok(None);
        };
        match decode(&content) {
            Ok(identity) => Ok(Some(identity)),
            Err(refusal) => Err(refusal.of(&path, FORMAT_VERSION)),
        }
    }

    /// Makes the identity durable.
    pub(crate) fn save(&self, directory: &ArchiveDirectory) -> Result<(), ArchiveError> {
        let path = directory.own(Place::Identity);
        let content = encode(self).map_err(|error| ArchiveError::Damaged {
            path: path.clone(),
            reason: Damage::Json(error),
        })?;
        Ok(directory.replace(&path, &content)?)
    }
}

/// What the file is said to hold.
const CONTENT: &str = "identity";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredIdentity {
    // Texts where many a JSON reader would lose bits of a number, or people the octal form.
    system_identifier: String,
    wal_segment_size: u64,
    wal_block_size: u64,
    xlog_page_magic: Option<u16>,
    server_version_num: u32,
    data_directory_mode: String,
    histories: Vec<StoredHistory>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredHistory {
    timeline: u32,
    length: u64,
    crc32c: u32,
}

fn encode(identity: &Identity) -> Result<Vec<u8>, serde_json::Error> {
    let histories = identity
        .histories
        .iter()
        .map(|(timeline, sum)| StoredHistory {
            timeline: timeline.number(),
            length: sum.length,
            crc32c: sum.crc32c,
        });
    let stored = StoredIdentity {
        system_identifier: identity.system_id.to_string(),
        wal_segment_size: identity.segment_size.bytes(),
        wal_block_size: BLOCK_SIZE,
        xlog_page_magic: identity.page_magic,
        server_version_num: identity.server_version_num,
        data_directory_mode: format!("{:04o}", identity.data_directory_mode),
        histories: histories.collect(),
    };
    checked_json::encode(CONTENT, FORMAT_VERSION, &stored)
}

fn decode(content: &[u8]) -> Result<Identity, Refusal> {
    let stored: StoredIdentity = checked_json::decode(CONTENT, FORMAT_VERSION, content)?;
    stored
        .into_identity()
        .map_err(|field| Refusal::Damage(Damage::Value { field }))
}

impl StoredIdentity {
    /// Checks every value; the error is the name of the one that is out of range.
    fn into_identity(self) -> Result<Identity, &'static str> {
        if self.wal_block_size != BLOCK_SIZE {
            return Err("wal_block_size");
        }
        let histories = self.histories.iter().map(|history| {
            let timeline = TimelineId::new(history.timeline)?;
            let sum = ContentSum {
                length: history.length,
                crc32c: history.crc32c,
            };
            Some((timeline, sum))
        });
        let mode = u32::from_str_radix(&self.data_directory_mode, 8).ok();
        Ok(Identity {
            system_id: self
                .system_identifier
                .parse()
                .ok()
                .ok_or("system_identifier")?,
            segment_size: SegmentSize::new(self.wal_segment_size)
                .ok()
                .ok_or("wal_segment_size")?,
            page_magic: self.xlog_page_magic,
            server_version_num: self.server_version_num,
            data_directory_mode: mode.ok_or("data_directory_mode")?,
            histories: histories.collect::<Option<_>>().ok_or("histories")?,
        })
    }
}

#[cfg(test)]
mod tests;
