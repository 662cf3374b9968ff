use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::*;
use crate::archive::directory::Place;
use crate::archive::published_position;
use crate::archive::writer::WriteError;
use crate::disk::sim::{Fault, SimDisk, Survival};
use crate::disk::tampered::{Tamper, Tampered};
use crate::disk::{Disk, OpenMode};
use crate::wal::corruption::CorruptionReason;
use crate::wal::generator::{AfterSwitch, Generator};
use crate::wal::sample::{self, MIB, START, bytes, generator, segment_size};

const BORDER: Lsn = Lsn(8 * MIB);

/// A segment that ends with a switch, and a little of the next one.
fn switched(seed: u64) -> Generator {
    let mut wal = generator(seed);
    wal.fill(30_000);
    wal.switch(AfterSwitch::Zeros);
    wal.fill(30_000);
    wal
}

fn archive() -> Archive {
    open(&SimDisk::new("/archive"), true)
}

fn open(disk: &SimDisk, sync: bool) -> Archive {
    sample::archive(disk.clone(), Path::new("/archive"), sync)
}

fn writer(archive: &Archive, wal: &Generator, start: Lsn) -> Writer {
    let recovery = archive.recover().unwrap();
    archive
        .writer(recovery, wal.history(), start, Preparation::Inline)
        .unwrap()
}

/// An archive with the WAL up to `end`.
fn filled(wal: &Generator, end: Lsn) -> Archive {
    let archive = archive();
    fill(&archive, wal, START, end);
    archive
}

fn fill(archive: &Archive, wal: &Generator, start: Lsn, end: Lsn) {
    let mut writer = writer(archive, wal, start);
    writer.append(start, &[bytes(wal, start, end)]).unwrap();
    writer.close().unwrap();
}

#[test]
fn a_server_without_the_last_records_segment_is_gone_on_with_from_the_next() {
    let wal = switched(1);
    let archive = filled(&wal, BORDER);
    let tip = archive.recover().unwrap().tip().unwrap();
    assert_eq!(tip.record_end.lsn(), BORDER);
    assert!(tip.resume_at < BORDER);
    let mut writer = writer(&archive, &wal, BORDER);
    let appended = writer.append(BORDER, &[bytes(&wal, BORDER, wal.end())]);
    assert_eq!(appended.unwrap().record_end, wal.end());
}

#[test]
fn the_rest_of_a_record_is_checked_with_what_the_archive_has_of_it() {
    let mut wal = generator(2);
    wal.fill(MIB - 30_000);
    let record = wal.record(60_000);
    assert!(record.start < BORDER && record.end > BORDER);
    let archive = filled(&wal, record.end);
    wal.fill(20_000);
    let tip = archive.recover().unwrap().tip().unwrap();
    assert!(tip.resume_at < BORDER);
    let mut writer = writer(&archive, &wal, BORDER);
    let appended = writer
        .append(BORDER, &[bytes(&wal, BORDER, record.end)])
        .unwrap();
    assert_eq!(appended.record_end, record.end);
    assert_eq!(writer.sync().unwrap().record_end.lsn(), record.end);
    let appended = writer
        .append(record.end, &[bytes(&wal, record.end, wal.end())])
        .unwrap();
    assert_eq!(appended.record_end, wal.end());
}

#[test]
fn another_record_before_a_late_start_is_noticed() {
    let archive = filled(&switched(3), BORDER);
    // Up to the border its WAL is another one's.
    let other = {
        let mut wal = generator(4);
        wal.fill(60_000);
        wal.switch(AfterSwitch::Zeros);
        wal.fill(30_000);
        wal
    };
    let mut writer = writer(&archive, &other, BORDER);
    let error = writer
        .append(BORDER, &[bytes(&other, BORDER, other.end())])
        .unwrap_err();
    let WriteError::Corrupt { corruption, .. } = error else {
        panic!("{error}");
    };
    assert!(
        matches!(corruption.reason, CorruptionReason::PreviousRecord { .. }),
        "{corruption}"
    );
    assert_eq!(writer.close().unwrap().byte_end, BORDER);
}

#[test]
fn a_start_past_the_last_record_is_refused() {
    let wal = switched(5);
    let archive = filled(&wal, BORDER);
    let recovery = archive.recover().unwrap();
    let late = Lsn(BORDER.0 + BLOCK_SIZE);
    let refused = archive.writer(recovery, wal.history(), late, Preparation::Inline);
    assert!(matches!(refused, Err(ArchiveError::Hole { .. })));
}

