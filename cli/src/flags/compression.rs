//! `-Z METHOD[:DETAIL]`, as PostgreSQL 15 and later read it.
//!
//! Source: src/bin/pg_basebackup/pg_receivewal.c, `parse_compress_options`;
//! src/common/compression.c, `parse_compress_specification` and
//! `validate_compress_specification` (PG 15).

use std::ops::RangeInclusive;

use walreceiver::{Compression, InvalidLevel};

use super::number::strtol;

/// The level that zstd takes without one (`ZSTD_CLEVEL_DEFAULT`).
const ZSTD_DEFAULT: i32 = 3;
/// What stands for no level with gzip (`Z_DEFAULT_COMPRESSION`).
const GZIP_DEFAULT: i32 = -1;

/// Why a compression is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CompressionError {
    #[error("unrecognized compression algorithm: \"{0}\"")]
    Algorithm(String),
    #[error("invalid compression specification: {0}")]
    Specification(SpecificationError),
    #[error(transparent)]
    Level(#[from] InvalidLevel),
}

/// What is wrong with the detail.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecificationError {
    #[error("found empty string where a compression option was expected")]
    Empty,
    #[error("unrecognized compression option: \"{0}\"")]
    Option(String),
    #[error("compression option \"{0}\" requires a value")]
    NoValue(String),
    #[error("value for compression option \"{0}\" must be an integer")]
    NotAnInteger(String),
    #[error("compression algorithm \"none\" does not accept a compression level")]
    LevelForNone,
    #[error(
        "compression algorithm \"{algorithm}\" expects a compression level between {min} and \
         {max} (default at {default})"
    )]
    LevelOutOfRange {
        algorithm: &'static str,
        min: i32,
        max: i32,
        default: i32,
    },
    #[error("compression algorithm \"{0}\" does not accept a worker count")]
    Workers(&'static str),
}

/// A compression as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Requested {
    pub(crate) compression: Compression,
    /// A level that needs LZ4's high-compression mode, which there is none of here.
    pub(crate) unavailable_lz4_level: Option<i32>,
}

impl Requested {
    /// No compression.
    pub(super) const NONE: Self = Self {
        compression: Compression::NONE,
        unavailable_lz4_level: None,
    };
}

/// Reads the value of `-Z`.
pub(super) fn parse(value: &str) -> Result<Requested, CompressionError> {
    let (algorithm, detail) = match strtol(value) {
        (0, "") => ("none", None),
        (_, "") => ("gzip", Some(value)),
        _ => match value.split_once(':') {
            Some((algorithm, detail)) => (algorithm, Some(detail)),
            None => (value, None),
        },
    };
    let read = |algorithm, levels, default| {
        level(algorithm, detail, levels, default).map_err(CompressionError::Specification)
    };
    let mut unavailable_lz4_level = None;
    let compression = match algorithm {
        "none" => {
            read("none", 0..=0, 0)?;
            Compression::NONE
        }
        "gzip" => {
            let level = read("gzip", 1..=9, GZIP_DEFAULT)?;
            Compression::gzip((level != GZIP_DEFAULT).then_some(level))?
        }
        "lz4" => {
            // Levels 1 and 2 are the fast mode too (LZ4HC_CLEVEL_MIN is 3).
            unavailable_lz4_level = Some(read("lz4", 1..=12, 0)?).filter(|&level| level > 2);
            Compression::LZ4
        }
        "zstd" => Compression::zstd(Some(read("zstd", 1..=22, ZSTD_DEFAULT)?))?,
        _ => return Err(CompressionError::Algorithm(algorithm.to_owned())),
    };
    Ok(Requested {
        compression,
        unavailable_lz4_level,
    })
}

/// The level that a detail asks for.
fn level(
    algorithm: &'static str,
    detail: Option<&str>,
    levels: RangeInclusive<i32>,
    default: i32,
) -> Result<i32, SpecificationError> {
    let (mut level, mut workers) = (default, false);
    if let Some(detail) = detail {
        match strtol(detail) {
            (number, "") if !detail.is_empty() => level = narrow(number),
            _ => {
                for entry in detail.split(',') {
                    match option(entry)? {
                        Setting::Level(number) => level = number,
                        Setting::Workers => workers = true,
                    }
                }
            }
        }
    }
    if level != default && !levels.contains(&level) {
        return Err(if algorithm == "none" {
            SpecificationError::LevelForNone
        } else {
            SpecificationError::LevelOutOfRange {
                algorithm,
                min: *levels.start(),
                max: *levels.end(),
                default,
            }
        });
    }
    if workers {
        // One thread compresses, behind the receiver; more would take from it.
        return Err(SpecificationError::Workers(algorithm));
    }
    Ok(level)
}

