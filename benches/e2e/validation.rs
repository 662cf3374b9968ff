//! Checking WAL that lies in files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::process::Command;
use std::time::Instant;

use tests::ArchiveDirectory;

use crate::client::BUFFER_SIZE;
use crate::lab::{Lab, OURS, complete_segments, in_turn, throughput};
use crate::machine::read_all;
use crate::process::{Program, Usage, thread_cpu_seconds};
use crate::record::Run;
use crate::source::Source;

pub(crate) const SCENARIO: &str = "validation";
pub(crate) const CASE: &str = "warm page cache";
pub(crate) const TWO_JOBS: &str = "wal-receiver, 2 jobs";
pub(crate) const PG_WALDUMP: &str = "pg_waldump -q";
const CHECKSUM: &str = "floor: CRC-32C";

/// Measures all; the archive has what the source has.
pub(crate) fn measure(lab: &mut Lab, source: &Source, archive: &ArchiveDirectory) {
    let mut systems = vec![PG_WALDUMP, CHECKSUM];
    if lab.ours_has(&["verify"], "--jobs") {
        systems.splice(0..0, [OURS, TWO_JOBS]);
    } else {
        lab.note("This wal-receiver has no verify: not measured.");
    }
    let theirs = source.cluster.data_directory().join("pg_wal");
    for round in 1..=lab.arguments.rounds {
        for system in in_turn(&systems, round) {
            read_all(&complete_segments(archive.path()));
            read_all(&complete_segments(&theirs));
            let (bytes, seconds, usage) = match system {
                CHECKSUM => checksum(archive),
                PG_WALDUMP => {
                    let mut command = Lab::postgres("pg_waldump");
                    command
                        .args(["-q", "--timeline", &Source::TIMELINE.to_string()])
                        .args(["--start", &source.start.to_string()])
                        .args(["--end", &source.end.to_string(), "--path"])
                        .arg(&theirs);
                    run(command, source)
                }
                _ => {
                    let mut command = lab.ours();
                    let jobs = if system == TWO_JOBS { "2" } else { "1" };
                    command.args(["verify", "--jobs", jobs, "-D"]);
                    command.arg(archive.path());
                    run(command, source)
                }
            };
            let values = throughput(bytes, seconds, usage).into_iter();
            lab.record(Run {
                scenario: SCENARIO.to_owned(),
                case: CASE.to_owned(),
                system: system.to_owned(),
                round,
                values: values
                    .map(|(name, v)| (name.to_owned(), v))
                    .collect::<BTreeMap<_, _>>(),
                curve: Vec::new(),
            });
        }
    }
}

fn run(command: Command, source: &Source) -> (u64, f64, Usage) {
    let (took, usage) = Program::run(command);
    (source.length(), took.as_secs_f64(), usage)
}

/// One checksum over all complete segments.
fn checksum(archive: &ArchiveDirectory) -> (u64, f64, Usage) {
    let started = Instant::now();
    let before = thread_cpu_seconds();
    let mut buffer = vec![0; BUFFER_SIZE];
    let (mut bytes, mut checksum) = (0, 0);
    for segment in complete_segments(archive.path()) {
        let mut file = File::open(segment).unwrap();
        loop {
            let length = file.read(&mut buffer).unwrap();
            if length == 0 {
                break;
            }
            checksum = crc32c::crc32c_append(checksum, &buffer[..length]);
            bytes += length as u64;
        }
    }
    std::hint::black_box(checksum);
    let usage = Usage {
        cpu_seconds: thread_cpu_seconds() - before,
        peak_bytes: 0,
    };
    (bytes, started.elapsed().as_secs_f64(), usage)
}