#[test]
fn no_position_is_published_of_what_is_not_synced() {
    let mut wal = generator(9);
    wal.fill(60_000);
    let disk = SimDisk::new("/archive");
    let published = || published_position(Arc::new(disk.clone()), "/archive".as_ref()).unwrap();
    assert_eq!(published(), None);
    fill(&open(&disk, false), &wal, START, wal.end());
    assert_eq!(published(), None);
    let archive = open(&disk, true);
    let resume_at = archive.recover().unwrap().tip().unwrap().resume_at;
    drop(writer(&archive, &wal, resume_at));
    let position = published().unwrap();
    assert_eq!(
        (position.timeline, position.record_end),
        (TimelineId::FIRST, wal.end())
    );
    drop(archive);
    drop(open(&disk, false));
    assert_eq!(published(), None);
}

#[test]
fn recovery_publishes_what_it_vouches_for() {
    let mut wal = generator(10);
    wal.fill(60_000);
    let disk = SimDisk::new("/archive");
    fill(&open(&disk, true), &wal, START, wal.end());
    // It is never synced, so a crash of the machine may take it.
    let path = Path::new("/archive/.wal-receiver/position");
    disk.remove(path).unwrap();
    let archive = open(&disk, true);
    let tip = archive.recover().unwrap().tip().unwrap();
    let published = published_position(Arc::new(disk.clone()), "/archive".as_ref()).unwrap();
    let published = published.unwrap();
    assert_eq!(
        (published.timeline, published.record_end),
        (tip.timeline, wal.end())
    );
    // On a full disk it goes without.
    disk.remove(path).unwrap();
    disk.set_full(true);
    assert_eq!(archive.recover().unwrap().tip(), Some(tip));
}

#[test]
fn what_was_written_without_syncs_is_synced_by_who_vouches_for_it() {
    let mut wal = generator(6);
    wal.fill(4 * MIB);
    let disk = SimDisk::new("/archive");
    fill(&open(&disk, false), &wal, START, wal.end());
    assert_vouched_for_survives(&disk, &wal);
}

#[test]
fn what_another_program_wrote_without_syncs_is_synced_by_who_takes_it_over() {
    let mut wal = generator(7);
    wal.fill(4 * MIB);
    let disk = SimDisk::new("/archive");
    // As `pg_receivewal --no-sync` or `cp` leaves it.
    for number in 0.. {
        let start = Lsn(START.0 + number * MIB);
        let end = Lsn(start.0 + MIB);
        if end > wal.end() {
            break;
        }
        let name = SegmentName::of(TimelineId::FIRST, start, segment_size());
        let path = format!("/archive/{}", SegmentFile::complete(name));
        let file = disk.open(path.as_ref(), OpenMode::CreateNew).unwrap();
        file.write_at(&[IoSlice::new(&bytes(&wal, start, end))], 0)
            .unwrap();
    }
    assert_vouched_for_survives(&disk, &wal);
}

/// What a synced archive says to be its tip is there after the power was cut, from the start on.
#[track_caller]
fn assert_vouched_for_survives(disk: &SimDisk, wal: &Generator) {
    let archive = open(disk, true);
    let recovery = archive.recover().unwrap();
    let vouched = recovery.tip().unwrap().record_end.lsn();
    assert!(vouched > Lsn(START.0 + 3 * MIB));
    drop((recovery, archive));
    disk.cut_power();
    disk.reboot(Survival::Nothing);
    let archive = open(disk, true);
    let mut reader = archive.reader(wal.history().clone(), START).unwrap();
    let mut found = vec![0; usize::try_from(vouched.0 - START.0).unwrap()];
    let mut filled = 0;
    while filled < found.len() {
        match reader.read_full(&mut found[filled..], vouched).unwrap() {
            0 => panic!("nothing at {}", reader.position()),
            count => filled += count,
        }
    }
    assert!(found == bytes(wal, START, vouched));
}

#[test]
fn a_start_on_a_full_disk_goes_on_in_the_segment_that_there_is() {
    let mut wal = generator(8);
    wal.fill(60_000);
    let middle = wal.end();
    wal.fill(60_000);
    let disk = SimDisk::new("/archive");
    fill(&open(&disk, true), &wal, START, middle);
    disk.set_full(true);
    let archive = open(&disk, true);
    let resume_at = archive.recover().unwrap().tip().unwrap().resume_at;
    fill(&archive, &wal, resume_at, wal.end());
    let tip = archive.recover().unwrap().tip().unwrap();
    assert_eq!(tip.record_end.lsn(), wal.end());
    // The lock is held though it could not be said by whom.
    let options = sample::options(Path::new("/archive"), true);
    let again = Archive::open(Arc::new(disk.clone()), options);
    assert!(matches!(again, Err(ArchiveError::Locked { pid: None, .. })));
}

