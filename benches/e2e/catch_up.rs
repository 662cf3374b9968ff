//! Catching up: a receiver gets several gigabytes of WAL that are there already.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tests::{ArchiveDirectory, segment_name};
use walproto::{Lsn, SegmentSize};

use crate::client::{BUFFER_SIZE, Client};
use crate::lab::{Lab, OURS, complete_segments, in_turn, throughput};
use crate::machine::{drop_page_cache, read_all, settle};
use crate::process::{Program, Usage, thread_cpu_seconds, tree_usage};
use crate::record::Run;
use crate::source::Source;

pub(crate) const SCENARIO: &str = "catch-up";

/// `pg_receivewal`, which syncs every segment when it is complete.
pub(crate) const PG_RECEIVEWAL: &str = "pg_receivewal";
pub(crate) const NO_SYNC: &str = "pg_receivewal --no-sync";
/// The floors: what any receiver has to do at least.
pub(crate) const DRAIN: &str = "floor: drain the socket";
pub(crate) const DRAIN_AND_WRITE: &str = "floor: drain and write, no sync";

const SYSTEMS: [&str; 5] = [OURS, PG_RECEIVEWAL, NO_SYNC, DRAIN, DRAIN_AND_WRITE];

pub(crate) const WARM: &str = "warm page cache";
pub(crate) const COLD: &str = "cold page cache";

/// How often the server is asked how far it has sent.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// Measures every system, with the WAL in the page cache and without.
pub(crate) fn measure(lab: &mut Lab, source: &Source) {
    let mut cases = vec![WARM];
    match drop_page_cache() {
        Ok(()) => cases.push(COLD),
        Err(error) => lab.note(&format!(
            "The page cache could not be emptied ({error}): measured warm only."
        )),
    }
    for round in 1..=lab.arguments.rounds {
        for &case in &cases {
            for system in in_turn(&SYSTEMS, round) {
                let run = run(lab, source, case, system, round);
                lab.record(run);
            }
        }
    }
}

fn run(lab: &Lab, source: &Source, case: &str, system: &str, round: u32) -> Run {
    let archive = ArchiveDirectory::new();
    prepare(source, case);
    let server_before = tree_usage(source.cluster.server_pid()).cpu_seconds;
    let stop = AtomicBool::new(false);
    let (received, curve) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| sample(source, &stop));
        let received = receive(lab, source, system, &archive);
        stop.store(true, Ordering::Relaxed);
        (received, sampler.join().unwrap())
    });
    let (took, usage) = received;
    let server = tree_usage(source.cluster.server_pid()).cpu_seconds - server_before;
    if round == 1 && system != DRAIN {
        source.assert_same_wal(&archive);
    }
    let mut values: BTreeMap<String, f64> = throughput(source.length(), took, usage)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let gb = source.length() as f64 / 1e9;
    values.insert("server_cpu_s_per_gb".to_owned(), server / gb);
    Run {
        scenario: SCENARIO.to_owned(),
        case: case.to_owned(),
        system: system.to_owned(),
        round,
        values,
        // One round's is enough for a plot.
        curve: if round == 1 { curve } else { Vec::new() },
    }
}

/// Lets all WAL be in the page cache, or none.
fn prepare(source: &Source, case: &str) {
    if case == COLD {
        drop_page_cache().unwrap();
        return;
    }
    settle();
    let directory = source.cluster.data_directory().join("pg_wal");
    read_all(&complete_segments(&directory));
}

/// How long it took a system to get all, in seconds, and what it used.
fn receive(lab: &Lab, source: &Source, system: &str, archive: &ArchiveDirectory) -> (f64, Usage) {
    let mut command = match system {
        DRAIN => return floor(source, None),
        DRAIN_AND_WRITE => return floor(source, Some(archive.path())),
        OURS => lab.ours(),
        _ => Lab::postgres("pg_receivewal"),
    };
    source.receive_all(&mut command, archive);
    if system == NO_SYNC {
        command.arg("--no-sync");
    }
    let (took, usage) = Program::run(command);
    (took.as_secs_f64(), usage)
}

/// What a client does at least: it reads, and writes if it is to.
fn floor(source: &Source, directory: Option<&Path>) -> (f64, Usage) {
    let started = Instant::now();
    let cpu = thread_cpu_seconds();
    let mut client = Client::connect(source.address(), "measured");
    client.start(Source::TIMELINE, source.start);
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut files = directory.map(|directory| Files::new(directory, source));
    while client.end() < source.end {
        client.read(&mut buffer, |at, wal| {
            if let Some(files) = &mut files {
                files.write(at, wal);
            }
        });
    }
    let usage = Usage {
        cpu_seconds: thread_cpu_seconds() - cpu,
        peak_bytes: 0,
    };
    (started.elapsed().as_secs_f64(), usage)
}

/// Segment files that are just written.
struct Files<'a> {
    directory: &'a Path,
    size: SegmentSize,
    open: Option<(Lsn, File)>,
}

impl<'a> Files<'a> {
    fn new(directory: &'a Path, source: &Source) -> Self {
        Self {
            directory,
            size: source.cluster.segment_size(),
            open: None,
        }
    }

    fn write(&mut self, mut at: Lsn, mut wal: &[u8]) {
        while !wal.is_empty() {
            let start = self.size.start_of(at);
            let file = match &self.open {
                Some((of, file)) if *of == start => file,
                _ => {
                    let name = segment_name(Source::TIMELINE, at, self.size);
                    let file = File::create(self.directory.join(name)).unwrap();
                    &self.open.insert((start, file)).1
                }
            };
            let offset = self.size.offset_of(at);
            let room = usize::try_from(self.size.bytes() - offset).unwrap();
            let (now, later) = wal.split_at(room.min(wal.len()));
            file.write_all_at(now, offset).unwrap();
            at = Lsn(at.0 + now.len() as u64);
            wal = later;
        }
    }
}

/// Points (seconds, GB/s) of what the server has sent, until told to stop.
fn sample(source: &Source, stop: &AtomicBool) -> Vec<[f64; 2]> {
    let mut client = source.cluster.client();
    let query = client
        .prepare(
            "SELECT (sent_lsn - '0/0')::bigint FROM pg_stat_replication
             WHERE application_name = 'measured'",
        )
        .unwrap();
    let started = Instant::now();
    let mut last: Option<(f64, i64)> = None;
    let mut curve = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let row = client.query_opt(&query, &[]).unwrap();
        let at = started.elapsed().as_secs_f64();
        if let Some(sent) = row.and_then(|row| row.get::<_, Option<i64>>(0)) {
            if let Some((before, had)) = last {
                curve.push([at, (sent - had) as f64 / 1e9 / (at - before)]);
            }
            last = Some((at, sent));
        }
        std::thread::sleep(SAMPLE_INTERVAL);
    }
    curve
}
