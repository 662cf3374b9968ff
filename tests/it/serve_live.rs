//! A server in the process that writes the archive: the newest WAL comes from memory, older WAL
//! from files, and clients do not notice, nor does one of another.

use std::path::Path;

use tests::{EmbeddedServer, GeneratedArchive, Link, wait_until};
use walproto::Lsn;

fn serve(archive: &GeneratedArchive) -> EmbeddedServer {
    EmbeddedServer::of_view(EmbeddedServer::config(), archive.view())
}

fn connect(server: &EmbeddedServer, name: &str) -> Link {
    let conninfo = format!("{} application_name={name}", server.conninfo());
    Link::new(&conninfo, Path::new("/")).unwrap()
}

#[test]
fn clients_go_from_files_to_memory_and_back_on_one_connection() {
    let mut archive = GeneratedArchive::new(3 << 20, 150_018);
    let server = serve(&archive);
    let mut quick = connect(&server, "quick");
    let mut slow = connect(&server, "slow");
    quick.begin_stream(GeneratedArchive::START);
    slow.begin_stream(GeneratedArchive::START);
    let mut quick_has = quick.receive(archive.wal().len());
    // Small ones, as commits are, and one that the memory for the newest WAL cannot hold.
    for length in [1, 100, 20_000, 1, 40 << 20, 1, 300_000, 1] {
        archive.write(length);
        quick_has.extend(quick.receive(archive.wal().len() - quick_has.len()));
        assert!(quick_has == archive.wal(), "after {length} bytes");
    }
    // All of that goes by one who has not taken anything yet.
    assert!(slow.receive(archive.wal().len()) == archive.wal());
    archive.write(1);
    let rest = archive.wal().len() - quick_has.len();
    let end = &archive.wal()[quick_has.len()..];
    assert!(quick.receive(rest) == end && slow.receive(rest) == end);
}

#[test]
fn two_hundred_clients_get_what_one_write_made_durable() {
    let mut archive = GeneratedArchive::new(100_000, 150_018);
    let server = serve(&archive);
    let start = archive.end();
    let mut clients: Vec<Link> = (0..200).map(|_| connect(&server, "client")).collect();
    for client in &mut clients {
        client.begin_stream(start);
    }
    wait_until("all to be streamed to", || {
        let standbys = server.handle().standbys();
        standbys
            .iter()
            .filter(|standby| standby.sent == Some(start))
            .count()
            == 200
    });
    let before = archive.wal().len();
    archive.write(50_000);
    let written = &archive.wal()[before..];
    for client in &mut clients {
        assert!(client.receive(written.len()) == written);
    }
    let sent = |lsn: Lsn| {
        let standbys = server.handle().standbys();
        standbys.iter().all(|standby| standby.sent == Some(lsn))
    };
    assert!(sent(archive.end()));
}
