//! How segments are stored, and what else lies beside them.

use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::archive::compressor;
use crate::disk::tampered::{Tamper, Tampered};
use crate::disk::{DirectoryEntry, Disk as _};

/// A file that the first look into the archive does not show: it gets this name meanwhile, and its
/// old one is passed already.
#[derive(Debug)]
struct Renamed {
    name: String,
    seen: AtomicBool,
}

impl Tamper for Renamed {
    fn after_list(&self, directory: &Path, seen: &mut Vec<DirectoryEntry>) {
        if directory == ROOT && !self.seen.swap(true, Ordering::Relaxed) {
            seen.retain(|entry| entry.name != *OsStr::new(&self.name));
        }
    }
}

#[test]
fn a_segment_that_gets_another_name_during_the_look_is_not_missing() {
    let wal = wal(31);
    let files = Files::of(&wal);
    for start in segments(&wal) {
        let disk = Tampered {
            disk: files.disk(),
            tamper: Renamed {
                name: name(1, start).to_string(),
                seen: AtomicBool::new(false),
            },
        };
        let found = verify(Arc::new(disk), Path::new(ROOT), NonZeroUsize::MIN).unwrap();
        assert!(found.problems.is_empty(), "{start}: {:?}", found.problems);
        assert_eq!(found.good, [range(1, START..wal.end())]);
    }
}

fn compress(disk: &SimDisk, lsn: Lsn, compression: Compression) {
    let directory = ArchiveDirectory::new(Arc::new(disk.clone()), Path::new(ROOT));
    let name = name(1, lsn);
    compressor::compress(&directory, compression, name, &|| true).unwrap();
}

#[test]
fn compressed_segments_are_checked_like_others() {
    let wal = wal(31);
    let disk = Files::of(&wal).disk();
    publish(&disk, 1, wal.records().last().unwrap().end);
    let compressions = [
        Compression::gzip(None).unwrap(),
        Compression::LZ4,
        Compression::zstd(None).unwrap(),
    ];
    for (start, compression) in segments(&wal).zip(compressions) {
        compress(&disk, start, compression);
    }
    let found = check(&disk, 2, SEGMENT);
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    assert_eq!(
        found.good,
        [range(1, START..wal.records().last().unwrap().end)]
    );

    for (start, compression) in segments(&wal).zip(compressions) {
        let file = SegmentFile::complete(name(1, start)).encoded(compression.encoding());
        let path = Path::new(ROOT).join(file.to_string());
        let content = disk.content(&path).unwrap();
        let mut bad = content.clone();
        let at = bad.len() / 2;
        bad[at] ^= 0x10;
        for bad in [&bad[..], &content[..content.len() - 100]] {
            disk.plant(&path, bad).unwrap();
            let found = check(&disk, 2, SEGMENT);
            let [problem] = &found.problems[..] else {
                panic!("{file}: {:?}", found.problems);
            };
            // Where the damage is cannot be said, but in which segment.
            assert_eq!(size().start_of(problem.lsn), start, "{problem}");
            assert!(problem.to_string().contains(&file.to_string()), "{problem}");
        }
        disk.plant(&path, &content).unwrap();
    }
}

#[test]
fn other_files_are_named_and_are_no_problem() {
    let wal = wal(32);
    let mut files = Files::of(&wal);
    for name in ["backup_label", "00000001000000000000000Z", "notes.txt"] {
        files.0.insert(name.to_owned(), b"anything".to_vec());
    }
    let found = files.verify();
    assert!(found.problems.is_empty());
    assert_eq!(
        found.foreign,
        ["00000001000000000000000Z", "backup_label", "notes.txt"]
    );
}

#[test]
fn a_name_that_no_segment_of_this_size_has_is_told() {
    let wal = wal(33);
    let mut files = Files::of(&wal);
    files
        .0
        .insert("000000010000000000001000".to_owned(), vec![0; 10]);
    let found = files.verify();
    assert!(matches!(
        &found.problems[..],
        [Problem {
            fault: Fault::File(ArchiveError::ImpossibleSegment { .. }),
            ..
        }]
    ));
}

#[test]
fn a_file_that_is_too_long_is_told() {
    let wal = wal(34);
    let mut files = Files::of(&wal);
    files.segment(1, START).push(0);
    let found = files.verify();
    assert!(matches!(
        &found.problems[..],
        [Problem { lsn: START, fault: Fault::File(ArchiveError::WrongLength { found, .. }), .. }]
            if *found == SEGMENT + 1
    ));
}

#[test]
fn two_files_of_a_segment_must_be_alike() {
    let wal = wal(35);
    let mut files = Files::of(&wal);
    let first = files.segment(1, START).clone();
    let growing = SegmentFile::partial(name(1, START)).to_string();
    let mut part = first.clone();
    part[9_000..].fill(0);
    files.0.insert(growing.clone(), part.clone());
    let found = files.verify();
    assert!(found.problems.is_empty(), "{:?}", found.problems);

    part[5_000] ^= 1;
    files.0.insert(growing, part);
    let found = files.verify();
    assert!(matches!(
        &found.problems[..],
        [Problem {
            fault: Fault::File(ArchiveError::Conflict { offset: 5_000, .. }),
            ..
        }]
    ));
}

