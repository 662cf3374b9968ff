use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::archive::Archive;
use crate::archive::compression::Compression;
use crate::archive::compressor;
use crate::archive::prepare::Preparation;
use crate::archive::writer::Writer;
use crate::disk::os_disk::OsDisk;
use crate::disk::sim::SimDisk;
use crate::disk::{Disk, OpenMode};
use crate::error::{ArchiveError, Damage};
use crate::wal::generator::{AfterSwitch, Generator};
use crate::wal::sample::{self, MIB, START, bytes, generator, segment_size};
use crate::wal::segment::{SegmentFile, SegmentName};

mod checked;
mod damage;
mod memory;
mod timelines;

const ROOT: &str = "/archive";
pub(in crate::serve) fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

/// WAL over three segments, with a switch, and a record that crosses into the third.
fn wal(seed: u64) -> Generator {
    let mut wal = generator(seed);
    wal.fill(400_000);
    wal.switch(AfterSwitch::Zeros);
    wal.fill(START.0 + 2 * MIB - 30_000 - wal.end().0);
    wal.record(60_000);
    wal.fill(400_000);
    wal
}

fn name(timeline_number: u32, lsn: Lsn) -> SegmentName {
    SegmentName::of(timeline(timeline_number), lsn, segment_size())
}

fn path(file: impl std::fmt::Display) -> String {
    format!("{ROOT}/{file}")
}

/// An archive in this process, and a view of it as another process has it.
pub(in crate::serve) struct World {
    pub(in crate::serve) disk: SimDisk,
    pub(in crate::serve) archive: Archive,
}

impl World {
    pub(in crate::serve) fn new() -> Self {
        let disk = SimDisk::new(ROOT);
        let archive = sample::archive(disk.clone(), ROOT.as_ref(), true);
        Self { disk, archive }
    }

    pub(in crate::serve) fn writer(&mut self, wal: &Generator) -> Writer {
        self.archive.store_history(wal.history()).unwrap();
        let recovery = self.archive.recover().unwrap();
        let begin = wal.history().begin();
        let first = begin.map_or(START, |begin| segment_size().start_of(begin));
        let tip = recovery.tip();
        let tip = tip.filter(|tip| tip.timeline == wal.history().timeline());
        let start = tip.map_or(first, |tip| tip.resume_at.max(first));
        self.archive
            .writer(recovery, wal.history(), start, Preparation::Inline)
            .unwrap()
    }

    /// An archive that holds all of `wal`.
    fn with(wal: &Generator) -> Self {
        let mut world = Self::new();
        let mut writer = world.writer(wal);
        write(&mut writer, wal, wal.end());
        writer.close().unwrap();
        world
    }

    /// A view of this process and one of another.
    pub(in crate::serve) fn views(&self) -> [ArchiveView; 2] {
        [self.archive.view().unwrap(), self.published()]
    }

    fn published(&self) -> ArchiveView {
        ArchiveView::open(Arc::new(self.disk.clone()), Path::new(ROOT)).unwrap()
    }

    pub(in crate::serve) fn compress(&self, name: SegmentName, compression: Compression) {
        let files = self.archive.segment_files().unwrap();
        compressor::compress(files.directory(), compression, name, &|| true).unwrap();
    }
}

/// Appends and syncs.
pub(in crate::serve) fn write(writer: &mut Writer, wal: &Generator, end: Lsn) {
    let at = writer.position();
    let batch = bytes(wal, at, end);
    writer.append(at, &[batch]).unwrap();
    writer.sync().unwrap();
}

/// Why a feed gives no more chunks.
#[derive(PartialEq, Eq, Debug)]
enum Pause {
    CaughtUp,
    EndOfTimeline(Lsn, TimelineId),
}

