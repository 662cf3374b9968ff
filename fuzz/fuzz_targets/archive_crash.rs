//! Whatever becomes of the disk and of the process, an archive has all that was acknowledged, as
//! the primary wrote it, and goes on to the end.
#![no_main]

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use segstore::generator::{AfterSwitch, Generator};
use segstore::sim::{Fault, SimDisk, Survival};
use segstore::{
    Archive, ArchiveError, ArchiveOptions, Compression, Preparation, ServerFacts, WalFormat,
    WriteError, Writer,
};
use walproto::{Lsn, SegmentSize, SystemId, TimelineHistory, TimelineId};

const MIB: u64 = 1 << 20;
const START: Lsn = Lsn(7 * MIB);

fn facts() -> ServerFacts {
    ServerFacts {
        system_id: SystemId(1),
        segment_size: SegmentSize::new(MIB).unwrap(),
        block_size: 8192,
        server_version_num: 150_018,
        data_directory_mode: 0o700,
    }
}

/// Three segments with a switch and records across pages and segments, one of them overwritten.
fn wal() -> &'static Generator {
    static WAL: OnceLock<Generator> = OnceLock::new();
    WAL.get_or_init(|| {
        let format = WalFormat {
            system_id: facts().system_id,
            segment_size: facts().segment_size,
            page_magic: None,
            server_version_num: None,
        };
        let history = TimelineHistory::without_ancestors(TimelineId::FIRST);
        let mut wal = Generator::new(format, history, START, 1).unwrap();
        wal.fill(60_000);
        wal.overwritten_record(2);
        wal.switch(AfterSwitch::PageHeaders);
        wal.fill(MIB - 30_000);
        wal.record(60_000);
        wal.fill(30_000);
        wal
    })
}

fn bytes(from: Lsn, end: Lsn) -> &'static [u8] {
    let index = |lsn: Lsn| (lsn.0 - START.0) as usize;
    &wal().bytes()[index(from)..index(end)]
}

struct World {
    disk: SimDisk,
    acknowledged: Lsn,
    writer: Option<Writer>,
    /// Whether the disk was told to fail since it was last turned on. Once is enough: a failed
    /// sync of which no marker can be left either is lost on everybody.
    troubled: bool,
}

impl World {
    /// Opens the archive, which has all that was acknowledged.
    fn open(&self) -> Result<Writer, ArchiveError> {
        let options = ArchiveOptions {
            directory: "/archive".into(),
            sync: true,
            compression: Compression::NONE,
        };
        let mut archive = Archive::open(Arc::new(self.disk.clone()), options)?;
        archive.bind(&facts())?;
        let recovery = archive.recover()?;
        let end = recovery.tip().map_or(START, |tip| tip.record_end.lsn());
        assert!(end >= self.acknowledged, "{end} {}", self.acknowledged);
        let mut found = vec![0; (self.acknowledged.0 - START.0) as usize];
        let mut reader = archive.reader(wal().history().clone(), START)?;
        let count = reader.read_full(&mut found, self.acknowledged)?;
        assert!(found[..count] == *bytes(START, self.acknowledged));
        let start = recovery.tip().map_or(START, |tip| tip.resume_at);
        archive.writer(recovery, wal().history(), start, Preparation::Inline)
    }

    /// Takes a writer, or says why there can be none.
    fn writer(&mut self) -> Option<&mut Writer> {
        if self.writer.is_none() {
            match self.open() {
                Ok(writer) => self.writer = Some(writer),
                Err(error) => self.expect(&error),
            }
        }
        self.writer.as_mut()
    }

    /// An error, which must be the disk's doing.
    fn expect(&self, error: &dyn std::error::Error) {
        assert!(self.troubled || self.disk.is_power_cut(), "{error}");
    }

    /// The end of a writer, unless the disk is only full.
    fn end(&mut self, error: &WriteError) {
        self.expect(error);
        if !matches!(error, WriteError::DiskFull(_)) {
            self.writer = None;
        }
    }

    fn append(&mut self, length: u64) {
        let Some(writer) = self.writer() else { return };
        let at = writer.position();
        let end = wal().end().min(Lsn(at.0 + length));
        let (a, b) = bytes(at, end).split_at((end.0 - at.0) as usize / 3);
        if let Err(error) = writer.append(at, &[Bytes::from_static(a), Bytes::from_static(b)]) {
            self.end(&error);
        }
    }

    fn sync(&mut self, close: bool) {
        if self.writer().is_none() {
            return;
        }
        let result = match self.writer.take() {
            Some(writer) if close => writer.close(),
            Some(mut writer) => {
                let synced = writer.sync();
                let noted = synced.and_then(|durable| {
                    self.acknowledged = self.acknowledged.max(durable.record_end.lsn());
                    let noted = writer.acknowledged(durable, Instant::now());
                    noted.map(|_| durable)
                });
                self.writer = Some(writer);
                noted
            }
            None => return,
        };
        match result {
            Ok(durable) => {
                self.acknowledged = self.acknowledged.max(durable.record_end.lsn());
            }
            Err(error) => self.end(&error),
        }
    }

    fn reboot(&mut self, choice: u8) {
        self.writer = None;
        self.disk.reboot(match choice {
            0 => Survival::Nothing,
            1 => Survival::Everything,
            chance => Survival::Chance(chance.into()),
        });
        self.troubled = false;
    }

    fn step(&mut self, [kind, a, b]: [u8; 3]) {
        let soon = self.disk.operations() + u64::from(a);
        match kind % 8 {
            0 => self.append(u64::from(u16::from_be_bytes([a, b])) * 32),
            1 => self.sync(false),
            2 => self.sync(true),
            // The process is killed.
            3 => self.writer = None,
            4 => self.reboot(a),
            5 => self.disk.cut_power_at(soon),
            6 if !self.troubled => {
                self.troubled = true;
                let fault = [Fault::Io, Fault::NoSpace][usize::from(b % 2)];
                self.disk.fail_at(soon, fault);
            }
            7 if !self.troubled => {
                self.troubled = true;
                self.disk.set_full(true);
            }
            _ => self.disk.set_full(false),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut world = World {
        disk: SimDisk::new("/archive"),
        acknowledged: START,
        writer: None,
        troubled: false,
    };
    for step in data.as_chunks().0.iter().take(60) {
        world.step(*step);
    }
    world.reboot(data.len() as u8);
    world.append(u64::MAX - START.0 * 2);
    world.sync(true);
    assert_eq!(world.acknowledged, wal().records().last().unwrap().end);
    drop(world.open().unwrap());
});