#[test]
fn segments_missing_between_others_are_one_problem() {
    let mut wal = generator(36);
    wal.fill(5 * SEGMENT);
    let mut files = Files::of(&wal);
    let (second, fourth) = (Lsn(START.0 + SEGMENT), Lsn(START.0 + 3 * SEGMENT));
    for lsn in [second, Lsn(second.0 + SEGMENT)] {
        files
            .0
            .remove(&SegmentFile::complete(name(1, lsn)).to_string())
            .unwrap();
    }
    let found = files.verify();
    let [problem] = &found.problems[..] else {
        panic!("{:?}", found.problems);
    };
    assert_eq!(
        problem.to_string(),
        "timeline 1, 0/800000: segments 000000010000000000000008 to 000000010000000000000009 are \
         missing, WAL up to 0/A00000"
    );
    assert_eq!(found.good[0], range(1, START..good_end(&wal, second)));
    assert_eq!(found.good[1].start, first_record(&wal, fourth));
}

#[test]
fn a_file_whose_sync_failed_is_not_good() {
    let wal = wal(37);
    let disk = Files::of(&wal).disk();
    publish(&disk, 1, wal.records().last().unwrap().end);
    let directory = ArchiveDirectory::new(Arc::new(disk.clone()), Path::new(ROOT));
    let file = SegmentFile::complete(name(1, START));
    directory.poison(file).unwrap();
    let found = check(&disk, 1, LEAST_CHUNK);
    assert!(matches!(
        &found.problems[..],
        [Problem { lsn: START, fault: Fault::NotSynced { file: of }, .. }] if *of == file
    ));
}

#[test]
fn a_segment_that_cannot_be_read_is_a_problem_and_the_others_are_checked() {
    let wal = wal(38);
    let mut files = Files::of(&wal);
    let second = Lsn(START.0 + SEGMENT);
    let plain = files.0.remove(&name(1, second).to_string()).unwrap();
    let gz = SegmentFile::complete(name(1, second)).encoded(Encoding::Gzip);
    files.0.insert(gz.to_string(), plain);
    let found = files.verify();
    assert!(matches!(
        &found.problems[..],
        [Problem {
            lsn,
            fault: Fault::File(ArchiveError::Damaged { reason: Damage::Compression(_), .. }),
            ..
        }] if *lsn == second
    ));
    let last = wal.records().last().unwrap().end;
    assert_eq!(found.good.last().unwrap().end, last);
}

#[test]
fn a_directory_without_wal_is_an_error() {
    let disk = SimDisk::new(ROOT);
    let result = verify(Arc::new(disk.clone()), Path::new(ROOT), NonZeroUsize::MIN);
    assert!(matches!(result, Err(ArchiveError::NoIdentity { .. })));
    let result = verify(Arc::new(disk), Path::new("/elsewhere"), NonZeroUsize::MIN);
    assert!(matches!(result, Err(ArchiveError::Disk(_))));
}

#[test]
fn a_renamed_segment_is_found_under_its_new_name() {
    let wal = wal(39);
    let files = Files::of(&wal);
    let disk = files.disk();
    // Listed as growing, and complete when it is opened.
    let directory = ArchiveDirectory::new(Arc::new(disk.clone()), Path::new(ROOT));
    let segment_files = SegmentFiles::new(directory, size());
    let complete = Path::new(ROOT).join(name(1, START).to_string());
    let growing = SegmentFile::partial(name(1, START));
    let path = Path::new(ROOT).join(growing.to_string());
    disk.rename(&complete, &path).unwrap();
    disk.rename(&path, &complete).unwrap();
    let listed = segment::Segment {
        start: START,
        file: growing,
    };
    let mut bytes = listed.open(&segment_files).unwrap();
    let mut first = vec![0; 8192];
    assert_eq!(bytes.read_full(&mut first).unwrap(), 8192);
    assert_eq!(first, wal.bytes()[..8192]);
}

/// barman keeps segments in directories named by the first digits of theirs, compressed or not under
/// the same names, and histories one directory above.
#[test]
fn segments_are_checked_where_barman_keeps_them() {
    let wal = wal(33);
    let files = Files::of(&wal);
    let root = Path::new("/wals/0000000100000000");
    let methods = [
        Compression::gzip(None).unwrap(),
        Compression::LZ4,
        Compression::zstd(None).unwrap(),
    ];
    let disk = SimDisk::new(root);
    for ((name, content), method) in files.0.iter().zip(methods.into_iter().cycle()) {
        disk.plant(root.join(name), content).unwrap();
        let directory = ArchiveDirectory::new(Arc::new(disk.clone()), root);
        directory.create_own().unwrap();
        // The growing one stays plain.
        let Some(segment) = SegmentName::parse(name) else {
            continue;
        };
        compressor::compress(&directory, method, segment, &|| true).unwrap();
        let compressed = root.join(format!("{name}{}", method.encoding().suffix()));
        let content = disk.content(&compressed).unwrap();
        directory.remove(&compressed).unwrap();
        disk.plant(root.join(name), &content).unwrap();
    }
    let check = || verify(Arc::new(disk.clone()), root, NonZeroUsize::MIN).unwrap();
    let found = check();
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    assert_eq!(found.segments, files.0.len() as u64);
    assert_eq!(
        found.good,
        [range(1, START..wal.records().last().unwrap().end)]
    );
    let second = name(1, Lsn(START.0 + SEGMENT));
    disk.plant(root.join(second.to_string()), b"BZh91AY")
        .unwrap();
    let found = check();
    assert_eq!(
        found.problems[0].fault.to_string(),
        format!(
            "\"{second}\" is compressed by bzip2, which cannot be read here; decompress it first"
        )
    );
}