/// Takes all chunks there are, and checks where each of them ends.
fn take_all(feed: &mut Feed) -> Result<(Vec<u8>, Pause), FeedError> {
    let mut taken = BytesMut::new();
    loop {
        let position = feed.position();
        let ready = feed.ready_step()?;
        let was_ready = ready.is_some();
        let step = match ready {
            Some(step) => step,
            None => feed.next_step()?,
        };
        match step {
            FeedStep::Chunk(chunk) => {
                assert_eq!(chunk.start, position);
                assert_eq!(chunk.end, feed.position());
                assert_eq!(chunk.end.bytes_since(chunk.start), chunk.length() as u64);
                assert!((1..=Chunk::MAX_LENGTH).contains(&chunk.length()));
                let whole = chunk.end.align_down(BLOCK_SIZE) == chunk.end;
                let durable = feed.view.durable().unwrap().record_end;
                let left = feed.end.map(|end| end.switch_point);
                let last = chunk.end == left.map_or(durable, |left| left.min(durable));
                let open = feed.open.as_ref();
                let before_damage = open.is_some_and(|open| open.check.good_end() == chunk.end);
                assert!(
                    whole || last || before_damage,
                    "a chunk ends at {}",
                    chunk.end
                );
                chunk.append_to(&mut taken)?;
            }
            FeedStep::CaughtUp => {
                assert!(was_ready);
                return Ok((taken.to_vec(), Pause::CaughtUp));
            }
            FeedStep::EndOfTimeline {
                switch_point,
                next_timeline,
            } => {
                return Ok((
                    taken.to_vec(),
                    Pause::EndOfTimeline(switch_point, next_timeline),
                ));
            }
        }
    }
}

/// Takes all there is, which is WAL of `wal` up to `end` and no more.
fn assert_goes_on(feed: &mut Feed, wal: &Generator, end: Lsn, pause: Pause) {
    let start = feed.position();
    let (taken, paused) = take_all(feed).unwrap();
    assert_eq!(feed.position(), end);
    assert!(taken == bytes(wal, start, end), "from {start} to {end}");
    assert_eq!(paused, pause);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_start_gives_the_wal_from_there_as_it_becomes_durable(
        seed: u64, start in 0.0..1.0, steps in prop::collection::vec(1u64..900_000, 1..8),
        compressed: bool,
    ) {
        let wal = wal(seed);
        let all = wal.end().bytes_since(START);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss,
            reason = "any position will do")]
        let start = Lsn(START.0 + (start * all as f64) as u64);
        let mut world = World::new();
        let mut writer = world.writer(&wal);
        let mut feeds: Vec<Option<Feed>> = vec![None, None];
        let views = world.views();
        let mut end = START;
        for step in steps.into_iter().chain([all]) {
            end = Lsn(end.0 + step).min(wal.end());
            write(&mut writer, &wal, end);
            let record_end = writer.durable().record_end.lsn();
            if compressed && end > Lsn(START.0 + MIB) {
                world.compress(name(1, START), Compression::LZ4);
            }
            for (feed, view) in feeds.iter_mut().zip(&views) {
                view.refresh().unwrap();
                prop_assert_eq!(view.durable().unwrap().record_end, record_end);
                if record_end < start {
                    let mut early = view.feed(None, start).unwrap();
                    let refused = matches!(early.next_step(), Err(FeedError::StartAhead { .. }));
                    prop_assert!(refused);
                    continue;
                }
                let feed = feed.get_or_insert_with(|| view.feed(None, start).unwrap());
                assert_goes_on(feed, &wal, record_end, Pause::CaughtUp);
            }
        }
        prop_assert!(end == wal.end() && feeds.iter().all(Option::is_some));
    }
}

