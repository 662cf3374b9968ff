//! What was acknowledged is never lost, and valid durable bytes are never replaced by others:
//! held against power cuts at every operation of the disk, failed syncs and a full disk.
//!
//! A life of the receiver opens the archive, recovers, resumes and streams until it is done or
//! the disk stops it; what it acknowledged is what the next life must find. The same seed gives
//! the same operations, so each of them can be the last one.
#![cfg(test)]

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use fastrand::Rng;
use segstore::generator::{AfterSwitch, Generator};
use segstore::sim::{SimDisk, Survival};
use segstore::{
    Archive, ArchiveError, ArchiveOptions, Compression, Durable, Preparation, ServerFacts,
    WalFormat, WriteError, Writer,
};
use walproto::{Lsn, SegmentSize, SystemId, TimelineHistory, TimelineId};

const ROOT: &str = "/archive";
const SEGMENT_SIZE: u64 = 1 << 20;
const START: Lsn = Lsn(7 * SEGMENT_SIZE);

/// Why a life ended early.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// A primary's WAL, and what a receiver has told it.
struct World {
    disk: SimDisk,
    wal: Generator,
    acknowledged: Lsn,
    /// The largest batch in bytes.
    batch_max: usize,
}

fn facts() -> ServerFacts {
    ServerFacts {
        system_id: SystemId(7_000_000_000_000_000_001),
        segment_size: SegmentSize::new(SEGMENT_SIZE).unwrap(),
        block_size: 8192,
        server_version_num: 150_018,
        data_directory_mode: 0o700,
    }
}

fn generator(seed: u64) -> Generator {
    let format = WalFormat {
        system_id: facts().system_id,
        segment_size: facts().segment_size,
        page_magic: None,
        server_version_num: Some(facts().server_version_num),
    };
    let history = TimelineHistory::without_ancestors(TimelineId::FIRST);
    Generator::new(format, history, START, seed).unwrap()
}

/// WAL over three segments: two switches keep it short, and a record crosses each other border.
fn short_wal(seed: u64) -> Generator {
    let mut wal = generator(seed);
    wal.fill(60_000);
    wal.switch(AfterSwitch::Zeros);
    wal.fill(SEGMENT_SIZE - 30_000);
    wal.record(60_000);
    wal.fill(50_000);
    wal
}

fn open(disk: &SimDisk) -> Result<Archive, ArchiveError> {
    let options = ArchiveOptions {
        directory: ROOT.into(),
        sync: true,
        compression: Compression::NONE,
    };
    let mut archive = Archive::open(Arc::new(disk.clone()), options)?;
    archive.bind(&facts())?;
    Ok(archive)
}

impl World {
    fn new(wal: Generator, batch_max: usize) -> Self {
        Self {
            disk: SimDisk::new(ROOT),
            wal,
            acknowledged: START,
            batch_max,
        }
    }

    fn bytes(&self, from: Lsn, end: Lsn) -> &[u8] {
        let index = |lsn: Lsn| usize::try_from(lsn.0 - self.wal.start().0).unwrap();
        &self.wal.bytes()[index(from)..index(end)]
    }

    /// Streams all there is, or until the disk refuses.
    fn live(&mut self, rng: &mut Rng) -> Result<(), Stop> {
        let mut archive = open(&self.disk)?;
        if self.wal.history().timeline() != TimelineId::FIRST {
            archive.store_history(self.wal.history())?;
        }
        let recovery = archive.recover()?;
        let start = recovery.tip().map_or(self.wal.start(), |tip| {
            let found = tip.record_end.lsn();
            assert!(
                found >= self.acknowledged,
                "{found} < {}",
                self.acknowledged
            );
            assert!(tip.resume_at <= found);
            tip.resume_at
        });
        self.assert_readable(&archive)?;
        let history = self.wal.history().clone();
        let mut writer = archive.writer(recovery, &history, start, Preparation::Inline)?;
        self.stream(&mut writer, rng, self.wal.end())?;
        self.acknowledge(writer.close()?);
        Ok(())
    }

    fn stream(&mut self, writer: &mut Writer, rng: &mut Rng, end: Lsn) -> Result<(), Stop> {
        let now = Instant::now();
        while writer.position() < end {
            let at = writer.position();
            let length = end.0 - at.0;
            let length = length.min(rng.u64(1..=self.batch_max as u64));
            let batch = self.batch(at, Lsn(at.0 + length), rng);
            let appended = writer.append(at, &batch)?;
            assert_eq!(appended.byte_end, Lsn(at.0 + length));
            if rng.bool() {
                let durable = writer.sync()?;
                self.acknowledge(durable);
                writer.acknowledged(durable, now)?;
            }
        }
        Ok(())
    }

