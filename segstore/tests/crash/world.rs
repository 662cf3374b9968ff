//! A primary's WAL, a disk, and the lives of a receiver between them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use segstore::generator::{AfterSwitch, Generator};
use segstore::sim::SimDisk;
use segstore::{
    Archive, ArchiveError, ArchiveOptions, Compression, Durable, Preparation, ServerFacts, Tip,
    WalFormat, WriteError, Writer,
};
use walproto::{Lsn, SegmentSize, SystemId, TimelineHistory, TimelineId};

pub(crate) const ROOT: &str = "/archive";
pub(crate) const SEGMENT_SIZE: u64 = 1 << 20;
/// Where every archive here begins.
pub(crate) const START: Lsn = Lsn(7 * SEGMENT_SIZE);

/// Why a life ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

pub(crate) fn facts() -> ServerFacts {
    ServerFacts {
        system_id: SystemId(7_000_000_000_000_000_001),
        segment_size: SegmentSize::new(SEGMENT_SIZE).unwrap(),
        block_size: 8192,
        server_version_num: 150_018,
        data_directory_mode: 0o700,
    }
}

pub(crate) fn generator(seed: u64) -> Generator {
    let format = WalFormat {
        system_id: facts().system_id,
        segment_size: facts().segment_size,
        page_magic: None,
        server_version_num: Some(facts().server_version_num),
    };
    let history = TimelineHistory::without_ancestors(TimelineId::FIRST);
    Generator::new(format, history, START, seed).unwrap()
}

/// WAL over three segments: the first is ended by a switch, a record crosses into the third.
pub(crate) fn short_wal(seed: u64) -> Generator {
    let mut wal = generator(seed);
    wal.fill(60_000);
    wal.switch(AfterSwitch::Zeros);
    let border = START.0 + 2 * SEGMENT_SIZE;
    wal.fill(border - 30_000 - wal.end().0);
    wal.record(60_000);
    wal.fill(30_000);
    wal
}

pub(crate) fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

/// The name of the segment that holds `lsn`, and its path without a suffix.
pub(crate) fn path(timeline: u32, lsn: Lsn) -> String {
    format!("{ROOT}/{timeline:08X}{:08X}{:08X}", 0, lsn.0 / SEGMENT_SIZE)
}

pub(crate) fn open(disk: &SimDisk) -> Result<Archive, ArchiveError> {
    open_with(disk, true)
}

fn open_with(disk: &SimDisk, sync: bool) -> Result<Archive, ArchiveError> {
    let options = ArchiveOptions {
        directory: ROOT.into(),
        sync,
        compression: Compression::NONE,
    };
    let mut archive = Archive::open(Arc::new(disk.clone()), options)?;
    archive.bind(&facts())?;
    Ok(archive)
}

/// A primary's WAL, and what a receiver has told it.
pub(crate) struct World {
    pub(crate) disk: SimDisk,
    pub(crate) wal: Generator,
    pub(crate) acknowledged: Lsn,
    /// The largest batch in bytes.
    pub(crate) batch_max: u64,
    /// Whether anything is synced.
    pub(crate) sync: bool,
    /// How a clean end leaves the growing segment.
    pub(crate) left: Compression,
}

impl World {
    pub(crate) fn new(wal: Generator) -> Self {
        Self {
            disk: SimDisk::new(ROOT),
            wal,
            acknowledged: START,
            batch_max: 100_000,
            sync: true,
            left: Compression::NONE,
        }
    }

    pub(crate) fn bytes(&self, from: Lsn, end: Lsn) -> &[u8] {
        let index = |lsn: Lsn| usize::try_from(lsn.0 - self.wal.start().0).unwrap();
        &self.wal.bytes()[index(from)..index(end)]
    }

    /// Opens the archive and checks that it has all that was acknowledged.
    pub(crate) fn recover(&self) -> Result<(Archive, segstore::Recovery), Stop> {
        let mut archive = open_with(&self.disk, self.sync)?;
        if self.wal.history().timeline() != TimelineId::FIRST {
            archive.store_history(self.wal.history())?;
        }
        let recovery = archive.recover()?;
        if let Some(tip) = recovery.tip() {
            let found = tip.record_end.lsn();
            assert!(
                found >= self.acknowledged,
                "{found} < {}",
                self.acknowledged
            );
            assert!(tip.resume_at <= found && found <= tip.byte_end, "{tip:?}");
        } else {
            assert_eq!(self.acknowledged, START);
        }
        self.assert_readable(&archive)?;
        Ok((archive, recovery))
    }

    /// Where a receiver goes on that finds `tip`, on the timeline of this WAL.
    fn resume_at(&self, tip: Option<Tip>) -> Lsn {
        let begin = self.wal.history().begin();
        let begin = begin.map_or(START, |lsn| facts().segment_size.start_of(lsn));
        tip.map_or(START, |tip| tip.resume_at.max(begin))
    }

