use bytes::BytesMut;
use walproto::{Lsn, SystemId};

use super::*;
use crate::archive::prepare::Preparation;
use crate::disk::sim::{Fault, SimDisk};
use crate::serve::feed::{FeedError, FeedStep};
use crate::wal::generator::Generator;
use crate::wal::sample::{self, MIB, START, generator};

fn wal(seed: u64) -> Generator {
    let mut wal = generator(seed);
    wal.fill(3 * MIB);
    wal
}

fn segment(wal: &Generator, number: u64) -> Vec<u8> {
    let from = usize::try_from((number - 7) * MIB).unwrap();
    let end = from + usize::try_from(MIB).unwrap();
    wal.bytes()[from..end].to_vec()
}

fn path(timeline: u32, number: u64) -> String {
    format!("/a/{timeline:08X}{:016X}", number)
}

/// What `pg_receivewal` leaves that was stopped in the third segment.
fn of_pg_receivewal(wal: &Generator) -> SimDisk {
    let disk = SimDisk::new("/a");
    for number in [7, 8] {
        disk.plant(path(1, number), &segment(wal, number)).unwrap();
    }
    disk.plant(path(1, 9) + ".partial", &segment(wal, 9))
        .unwrap();
    disk
}

fn open(disk: &SimDisk) -> Result<ArchiveView, ArchiveError> {
    ArchiveView::open(Arc::new(disk.clone()), Path::new("/a"))
}

fn archive(disk: &SimDisk, sync: bool) -> Archive {
    let mut archive = sample::archive(disk.clone(), Path::new("/a"), sync);
    let facts = ServerFacts {
        data_directory_mode: 0o750,
        ..sample::facts()
    };
    archive.bind(&facts).unwrap();
    archive
}

fn complete(timeline: u32, end: u64) -> ArchivePosition {
    ArchivePosition {
        timeline: TimelineId::new(timeline).unwrap(),
        record_end: Lsn(end * MIB),
        byte_end: Lsn(end * MIB),
    }
}

#[test]
fn of_another_programs_archive_the_complete_segments_are_synced_and_given() {
    let wal = wal(1);
    let disk = of_pg_receivewal(&wal);
    let before = disk.log();
    let view = open(&disk).unwrap();
    assert_eq!(view.followed(), Followed::CompleteSegmentsOnly);
    assert_eq!(view.durable(), Some(complete(1, 9)));
    let identity = view.identity();
    assert_eq!(identity.system_id(), SystemId(7_000_000_000_000_000_001));
    assert_eq!(identity.segment_size().bytes(), MIB);
    assert_eq!(identity.server_version_num(), 150_000);
    assert_eq!(disk.log(), before, "a view changes nothing");

    let mut feed = view.feed(None, START).unwrap();
    let mut taken = BytesMut::new();
    for number in [7, 8] {
        let FeedStep::Chunk(chunk) = feed.next_step().unwrap() else {
            panic!("no chunk");
        };
        chunk.append_to(&mut taken).unwrap();
        let log = disk.log();
        let synced = [
            format!("sync {}", path(1, number)),
            "sync directory /a".to_owned(),
        ];
        for expected in synced {
            assert!(log.iter().any(|line| line.ends_with(&expected)), "{log:#?}");
        }
        while !(taken.len() as u64).is_multiple_of(MIB) {
            match feed.next_step().unwrap() {
                FeedStep::Chunk(chunk) => chunk.append_to(&mut taken).unwrap(),
                step => panic!("{step:?}"),
            }
        }
    }
    assert!(matches!(feed.next_step().unwrap(), FeedStep::CaughtUp));
    assert!(taken == [segment(&wal, 7), segment(&wal, 8)].concat());
}

#[test]
fn after_a_failed_sync_nothing_of_another_programs_archive_is_given() {
    let disk = of_pg_receivewal(&wal(2));
    let view = open(&disk).unwrap();
    disk.fail_at(disk.operations(), Fault::Io);
    let next = || view.feed(None, START).unwrap().next_step().unwrap_err();
    let error = next();
    assert!(
        matches!(error, FeedError::Archive(ArchiveError::Disk(_))),
        "{error}"
    );
    let error = next();
    let latched = matches!(
        error,
        FeedError::Archive(ArchiveError::SyncFailedBefore { .. })
    );
    assert!(latched, "{error}");
}

