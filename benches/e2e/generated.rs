//! Receiving from a sender that makes its WAL up: as fast as a receiver takes it, and at a steady
//! rate, with the time until it is acknowledged.

use std::process::Command;
use std::time::Instant;

use tests::ArchiveDirectory;
use walproto::{Lsn, TimelineId};

use crate::client::{BUFFER_SIZE, Client};
use crate::lab::{Lab, OURS, in_turn, tcp_conninfo, throughput};
use crate::machine::settle;
use crate::process::{Program, Usage, thread_cpu_seconds};
use crate::record::{Run, quantile};
use crate::upstream::Upstream;

pub(crate) const SCENARIO: &str = "generated";
pub(crate) const SYNCHRONOUS: &str = "pg_receivewal --synchronous";
const DRAIN: &str = "floor: drain the socket";
const SYSTEMS: [&str; 3] = [OURS, SYNCHRONOUS, DRAIN];

/// What is received at most: more shows nothing else.
const MOST: u64 = 1_000_000_000;

pub(crate) const FASTEST: &str = "as fast as it is taken";

/// How a steady rate is called, and how many bytes a second it is; the other case has none.
const CASES: [(&str, Option<f64>); 2] = [(FASTEST, None), ("100 MB/s", Some(100e6))];

/// Measures all.
pub(crate) fn measure(lab: &mut Lab) {
    let upstream = Upstream::new();
    for round in 1..=lab.arguments.rounds {
        for (case, rate) in CASES {
            for system in in_turn(&SYSTEMS, round) {
                settle();
                let (received, mut delays) = std::thread::scope(|scope| {
                    let serving = scope.spawn(|| upstream.serve(rate));
                    let received = receive(lab, &upstream, system, end(lab, rate));
                    (received, serving.join().unwrap())
                });
                let (bytes, seconds, usage) = received;
                let mut values = throughput(bytes, seconds, usage);
                // The floor acknowledges nothing.
                if system != DRAIN {
                    delays.sort_by(f64::total_cmp);
                    let millis = |share| quantile(&delays, share).unwrap() / 1e3;
                    values.push(("ack_p50_ms", millis(0.5)));
                    values.push(("ack_p99_ms", millis(0.99)));
                }
                lab.record(Run {
                    scenario: SCENARIO.to_owned(),
                    case: case.to_owned(),
                    system: system.to_owned(),
                    round,
                    values: values
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect(),
                    curve: Vec::new(),
                });
            }
        }
    }
}

/// Up to where is received: what a steady rate brings in the time of a run.
fn end(lab: &Lab, rate: Option<f64>) -> Lsn {
    let all = lab.arguments.size.min(MOST);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of bytes"
    )]
    let of_run = rate.map_or(all, |rate| {
        (rate * lab.arguments.duration.as_secs_f64()) as u64
    });
    Lsn(Upstream::START.0 + of_run.min(all))
}

/// How many bytes it got, in how many seconds, and what it used.
fn receive(lab: &Lab, upstream: &Upstream, system: &str, end: Lsn) -> (u64, f64, Usage) {
    let bytes = end.bytes_since(Upstream::START);
    if system == DRAIN {
        let (seconds, usage) = drain(upstream, end);
        return (bytes, seconds, usage);
    }
    let archive = ArchiveDirectory::new();
    let mut command: Command = match system {
        OURS => lab.ours(),
        _ => Lab::postgres("pg_receivewal"),
    };
    if system == SYNCHRONOUS {
        command.arg("--synchronous");
    }
    let conninfo = tcp_conninfo(upstream.address(), "measured");
    command
        .arg("-D")
        .arg(archive.path())
        .args(["-d", &conninfo, "--no-loop"])
        .args(["--endpos", &end.to_string()]);
    let (took, usage) = Program::run(command);
    (bytes, took.as_secs_f64(), usage)
}

fn drain(upstream: &Upstream, end: Lsn) -> (f64, Usage) {
    let started = Instant::now();
    let before = thread_cpu_seconds();
    let mut client = Client::connect(upstream.address(), "measured");
    client.start(TimelineId::FIRST, Upstream::START);
    let mut buffer = vec![0; BUFFER_SIZE];
    while client.end() < end {
        client.read(&mut buffer, |_, _| {});
    }
    let usage = Usage {
        cpu_seconds: thread_cpu_seconds() - before,
        peak_bytes: 0,
    };
    (started.elapsed().as_secs_f64(), usage)
}
