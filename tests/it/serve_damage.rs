//! A client is never sent a byte that changed on our disk, and keeps the good part before it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use tests::{ArchiveDirectory, GeneratedArchive, Receiver, Serving, Version};
use walproto::Lsn;

const MIB: usize = 1 << 20;

/// The file that holds the byte of the archive's WAL at `index`, and the byte's offset in it.
fn place_of(archive: &GeneratedArchive, index: usize) -> (PathBuf, u64) {
    let at = Lsn(GeneratedArchive::START.0 + index as u64);
    let name = format!("{:08X}{:08X}{:08X}", 1, 0, at.0 / MIB as u64);
    let complete = archive.path().join(&name);
    let path = match complete.exists() {
        true => complete,
        false => archive.path().join(format!("{name}.partial")),
    };
    (path, at.0 % MIB as u64)
}

fn flip(archive: &GeneratedArchive, index: usize) {
    let (path, offset) = place_of(archive, index);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], offset).unwrap();
}

/// Runs PostgreSQL's own `pg_receivewal` from the start of the archive until the server reports an
/// error. Returns the received WAL and the output.
fn received(server: &Serving) -> (Vec<u8>, String) {
    let copy = ArchiveDirectory::new();
    // It begins behind the last segment that it has.
    let before = GeneratedArchive::START.0 / MIB as u64 - 1;
    let before = copy.path().join(format!("{:08X}{:08X}{before:08X}", 1, 0));
    fs::write(&before, vec![0; MIB]).unwrap();
    let client = Receiver::pg_receivewal(Version::V15, &server.conninfo(), copy.path());
    let (status, said) = client.args(["--no-loop"]).run();
    assert!(!status.success(), "{said}");
    fs::remove_file(before).unwrap();
    let mut bytes = Vec::new();
    for name in copy.files() {
        bytes.extend(fs::read(copy.path().join(name)).unwrap());
    }
    (bytes, said)
}

#[test]
fn pg_receivewal_gets_all_before_a_flipped_bit_and_nothing_of_it() {
    let archive = GeneratedArchive::new(3 * MIB + 400_000, 150_018);
    let crossing = 2 * MIB - 2000;
    // In a complete segment, at a record that may cross into the next one, and in the growing one.
    for index in [MIB + 300_000, crossing, 3 * MIB + 200_000] {
        flip(&archive, index);
        let mut server = Serving::start(archive.path());
        let (bytes, said) = received(&server);
        let at = said.split_once("invalid WAL at ").unwrap().1;
        let at: Lsn = at.split_once(' ').unwrap().0.parse().unwrap();
        let good = usize::try_from(at.0 - GeneratedArchive::START.0).unwrap();
        assert!(good <= index && index - good < 16_384, "{said}");
        assert!(bytes[..good] == archive.wal()[..good], "the good part");
        let rest = &bytes[good..];
        assert!(rest.iter().all(|byte| *byte == 0), "damaged WAL was sent");
        let (path, _) = place_of(&archive, good);
        let name = path.file_name().unwrap().to_str().unwrap();
        for words in [name, "offset", "timeline 1", "expected", "found"] {
            assert!(said.contains(words), "no {words:?} in {said}");
        }
        server.wait_for_log(name);
        // Once the file is as it was, all of it is served, by the same process.
        flip(&archive, index);
        let mut link = tests::Link::new(&server.conninfo(), archive.path()).unwrap();
        let all = link.stream(GeneratedArchive::START, archive.wal().len());
        assert!(all == archive.wal());
        drop(link);
        assert!(server.stop().success(), "{}", server.log());
    }
}
