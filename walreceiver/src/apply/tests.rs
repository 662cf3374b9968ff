use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;
use segstore::generator::Generator;
use segstore::sim::SimDisk;
use segstore::{PieceEnd, Preparation};
use tokio::runtime::{Builder, Runtime};
use walproto::WalPosition;

use super::*;
use crate::sample::{self, ROOT, START, generator};

/// Timeline 2, which left that of `wal` after so many records, with as many of its own.
fn promoted(wal: &Generator, records: usize) -> Generator {
    let switch_point = wal.records()[records - 1].end;
    let timeline = TimelineId::new(2).unwrap();
    let mut promoted = wal.promoted(timeline, switch_point).unwrap();
    for _ in 0..records {
        promoted.record(200);
    }
    promoted
}

fn wal(records: usize) -> Generator {
    let mut wal = generator();
    for _ in 0..records {
        wal.record(200);
    }
    wal
}

fn end(wal: &Generator) -> Lsn {
    wal.records().last().unwrap().end
}

fn archive() -> Archive {
    sample::archive(&SimDisk::new(ROOT))
}

/// Adds what `wal` has to the archive.
fn receive(archive: &mut Archive, wal: &Generator) {
    if !wal.history().ancestors().is_empty() {
        archive.store_history(wal.history()).unwrap();
    }
    let recovery = archive.recover().unwrap();
    let mut writer = archive
        .writer(recovery, wal.history(), START, Preparation::Inline)
        .unwrap();
    let bytes = Bytes::copy_from_slice(wal.bytes());
    writer.append(START, &[bytes]).unwrap();
    writer.close().unwrap();
}

/// A piece that was given out: its timeline and start, and how it ended.
type Given = (u32, Lsn, PieceEnd);

/// An applier that says what it got, and goes on only when it is told to.
struct Slow {
    applier: Applier,
    given: Receiver<Given>,
    go_on: Sender<()>,
    runtime: Runtime,
}

impl Slow {
    fn start(from: Option<WalPosition>, whole_length: usize) -> Self {
        let (say, given) = channel();
        let (go_on, wait) = channel();
        let apply = move |piece: RecordPiece| {
            say.send((piece.timeline.number(), piece.start, piece.end))?;
            wait.recv()?;
            Ok(())
        };
        let config = ApplyConfig { from, whole_length };
        Self {
            applier: Applier::start(Box::new(apply), config).unwrap(),
            given,
            go_on,
            runtime: Builder::new_current_thread().build().unwrap(),
        }
    }

    /// One that has the first record of `wal`, and knows of those up to `durable`.
    fn at_the_first(archive: &Archive, wal: &Generator, durable: Lsn) -> Self {
        let slow = Self::start(at(1, START), 1 << 20);
        slow.follow(archive, wal, durable);
        assert_eq!(slow.given.recv().unwrap(), expected(wal)[0]);
        slow
    }

    fn follow(&self, archive: &Archive, wal: &Generator, durable: Lsn) {
        self.applier
            .follow(archive, wal.history(), durable)
            .unwrap();
    }

    /// Lets it go on with all it gets, until all of `wal` is applied; what it gets after the piece
    /// that it has.
    fn finish(self, wal: &Generator) -> Vec<Given> {
        let end = end(wal);
        self.applier.durable(end);
        self.go_on.send(()).unwrap();
        let mut given = Vec::new();
        while given
            .last()
            .is_none_or(|last: &Given| last.2 != PieceEnd::Complete(end))
        {
            given.push(self.given.recv().unwrap());
            self.go_on.send(()).unwrap();
        }
        let mut applied = self.applier.applied();
        self.runtime
            .block_on(applied.wait_for(|lsn| *lsn == end))
            .unwrap();
        drop(applied);
        self.runtime.block_on(self.applier.finish()).unwrap();
        given
    }

    /// Lets it go on, and gives why it ended.
    fn fail(self) -> ApplyError {
        drop(self.given);
        drop(self.go_on);
        self.runtime.block_on(self.applier.ended());
        self.runtime.block_on(self.applier.finish()).unwrap_err()
    }
}

fn expected(wal: &Generator) -> Vec<Given> {
    let timeline = |lsn| wal.history().timeline_of(lsn).number();
    let records = wal.records().iter();
    records
        .map(|r| (timeline(r.start), r.start, PieceEnd::Complete(r.end)))
        .collect()
}

fn at(timeline: u32, lsn: Lsn) -> Option<WalPosition> {
    let timeline = TimelineId::new(timeline).unwrap();
    Some(WalPosition { timeline, lsn })
}

