//! A proxy between a receiver and a server that can damage, cut and stall what the server sends.
//!
//! It listens on a free port of 127.0.0.1 and speaks to the server through its Unix socket.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use walproto::Lsn;

use crate::Cluster;

/// Codes in place of a protocol version in a first packet that asks for encryption.
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// A message from the server to the receiver.
#[derive(Debug)]
pub struct Message {
    /// The first byte, which tells what it is.
    pub tag: u8,
    /// What follows tag and length.
    pub body: Vec<u8>,
}

impl Message {
    /// The first position and the bytes of the WAL in it, if it carries WAL (`XLogData`).
    pub fn wal(&mut self) -> Option<(Lsn, &mut [u8])> {
        if self.tag != b'd' || self.body.first() != Some(&b'w') {
            return None;
        }
        let start = u64::from_be_bytes(self.body[1..9].try_into().unwrap());
        Some((Lsn(start), &mut self.body[25..]))
    }

    /// The end of the server's WAL as a keepalive says, in network byte order.
    pub fn keepalive_wal_end(&mut self) -> Option<&mut [u8; 8]> {
        if self.tag != b'd' || self.body.first() != Some(&b'k') {
            return None;
        }
        self.body.get_mut(1..)?.first_chunk_mut()
    }

    /// The byte of WAL at `lsn`, if it is in this message.
    pub fn wal_byte(&mut self, lsn: Lsn) -> Option<&mut u8> {
        let (start, wal) = self.wal()?;
        wal.get_mut(usize::try_from(lsn.checked_sub(start)?).unwrap())
    }
}

/// What becomes of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It goes on to the receiver, with the changes made.
    Forward,
    /// It disappears.
    Drop,
    /// The connection is cut in place of it.
    Cut,
    /// Neither it nor anything later gets through, and the connection stays open.
    Stall,
}

type Tamper = Arc<Mutex<dyn FnMut(&mut Message) -> Verdict + Send>>;

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    listener: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy for a cluster. `tamper` sees each message of the server, over all connections.
    #[must_use]
    pub fn start(
        cluster: &Cluster,
        tamper: impl FnMut(&mut Message) -> Verdict + Send + 'static,
    ) -> Self {
        let socket = cluster
            .socket_directory()
            .join(format!(".s.PGSQL.{}", cluster.port()));
        let tamper: Tamper = Arc::new(Mutex::new(tamper));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(AtomicUsize::new(0));
        let accept = {
            let (stopped, connections) = (Arc::clone(&stopped), Arc::clone(&connections));
            move || {
                for receiver in listener.incoming() {
                    if stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    connections.fetch_add(1, Ordering::SeqCst);
                    serve(receiver.unwrap(), &socket, &tamper);
                }
            }
        };
        Self {
            address,
            stopped,
            connections,
            listener: Some(std::thread::spawn(accept)),
        }
    }

    /// A connection string through the proxy.
    #[must_use]
    pub fn conninfo(&self) -> String {
        format!(
            "host={} port={} user=postgres",
            self.address.ip(),
            self.address.port()
        )
    }

    /// How many connections there have been.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the listener, which then sees that it is over.
        drop(TcpStream::connect(self.address));
        if let Some(listener) = self.listener.take() {
            listener.join().unwrap();
        }
    }
}

/// Serves one connection on threads of its own, which end with it.
fn serve(receiver: TcpStream, socket: &Path, tamper: &Tamper) {
    let socket: PathBuf = socket.to_owned();
    let tamper = Arc::clone(tamper);
    std::thread::spawn(move || {
        // An error is the end of the connection, of which the receiver has to make what it can.
        let Ok(server) = UnixStream::connect(&socket) else {
            return;
        };
        drop(relay(&receiver, &server, &tamper));
        drop(receiver.shutdown(Shutdown::Both));
        drop(server.shutdown(Shutdown::Both));
    });
}

fn relay(mut receiver: &TcpStream, mut server: &UnixStream, tamper: &Tamper) -> io::Result<()> {
    receiver.set_nodelay(true)?;
    // The first packet has no tag. One that asks for encryption is answered with no, as the server
    // would on a Unix socket.
    loop {
        let length = read_u32(receiver)?;
        let mut packet = vec![0; usize::try_from(length).unwrap().saturating_sub(4)];
        receiver.read_exact(&mut packet)?;
        let code = u32::from_be_bytes(packet[..4].try_into().unwrap());
        if code == SSL_REQUEST || code == GSS_REQUEST {
            receiver.write_all(b"N")?;
            continue;
        }
        server.write_all(&length.to_be_bytes())?;
        server.write_all(&packet)?;
        break;
    }
    let (upstream_from, upstream_to) = (receiver.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        drop(io::copy(&mut &upstream_from, &mut &upstream_to));
        drop(upstream_to.shutdown(Shutdown::Write));
    });
    let mut stalled = false;
    loop {
        let mut tag = [0];
        server.read_exact(&mut tag)?;
        let length = read_u32(server)?;
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        server.read_exact(&mut body)?;
        let mut message = Message { tag: tag[0], body };
        if stalled {
            continue;
        }
        let verdict = (tamper.lock().unwrap())(&mut message);
        match verdict {
            Verdict::Forward => {
                let length = u32::try_from(message.body.len() + 4).unwrap();
                let mut bytes = vec![message.tag];
                bytes.extend_from_slice(&length.to_be_bytes());
                bytes.append(&mut message.body);
                receiver.write_all(&bytes)?;
            }
            Verdict::Drop => {}
            Verdict::Cut => return Ok(()),
            Verdict::Stall => stalled = true,
        }
    }
}

fn read_u32(mut stream: impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}
