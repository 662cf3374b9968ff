//! Where clients connect.

mod unix;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::task::{Context, Poll};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, UnixListener};

use self::unix::SocketFile;
use crate::config::ListenAddress;
use crate::socket::Accepted;

/// How many connections wait to be accepted.
const BACKLOG: i32 = 1024;

/// Where a server can be reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BoundAddress {
    /// By TCP.
    Tcp(SocketAddr),
    /// Through this Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for BoundAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// An address that nobody else listened at when it was taken. By TCP nobody can connect yet, for a
/// client that waited would not try its next host; so another process may take the same address, and
/// the first to listen has it. The clients of a Unix socket wait, for a name at which nobody
/// listens is taken over by the next process.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(Socket),
    Unix(std::os::unix::net::UnixListener, SocketFile),
}

impl Bound {
    /// Takes what an address stands for, at least one.
    pub(crate) fn at(address: &ListenAddress) -> io::Result<Vec<Self>> {
        match address {
            ListenAddress::Tcp(address) => Ok(vec![Self::Tcp(tcp(*address)?)]),
            ListenAddress::Every { port } => {
                let v4 = tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), *port))?;
                // A port that the system chose is to be the same for both.
                let address = v4.local_addr()?.as_socket();
                let port = address.map_or(*port, |address| address.port());
                let mut all = vec![Self::Tcp(v4)];
                match tcp(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)) {
                    Ok(v6) => all.push(Self::Tcp(v6)),
                    // Not every machine has IPv6.
                    Err(error)
                        if error.kind() == io::ErrorKind::Unsupported
                            || error.raw_os_error()
                                == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => {}
                    Err(error) => return Err(error),
                }
                Ok(all)
            }
            ListenAddress::Unix { directory, port } => {
                let (listener, file) = unix::bind(&ListenAddress::socket_path(directory, *port))?;
                Ok(vec![Self::Unix(listener, file)])
            }
        }
    }

    /// Has clients be accepted from now on. It needs a tokio runtime with I/O. It fails when
    /// another process has begun to listen there.
    pub(crate) fn listen(self) -> io::Result<Listener> {
        match self {
            Self::Tcp(socket) => {
                socket.listen(BACKLOG)?;
                Ok(Listener::Tcp(TcpListener::from_std(socket.into())?))
            }
            Self::Unix(listener, file) => {
                listener.set_nonblocking(true)?;
                Ok(Listener::Unix(UnixListener::from_std(listener)?, file))
            }
        }
    }
}

impl Listener {
    pub(crate) fn address(&self) -> io::Result<BoundAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(BoundAddress::Tcp),
            Self::Unix(_, file) => Ok(BoundAddress::Unix(file.path().to_owned())),
        }
    }

    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        match self {
            Self::Tcp(listener) => listener.poll_accept(cx).map(|accepted| {
                let (stream, address) = accepted?;
                // WAL goes out as it becomes durable, not when more of it has gathered. If the
                // client has gone meanwhile, that is found out when it is read.
                let _ = stream.set_nodelay(true);
                let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new());
                Ok(Accepted::Tcp(stream, address))
            }),
            Self::Unix(listener, _) => listener
                .poll_accept(cx)
                .map(|accepted| Ok(Accepted::Unix(accepted?.0))),
        }
    }
}

fn tcp(address: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restarted server need not wait for the connections of the one before to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::future::poll_fn;

    fn listen(address: &ListenAddress) -> io::Result<Vec<Listener>> {
        Bound::at(address)?.into_iter().map(Bound::listen).collect()
    }

    #[tokio::test]
    async fn an_address_is_bound_before_anybody_can_connect_and_kept_by_the_first_to_listen() {
        let address: ListenAddress = "127.0.0.1:0".parse().unwrap();
        let bound = Bound::at(&address).unwrap().pop().unwrap();
        let Bound::Tcp(socket) = &bound else { panic!() };
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let connect = || tokio::net::TcpStream::connect(address);
        let refused = connect().await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let other = Bound::at(&ListenAddress::Tcp(address)).unwrap().pop();
        let listener = bound.listen().unwrap();
        assert_eq!(listener.address().unwrap(), BoundAddress::Tcp(address));
        connect().await.unwrap();
        let too_late = other.unwrap().listen().unwrap_err();
        assert_eq!(too_late.kind(), io::ErrorKind::AddrInUse);
        let taken = Bound::at(&ListenAddress::Tcp(address)).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn the_name_of_a_dead_servers_socket_is_taken_over_and_that_of_a_living_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let address = ListenAddress::Unix {
            directory: directory.path().to_owned(),
            port: 1,
        };
        let path = directory.path().join(".s.PGSQL.1");
        // A socket file without a listener, as a killed server leaves it.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let living = listen(&address).unwrap();
        assert_eq!(
            living[0].address().unwrap(),
            BoundAddress::Unix(path.clone())
        );
        let refused = listen(&address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        let _client = tokio::net::UnixStream::connect(&path).await.unwrap();
        let accepted = poll_fn(|cx| living[0].poll_accept(cx)).await.unwrap();
        assert!(matches!(accepted, Accepted::Unix(_)));
        drop(living);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn every_address_has_the_same_port() {
        let listeners = listen(&ListenAddress::Every { port: 0 }).unwrap();
        let ports: Vec<u16> = listeners
            .iter()
            .map(|listener| match listener.address().unwrap() {
                BoundAddress::Tcp(address) => address.port(),
                BoundAddress::Unix(path) => panic!("{path:?}"),
            })
            .collect();
        assert!(!ports.is_empty() && ports.iter().all(|port| *port == ports[0]));
    }
}
