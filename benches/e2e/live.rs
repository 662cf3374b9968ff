//! Streaming what is written now: how long WAL takes from the primary's send to a client behind a
//! relay, with one client and with many.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tests::{ArchiveDirectory, Cluster, wait_until};
use walproto::TimelineId;

use crate::arrivals::{Arrival, delays, follow};
use crate::bare_sender::BareSender;
use crate::client::{BUFFER_SIZE, Client};
use crate::lab::{Lab, OURS, in_turn, mib, tcp_address, tcp_conninfo};
use crate::process::{Program, Usage, tree_usage};
use crate::record::{Run, distribution, quantile};
use crate::serving::serve;

pub(crate) const SCENARIO: &str = "live";
pub(crate) const CASCADE: &str = "PostgreSQL cascade";
const DIRECT: &str = "PostgreSQL's primary itself";
/// What one thread that sends to one client after the other can reach, whatever else it is spared.
pub(crate) const BARE: &str = "floor: bare sends";
const SYSTEMS: [&str; 4] = [OURS, CASCADE, DIRECT, BARE];

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
                        let clients = connect(&primary, ours.address, clients);
                        let measured = stream(lab, &primary, clients, &ours.pids());
                        ours.stop();
                        measured.values(&[])
                    }
                    CASCADE => {
                        standby.start();
                        primary.wait_streaming(RELAY);
                        let clients = connect(&primary, tcp_address(&standby), clients);
                        let measured = stream(lab, &primary, clients, &[standby.server_pid()]);
                        standby.stop();
                        measured.values(&[])
                    }
                    BARE => {
                        let (address, start) = (tcp_address(&primary), primary.flush_lsn());
                        let (sender, clients) = BareSender::start(address, start, clients);
                        let mut measured = stream(lab, &primary, clients, &[]);
                        measured.used.cpu_seconds = sender.stop();
                        measured.values(&[])
                    }
                    _ => {
                        let clients = connect(&primary, tcp_address(&primary), clients);
                        let measured = stream(lab, &primary, clients, &[primary.server_pid()]);
                        // They tell when the primary has sent as well as the probe does.
                        measured.values(&measured.arrived)
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
        let end = primary.flush_lsn();
        let mut receiver = Program::start(command);
        // A first start begins with the oldest WAL: it serves what clients ask for a little later.
        wait_until("the relay to have caught up", || {
            primary
                .reported_flush(RELAY)
                .is_some_and(|flush| flush >= end)
        });
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

/// What was seen of a relay while rows were committed.
struct Measured {
    /// When a client of the primary itself got what was committed.
    sent: Vec<Vec<Arrival>>,
    /// When the relay's clients did.
    arrived: Vec<Vec<Arrival>>,
    seconds: f64,
    /// What the relay's processes used.
    used: Usage,
}

impl Measured {
    /// The figures and the distribution of the delays. `more_origins` tell when the primary has sent,
    /// beside the client of its own.
    fn values(&self, more_origins: &[Vec<Arrival>]) -> (BTreeMap<String, f64>, Vec<[f64; 2]>) {
        let origins = self.sent.iter().chain(more_origins);
        let origins: Vec<&[Arrival]> = origins.map(Vec::as_slice).collect();
        let mut micros = delays(&origins, &self.arrived);
        micros.sort_by(f64::total_cmp);
        let value = |share| quantile(&micros, share).unwrap();
        let cpu_seconds = self.used.cpu_seconds;
        let mut values = vec![
            ("p50_us", value(0.5)),
            ("p99_us", value(0.99)),
            (
                "cpu_us_per_message",
                cpu_seconds * 1e6 / micros.len() as f64,
            ),
            ("cpu_share", cpu_seconds / self.seconds),
        ];
        // A thread of the harness has none of its own.
        if self.used.peak_bytes > 0 {
            values.push(("memory_mib", mib(self.used.peak_bytes)));
        }
        let values = values
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        (values.collect(), distribution(&micros))
    }
}

/// Streams to clients what is committed meanwhile.
fn stream(lab: &Lab, primary: &Cluster, mut clients: Vec<Client>, pids: &[u32]) -> Measured {
    let mut probe = connect(primary, tcp_address(primary), 1);
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
    Measured {
        sent,
        arrived,
        seconds,
        used: Usage {
            cpu_seconds: after.cpu_seconds - before.cpu_seconds,
            peak_bytes: after.peak_bytes,
        },
    }
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
