//! Compressed files: which methods there are, and reading and writing them as streams.

use std::io::{self, BufWriter, Read, Write};

use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use crate::disk::filled;
use crate::disk::named_file::{FileReader, NamedFile};
use crate::error::{DiskError, Operation};
use crate::wal::segment::Encoding;

/// What is read and written at once.
const CHUNK: usize = 128 << 10;

/// How completed segments are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compression {
    encoding: Encoding,
    level: i32,
}

/// A compression level that the method does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("compression level {level} is not one of {method}, expected {lowest} to {highest}")]
pub struct InvalidLevel {
    /// The level.
    pub level: i32,
    /// The method's name.
    pub method: &'static str,
    /// The method's lowest level.
    pub lowest: i32,
    /// The method's highest level.
    pub highest: i32,
}

impl Compression {
    /// Segments stay as they are.
    pub const NONE: Self = Self {
        encoding: Encoding::Plain,
        level: 0,
    };

    /// LZ4, which has one level here.
    pub const LZ4: Self = Self {
        encoding: Encoding::Lz4,
        level: 0,
    };

    /// gzip of a level from 1 to 9, 6 without one.
    ///
    /// # Errors
    /// When there is no such level.
    pub fn gzip(level: Option<i32>) -> Result<Self, InvalidLevel> {
        Self::leveled(Encoding::Gzip, "gzip", level.unwrap_or(6), 9)
    }

    /// Zstandard of a level from 1 to 22, 3 without one.
    ///
    /// # Errors
    /// When there is no such level.
    pub fn zstd(level: Option<i32>) -> Result<Self, InvalidLevel> {
        Self::leveled(Encoding::Zstd, "zstd", level.unwrap_or(3), 22)
    }

    fn leveled(
        encoding: Encoding,
        method: &'static str,
        level: i32,
        highest: i32,
    ) -> Result<Self, InvalidLevel> {
        if (1..=highest).contains(&level) {
            return Ok(Self { encoding, level });
        }
        Err(InvalidLevel {
            level,
            method,
            lowest: 1,
            highest,
        })
    }

    /// How compressed files are stored; [`Encoding::Plain`] when none are.
    #[must_use]
    pub const fn encoding(self) -> Encoding {
        self.encoding
    }
}

/// The bytes of a file without its compression, as a stream of bounded memory.
///
/// A gzip file is one member and a Zstandard file one frame; what follows is not read.
pub(crate) fn decoder(encoding: Encoding, file: FileReader) -> io::Result<Box<dyn Read + Send>> {
    Ok(match encoding {
        Encoding::Plain => Box::new(file),
        Encoding::Gzip => Box::new(GzDecoder::new(file)),
        Encoding::Lz4 => Box::new(FrameDecoder::new(file)),
        Encoding::Zstd => Box::new(zstd::stream::read::Decoder::new(file)?.single_frame()),
    })
}

/// How a file is stored whose name does not say so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Recognized {
    /// In a way that can be read here.
    Known(Encoding),
    /// In a way that cannot.
    Unknown(&'static str),
}

/// The compression that a file begins with, `None` for WAL. barman keeps compressed segments under
/// the names of plain ones; no magic number of WAL begins like any of these.
pub(crate) fn recognize(bytes: &[u8]) -> Option<Recognized> {
    const BEGINNINGS: [(&[u8], Recognized); 6] = [
        (b"\x1F\x8B", Recognized::Known(Encoding::Gzip)),
        (b"\x04\x22\x4D\x18", Recognized::Known(Encoding::Lz4)),
        (b"\x28\xB5\x2F\xFD", Recognized::Known(Encoding::Zstd)),
        (b"BZh", Recognized::Unknown("bzip2")),
        (b"\xFD7zXZ\0", Recognized::Unknown("xz")),
        (b"\xFF\x06\0\0sNaPpY", Recognized::Unknown("snappy")),
    ];
    let begins = |(beginning, _): &&(&[u8], Recognized)| bytes.starts_with(beginning);
    BEGINNINGS.iter().find(begins).map(|(_, found)| *found)
}