#[test]
fn nothing_that_is_not_durable_is_given() {
    let wal = wal(1);
    let mut world = World::new();
    let view = world.archive.view().unwrap();
    assert!(matches!(
        view.feed(None, START),
        Err(FeedError::NothingDurable)
    ));
    let mut writer = world.writer(&wal);
    let mut feeds: Vec<Feed> = world
        .views()
        .iter()
        .map(|view| view.feed(None, START).unwrap())
        .collect();
    let record = wal.records()[30];
    // Inside the next record.
    let end = Lsn(record.end.0 + 9);
    let batch = bytes(&wal, START, end);
    writer.append(START, &[batch]).unwrap();
    for feed in &mut feeds {
        feed.view.refresh().unwrap();
        assert_goes_on(feed, &wal, START, Pause::CaughtUp);
    }
    writer.sync().unwrap();
    for feed in &mut feeds {
        feed.view.refresh().unwrap();
        // Half a record may yet be replaced.
        assert_goes_on(feed, &wal, record.end, Pause::CaughtUp);
    }
}

#[test]
fn what_recovery_found_is_given_before_there_is_a_writer() {
    let wal = wal(2);
    let World { disk, archive } = World::with(&wal);
    drop(archive);
    let options = sample::options(ROOT.as_ref(), true);
    let archive = Archive::open(Arc::new(disk), options).unwrap();
    let view = archive.view().unwrap();
    assert_eq!(view.durable(), None);
    archive.recover().unwrap();
    let mut feed = view.feed(None, START).unwrap();
    assert_goes_on(&mut feed, &wal, wal.end(), Pause::CaughtUp);
}

#[test]
fn a_file_is_gone_on_in_whatever_becomes_of_its_name() {
    for method in [
        Compression::NONE,
        Compression::gzip(None).unwrap(),
        Compression::LZ4,
        Compression::zstd(None).unwrap(),
    ] {
        let wal = wal(3);
        let mut world = World::new();
        let mut writer = world.writer(&wal);
        let inside = wal.records()[20].end;
        write(&mut writer, &wal, inside);
        let mut feeds: Vec<Feed> = world
            .views()
            .iter()
            .map(|view| view.feed(None, START).unwrap())
            .collect();
        for feed in &mut feeds {
            assert_goes_on(feed, &wal, inside, Pause::CaughtUp);
        }
        // It gets its final name, and another file takes its place.
        write(&mut writer, &wal, wal.end());
        for feed in &mut feeds {
            feed.view.refresh().unwrap();
            let FeedStep::Chunk(chunk) = feed.next_step().unwrap() else {
                panic!("no chunk");
            };
            let mut first = BytesMut::new();
            chunk.append_to(&mut first).unwrap();
            assert!(first == bytes(&wal, chunk.start, chunk.end));
        }
        world.compress(name(1, START), method);
        for feed in &mut feeds {
            assert_goes_on(feed, &wal, wal.end(), Pause::CaughtUp);
            let mut another = feed.view.feed(None, Lsn(START.0 + 12_345)).unwrap();
            assert_goes_on(&mut another, &wal, wal.end(), Pause::CaughtUp);
        }
    }
}

/// A primary that crashed after it sent a part of a record, and wrote another.
#[test]
fn a_tail_that_was_replaced_is_read_from_the_new_file() {
    let mut before = generator(4);
    before.fill(100_000);
    let mut after = before.clone();
    let record_end = before.end();
    before.record(50_000);
    after.overwritten_record(2);
    after.fill(100_000);
    let mut world = World::new();
    let mut writer = world.writer(&before);
    write(&mut writer, &before, Lsn(before.end().0 - 5));
    drop(writer);
    let mut feeds: Vec<Feed> = world
        .views()
        .iter()
        .map(|view| view.feed(None, START).unwrap())
        .collect();
    for feed in &mut feeds {
        // Leaves the file open.
        let first = feed.next_step().unwrap();
        assert!(matches!(first, FeedStep::Chunk(chunk) if chunk.end == record_end));
    }
    let mut writer = world.writer(&after);
    write(&mut writer, &after, after.end());
    for feed in &mut feeds {
        feed.view.refresh().unwrap();
        assert_goes_on(feed, &after, after.end(), Pause::CaughtUp);
    }
}

