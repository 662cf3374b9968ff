use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tempfile::TempDir;
use walproto::{Lsn, TimelineId};

use super::*;
use crate::archive::Archive;
use crate::archive::listeners::Subscription;
use crate::archive::position::ArchivePosition;
use crate::archive::prepare::Preparation;
use crate::disk::Disk;
use crate::disk::os_disk::OsDisk;
use crate::disk::tampered::{Tamper, Tampered};
use crate::serve::feed::FeedStep;
use crate::wal::generator::Generator;
use crate::wal::sample::{self, MIB, START, generator};

/// Only how long a test takes to fail.
const PATIENCE: Duration = Duration::from_secs(60);

fn archive(directory: &TempDir, sync: bool) -> Archive {
    sample::archive(OsDisk::new(), directory.path(), sync)
}

fn view(directory: &TempDir) -> ArchiveView {
    ArchiveView::open(Arc::new(OsDisk::new()), directory.path()).unwrap()
}

/// Hears of each change.
struct Calls {
    calls: Receiver<()>,
    _subscription: Subscription,
}

impl Calls {
    fn of(view: &ArchiveView) -> Self {
        let (sender, calls) = channel();
        let subscription = view.on_advance(move || sender.send(()).unwrap_or(()));
        Self {
            calls,
            _subscription: subscription,
        }
    }

    /// Waits, without looking before a call, until `is_there`.
    fn wait_until(&self, is_there: impl Fn() -> bool) {
        while !is_there() {
            self.calls.recv_timeout(PATIENCE).unwrap();
        }
    }
}

fn segment(directory: &TempDir, wal: &Generator, number: u64) -> (PathBuf, Vec<u8>) {
    let from = usize::try_from((number - 7) * MIB).unwrap();
    let end = from + usize::try_from(MIB).unwrap();
    let path = directory
        .path()
        .join(format!("{:024X}", (1u128 << 64) | u128::from(number)));
    (path, wal.bytes()[from..end].to_vec())
}

fn complete(end: u64) -> Option<ArchivePosition> {
    Some(ArchivePosition {
        timeline: TimelineId::FIRST,
        record_end: Lsn(end * MIB),
        byte_end: Lsn(end * MIB),
    })
}

#[test]
fn every_sync_of_another_process_is_heard_of() {
    let mut wal = generator(1);
    wal.fill(3 * MIB);
    let directory = tempfile::tempdir().unwrap();
    let archive = archive(&directory, true);
    let view = view(&directory);
    assert_eq!(view.durable(), None);
    let follower = view.follow().unwrap();
    let calls = Calls::of(&view);
    let recovery = archive.recover().unwrap();
    let mut writer = archive
        .writer(recovery, wal.history(), START, Preparation::Inline)
        .unwrap();
    let records = wal.records().iter().step_by(97);
    for record in records {
        let at = writer.position();
        let range = at.bytes_since(START)..record.end.bytes_since(START);
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        let piece = Bytes::copy_from_slice(&wal.bytes()[range]);
        writer.append(at, &[piece]).unwrap();
        writer.sync().unwrap();
        let is_there = || {
            let durable = view.durable();
            durable.is_some_and(|durable| durable.record_end == record.end)
        };
        calls.wait_until(is_there);
    }
    assert_eq!(view.followed(), Followed::Published);
    drop(follower);
}

#[test]
fn segments_that_another_program_completes_are_heard_of() {
    let mut wal = generator(2);
    wal.fill(4 * MIB);
    let directory = tempfile::tempdir().unwrap();
    let (first, content) = segment(&directory, &wal, 7);
    fs::write(first, content).unwrap();
    let view = view(&directory);
    assert_eq!(view.followed(), Followed::CompleteSegmentsOnly);
    assert_eq!(view.durable(), complete(8));
    let _follower = view.follow().unwrap();
    let calls = Calls::of(&view);
    // As pg_receivewal does it.
    let (second, content) = segment(&directory, &wal, 8);
    let partial = second.with_extension("partial");
    fs::write(&partial, content).unwrap();
    fs::rename(partial, second).unwrap();
    calls.wait_until(|| view.durable() == complete(9));
    // As an archive_command may.
    let (third, content) = segment(&directory, &wal, 9);
    fs::write(third, content).unwrap();
    calls.wait_until(|| view.durable() == complete(10));
    // A receiver takes over.
    let archive = archive(&directory, true);
    let recovery = archive.recover().unwrap();
    let start = recovery.tip().unwrap().resume_at;
    let writer = archive.writer(recovery, wal.history(), start, Preparation::Inline);
    calls.wait_until(|| view.followed() == Followed::Published);
    drop(writer);
}