/// The same of a file that was opened under the name of a plain one.
pub(crate) fn recognize_file(opened: &NamedFile) -> Result<Option<Recognized>, DiskError> {
    let mut bytes = [0; 10];
    let count = opened.read_full_at(&mut bytes, 0)?;
    Ok(recognize(filled(&bytes, count)))
}

/// Whether an error of a decoder is the operating system's, not one of the content.
pub(crate) fn is_disk_error(error: &io::Error) -> bool {
    error.raw_os_error().is_some()
}

/// Fills `buffer` from a stream; fewer bytes only at its end.
pub(crate) fn read_full(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..)
        && !rest.is_empty()
    {
        match input.read(rest) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// What went through a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Digest {
    pub(crate) length: u64,
    pub(crate) checksum: u32,
}

impl Digest {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
    }
}

/// Compresses a plain file into an empty one, which is not synced; `None` when `go_on` said no
/// before the end.
pub(crate) fn encode(
    compression: Compression,
    plain: &NamedFile,
    target: NamedFile,
    go_on: &dyn Fn() -> bool,
) -> Result<Option<(NamedFile, Digest)>, DiskError> {
    let path = target.path().to_owned();
    let failed = |source| DiskError::at(Operation::Write, &path)(source);
    let output = BufWriter::with_capacity(CHUNK, target.into_writer());
    let mut encoder = Encoder::new(compression, plain.length()?, output).map_err(failed)?;
    let mut digest = Digest::default();
    let mut buffer = vec![0; CHUNK];
    while go_on() {
        let count = plain.read_full_at(&mut buffer, digest.length)?;
        let chunk = filled(&buffer, count);
        if chunk.is_empty() {
            let output = encoder.finish().map_err(failed)?;
            let target = output.into_inner().map_err(|e| failed(e.into_error()))?;
            return Ok(Some((target.into_file(), digest)));
        }
        encoder.write_all(chunk).map_err(failed)?;
        digest.add(chunk);
    }
    Ok(None)
}

/// The digest of a compressed file's content, of at most `limit` bytes and one more.
pub(crate) fn digest(encoding: Encoding, file: NamedFile, limit: u64) -> io::Result<Digest> {
    let mut input = decoder(encoding, FileReader::new(file))?.take(limit.saturating_add(1));
    let mut digest = Digest::default();
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = read_full(&mut input, &mut buffer)?;
        if count == 0 {
            return Ok(digest);
        }
        digest.add(filled(&buffer, count));
    }
}

enum Encoder<W: Write> {
    Plain(W),
    Gzip(GzEncoder<W>),
    Lz4(Box<FrameEncoder<W>>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    fn new(compression: Compression, length: u64, output: W) -> io::Result<Self> {
        let level = compression.level;
        Ok(match compression.encoding {
            Encoding::Plain => Self::Plain(output),
            Encoding::Gzip => {
                let level = flate2::Compression::new(level.unsigned_abs());
                Self::Gzip(GzEncoder::new(output, level))
            }
            Encoding::Lz4 => {
                // LZ4F_decompress, which pg_receivewal uses, takes all of these.
                let info = FrameInfo::new()
                    .block_size(BlockSize::Max256KB)
                    .content_checksum(true)
                    .content_size(Some(length));
                Self::Lz4(Box::new(FrameEncoder::with_frame_info(info, output)))
            }
            Encoding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(output, level)?;
                encoder.set_pledged_src_size(Some(length))?;
                encoder.include_checksum(true)?;
                Self::Zstd(encoder)
            }
        })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(output) => output.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Lz4(encoder) => encoder.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(output) => Ok(output),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Lz4(encoder) => Ok(encoder.finish()?),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

#[cfg(test)]
mod tests;
