//! How many files a process may have open limits its clients, and never its archive.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tests::{ArchiveDirectory, Cluster, Receiver, Serving, Version};
use walproto::Lsn;

use crate::relay::wait_archived;

/// Few enough that clients which catch up could take them all.
const FEW: u64 = 460;

/// As many clients fit into that.
const FITTING: usize = 36;

/// A message of protocol 3, with its tag if it has one.
fn message(tag: Option<u8>, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    let mut bytes: Vec<u8> = tag.into_iter().collect();
    bytes.extend(length.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// A client that asks for WAL from a position on, takes a little of it, and then nothing more.
/// `None` if there is no room for it.
fn catching_up(port: u16, start: Lsn) -> io::Result<Option<TcpStream>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let startup = b"\0\x03\0\0user\0any\0replication\0true\0\0";
    stream.write_all(&message(None, startup))?;
    let mut answer = vec![0; 9];
    stream.read_exact(&mut answer)?;
    assert_eq!(answer, message(Some(b'R'), &[0; 4]));
    let mut tag = [0];
    loop {
        stream.read_exact(&mut tag)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap() - 4];
        stream.read_exact(&mut body)?;
        match tag {
            [b'Z'] => break,
            [b'E'] => {
                let text = String::from_utf8_lossy(&body).into_owned();
                assert!(text.contains("53300"), "{text}");
                assert!(text.contains("sorry, too many clients already"), "{text}");
                return Ok(None);
            }
            _ => {}
        }
    }
    let query = format!("START_REPLICATION {start} TIMELINE 1\0");
    stream.write_all(&message(Some(b'Q'), query.as_bytes()))?;
    let mut begun = [0; 512];
    stream.read_exact(&mut begun)?;
    assert_eq!(begun.first(), Some(&b'W'));
    Ok(Some(stream))
}

#[test]
fn clients_that_catch_up_leave_the_archive_its_descriptors() {
    let primary = Cluster::builder(Version::V15).segment_size_mib(1).start();
    let archive = ArchiveDirectory::new();
    let start = primary.segment_size().start_of(primary.flush_lsn());
    let relay = Receiver::of(&primary, archive.path())
        .args(["--start", &start.to_string(), "--trust-loopback"])
        .args(["--listen", "127.0.0.1:0"])
        .with_open_files(FEW, FEW);
    let mut relay = relay.start();
    let listening = relay.wait_for_log("listening at 127.0.0.1:");
    let (_, port) = listening.rsplit_once(':').unwrap();
    let port = port.trim_end().parse().unwrap();
    // More than the buffers of two sockets hold.
    let end = primary.write_wal(32);
    wait_archived(&archive, end);
    let clients: Vec<_> = (0..250)
        .map(|_| catching_up(port, start).unwrap())
        .collect();
    assert_eq!(clients.iter().flatten().count(), FITTING);
    let silent: Vec<_> = (0..250)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    primary.set_synchronous_standbys("wal_receiver");
    primary.wait_sync_state("wal_receiver", "sync");
    for _ in 0..3 {
        // Commits return, over the ends of several segments.
        let end = primary.write_wal(3);
        wait_archived(&archive, end);
    }
    drop(clients);
    drop(silent);
    assert!(relay.stop().success(), "{}", relay.log());
    let log = relay.log();
    let warned = format!(
        "warning: only {FITTING} clients can connect at a time, not 512: this process may open \
         {FEW} files; raise the hard limit"
    );
    assert_eq!(log.matches(&warned).count(), 1, "{log}");
    assert!(!log.contains("oo many open files"), "{log}");
}

#[test]
fn the_soft_limit_is_raised_and_more_clients_than_fit_are_refused() {
    let archive = tests::GeneratedArchive::new(300_000, 150_018);
    let program = |soft, hard| {
        Receiver::bare()
            .args(["serve", "--trust-loopback", "--listen", "127.0.0.1:0", "-D"])
            .arg(archive.path())
            .with_open_files(soft, hard)
    };
    let (status, log) = program(100, FEW).args(["--max-connections", "37"]).run();
    assert_eq!(status.code(), Some(1), "{log}");
    let line = "wal-receiver: error: 37 clients (--max-connections) and the archive need 461 file \
                descriptors, but this process may open only 460; raise the hard limit (ulimit -Hn, or \
                LimitNOFILE= of the service), or use at most --max-connections=36\n";
    assert_eq!(log, line);
    let (status, log) = program(100, 200).run();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("it leaves room for no client"), "{log}");

    let serving = Serving::listening(program(100, 3000));
    let limits = fs::read_to_string(format!("/proc/{}/limits", serving.pid())).unwrap();
    let open_files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let numbers: Vec<_> = open_files.unwrap().split_whitespace().collect();
    assert_eq!(numbers.get(3..5), Some(&["3000", "3000"][..]), "{limits}");
    assert!(
        !serving.log().contains("clients can connect"),
        "{}",
        serving.log()
    );
}