#[test]
fn feeds_at_the_end_share_one_file() {
    let wal = wal(5);
    let world = World::with(&wal);
    let view = world.published();
    let near_the_end = wal.end().align_down(BLOCK_SIZE);
    let files: Vec<_> = (0..3)
        .map(|_| {
            let mut feed = view.feed(None, near_the_end).unwrap();
            match feed.next_step().unwrap() {
                FeedStep::Chunk(Chunk {
                    data: ChunkData::File { file, .. },
                    ..
                }) => file,
                step => panic!("{step:?}"),
            }
        })
        .collect();
    assert!(files.iter().all(|file| file.is_same(&files[0])));
}

/// As a receiver that compresses leaves its archive.
#[test]
fn serves_a_growing_segment_that_was_compressed_and_continues_when_it_is_plain_again() {
    for method in [
        Compression::gzip(None).unwrap(),
        Compression::LZ4,
        Compression::zstd(None).unwrap(),
    ] {
        for on_disk in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let sim: Arc<dyn Disk> = Arc::new(SimDisk::new(ROOT));
            let (disk, root) = if on_disk {
                (Arc::new(OsDisk::new()) as Arc<dyn Disk>, directory.path())
            } else {
                (sim, Path::new(ROOT))
            };
            assert_serves_a_compressed_end(&disk, root, method, on_disk);
        }
    }
}

/// The file ends with the segment, filled with zeros, or is cut at the durable end.
fn assert_serves_a_compressed_end(
    disk: &Arc<dyn Disk>,
    root: &Path,
    method: Compression,
    cut: bool,
) {
    let wal = wal(6);
    let third = Lsn(START.0 + 2 * MIB);
    let records = wal.records();
    let crossed = records
        .iter()
        .find(|record| record.end > Lsn(third.0 + 100_000));
    let inside = crossed.unwrap().end;
    let open = || Archive::open(Arc::clone(disk), sample::options(root, true)).unwrap();
    let mut world = World {
        disk: SimDisk::new(ROOT),
        archive: open(),
    };
    world.archive.bind(&sample::facts()).unwrap();
    let mut writer = world.writer(&wal);
    write(&mut writer, &wal, inside);
    writer.close().unwrap();
    let view = ArchiveView::open(Arc::clone(disk), root).unwrap();
    let mut early = view.feed(None, START).unwrap();
    early.next_step().unwrap();
    if cut {
        let growing = world.archive.path_of(SegmentFile::partial(name(1, third)));
        let file = disk.open(&growing, OpenMode::ReadWrite).unwrap();
        file.set_length(inside.bytes_since(third)).unwrap();
    }
    let patience = std::time::Duration::from_secs(60);
    world.archive.compress_growing(method, patience).unwrap();
    drop(world);
    let growing = SegmentFile::partial(name(1, third));
    let listing = view.listing().unwrap();
    assert!(listing.length_of(growing).is_none());
    assert!(
        listing
            .length_of(growing.encoded(method.encoding()))
            .is_some()
    );
    let fresh = ArchiveView::open(Arc::clone(disk), root).unwrap();
    let mut feeds = vec![early];
    for view in [&view, &fresh] {
        for start in [START, third, inside] {
            feeds.push(view.feed(None, start).unwrap());
        }
    }
    for feed in &mut feeds {
        assert_goes_on(feed, &wal, inside, Pause::CaughtUp);
    }
    // A feed in the middle of the compressed file.
    let mut middle = fresh.feed(None, third).unwrap();
    middle.next_step().unwrap();
    feeds.push(middle);
    let mut world = World {
        disk: SimDisk::new(ROOT),
        archive: open(),
    };
    let mut writer = world.writer(&wal);
    write(&mut writer, &wal, wal.end());
    for feed in &mut feeds {
        feed.view.refresh().unwrap();
        assert_goes_on(feed, &wal, wal.end(), Pause::CaughtUp);
    }
}
