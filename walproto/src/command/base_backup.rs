//! What `BASE_BACKUP` can be told.

use super::Literal;

/// `BASE_BACKUP`: a copy of a whole cluster.
///
/// Source: src/backend/backup/basebackup.c, `parse_basebackup_options` (PG 15).
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are independent options of the command, not phases"
)]
pub struct BaseBackup {
    /// The label, which the backup's `backup_label` file carries.
    pub label: Literal,
    /// Whether the server estimates sizes first.
    pub progress: bool,
    /// How the checkpoint that the backup begins with is done.
    pub checkpoint: Checkpoint,
    /// Whether the backup contains the WAL that it needs.
    pub wal: bool,
    /// Whether the server waits at the end until that WAL is archived.
    pub wait: bool,
    /// The highest rate at which data is sent.
    pub max_rate: Option<MaxRate>,
    /// Whether the symbolic links of tablespaces come as a file `tablespace_map`.
    pub tablespace_map: bool,
    /// Whether the server checks the checksums of pages that it sends.
    pub verify_checksums: bool,
    /// The backup's manifest, none if absent.
    pub manifest: Option<BackupManifest>,
    /// Where the backup goes (15 and later). Without one it comes in the old way, one COPY for
    /// each tablespace.
    pub target: Option<BackupTarget>,
    /// How the server compresses the backup (15 and later).
    pub compression: Option<BackupCompression>,
    /// Whether only what changed since the manifest that was uploaded is sent (17 and later).
    pub incremental: bool,
}

impl Default for BaseBackup {
    /// What a server does if it is told nothing.
    fn default() -> Self {
        Self {
            label: Literal::from_checked("base backup".to_owned()),
            progress: false,
            checkpoint: Checkpoint::Spread,
            wal: false,
            wait: true,
            max_rate: None,
            tablespace_map: false,
            verify_checksums: true,
            manifest: None,
            target: None,
            compression: None,
            incremental: false,
        }
    }
}

/// How the checkpoint that a base backup begins with is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checkpoint {
    /// As soon as possible.
    Fast,
    /// Spread over time, as scheduled ones are.
    Spread,
}

/// The highest rate at which a base backup is sent, in KiB a second.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct MaxRate(u32);

/// A rate that servers do not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid rate {rate}, expected {} to {} KiB a second",
    MaxRate::LOWEST,
    MaxRate::HIGHEST
)]
pub struct InvalidMaxRate {
    /// The refused rate.
    pub rate: u32,
}

impl MaxRate {
    /// The lowest rate (`MAX_RATE_LOWER`).
    pub const LOWEST: u32 = 32;
    /// The highest rate (`MAX_RATE_UPPER`).
    pub const HIGHEST: u32 = 1 << 20;

    /// Checks a rate in KiB a second.
    ///
    /// # Errors
    /// When servers do not take the rate.
    pub const fn new(rate: u32) -> Result<Self, InvalidMaxRate> {
        if rate < Self::LOWEST || rate > Self::HIGHEST {
            return Err(InvalidMaxRate { rate });
        }
        Ok(Self(rate))
    }

    /// The rate in KiB a second.
    #[must_use]
    pub const fn kib_per_second(self) -> u32 {
        self.0
    }
}

/// The manifest of a base backup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackupManifest {
    /// Whether every file name is hexadecimal, not only those that are not UTF-8.
    pub force_encode: bool,
    /// The checksums that the manifest has for files.
    pub checksums: ManifestChecksums,
}

/// The checksums that a manifest has for files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ManifestChecksums {
    /// None.
    None,
    /// CRC-32C
    #[default]
    Crc32c,
    /// SHA-224
    Sha224,
    /// SHA-256
    Sha256,
    /// SHA-384
    Sha384,
    /// SHA-512
    Sha512,
}

impl ManifestChecksums {
    pub(super) const ALL: [Self; 6] = [
        Self::None,
        Self::Crc32c,
        Self::Sha224,
        Self::Sha256,
        Self::Sha384,
        Self::Sha512,
    ];

    /// The algorithm's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Crc32c => "CRC32C",
            Self::Sha224 => "SHA224",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        }
    }
}

/// Where a base backup goes.
///
/// Extensions of a server can add targets, so that whether there is one of this name is for the
/// server to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackupTarget {
    /// `client`, `server`, `blackhole` or another.
    pub name: Literal,
    /// What the target is told, as the directory for `server`.
    pub detail: Option<Literal>,
}

/// How a server compresses a base backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackupCompression {
    /// The algorithm.
    pub algorithm: CompressionAlgorithm,
    /// Its settings, as `level=9`: for the server to judge.
    pub detail: Option<Literal>,
}

/// A compression algorithm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CompressionAlgorithm {
    /// No compression.
    None,
    /// gzip
    Gzip,
    /// LZ4
    Lz4,
    /// Zstandard
    Zstd,
}

impl CompressionAlgorithm {
    pub(super) const ALL: [Self; 4] = [Self::None, Self::Gzip, Self::Lz4, Self::Zstd];

    /// The algorithm's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}