    /// A writer that goes on where the archive ends.
    pub(crate) fn writer(&self) -> Result<(Archive, Writer), Stop> {
        let (archive, recovery) = self.recover()?;
        let start = self.resume_at(recovery.tip());
        let history = self.wal.history();
        let writer = archive.writer(recovery, history, start, Preparation::Inline)?;
        Ok((archive, writer))
    }

    /// Streams all there is, or until the disk refuses.
    pub(crate) fn live(&mut self, rng: &mut Rng) -> Result<(), Stop> {
        self.live_until(rng, self.wal.end())
    }

    pub(crate) fn live_until(&mut self, rng: &mut Rng, end: Lsn) -> Result<(), Stop> {
        let (archive, mut writer) = self.writer()?;
        self.stream(&mut writer, rng, end)?;
        self.acknowledge(writer.close()?);
        Ok(archive.compress_growing(self.left, Duration::MAX)?)
    }

    /// Streams in batches of any size, in pieces of any size, with syncs now and then. What a
    /// full disk refuses is tried again, cut into other pieces.
    pub(crate) fn stream(
        &mut self,
        writer: &mut Writer,
        rng: &mut Rng,
        end: Lsn,
    ) -> Result<(), Stop> {
        let now = Instant::now();
        while writer.position() < end {
            let at = writer.position();
            let batch_max = [100, 5_000, self.batch_max, 5 * self.batch_max][rng.usize(..4)];
            let length = (end.0 - at.0).min(rng.u64(1..=batch_max));
            let batch = self.batch(at, Lsn(at.0 + length), rng);
            match writer.append(at, &batch) {
                Ok(appended) => assert_eq!(appended.byte_end, Lsn(at.0 + length)),
                Err(error) if error.is_temporary() => {
                    assert_eq!(writer.position(), at);
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            if rng.bool() {
                match writer.sync() {
                    Ok(durable) => {
                        self.acknowledge(durable);
                        writer.acknowledged(durable, now)?;
                    }
                    Err(error) if error.is_temporary() => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Some bytes in pieces of any size.
    pub(crate) fn batch(&self, from: Lsn, end: Lsn, rng: &mut Rng) -> Vec<Bytes> {
        let mut rest = self.bytes(from, end);
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rng.usize(1..=rest.len()));
            pieces.push(Bytes::copy_from_slice(piece));
            rest = later;
        }
        pieces
    }

    pub(crate) fn acknowledge(&mut self, durable: Durable) {
        let lsn = durable.record_end.lsn();
        assert!(lsn <= durable.byte_end && durable.byte_end <= self.wal.end());
        self.assert_final_names(lsn);
        self.acknowledged = self.acknowledged.max(lsn);
    }

    /// The end of a segment is told only once the segment has its final name: recovery takes a
    /// growing one that seems full for one that is not.
    fn assert_final_names(&self, told: Lsn) {
        let history = self.wal.history();
        let before = history.begin().unwrap_or(START).max(self.acknowledged);
        let size = facts().segment_size;
        let mut end = Lsn(size.start_of(before).0 + SEGMENT_SIZE);
        while end <= told {
            let path = path(history.timeline().number(), Lsn(end.0 - 1));
            assert!(self.disk.content(&path).is_some(), "no {path} at {told}");
            end = Lsn(end.0 + SEGMENT_SIZE);
        }
    }

    /// All that was acknowledged is what the primary wrote.
    pub(crate) fn assert_readable(&self, archive: &Archive) -> Result<(), Stop> {
        let mut reader = archive.reader(self.wal.history().clone(), START)?;
        let expected = self.bytes(START, self.acknowledged);
        let mut found = vec![0; expected.len()];
        let count = reader.read_full(&mut found, self.acknowledged)?;
        assert_eq!(count, expected.len(), "nothing at {}", reader.position());
        assert!(found == expected, "acknowledged bytes differ");
        Ok(())
    }

    /// The archive is what the primary has, in files of the names and sizes that PostgreSQL's
    /// own tools expect.
    pub(crate) fn assert_complete(&self) {
        let last = *self.wal.records().last().unwrap();
        assert_eq!(self.acknowledged, last.end, "acknowledged");
        let number = self.wal.history().timeline().number();
        let begin = self.wal.history().begin();
        let mut start = begin.map_or(START, |lsn| facts().segment_size.start_of(lsn));
        while start < self.wal.end() {
            let end = Lsn(start.0 + SEGMENT_SIZE);
            let filled_end = end.min(self.wal.end());
            let suffix = if filled_end == end { "" } else { ".partial" };
            let path = path(number, start) + suffix;
            let content = self.disk.content(&path);
            let content = content.unwrap_or_else(|| panic!("no file {path}"));
            assert_eq!(content.len() as u64, SEGMENT_SIZE, "{path}");
            let filled = self.bytes(start, filled_end);
            let (found, rest) = content.split_at(filled.len());
            assert!(found == filled, "{path} differs");
            assert!(rest == vec![0; rest.len()], "{path} goes on");
            start = end;
        }
    }
}