fn segment(number: u64, partial: bool) -> SegmentFile {
    let start = Lsn(START.0 + number * MIB);
    let name = SegmentName::of(TimelineId::FIRST, start, segment_size());
    if partial {
        SegmentFile::partial(name)
    } else {
        SegmentFile::complete(name)
    }
}

#[test]
fn an_archive_whose_segments_were_all_moved_away_begins_anew_where_that_is_no_loss() {
    let mut wal = generator(10);
    wal.fill(2 * MIB + 60_000);
    let disk = SimDisk::new("/archive");
    fill(&open(&disk, true), &wal, START, wal.end());
    // The last one is complete and was moved before a byte came of the next one.
    for file in [segment(0, false), segment(1, false), segment(2, true)] {
        disk.remove(format!("/archive/{file}").as_ref()).unwrap();
    }
    let lost = open(&disk, true).recover().unwrap_err();
    assert!(matches!(lost, ArchiveError::Lost { .. }), "{lost}");

    let mut archive = open(&disk, true);
    archive.let_segments_be_moved();
    let recovery = archive.recover().unwrap();
    assert_eq!(recovery.tip(), None);
    // As a slot has it: less than what was durable here before.
    let start = Lsn(START.0 + 2 * MIB);
    let preparation = Preparation::Inline;
    let mut writer = archive
        .writer(recovery, wal.history(), start, preparation)
        .unwrap();
    let middle = Lsn(start.0 + 30_000);
    writer.append(start, &[bytes(&wal, start, middle)]).unwrap();
    let durable = writer.sync().unwrap().record_end.lsn();
    assert!(durable < wal.end());
    drop((writer, archive));
    disk.cut_power();
    disk.reboot(Survival::Nothing);
    // From then on it is missed again.
    let tip = open(&disk, true).recover().unwrap().tip().unwrap();
    assert_eq!(tip.record_end.lsn(), durable);
}

#[test]
fn a_segment_that_is_moved_away_while_it_is_read_is_not_missed() {
    let mut wal = generator(11);
    wal.fill(2 * MIB + 60_000);
    let disk = SimDisk::new("/archive");
    fill(&open(&disk, true), &wal, START, wal.end());
    let moved = Moved {
        disk: disk.clone(),
        path: Mutex::new(Some(format!("/archive/{}", segment(1, false)).into())),
    };
    let disk_beside = Tampered {
        disk: disk.clone(),
        tamper: moved,
    };
    let archive = sample::archive(disk_beside, Path::new("/archive"), true);
    let tip = archive.recover().unwrap().tip().unwrap();
    assert_eq!(tip.record_end.lsn(), wal.end());
    let gone = disk.content(format!("/archive/{}", segment(1, false)));
    assert_eq!(gone, None);
}

/// A file that goes when it is opened.
#[derive(Debug)]
struct Moved {
    disk: SimDisk,
    path: Mutex<Option<PathBuf>>,
}

impl Tamper for Moved {
    fn before_open(&self, path: &Path) -> io::Result<()> {
        match self.path.lock().unwrap().take_if(|moved| *moved == path) {
            Some(_) => self.disk.remove(path),
            None => Ok(()),
        }
    }
}

#[test]
fn a_rebuild_that_fails_leaves_no_temporary_file() {
    let mut wal = generator(11);
    wal.fill(MIB + 60_000);
    let mut failures = 0;
    for operation in 0..40 {
        let disk = SimDisk::new("/archive");
        fill(&open(&disk, true), &wal, START, wal.end());
        let archive = open(&disk, true);
        archive.poison(segment(1, true)).unwrap();
        disk.fail_at(disk.operations() + operation, Fault::NoSpace);
        let temporary = archive.directory.own(Place::Temporary);
        if let Err(error) = archive.recover() {
            let ArchiveError::Disk(error) = error else {
                panic!("{error}");
            };
            failures += usize::from(error.path.starts_with(&temporary));
        }
        let left = archive.directory.list(&temporary).unwrap();
        assert!(left.is_empty(), "after operation {operation}: {left:?}");
        drop(archive);
        disk.mend();
        let tip = open(&disk, true).recover().unwrap().tip().unwrap();
        assert_eq!(tip.record_end.lsn(), wal.end());
    }
    assert!(failures >= 3, "{failures}");
}
