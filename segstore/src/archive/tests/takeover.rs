//! Directories that others, or an interrupted run, left.

use std::io::Write;

use super::*;

mod compressions;

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// What pg_receivewal leaves when it is killed: everything up to the last flush.
fn unfinished_gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(content).unwrap();
    encoder.flush().unwrap();
    encoder.get_ref().clone()
}

/// Blocks that refer to one another and no checksum, as LZ4F_compressBegin makes them with its
/// defaults.
fn unfinished_lz4(content: &[u8]) -> Vec<u8> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let info = FrameInfo::new()
        .block_size(BlockSize::Max64KB)
        .block_mode(BlockMode::Linked);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(content).unwrap();
    encoder.flush().unwrap();
    encoder.into_inner()
}

fn plant(disk: &SimDisk, name: impl std::fmt::Display, content: &[u8]) {
    disk.plant(format!("/a/{name}"), content).unwrap();
}

fn content(disk: &SimDisk, name: impl std::fmt::Display) -> Option<Vec<u8>> {
    disk.content(format!("/a/{name}"))
}

/// What of a file of that name first went into quarantine.
fn set_aside(disk: &SimDisk, name: impl std::fmt::Display) -> Option<Vec<u8>> {
    content(disk, format!(".wal-receiver/quarantine/{name}.1"))
}

#[test]
fn the_cluster_is_known_from_the_segments() {
    for number in [3, 0xFFF, 0x1000] {
        let disk = SimDisk::new("/a");
        plant(&disk, segment(1, number), &wal(1, number, &facts()));
        plant(&disk, partial(1, number + 1), &[0; SEGMENT]);
        let mut archive = open(&disk);
        assert_eq!(archive.system_id(), Some(facts().system_id));
        assert_eq!(archive.segment_size(), Some(size()));
        assert_eq!(archive.identity(), None);
        let other = ServerFacts {
            system_id: SystemId(8),
            ..facts()
        };
        let error = archive.bind(&other).unwrap_err();
        assert!(matches!(error, ArchiveError::OtherCluster { .. }));
        assert_eq!(content(&disk, ".wal-receiver/identity.json"), None);
        archive.bind(&facts()).unwrap();
        assert_eq!(archive.identity().unwrap().page_magic(), Some(0xD110));
    }
}

#[test]
fn the_cluster_is_known_from_compressed_segments() {
    let zstd = zstd::encode_all(&*wal(1, 3, &facts()), 3).unwrap();
    let lz4 = unfinished_lz4(&wal(1, 3, &facts()));
    let name = segment(1, 3).name;
    for (file, bytes) in [
        (format!("{name}.gz"), gzip(&wal(1, 3, &facts()))),
        (
            format!("{name}.gz.partial"),
            unfinished_gzip(&wal(1, 3, &facts())[..100]),
        ),
        (format!("{name}.zst"), zstd),
        (format!("{name}.lz4.partial"), lz4),
    ] {
        let disk = SimDisk::new("/a");
        plant(&disk, &file, &bytes);
        assert_eq!(open(&disk).system_id(), Some(facts().system_id), "{file}");
    }
}

#[test]
fn two_clusters_in_a_directory_are_refused() {
    let disk = SimDisk::new("/a");
    let other = ServerFacts {
        system_id: SystemId(8),
        ..facts()
    };
    plant(&disk, segment(1, 3), &wal(1, 3, &facts()));
    plant(&disk, segment(1, 4), &wal(1, 4, &other));
    let error = try_open(&disk).unwrap_err();
    assert!(matches!(
        error,
        ArchiveError::MixedClusters {
            found: SystemId(8),
            ..
        }
    ));
}

