use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;
use crate::disk::os_disk::OsDisk;
use crate::disk::sim::SimDisk;
use crate::disk::{Disk, OpenMode};

fn methods() -> [Compression; 5] {
    [
        Compression::NONE,
        Compression::gzip(Some(1)).unwrap(),
        Compression::gzip(None).unwrap(),
        Compression::LZ4,
        Compression::zstd(None).unwrap(),
    ]
}

/// Compressible and not, as WAL is.
fn content(length: usize) -> Vec<u8> {
    (0..length as u64)
        .map(|i| {
            if i / 1000 % 2 == 0 {
                (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40).to_le_bytes()[0]
            } else {
                0
            }
        })
        .collect()
}

fn open(disk: &dyn Disk, path: &Path, mode: OpenMode) -> NamedFile {
    NamedFile::open(disk, path.to_owned(), mode).unwrap()
}

fn encode_all(disk: &dyn Disk, directory: &Path, method: Compression, content: &[u8]) -> Digest {
    let (plain, target) = (directory.join("plain"), directory.join("target"));
    let file = open(disk, &plain, OpenMode::CreateNew);
    file.write_at(&[io::IoSlice::new(content)], 0).unwrap();
    let target = open(disk, &target, OpenMode::CreateNew);
    let (_, digest) = encode(method, &file, target, &|| true).unwrap().unwrap();
    digest
}

fn decode_all(disk: &SimDisk, encoding: Encoding) -> io::Result<Vec<u8>> {
    let file = open(disk, Path::new("/d/target"), OpenMode::Read);
    let mut decoded = Vec::new();
    decoder(encoding, FileReader::new(file))?.read_to_end(&mut decoded)?;
    Ok(decoded)
}

#[test]
fn what_was_compressed_is_read_back() {
    for method in methods() {
        for length in [0, 1, CHUNK - 1, CHUNK, 3 * CHUNK + 17] {
            let disk = SimDisk::new("/d");
            let content = content(length);
            let expected = encode_all(&disk, Path::new("/d"), method, &content);
            let target = open(&disk, Path::new("/d/target"), OpenMode::Read);
            let found = digest(method.encoding(), target, length as u64).unwrap();
            assert_eq!(found, expected, "{method:?} {length}");
            assert_eq!(decode_all(&disk, method.encoding()).unwrap(), content);
        }
    }
}

#[test]
fn a_file_cut_at_any_byte_gives_a_prefix_and_then_an_error() {
    let content = content(20_000);
    for method in methods().into_iter().skip(1) {
        let disk = SimDisk::new("/d");
        encode_all(&disk, Path::new("/d"), method, &content);
        let whole = disk.content("/d/target").unwrap();
        for cut in (0..whole.len()).step_by(7) {
            disk.plant("/d/target", &whole[..cut]).unwrap();
            let file = open(&disk, Path::new("/d/target"), OpenMode::Read);
            let mut decoded = Vec::new();
            let result = decoder(method.encoding(), FileReader::new(file))
                .and_then(|mut input| input.read_to_end(&mut decoded));
            assert!(content.starts_with(&decoded), "{method:?} {cut}");
            // An LZ4 file without any frame is an empty one.
            assert!(
                result.is_err() || (cut == 0 && decoded.is_empty()),
                "{method:?} {cut}"
            );
        }
    }
}

#[test]
fn a_flipped_bit_never_passes() {
    let content = content(20_000);
    for method in methods().into_iter().skip(1) {
        let disk = SimDisk::new("/d");
        let expected = encode_all(&disk, Path::new("/d"), method, &content);
        let whole = disk.content("/d/target").unwrap();
        for byte in (0..whole.len()).step_by(11) {
            let mut damaged = whole.clone();
            damaged[byte] ^= 0x10;
            disk.plant("/d/target", &damaged).unwrap();
            let file = open(&disk, Path::new("/d/target"), OpenMode::Read);
            if let Ok(found) = digest(method.encoding(), file, content.len() as u64) {
                // Some bits, such as those of gzip's time, say nothing about the content. One
                // byte too many is read, so that what is too long shows.
                assert!(
                    found == expected || found.length == expected.length + 1,
                    "{method:?} byte {byte}"
                );
            }
        }
    }
}

#[test]
fn a_gzip_file_ends_with_the_size_of_a_segment() {
    let disk = SimDisk::new("/d");
    encode_all(
        &disk,
        Path::new("/d"),
        Compression::gzip(None).unwrap(),
        &content(1 << 20),
    );
    let file = disk.content("/d/target").unwrap();
    assert_eq!(file[file.len() - 4..], (1u32 << 20).to_le_bytes());
}

#[test]
fn levels_are_checked() {
    for level in [0, 10, -1] {
        let error = Compression::gzip(Some(level)).unwrap_err();
        assert_eq!((error.level, error.lowest, error.highest), (level, 1, 9));
    }
    assert_eq!(
        Compression::zstd(Some(23)).unwrap_err().to_string(),
        "compression level 23 is not one of zstd, expected 1 to 22"
    );
    let (low, high) = (Compression::gzip(Some(1)), Compression::gzip(Some(9)));
    assert_ne!(low, high);
}

#[test]
fn the_usual_tools_read_what_is_written() {
    for (method, tool) in [
        (Compression::gzip(None).unwrap(), "gzip"),
        (Compression::LZ4, "lz4"),
        (Compression::zstd(None).unwrap(), "zstd"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let content = content(1 << 20);
        encode_all(&OsDisk::new(), directory.path(), method, &content);
        let file = std::fs::File::open(directory.path().join("target")).unwrap();
        let output = Command::new(tool)
            .arg("-dc")
            .stdin(file)
            .stderr(Stdio::inherit())
            .output();
        match output {
            Ok(output) => assert!(
                output.status.success() && output.stdout == content,
                "{tool}"
            ),
            // Only gzip is on every machine.
            Err(error) if error.kind() == io::ErrorKind::NotFound && tool != "gzip" => {}
            Err(error) => panic!("{tool}: {error}"),
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_read_or_refused(bytes: Vec<u8>, method in 0usize..5) {
        let disk = SimDisk::new("/d");
        disk.plant("/d/target", &bytes).unwrap();
        let method = methods()[method];
        let result = decode_all(&disk, method.encoding());
        if method == Compression::NONE {
            prop_assert_eq!(result.unwrap(), bytes);
        } else if let Ok(decoded) = result {
            prop_assert!(decoded.is_empty());
        }
    }
}