    /// Some bytes in pieces of any size.
    fn batch(&self, from: Lsn, end: Lsn, rng: &mut Rng) -> Vec<Bytes> {
        let mut rest = self.bytes(from, end);
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rng.usize(1..=rest.len()));
            pieces.push(Bytes::copy_from_slice(piece));
            rest = later;
        }
        pieces
    }

    fn acknowledge(&mut self, durable: Durable) {
        let lsn = durable.record_end.lsn();
        assert!(
            lsn <= START
                || self
                    .wal
                    .records()
                    .iter()
                    .any(|r| r.end == lsn || r.start >= lsn),
            "{lsn} is past all records"
        );
        self.acknowledged = self.acknowledged.max(lsn);
    }

    /// All that was acknowledged is what the primary wrote.
    fn assert_readable(&self, archive: &Archive) -> Result<(), Stop> {
        let mut reader = archive.reader(self.wal.history().clone(), START)?;
        let expected = self.bytes(START, self.acknowledged);
        let mut found = vec![0; expected.len()];
        let mut filled = 0;
        while filled < found.len() {
            match reader.read_full(&mut found[filled..], self.acknowledged)? {
                0 => panic!("nothing at {}", reader.position()),
                count => filled += count,
            }
        }
        assert!(found == expected, "acknowledged bytes differ");
        Ok(())
    }

    /// The archive is what the primary has, in files of the names and sizes that PostgreSQL's
    /// own tools expect.
    fn assert_complete(&self) {
        let mut start = START;
        while start < self.wal.end() {
            let end = Lsn(start.0 + SEGMENT_SIZE);
            let name = format!("00000001{:08X}{:08X}", 0, start.0 / SEGMENT_SIZE);
            let (name, length) = match end <= self.wal.end() {
                true => (name, SEGMENT_SIZE),
                false => (format!("{name}.partial"), self.wal.end().0 - start.0),
            };
            let content = self.disk.content(format!("{ROOT}/{name}"));
            let content = content.unwrap_or_else(|| panic!("no file {name}"));
            assert_eq!(content.len() as u64, SEGMENT_SIZE, "{name}");
            let (filled, rest) = content.split_at(usize::try_from(length).unwrap());
            assert!(filled == self.bytes(start, Lsn(start.0 + length)), "{name}");
            assert!(rest.iter().all(|byte| *byte == 0), "{name}");
            start = end;
        }
    }
}

/// How many operations a whole run takes.
fn operations(wal: &Generator, batch_max: usize, seed: u64) -> u64 {
    let mut world = World::new(wal.clone(), batch_max);
    world.live(&mut Rng::with_seed(seed)).unwrap();
    world.assert_complete();
    assert_eq!(world.acknowledged, wal.records().last().unwrap().end);
    world.disk.operations()
}

fn cut_everywhere(wal: &Generator, batch_max: usize, seed: u64, survivals: &[Survival]) {
    let count = operations(wal, batch_max, seed);
    assert!(count > 50, "{count}");
    for cut in 0..count {
        for &survival in survivals {
            let mut world = World::new(wal.clone(), batch_max);
            world.disk.cut_power_at(cut);
            // The last operation is that of the lock, whose release nobody waits for.
            let end = world.live(&mut Rng::with_seed(seed));
            assert!(end.is_err() || cut + 1 == count, "{cut}");
            world.disk.reboot(survival);
            // The second life may be cut short, too, most of all in recovery.
            let mut rng = Rng::with_seed(seed ^ cut);
            world.disk.cut_power_at(rng.u64(0..count));
            if let Err(stop) = world.live(&mut rng) {
                let why = || format!("cut {cut}, {survival:?}, seed {seed}: {stop}");
                assert!(world.disk.is_power_cut(), "{}", why());
            }
            world.disk.reboot(survival);
            if let Err(stop) = world.live(&mut rng) {
                panic!(
                    "cut {cut}, {survival:?}, seed {seed}: {stop}\n{:#?}",
                    world.disk.log()
                );
            }
            world.assert_complete();
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_power_is_cut() {
    let survivals = [Survival::Nothing, Survival::Everything, Survival::Chance(1)];
    cut_everywhere(&short_wal(1), 100_000, 1, &survivals);
}