#[test]
fn lengths_are_checked() {
    for (file, length, right) in [
        (segment(1, 3), MIB, true),
        (segment(1, 3), MIB - 1, false),
        (segment(1, 3), 0, false),
        (segment(1, 3), MIB + 8192, false),
        (partial(1, 3), 0, true),
        (partial(1, 3), MIB, true),
        (partial(1, 3), 8192, true),
        (partial(1, 3), MIB + 1, false),
    ] {
        let disk = SimDisk::new("/a");
        drop(bound(&disk));
        plant(&disk, file, &vec![0; usize::try_from(length).unwrap()]);
        match try_open(&disk) {
            Ok(_) => assert!(right, "{file} {length}"),
            Err(ArchiveError::WrongLength {
                path,
                found,
                expected,
                partial,
            }) => {
                assert!(!right, "{file} {length}");
                assert_eq!(path, Path::new("/a").join(file.to_string()));
                assert_eq!((found, expected, partial), (length, MIB, file.partial));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_name_that_no_segment_of_this_size_has_is_refused() {
    let disk = SimDisk::new("/a");
    let mut archive = open(&disk);
    plant(&disk, "000000010000000000001000", &[0; SEGMENT]);
    let error = archive.bind(&facts()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "segment file \"/a/000000010000000000001000\" cannot be: no segment of 1048576 bytes has \
         that name; move it away"
    );
    assert_eq!(archive.identity(), None);
}

#[test]
fn foreign_files_are_named_and_left_alone() {
    let disk = SimDisk::new("/a");
    plant(&disk, "notes.txt", b"x");
    plant(&disk, "00000002.history.tmp", b"y");
    disk.create_directory(Path::new("/a/archive_status"))
        .unwrap();
    // That of a file system whose root is the archive is not worth a word.
    disk.create_directory(Path::new("/a/lost+found")).unwrap();
    // A directory with the name of a segment is no segment.
    disk.create_directory(Path::new("/a/000000010000000000000001"))
        .unwrap();
    let archive = bound(&disk);
    assert_eq!(
        archive.foreign(),
        [
            "000000010000000000000001",
            "00000002.history.tmp",
            "archive_status",
            "notes.txt"
        ]
    );
    assert_eq!(content(&disk, "notes.txt").unwrap(), b"x");
}

#[test]
fn compressed_histories_become_plain_ones_too() {
    let disk = SimDisk::new("/a");
    plant(&disk, "00000002.history.gz", &gzip(SECOND.as_bytes()));
    let mut archive = open(&disk);
    assert_eq!(archive.history(timeline(2)), Some(&history(2, SECOND)));
    assert_eq!(content(&disk, "00000002.history"), None);
    archive.bind(&facts()).unwrap();
    assert_eq!(
        content(&disk, "00000002.history").unwrap(),
        SECOND.as_bytes()
    );
    assert!(content(&disk, "00000002.history.gz").is_some());
}

#[test]
fn a_history_that_is_none_is_refused() {
    for (name, bytes) in [
        ("00000002.history", b"nonsense".to_vec()),
        ("00000002.history.gz", b"nonsense".to_vec()),
        (
            "00000002.history",
            vec![b'#'; TimelineHistory::MAX_LENGTH + 1],
        ),
        (
            "00000002.history.gz",
            gzip(&vec![b'#'; TimelineHistory::MAX_LENGTH + 1]),
        ),
    ] {
        let disk = SimDisk::new("/a");
        plant(&disk, name, &bytes);
        let error = try_open(&disk).unwrap_err();
        assert!(matches!(error, ArchiveError::Damaged { path, .. } if path.ends_with(name)));
    }
}

#[test]
fn a_compressed_growing_segment_becomes_a_plain_one() {
    let whole = wal(1, 3, &facts());
    let name = segment(1, 3).name;
    for (suffix, bytes) in [
        (".gz.partial", unfinished_gzip(&whole[..5000])),
        (".lz4.partial", unfinished_lz4(&whole[..5000])),
        (".gz.partial", gzip(&whole[..5000])),
    ] {
        let disk = SimDisk::new("/a");
        plant(&disk, format!("{name}{suffix}"), &bytes);
        let mut archive = open(&disk);
        assert_eq!(content(&disk, partial(1, 3)), None);
        archive.bind(&facts()).unwrap();
        let mut expected = whole[..5000].to_vec();
        expected.resize(SEGMENT, 0);
        assert!(content(&disk, partial(1, 3)).unwrap() == expected);
        assert_eq!(content(&disk, format!("{name}{suffix}")), None);
        assert!(set_aside(&disk, format!("{name}{suffix}")).unwrap() == bytes);
        drop(archive);
        disk.reboot(Survival::Nothing);
        assert!(content(&disk, partial(1, 3)).unwrap() == expected);
    }
}

#[test]
fn a_damaged_compressed_growing_segment_is_taken_up_to_the_damage_and_kept() {
    // Bytes that do not compress, so that a place in the file is one in the segment, too.
    let mut whole = wal(1, 3, &facts());
    fastrand::Rng::with_seed(1).fill(&mut whole[40..]);
    let name = segment(1, 3).name;
    let half = SEGMENT / 2;
    for (suffix, bytes) in [
        (".gz.partial", gzip(&whole)),
        (".lz4.partial", unfinished_lz4(&whole)),
    ] {
        let mut damaged = bytes.clone();
        damaged[half..half + 200_000].fill(0xFF);
        let disk = SimDisk::new("/a");
        plant(&disk, format!("{name}{suffix}"), &damaged);
        drop(bound(&disk));
        let imported = content(&disk, partial(1, 3)).unwrap();
        assert_eq!(imported.len(), SEGMENT);
        let same = imported.iter().zip(&whole).take_while(|(a, b)| a == b);
        let same = same.count();
        assert!(
            same > half - 100_000 && same < half + 1000,
            "{suffix}: {same}"
        );
        assert!(set_aside(&disk, format!("{name}{suffix}")).unwrap() == damaged);
    }
}

#[test]
fn a_compressed_growing_segment_of_nothing_becomes_an_empty_one() {
    let disk = SimDisk::new("/a");
    let name = segment(1, 3).name;
    plant(&disk, format!("{name}.gz.partial"), b"");
    drop(bound(&disk));
    assert!(content(&disk, partial(1, 3)).unwrap() == vec![0; SEGMENT]);
}

#[test]
fn of_two_growing_files_the_longer_one_stays_and_no_byte_is_lost() {
    let whole = wal(1, 3, &facts());
    let compressed = format!("{}.gz.partial", segment(1, 3).name);
    let plain_of = |length: usize| {
        let mut plain = whole[..length].to_vec();
        plain.resize(SEGMENT, 0);
        plain
    };
    for (plain, gz) in [(6000, 5000), (5000, 5000), (4000, 5000), (0, 5000)] {
        let disk = SimDisk::new("/a");
        plant(&disk, partial(1, 3), &plain_of(plain));
        plant(&disk, &compressed, &unfinished_gzip(&whole[..gz]));
        drop(bound(&disk));
        assert!(content(&disk, partial(1, 3)).unwrap() == plain_of(plain.max(gz)));
        assert_eq!(content(&disk, &compressed), None);
        let other = if plain >= gz {
            compressed.clone()
        } else {
            partial(1, 3).to_string()
        };
        assert!(set_aside(&disk, &other).is_some(), "{other}");
    }

    let disk = SimDisk::new("/a");
    let mut other = plain_of(6000);
    other[1000] ^= 1;
    plant(&disk, partial(1, 3), &other);
    plant(&disk, &compressed, &unfinished_gzip(&whole[..5000]));
    let error = open(&disk).bind(&facts()).unwrap_err();
    assert!(matches!(error, ArchiveError::Conflict { offset: 1000, .. }));
    assert!(content(&disk, partial(1, 3)).unwrap() == other);
    assert!(content(&disk, &compressed).is_some());
}

#[test]
fn a_growing_segment_that_was_completed_in_another_file_is_set_aside() {
    let whole = wal(1, 3, &facts());
    let mut torn = whole[..9000].to_vec();
    torn.resize(SEGMENT, 0);
    let name = segment(1, 3).name;
    let compressed = format!("{name}.gz");
    for (complete, bytes) in [
        (compressed.clone(), gzip(&whole)),
        (name.to_string(), whole.clone()),
    ] {
        for (growing, content_of_it) in [
            (format!("{name}.partial"), torn.clone()),
            (format!("{name}.partial"), Vec::new()),
            (
                format!("{name}.lz4.partial"),
                unfinished_lz4(&whole[..9000]),
            ),
        ] {
            let disk = SimDisk::new("/a");
            drop(bound(&disk));
            plant(&disk, &complete, &bytes);
            plant(&disk, &growing, &content_of_it);
            drop(open(&disk));
            assert_eq!(content(&disk, &growing), None, "{complete} {growing}");
            assert!(content(&disk, &complete).unwrap() == bytes);
            assert!(
                set_aside(&disk, &growing).unwrap() == content_of_it,
                "{growing}"
            );
        }
    }
}

#[test]
fn a_growing_segment_that_the_complete_one_contradicts_is_an_error() {
    let whole = wal(1, 3, &facts());
    let compressed = format!("{}.gz", segment(1, 3).name);
    for at in [0, 5000, SEGMENT - 1] {
        let mut other = whole[..=at].to_vec();
        other[at] ^= 0x55;
        other.resize(SEGMENT, 0);
        let disk = SimDisk::new("/a");
        drop(bound(&disk));
        plant(&disk, &compressed, &gzip(&whole));
        plant(&disk, partial(1, 3), &other);
        let error = try_open(&disk).unwrap_err();
        let ArchiveError::Conflict { path, offset, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(
            (path, offset),
            (format!("/a/{}", partial(1, 3)).into(), at as u64)
        );
        assert!(content(&disk, partial(1, 3)).unwrap() == other);
    }
}

#[test]
fn an_import_that_is_interrupted_anywhere_loses_nothing() {
    let whole = wal(1, 3, &facts());
    let name = format!("{}.gz.partial", segment(1, 3).name);
    let prepared = || {
        let disk = SimDisk::new("/a");
        drop(bound(&disk));
        plant(&disk, &name, &unfinished_gzip(&whole[..5000]));
        let before = disk.operations();
        (disk, before)
    };
    let (disk, before) = prepared();
    drop(open(&disk));
    for cut in before..disk.operations() {
        for seed in 0..4 {
            let (disk, _) = prepared();
            disk.cut_power_at(cut);
            assert!(try_open(&disk).is_err() || disk.is_power_cut());
            disk.reboot(Survival::Chance(seed));
            drop(open(&disk));
            let imported = content(&disk, partial(1, 3)).unwrap();
            assert!(imported[..5000] == whole[..5000], "{cut} {seed}");
        }
    }
}

#[test]
fn what_a_crash_left_unfinished_is_removed() {
    let disk = SimDisk::new("/a");
    drop(bound(&disk));
    plant(
        &disk,
        ".wal-receiver/tmp/000000010000000000000003.gz",
        b"half",
    );
    drop(open(&disk));
    assert_eq!(
        content(&disk, ".wal-receiver/tmp/000000010000000000000003.gz"),
        None
    );
}