#[test]
fn another_connection_on_the_same_timeline_repeats_nothing() {
    let wal = wal(50);
    let mut archive = archive();
    receive(&mut archive, &wal);
    let slow = Slow::at_the_first(&archive, &wal, wal.records()[20].end);
    // It has the first record and knows of twenty more.
    slow.follow(&archive, &wal, wal.records()[20].end);
    assert_eq!(slow.finish(&wal), expected(&wal)[1..]);
}

#[test]
fn a_lagging_applier_crosses_a_promotion_without_a_gap_or_repetition() {
    let old = wal(20);
    let new = promoted(&old, 20);
    let mut archive = archive();
    receive(&mut archive, &old);
    let slow = Slow::at_the_first(&archive, &old, end(&old));
    receive(&mut archive, &new);
    slow.follow(&archive, &new, end(&old));
    assert_eq!(slow.finish(&new), expected(&new)[1..]);
}

#[test]
fn records_that_only_the_old_timeline_has_are_not_applied_once_another_is_followed() {
    let old = wal(30);
    let new = promoted(&old, 10);
    let mut archive = archive();
    receive(&mut archive, &old);
    let slow = Slow::at_the_first(&archive, &old, end(&old));
    receive(&mut archive, &new);
    slow.follow(&archive, &new, old.records()[9].end);
    // The thirty of the old timeline were read already, but not given out.
    assert_eq!(slow.finish(&new), expected(&new)[1..]);
}

#[test]
fn pieces_of_a_record_that_the_followed_timeline_lacks_are_abandoned() {
    let mut old = wal(10);
    let large = old.record(100_000);
    let new = promoted(&old, 10);
    let mut archive = archive();
    receive(&mut archive, &old);
    let slow = Slow::start(at(1, old.records()[9].end), 1_000);
    slow.follow(&archive, &old, large.end);
    let first = slow.given.recv().unwrap();
    assert_eq!(first, (1, large.start, PieceEnd::Continues));
    receive(&mut archive, &new);
    slow.follow(&archive, &new, new.records()[9].end);
    let given = slow.finish(&new);
    assert_eq!(given[0], (1, large.start, PieceEnd::Abandoned));
    assert_eq!(given[1..], expected(&new)[10..]);
}

#[test]
fn a_timeline_that_lacks_what_was_applied_is_an_error() {
    let old = wal(30);
    let new = promoted(&old, 10);
    let mut archive = archive();
    receive(&mut archive, &old);
    receive(&mut archive, &new);
    // Applied now, and on an earlier run.
    for before in [false, true] {
        let applied = old.records()[10].end;
        let from = if before { applied } else { START };
        let slow = Slow::start(at(1, from), 1 << 20);
        if !before {
            slow.follow(&archive, &old, applied);
            for _ in 0..=10 {
                slow.given.recv().unwrap();
                slow.go_on.send(()).unwrap();
            }
        }
        slow.follow(&archive, &new, end(&new));
        let error = slow.fail();
        let ApplyError::Forked {
            applied: found,
            switch_point,
            ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!((found, switch_point), (applied, old.records()[9].end));
    }
}

#[test]
fn a_timeline_that_does_not_descend_from_what_was_applied_is_an_error() {
    let wal = wal(10);
    let mut archive = archive();
    receive(&mut archive, &wal);
    let slow = Slow::start(at(2, START), 1 << 20);
    slow.follow(&archive, &wal, end(&wal));
    let error = slow.fail();
    assert!(
        matches!(error, ApplyError::ForeignTimeline { applied: START, .. }),
        "{error}"
    );
}

#[test]
fn what_came_before_the_first_record_counts_as_applied() {
    let wal = wal(10);
    let mut archive = archive();
    receive(&mut archive, &wal);
    let slow = Slow::start(None, 1 << 20);
    let known = wal.records()[4].end;
    slow.follow(&archive, &wal, known);
    let mut applied = slow.applier.applied();
    let found = slow.runtime.block_on(applied.wait_for(|lsn| *lsn == known));
    assert_eq!(*found.unwrap(), known);
    slow.applier.durable(end(&wal));
    assert_eq!(slow.finish(&wal), expected(&wal)[5..]);
}

#[test]
fn the_thread_ends_when_the_receiver_is_dropped() {
    let slow = Slow::start(None, 1 << 20);
    let mut applied = slow.applier.applied();
    drop(slow.applier);
    let closed = slow.runtime.block_on(applied.changed());
    assert!(closed.is_err());
}