#[test]
fn a_file_that_is_still_copied_to_its_name_is_not_complete() {
    let wal = wal(3);
    let disk = of_pg_receivewal(&wal);
    let view = open(&disk).unwrap();
    disk.plant(path(1, 9), &segment(&wal, 9)[..700_000])
        .unwrap();
    assert!(!view.refresh().unwrap());
    disk.plant(path(1, 9), &segment(&wal, 9)).unwrap();
    assert!(view.refresh().unwrap());
    assert_eq!(view.durable(), Some(complete(1, 10)));
    assert!(!view.refresh().unwrap());
}

#[test]
fn a_subscriber_may_look_anew_itself() {
    let wal = wal(7);
    let disk = of_pg_receivewal(&wal);
    let view = open(&disk).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let _subscription = {
        let (view, seen) = (view.clone(), Arc::clone(&seen));
        view.clone().on_advance(move || {
            let changed = view.refresh().unwrap();
            seen.lock().unwrap().push((changed, view.durable()));
        })
    };
    disk.plant(path(1, 9), &segment(&wal, 9)).unwrap();
    assert!(view.refresh().unwrap());
    assert_eq!(*seen.lock().unwrap(), [(false, Some(complete(1, 10)))]);
}

#[test]
fn the_position_is_the_writers_once_one_of_ours_has_told_it() {
    let wal = wal(4);
    let disk = of_pg_receivewal(&wal);
    let view = open(&disk).unwrap();
    let archive = archive(&disk, true);
    let recovery = archive.recover().unwrap();
    let tip = recovery.tip().unwrap();
    let writer = archive
        .writer(recovery, wal.history(), tip.resume_at, Preparation::Inline)
        .unwrap();
    assert!(view.refresh().unwrap());
    assert_eq!(view.followed(), Followed::Published);
    let told = view.durable().unwrap();
    assert_eq!(told.record_end, tip.record_end.lsn());
    assert!(told.record_end > Lsn(9 * MIB));
    drop(writer);
    drop(archive);
    // A crash of the machine took what was published, which is never synced: what was noted as
    // acknowledged is left.
    for damaged in [true, false] {
        let position = Path::new("/a/.wal-receiver/position");
        if damaged {
            disk.plant(position, &[7; 8192]).unwrap();
        } else {
            disk.remove(position).unwrap();
        }
        let view = open(&disk).unwrap();
        assert_eq!(view.followed(), Followed::Published);
        assert_eq!(view.durable(), Some(told));
    }
    assert_eq!(open(&disk).unwrap().identity().data_directory_mode(), 0o750);
}

#[test]
fn an_archive_that_is_not_synced_is_not_given_on() {
    let disk = SimDisk::new("/a");
    let unsynced = archive(&disk, false);
    let refused = |view: Result<ArchiveView, ArchiveError>| {
        let error = view.unwrap_err();
        assert_eq!(
            error.to_string(),
            "archive \"/a\" was last written without fsync, so nothing of it may be handed on; \
             run the receiver on it with fsync"
        );
    };
    refused(unsynced.view());
    refused(open(&disk));
    drop(unsynced);
    refused(open(&disk));
    drop(archive(&disk, true));
    let view = open(&disk).unwrap();
    drop(archive(&disk, false));
    assert!(matches!(
        view.refresh(),
        Err(ArchiveError::NotDurable { .. })
    ));
}

#[test]
fn a_directory_that_says_nothing_of_a_cluster_is_refused() {
    let disk = SimDisk::new("/a");
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, ArchiveError::NoIdentity { .. }), "{error}");
    let wal = wal(5);
    let mut unknown = segment(&wal, 7);
    unknown[..2].copy_from_slice(&[0x99, 0xD9]);
    disk.plant(path(1, 7), &unknown).unwrap();
    assert_eq!(
        open(&disk).unwrap_err().to_string(),
        "\"/a/000000010000000000000007\" has the page magic number 0xD999, of no version of \
         PostgreSQL that is known; connect the receiver to the server once, so that the archive \
         knows its version"
    );
}

#[test]
fn the_oldest_segment_is_one_of_the_timeline() {
    let wal = wal(6);
    let disk = of_pg_receivewal(&wal);
    disk.plant(path(2, 5), &segment(&wal, 7)).unwrap();
    let view = open(&disk).unwrap();
    let oldest = |timeline: u32| {
        let oldest = view.oldest_segment(TimelineId::new(timeline).unwrap());
        oldest.unwrap().map(|name| name.to_string())
    };
    assert_eq!(oldest(1).as_deref(), Some("000000010000000000000007"));
    assert_eq!(oldest(2).as_deref(), Some("000000020000000000000005"));
    assert_eq!(oldest(3), None);
}
