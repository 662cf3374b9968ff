//! Small JSON files that say which format they are in and carry a checksum.
//!
//! ```json
//! {"format_version":1,"crc32c":1234567890,"NAME":{...}}
//! ```
//!
//! The checksum is that of the text of the content as it stands. `NAME` says what the file holds.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::error::{ArchiveError, Damage};

/// Why a file is not taken.
pub(crate) enum Refusal {
    /// Another version wrote it.
    Format(u64),
    Damage(Damage),
}

impl Refusal {
    /// As an error about the file at `path`; `known` is the newest format that is known.
    pub(crate) fn of(self, path: &Path, known: u64) -> ArchiveError {
        let path = path.to_owned();
        match self {
            Self::Format(found) => ArchiveError::UnknownFormat { path, found, known },
            Self::Damage(reason) => ArchiveError::Damaged { path, reason },
        }
    }
}

impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        Self::Damage(Damage::Json(error))
    }
}

/// The text of a file that holds `content` under `name`, an identifier.
pub(crate) fn encode<T: Serialize>(
    name: &str,
    format_version: u64,
    content: &T,
) -> Result<Vec<u8>, serde_json::Error> {
    let inner = serde_json::to_string(content)?;
    let checksum = crc32c::crc32c(inner.as_bytes());
    let text = format!(
        "{{\"format_version\":{format_version},\"crc32c\":{checksum},\"{name}\":{inner}}}\n"
    );
    Ok(text.into_bytes())
}

/// The content under `name` of a file in the given format.
pub(crate) fn decode<T: DeserializeOwned>(
    name: &'static str,
    format_version: u64,
    text: &[u8],
) -> Result<T, Refusal> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(text)?;
    let field = |field: &str| {
        let missing = Refusal::Damage(Damage::Fields { name });
        fields.get(field).map(|value| value.get()).ok_or(missing)
    };
    let version = serde_json::from_str(field("format_version")?)?;
    if version != format_version {
        return Err(Refusal::Format(version));
    }
    let expected = serde_json::from_str(field("crc32c")?)?;
    let inner = field(name)?;
    if fields.len() != 3 {
        return Err(Refusal::Damage(Damage::Fields { name }));
    }
    let found = crc32c::crc32c(inner.as_bytes());
    if found != expected {
        return Err(Refusal::Damage(Damage::Checksum { expected, found }));
    }
    Ok(serde_json::from_str(inner)?)
}
