//! The least that can be done to hand WAL on: one thread reads what the primary sends, and sends it
//! as it is to one client after the other, with no check, no disk and no protocol of its own.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use walproto::{Lsn, TimelineId};

use crate::client::{BUFFER_SIZE, Client};
use crate::process::thread_cpu_seconds;

/// Such a thread.
#[derive(Debug)]
pub(crate) struct BareSender {
    upstream: TcpStream,
    /// Gives the processor time that it used.
    thread: JoinHandle<f64>,
}

impl BareSender {
    /// Streams from a server from `start` on to so many clients, which are given too.
    pub(crate) fn start(server: SocketAddr, start: Lsn, count: u32) -> (Self, Vec<Client>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (downstream, clients): (Vec<TcpStream>, Vec<Client>) = (0..count)
            .map(|_| {
                let client = TcpStream::connect(address).unwrap();
                let (socket, _) = listener.accept().unwrap();
                socket.set_nodelay(true).unwrap();
                (socket, Client::begun(client, start))
            })
            .unzip();
        let mut client = Client::connect(server, "bare");
        client.start(TimelineId::FIRST, start);
        let upstream = client.socket().try_clone().unwrap();
        let thread = std::thread::spawn(move || pass_on(&mut client, downstream));
        (Self { upstream, thread }, clients)
    }

    /// Ends the stream, and tells the processor time that it took, in seconds.
    pub(crate) fn stop(self) -> f64 {
        self.upstream.shutdown(Shutdown::Both).unwrap();
        self.thread.join().unwrap()
    }
}

fn pass_on(upstream: &mut Client, mut downstream: Vec<TcpStream>) -> f64 {
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        let length = upstream.try_read(&mut buffer, |_, _| {});
        if length == 0 {
            return thread_cpu_seconds();
        }
        for client in &mut downstream {
            client.write_all(&buffer[..length]).unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use crate::upstream::Upstream;

    #[test]
    fn each_client_gets_what_the_server_sent() {
        let upstream = Upstream::new();
        let enough = Barrier::new(4);
        let receive = |mut client: Client| {
            let (mut received, mut buffer) = (Vec::new(), vec![0; BUFFER_SIZE]);
            let mut take = |client: &mut Client, received: &mut Vec<u8>| {
                client.try_read(&mut buffer, |_, wal| received.extend_from_slice(wal))
            };
            while received.len() < 1 << 20 {
                assert!(take(&mut client, &mut received) > 0);
            }
            enough.wait();
            while take(&mut client, &mut received) > 0 {}
            received
        };
        std::thread::scope(|scope| {
            let serving = scope.spawn(|| upstream.serve(None));
            let (sender, clients) = BareSender::start(upstream.address(), Upstream::START, 3);
            let clients: Vec<_> = clients
                .into_iter()
                .map(|client| scope.spawn(|| receive(client)))
                .collect();
            enough.wait();
            assert!(sender.stop() > 0.0);
            serving.join().unwrap();
            let received = clients.into_iter().map(|client| client.join().unwrap());
            let received: Vec<Vec<u8>> = received.collect();
            let mut made = vec![0; received[0].len()];
            Upstream::wal().fill(&mut made);
            assert!(received.iter().all(|received| *received == made));
        });
    }
}
