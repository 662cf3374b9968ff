//! Streaming what is written now: how long WAL takes from the primary's send to a client behind a
//! relay, with one client and with many.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tests::{ArchiveDirectory, Cluster};
use walproto::TimelineId;

use crate::arrivals::{Arrival, delays, follow};
use crate::client::{BUFFER_SIZE, Client};
use crate::lab::{Lab, OURS, in_turn, mib, tcp_address, tcp_conninfo};
use crate::process::{Program, Usage, tree_usage};
use crate::record::{Run, distribution, quantile};
use crate::serving::serve;

pub(crate) const SCENARIO: &str = "live";
pub(crate) const CASCADE: &str = "PostgreSQL cascade";
const DIRECT: &str = "PostgreSQL's primary itself";
const SYSTEMS: [&str; 3] = [OURS, CASCADE, DIRECT];

/// The `application_name` of the relay, whichever it is.
const RELAY: &str = "relay";

/// How often a row is committed.
const INTERVAL: Duration = Duration::from_millis(10);

/// How a case is called in the results.
pub(crate) fn case(clients: u32) -> String {
    match clients {
        1 => "1 client".to_owned(),
        clients => format!("{clients} clients"),
    }
}

/// Measures all.
pub(crate) fn measure(lab: &mut Lab) {
    let relay = lab.ours_has(&[], "--listen");
    if !relay {
        lab.note(
            "This wal-receiver cannot receive and serve in one process: live streaming is measured \
             with two of them.",
        );
    }
    let primary = Lab::cluster().conf("fsync", "on").start();
    primary.sql("CREATE TABLE live (id bigserial, body text)");
    let conf = format!(
        "primary_conninfo = '{}'\n",
        tcp_conninfo(tcp_address(&primary), RELAY)
    );
    let mut standby = primary.base_backup().unpack("standby.signal", &conf);
    standby.listen_on_tcp();
    for round in 1..=lab.arguments.rounds {
        for clients in [1, lab.arguments.live_clients] {
            for system in in_turn(&SYSTEMS, round) {
                let archive = ArchiveDirectory::new();
                let (values, curve) = match system {
                    OURS => {
                        let ours = Ours::start(lab, &primary, &archive, relay);
                        let measured = stream(lab, &primary, ours.address, &ours.pids(), clients);
                        ours.stop();
                        measured
                    }
                    CASCADE => {
                        standby.start();
                        primary.wait_streaming(RELAY);
                        let pids = [standby.server_pid()];
                        let measured = stream(lab, &primary, tcp_address(&standby), &pids, clients);
                        standby.stop();
                        measured
                    }
                    _ => {
                        let pids = [primary.server_pid()];
                        stream(lab, &primary, tcp_address(&primary), &pids, clients)
                    }
                };
                lab.record(Run {
                    scenario: SCENARIO.to_owned(),
                    case: case(clients),
                    system: system.to_owned(),
                    round,
                    values,
                    curve,
                });
            }
        }
    }
}

/// Our relay: one process, or a receiver and a server beside it.
struct Ours {
    receiver: Program,
    server: Option<Program>,
    address: SocketAddr,
}

impl Ours {
    fn start(lab: &Lab, primary: &Cluster, archive: &ArchiveDirectory, relay: bool) -> Self {
        let mut command = lab.ours();
        let conninfo = tcp_conninfo(tcp_address(primary), RELAY);
        command
            .arg("-D")
            .arg(archive.path())
            .args(["-d", &conninfo]);
        if relay {
            command.args(["--listen", "127.0.0.1:0", "--trust-loopback"]);
        }
        let mut receiver = Program::start(command);
        primary.wait_streaming(RELAY);
        let (server, address) = if relay {
            let address = receiver.wait_for_log("listening at ");
            (None, address.parse().unwrap())
        } else {
            let (server, address) = serve(lab, archive.path());
            (Some(server), address)
        };
        Self {
            receiver,
            server,
            address,
        }
    }

    fn pids(&self) -> Vec<u32> {
        let server = self.server.iter();
        [&self.receiver]
            .into_iter()
            .chain(server)
            .map(Program::pid)
            .collect()
    }

    fn stop(self) {
        for program in [Some(self.receiver), self.server].into_iter().flatten() {
            assert!(program.stop().success());
        }
    }
}

/// Streams to so many clients what is committed meanwhile, and tells the delays and what the
/// processes used.
fn stream(
    lab: &Lab,
    primary: &Cluster,
    server: SocketAddr,
    pids: &[u32],
    clients: u32,
) -> (BTreeMap<String, f64>, Vec<[f64; 2]>) {
    let mut probe = connect(primary, tcp_address(primary), 1);
    let mut clients = connect(primary, server, clients);
    let end = AtomicU64::new(0);
    let before = used(pids);
    let started = Instant::now();
    let (sent, arrived) = std::thread::scope(|scope| {
        let probe = scope.spawn(|| follow(&mut probe, &end));
        let clients = scope.spawn(|| follow(&mut clients, &end));
        commit_rows(primary, lab.arguments.duration);
        end.store(primary.flush_lsn().0, Ordering::Relaxed);
        (probe.join().unwrap(), clients.join().unwrap())
    });
    let seconds = started.elapsed().as_secs_f64();
    let after = used(pids);
    // Clients of the primary itself tell when it has sent as well as the probe does.
    let mut origins: Vec<&[Arrival]> = sent.iter().map(Vec::as_slice).collect();
    if server == tcp_address(primary) {
        origins.extend(arrived.iter().map(Vec::as_slice));
    }
    let mut micros = delays(&origins, &arrived);
    micros.sort_by(f64::total_cmp);
    let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
    let value = |share| quantile(&micros, share).unwrap();
    let values = [
        ("p50_us", value(0.5)),
        ("p99_us", value(0.99)),
        (
            "cpu_us_per_message",
            cpu_seconds * 1e6 / micros.len() as f64,
        ),
        ("cpu_share", cpu_seconds / seconds),
        ("memory_mib", mib(after.peak_bytes)),
    ];
    let values = values.map(|(name, value)| (name.to_owned(), value));
    (BTreeMap::from(values), distribution(&micros))
}

fn used(pids: &[u32]) -> Usage {
    let mut sum = Usage::default();
    for usage in pids.iter().copied().map(tree_usage) {
        sum.cpu_seconds += usage.cpu_seconds;
        sum.peak_bytes += usage.peak_bytes;
    }
    sum
}

/// Clients that have all there is.
fn connect(primary: &Cluster, server: SocketAddr, count: u32) -> Vec<Client> {
    let end = primary.flush_lsn();
    let start = primary.segment_size().start_of(end);
    let mut clients: Vec<Client> = (0..count)
        .map(|_| Client::connect(server, "live"))
        .collect();
    let mut buffer = vec![0; BUFFER_SIZE];
    for client in &mut clients {
        client.start(TimelineId::FIRST, start);
        while client.end() < end {
            client.read(&mut buffer, |_, _| {});
        }
    }
    clients
}

/// Commits rows at a steady pace.
fn commit_rows(primary: &Cluster, duration: Duration) {
    let mut client = primary.client();
    let insert = client
        .prepare("INSERT INTO live (body) VALUES (repeat('wal', 50))")
        .unwrap();
    let started = Instant::now();
    for number in 1.. {
        client.execute(&insert, &[]).unwrap();
        let next = INTERVAL * number;
        if next > duration {
            return;
        }
        std::thread::sleep(next.saturating_sub(started.elapsed()));
    }
}
