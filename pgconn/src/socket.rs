//! Sockets: how they are opened, and the one type that stands for all of them.
//!
//! Source: src/interfaces/libpq/fe-connect.c, `PQconnectPoll`, state CONNECTION_NEEDED (PG 15).

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use crate::conninfo::KeepaliveSettings;

/// A connection to a server, of whatever kind. TLS is spoken over TCP only, as in libpq.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
    /// One of a test that counts what is asked of it.
    #[cfg(test)]
    Counted(UnixStream, Calls),
}

/// How often something was read, and written.
#[cfg(test)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Calls {
    pub(crate) reads: usize,
    pub(crate) writes: usize,
}

/// Connects by TCP. Nothing that is written waits for more to be written.
pub(crate) async fn connect_tcp(
    address: SocketAddr,
    keepalive: &KeepaliveSettings,
) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_nodelay(true)?;
    let options = SockRef::from(&socket);
    if keepalive.enabled {
        options.set_tcp_keepalive(&probes(keepalive))?;
    }
    if let Some(timeout) = keepalive.user_timeout {
        options.set_tcp_user_timeout(Some(timeout))?;
    }
    socket.connect(address).await
}

fn probes(keepalive: &KeepaliveSettings) -> TcpKeepalive {
    let mut probes = TcpKeepalive::new();
    if let Some(idle) = keepalive.idle {
        probes = probes.with_time(idle);
    }
    if let Some(interval) = keepalive.interval {
        probes = probes.with_interval(interval);
    }
    if let Some(count) = keepalive.count {
        probes = probes.with_retries(count);
    }
    probes
}

/// Connects by a Unix-domain socket; a path that begins with `@` is in the abstract name space.
pub(crate) async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    match path.as_os_str().as_bytes().strip_prefix(b"@") {
        Some(name) => {
            let path = [b"\0", name].concat();
            UnixStream::connect(OsStr::from_bytes(&path)).await
        }
        None => UnixStream::connect(path).await,
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(test)]
            Self::Counted(stream, calls) => {
                let read = Pin::new(stream).poll_read(cx, buf);
                calls.reads += usize::from(read.is_ready());
                read
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(test)]
            Self::Counted(stream, calls) => {
                let written = Pin::new(stream).poll_write(cx, buf);
                calls.writes += usize::from(written.is_ready());
                written
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(test)]
            Self::Counted(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(test)]
            Self::Counted(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_options_of_tcp_are_set() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = KeepaliveSettings {
            enabled: true,
            idle: Some(Duration::from_secs(61)),
            interval: Some(Duration::from_secs(7)),
            count: Some(3),
            user_timeout: Some(Duration::from_millis(12_345)),
        };
        let address = listener.local_addr().unwrap();
        let stream = connect_tcp(address, &settings).await.unwrap();
        let options = SockRef::from(&stream);
        assert!(options.keepalive().unwrap() && stream.nodelay().unwrap());
        assert_eq!(Some(options.tcp_keepalive_time().unwrap()), settings.idle);
        assert_eq!(
            Some(options.tcp_keepalive_interval().unwrap()),
            settings.interval
        );
        assert_eq!(
            Some(options.tcp_keepalive_retries().unwrap()),
            settings.count
        );
        assert_eq!(options.tcp_user_timeout().unwrap(), settings.user_timeout);

        settings.enabled = false;
        let stream = connect_tcp(address, &settings).await.unwrap();
        assert!(!SockRef::from(&stream).keepalive().unwrap());
    }

    #[tokio::test]
    async fn an_abstract_socket_is_found() {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixListener};
        let name = format!("walreceiver-test-{}/.s.PGSQL.1", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let _listener = UnixListener::bind_addr(&address).unwrap();
        connect_unix(Path::new(&format!("@{name}"))).await.unwrap();
        let other = connect_unix(Path::new(&name)).await.map(|_| ());
        assert_eq!(other.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
