//! What the disk and the network take by themselves, in the same run: the least that a synchronous
//! commit can cost.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::time::Instant;

use crate::lab::Lab;
use crate::record::{Run, distribution, quantile};

pub(crate) const SCENARIO: &str = "probes";
pub(crate) const CASE: &str = "alone";
pub(crate) const SYNC: &str = "write of 8 KiB and fdatasync";
pub(crate) const ROUND_TRIP: &str = "TCP round trip on loopback";

/// How many of each are made.
const COUNT: usize = 500;

/// Measures both.
pub(crate) fn measure(lab: &mut Lab, round: u32) {
    for (system, times) in [(SYNC, syncs()), (ROUND_TRIP, round_trips())] {
        let mut micros: Vec<f64> = times;
        micros.sort_by(f64::total_cmp);
        let values = [("p50_us", 0.5), ("p99_us", 0.99)]
            .map(|(name, share)| (name.to_owned(), quantile(&micros, share).unwrap()));
        lab.record(Run {
            scenario: SCENARIO.to_owned(),
            case: CASE.to_owned(),
            system: system.to_owned(),
            round,
            values: BTreeMap::from(values),
            curve: distribution(&micros),
        });
    }
}

fn micros(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e6
}

/// Writes page after page of a file that has all of its blocks, and syncs each.
fn syncs() -> Vec<f64> {
    let mut file = tempfile::tempfile().unwrap();
    let page = [7_u8; 8192];
    for _ in 0..COUNT {
        file.write_all(&page).unwrap();
    }
    file.sync_all().unwrap();
    let sync = |file: &File, page: &[u8], index: usize| {
        let started = Instant::now();
        file.write_all_at(page, (index * page.len()) as u64)
            .unwrap();
        file.sync_data().unwrap();
        micros(started)
    };
    (0..COUNT).map(|index| sync(&file, &page, index)).collect()
}

/// Sends what a commit and a status have, there and back.
fn round_trips() -> Vec<f64> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut socket, _) = listener.accept().unwrap();
            socket.set_nodelay(true).unwrap();
            let mut there = [0; 200];
            while socket.read_exact(&mut there).is_ok() {
                socket.write_all(&there[..39]).unwrap();
            }
        });
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        let mut back = [0; 39];
        let mut round_trip = || {
            let started = Instant::now();
            socket.write_all(&[1; 200]).unwrap();
            socket.read_exact(&mut back).unwrap();
            micros(started)
        };
        (0..COUNT).map(|_| round_trip()).collect()
    })
}