/// Writes that pass by the page cache, beside reads that go through it.
#[test]
fn who_reads_beside_a_bulk_load_gets_what_was_written() {
    let mut wal = generator(3);
    wal.fill(12 * MIB);
    let directory = tempfile::tempdir().unwrap();
    let archive = archive(&directory, true);
    let recovery = archive.recover().unwrap();
    let writer = archive.writer(recovery, wal.history(), START, Preparation::Background);
    let mut writer = writer.unwrap();
    let view = view(&directory);
    let _follower = view.follow().unwrap();
    let last = wal.records().last().unwrap().end;
    thread::scope(|scope| {
        scope.spawn(|| {
            let calls = Calls::of(&view);
            let mut feed = view.feed(None, START).unwrap();
            let mut taken = BytesMut::new();
            while feed.position() < last {
                match feed.next_step().unwrap() {
                    FeedStep::Chunk(chunk) => {
                        taken.clear();
                        chunk.append_to(&mut taken).unwrap();
                        let from = usize::try_from(chunk.start.bytes_since(START)).unwrap();
                        let expected = &wal.bytes()[from..from + taken.len()];
                        assert!(taken == expected, "from {}", chunk.start);
                    }
                    FeedStep::CaughtUp => calls.wait_until(|| {
                        let durable = view.durable();
                        durable.is_some_and(|durable| durable.record_end > feed.position())
                    }),
                    step @ FeedStep::EndOfTimeline { .. } => panic!("{step:?}"),
                }
            }
        });
        let mut rng = fastrand::Rng::with_seed(3);
        let mut rest = Bytes::copy_from_slice(wal.bytes());
        while !rest.is_empty() {
            let longest = [5_000, 700_000][rng.usize(..2)];
            let piece = rest.split_to(rng.usize(1..longest).min(rest.len()));
            writer.append(writer.position(), &[piece]).unwrap();
            writer.sync().unwrap();
        }
    });
}

/// Nothing can be opened for a while, as when the process has too many open files.
#[derive(Debug, Default)]
struct Refusing(AtomicBool);

impl Tamper for Refusing {
    fn before_open(&self, _path: &Path) -> io::Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(Errno::MFILE.into()),
            false => Ok(()),
        }
    }
}

#[test]
fn what_could_not_be_read_for_a_while_is_heard_of_though_nothing_follows() {
    let mut wal = generator(4);
    wal.fill(MIB);
    let directory = tempfile::tempdir().unwrap();
    let archive = archive(&directory, true);
    let recovery = archive.recover().unwrap();
    let writer = archive.writer(recovery, wal.history(), START, Preparation::Inline);
    let mut writer = writer.unwrap();
    let disk = Arc::new(Tampered {
        disk: OsDisk::new(),
        tamper: Refusing::default(),
    });
    let view = ArchiveView::open(Arc::clone(&disk) as Arc<dyn Disk>, directory.path()).unwrap();
    let _follower = view.follow().unwrap();
    let calls = Calls::of(&view);
    let before = view.durable();
    disk.tamper.0.store(true, Ordering::Relaxed);
    let end = wal.records().last().unwrap().end;
    writer
        .append(START, &[sample::bytes(&wal, START, end)])
        .unwrap();
    writer.sync().unwrap();
    calls.wait_until(|| {
        let failure = view.take_failure();
        failure.is_some_and(|error| matches!(error, ArchiveError::Disk(e) if !e.is_not_found()))
    });
    assert_eq!(view.durable(), before);
    disk.tamper.0.store(false, Ordering::Relaxed);
    calls.wait_until(|| {
        let durable = view.durable();
        durable.is_some_and(|durable| durable.record_end == end)
    });
}

#[test]
fn what_goes_wrong_is_told_and_dropping_a_follower_ends_it() {
    let directory = tempfile::tempdir().unwrap();
    drop(archive(&directory, true));
    let view = view(&directory);
    let follower = view.follow().unwrap();
    let calls = Calls::of(&view);
    drop(archive(&directory, false));
    let failed = || {
        let failure = view.take_failure();
        failure.is_some_and(|error| matches!(error, ArchiveError::NotDurable { .. }))
    };
    calls.wait_until(failed);
    // Several notices come of one new file, and each may find the failure again: only without the
    // thread does it stay taken.
    drop(follower);
    let _ = view.take_failure();
    assert!(view.take_failure().is_none());
    let follower = ArchiveView::open(Arc::new(OsDisk::new()), directory.path());
    assert!(matches!(follower, Err(ArchiveError::NotDurable { .. })));

    // The directory goes.
    let directory = tempfile::tempdir().unwrap();
    drop(archive(&directory, true));
    let view = self::view(&directory);
    let follower = view.follow().unwrap();
    let calls = Calls::of(&view);
    directory.close().unwrap();
    calls.wait_until(|| {
        // What is seen to be missing first is a matter of time.
        let failure = view.take_failure();
        failure.is_some_and(|error| matches!(error, ArchiveError::Disk(e) if e.is_not_found()))
    });
    // Would wait for ever for a thread that has not seen it.
    drop(follower);
}

#[test]
fn a_view_of_this_process_needs_no_thread() {
    let directory = tempfile::tempdir().unwrap();
    let archive = archive(&directory, true);
    let view = archive.view().unwrap();
    assert_eq!(view.followed(), Followed::SameProcess);
    assert!(view.follow().unwrap().thread.is_none());
    assert!(!view.is_on_network().unwrap());
}