enum Setting {
    Level(i32),
    Workers,
}

/// One `keyword=value` of a detail.
fn option(entry: &str) -> Result<Setting, SpecificationError> {
    let (keyword, value) = match entry.split_once('=') {
        Some((keyword, value)) => (keyword, Some(value)),
        None => (entry, None),
    };
    let integer = || {
        let value = value.ok_or_else(|| SpecificationError::NoValue(keyword.to_owned()))?;
        match strtol(value) {
            (number, "") if !value.is_empty() => Ok(narrow(number)),
            _ => Err(SpecificationError::NotAnInteger(keyword.to_owned())),
        }
    };
    match keyword {
        "" => Err(SpecificationError::Empty),
        "level" => integer().map(Setting::Level),
        "workers" => integer().map(|_| Setting::Workers),
        _ => Err(SpecificationError::Option(keyword.to_owned())),
    }
}

/// The nearest number of 32 bits: no method has levels that far out.
fn narrow(number: i64) -> i32 {
    let nearest = if number < 0 { i32::MIN } else { i32::MAX };
    i32::try_from(number).unwrap_or(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(value: &str) -> Result<Compression, String> {
        parse(value)
            .map(|requested| requested.compression)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn compressions_are_read_as_postgresql_does() {
        let gzip = |level| Ok(Compression::gzip(level).unwrap());
        let zstd = |level| Ok(Compression::zstd(Some(level)).unwrap());
        for (value, expected) in [
            ("", Ok(Compression::NONE)),
            ("0", Ok(Compression::NONE)),
            ("none", Ok(Compression::NONE)),
            ("none:0", Ok(Compression::NONE)),
            ("9", gzip(Some(9))),
            ("-1", gzip(None)),
            ("gzip", gzip(None)),
            ("gzip:1", gzip(Some(1))),
            ("gzip:level=5", gzip(Some(5))),
            ("gzip:level=20,level=7", gzip(Some(7))),
            ("lz4", Ok(Compression::LZ4)),
            ("lz4:1", Ok(Compression::LZ4)),
            ("zstd", zstd(3)),
            ("zstd:level=7", zstd(7)),
            ("zstd:22", zstd(22)),
        ] {
            assert_eq!(parsed(value), expected, "{value}");
        }
        assert_eq!(parse("lz4:9").unwrap().unavailable_lz4_level, Some(9));
        assert_eq!(parse("lz4:2").unwrap().unavailable_lz4_level, None);
    }

    /// The messages are those of PostgreSQL 15.18, but for zstd, which it refuses altogether.
    #[test]
    fn compressions_that_postgresql_refuses_are_refused_in_its_words() {
        let specification = |text: &str| format!("invalid compression specification: {text}");
        let range = |algorithm, levels, default| {
            specification(&format!(
                "compression algorithm \"{algorithm}\" expects a compression level between \
                 {levels} (default at {default})"
            ))
        };
        for (value, expected) in [
            (
                "foo",
                "unrecognized compression algorithm: \"foo\"".to_owned(),
            ),
            (
                "5x",
                "unrecognized compression algorithm: \"5x\"".to_owned(),
            ),
            (":1", "unrecognized compression algorithm: \"\"".to_owned()),
            ("10", range("gzip", "1 and 9", -1)),
            ("gzip:0", range("gzip", "1 and 9", -1)),
            ("lz4:13", range("lz4", "1 and 12", 0)),
            ("zstd:23", range("zstd", "1 and 22", 3)),
            (
                "none:5",
                specification("compression algorithm \"none\" does not accept a compression level"),
            ),
            (
                "gzip:",
                specification("found empty string where a compression option was expected"),
            ),
            (
                "gzip:level=1,",
                specification("found empty string where a compression option was expected"),
            ),
            (
                "gzip:foo=1",
                specification("unrecognized compression option: \"foo\""),
            ),
            (
                "gzip:level",
                specification("compression option \"level\" requires a value"),
            ),
            (
                "gzip:level=",
                specification("value for compression option \"level\" must be an integer"),
            ),
            (
                "gzip:level=5,workers=x",
                specification("value for compression option \"workers\" must be an integer"),
            ),
            (
                "gzip:workers=1",
                specification("compression algorithm \"gzip\" does not accept a worker count"),
            ),
        ] {
            assert_eq!(parsed(value), Err(expected), "{value}");
        }
    }
}
