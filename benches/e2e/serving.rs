//! Serving WAL from files: to a client that takes it as fast as it comes, and to several at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use tests::ArchiveDirectory;
use walproto::Lsn;

use crate::client::{BUFFER_SIZE, Client};
use crate::lab::{Lab, OURS, complete_segments, in_turn, throughput};
use crate::machine::{drop_page_cache, read_all};
use crate::process::{Program, Usage, thread_cpu_seconds, tree_usage};
use crate::record::Run;
use crate::source::Source;

pub(crate) const SCENARIO: &str = "serving";
pub(crate) const WALSENDER: &str = "PostgreSQL's walsender";
pub(crate) const SENDFILE: &str = "floor: sendfile";
const SYSTEMS: [&str; 3] = [OURS, WALSENDER, SENDFILE];

/// The numbers of streams at a time.
const STREAMS: [u32; 3] = [1, 4, 16];

/// One stream of WAL that is not in memory.
pub(crate) const COLD: &str = "1 stream, cold page cache";

/// How a case is called in the results.
pub(crate) fn case(streams: u32) -> String {
    match streams {
        1 => "1 stream".to_owned(),
        streams => format!("{streams} streams"),
    }
}

/// Measures all; the archive has what the source has.
pub(crate) fn measure(lab: &mut Lab, source: &Source, archive: &ArchiveDirectory) {
    let cold = drop_page_cache().is_ok();
    let mut cases: Vec<(String, u32)> = STREAMS.map(|streams| (case(streams), streams)).to_vec();
    if cold {
        cases.push((COLD.to_owned(), 1));
    }
    for round in 1..=lab.arguments.rounds {
        for (case, streams) in &cases {
            for system in in_turn(&SYSTEMS, round) {
                prepare(source, archive, case);
                let (bytes, seconds, usage) = match system {
                    OURS => ours(lab, source, archive, *streams),
                    WALSENDER => walsender(source, *streams),
                    _ => sendfile_alone(source, archive, *streams),
                };
                let values = throughput(bytes, seconds, usage).into_iter();
                lab.record(Run {
                    scenario: SCENARIO.to_owned(),
                    case: case.clone(),
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
}

/// Lets both copies of the WAL be in the page cache, or neither.
fn prepare(source: &Source, archive: &ArchiveDirectory, case: &str) {
    if case == COLD {
        drop_page_cache().unwrap();
        return;
    }
    for directory in [
        archive.path(),
        &source.cluster.data_directory().join("pg_wal"),
    ] {
        read_all(&complete_segments(directory));
    }
}

/// What each of several streams takes: all of them together take what one alone takes.
fn share(source: &Source, streams: u32) -> u64 {
    source.length() / u64::from(streams)
}

/// Starts our server of an archive, and gives it with its address.
pub(crate) fn serve(lab: &Lab, archive: &Path) -> (Program, SocketAddr) {
    let mut command = lab.ours();
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--trust-loopback", "-D"])
        .arg(archive);
    let mut server = Program::start(command);
    let address = server.wait_for_log("listening at ").parse().unwrap();
    (server, address)
}

fn ours(lab: &Lab, source: &Source, archive: &ArchiveDirectory, streams: u32) -> (u64, f64, Usage) {
    let (server, address) = serve(lab, archive.path());
    let measured = drain(source, address, server.pid(), streams);
    assert!(server.stop().success());
    measured
}

fn walsender(source: &Source, streams: u32) -> (u64, f64, Usage) {
    drain(
        source,
        source.address(),
        source.cluster.server_pid(),
        streams,
    )
}

/// Lets several clients take their share at the same time. Gives the bytes, the seconds, and what
/// the server used.
fn drain(source: &Source, server: SocketAddr, pid: u32, streams: u32) -> (u64, f64, Usage) {
    let end = Lsn(source.start.0 + share(source, streams));
    let before = tree_usage(pid).cpu_seconds;
    let started = Instant::now();
    let mut clients: Vec<Client> = (0..streams)
        .map(|_| Client::connect(server, "drain"))
        .collect();
    std::thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(|| {
                client.start(Source::TIMELINE, source.start);
                let mut buffer = vec![0; BUFFER_SIZE];
                while client.end() < end {
                    client.read(&mut buffer, |_, _| {});
                }
            });
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    let mut usage = tree_usage(pid);
    usage.cpu_seconds -= before;
    let bytes = clients
        .iter()
        .map(|client| client.end().bytes_since(source.start));
    (bytes.sum(), seconds, usage)
}

/// The same bytes from the same files without a protocol.
fn sendfile_alone(source: &Source, archive: &ArchiveDirectory, streams: u32) -> (u64, f64, Usage) {
    let segments = complete_segments(archive.path());
    let length = share(source, streams);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let started = Instant::now();
    let (cpu_seconds, bytes) = std::thread::scope(|scope| {
        let servers: Vec<_> = (0..streams)
            .map(|_| {
                let taking = scope.spawn(move || take_all(address));
                let (socket, _) = listener.accept().unwrap();
                let segments = &segments;
                (
                    taking,
                    scope.spawn(move || send_files(&socket, segments, length)),
                )
            })
            .collect();
        servers
            .into_iter()
            .fold((0.0, 0), |(cpu, bytes), (taking, sending)| {
                let sent = sending.join().unwrap();
                (cpu + sent, bytes + taking.join().unwrap())
            })
    });
    let usage = Usage {
        cpu_seconds,
        peak_bytes: 0,
    };
    (bytes, started.elapsed().as_secs_f64(), usage)
}

/// Takes what comes until the other side closes, and gives the number of bytes.
fn take_all(address: SocketAddr) -> u64 {
    let mut socket = TcpStream::connect(address).unwrap();
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut bytes = 0;
    loop {
        match socket.read(&mut buffer).unwrap() {
            0 => return bytes,
            length => bytes += length as u64,
        }
    }
}

/// Sends so many bytes of files, and gives the processor time that it took.
fn send_files(socket: &TcpStream, files: &[PathBuf], mut length: u64) -> f64 {
    let before = thread_cpu_seconds();
    for path in files {
        let file = File::open(path).unwrap();
        let mut rest = file.metadata().unwrap().len().min(length);
        length -= rest;
        while rest > 0 {
            let most = usize::try_from(rest).unwrap();
            let sent = rustix::fs::sendfile(socket, &file, None, most).unwrap();
            assert!(sent > 0, "{} has become shorter", path.display());
            rest -= sent as u64;
        }
    }
    thread_cpu_seconds() - before
}
