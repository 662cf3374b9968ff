//! Sockets of clients: what is read from them, and what is sent without waiting.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};
use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// How much is read at a time: what clients send is small, and there are many of them.
const READ_SIZE: usize = 4 << 10;

/// A connection that was accepted, before it is known what is spoken on it.
#[derive(Debug)]
pub(crate) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

/// A connection without encryption, which the kernel can be given files for.
#[derive(Clone, Debug)]
pub(crate) enum Plain {
    Tcp(Arc<TcpStream>),
    Unix(Arc<UnixStream>),
}

/// Where messages of a client come from.
#[derive(Debug)]
pub(crate) enum Reader {
    Plain(Plain),
    Tls(ReadHalf<TlsStream<TcpStream>>),
}

/// Where messages for a client go when they are written as the client takes them.
#[derive(Debug)]
pub(crate) enum Writer {
    Plain(Plain),
    Tls {
        stream: WriteHalf<TlsStream<TcpStream>>,
        /// Whether something may be encrypted and not yet given to the kernel.
        unflushed: bool,
    },
}

impl Reader {
    /// Appends what there is to `input`, at least a byte; 0 means that the client sends no more.
    /// Cancel safe.
    pub(crate) async fn read(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, input)).await
    }

    /// As [`Reader::read`], `None` when there is nothing now.
    pub(crate) fn try_read(&mut self, input: &mut BytesMut) -> io::Result<Option<usize>> {
        match self.poll_read(&mut Context::from_waker(Waker::noop()), input) {
            Poll::Ready(result) => result.map(Some),
            Poll::Pending => Ok(None),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, input: &mut BytesMut) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(Plain::Tcp(stream)) => loop {
                match stream.poll_read_ready(cx)? {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) => {
                        input.reserve(READ_SIZE);
                        match stream.try_read_buf(input) {
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                            result => return Poll::Ready(result),
                        }
                    }
                }
            },
            Self::Plain(Plain::Unix(stream)) => loop {
                match stream.poll_read_ready(cx)? {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) => {
                        input.reserve(READ_SIZE);
                        match stream.try_read_buf(input) {
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                            result => return Poll::Ready(result),
                        }
                    }
                }
            },
            Self::Tls(stream) => {
                let mut space = [0; READ_SIZE];
                let mut buffer = ReadBuf::new(&mut space);
                match Pin::new(stream).poll_read(cx, &mut buffer) {
                    Poll::Ready(Ok(())) => {
                        input.extend_from_slice(buffer.filled());
                        Poll::Ready(Ok(buffer.filled().len()))
                    }
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }
}

impl Writer {
    pub(crate) const fn tls(stream: WriteHalf<TlsStream<TcpStream>>) -> Self {
        Self::Tls {
            stream,
            unflushed: false,
        }
    }

    /// Whether it holds something that the client has yet to take, so that
    /// [`progress`](Self::progress) has to be made, though there may be no more to write.
    pub(crate) const fn is_unflushed(&self) -> bool {
        matches!(
            self,
            Self::Tls {
                unflushed: true,
                ..
            }
        )
    }

    /// Waits until the client takes more, or with TLS writes all of `out`, from the front, and
    /// until the client has taken that. Cancel safe: what was written is taken off `out`, and
    /// [`is_unflushed`](Self::is_unflushed) tells whether all of it has gone.
    pub(crate) async fn progress(&mut self, out: &mut BytesMut) -> io::Result<()> {
        match self {
            Self::Plain(Plain::Tcp(stream)) => stream.writable().await,
            Self::Plain(Plain::Unix(stream)) => stream.writable().await,
            Self::Tls { stream, unflushed } => {
                *unflushed = true;
                while !out.is_empty() {
                    let count = poll_fn(|cx| Pin::new(&mut *stream).poll_write(cx, out)).await?;
                    if count == 0 {
                        return Err(io::ErrorKind::WriteZero.into());
                    }
                    out.advance(count);
                }
                // What was encrypted may still lie here.
                poll_fn(|cx| Pin::new(&mut *stream).poll_flush(cx)).await?;
                *unflushed = false;
                Ok(())
            }
        }
    }

    /// Tells the client that nothing more comes.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(plain) => Ok(rustix::net::shutdown(
                plain.as_fd(),
                rustix::net::Shutdown::Write,
            )?),
            Self::Tls { stream, .. } => {
                poll_fn(|cx| Pin::new(&mut *stream).poll_shutdown(cx)).await
            }
        }
    }
}

impl AsFd for Plain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Plain {
    /// Sends what the client takes of `bytes` now, `None` when it takes nothing. With `more` the
    /// kernel waits for what follows at once.
    pub(crate) fn send(&self, bytes: &[u8], more: bool) -> io::Result<Option<usize>> {
        let mut flags = SendFlags::NOSIGNAL;
        flags.set(SendFlags::MORE, more);
        self.now(|| Ok(rustix::net::send(self.as_fd(), bytes, flags)?))
    }

    /// As [`Plain::send`], of several pieces.
    pub(crate) fn send_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        self.now(|| match self {
            Self::Tcp(stream) => Ok(rustix::io::writev(stream, pieces)?),
            Self::Unix(stream) => Ok(rustix::io::writev(stream, pieces)?),
        })
    }

    /// As [`Plain::send`], of `length` bytes of a file from `offset` on, which the kernel takes
    /// from its cache or the disk.
    pub(crate) fn send_file(
        &self,
        file: BorrowedFd<'_>,
        offset: u64,
        length: usize,
    ) -> io::Result<Option<usize>> {
        let mut offset = offset;
        self.now(|| {
            let sent = rustix::fs::sendfile(self.as_fd(), file, Some(&mut offset), length)?;
            Ok(sent)
        })
    }

    /// Does something unless the client is known to take nothing now.
    fn now(&self, action: impl FnOnce() -> io::Result<usize>) -> io::Result<Option<usize>> {
        let result = match self {
            Self::Tcp(stream) => stream.try_io(Interest::WRITABLE, action),
            Self::Unix(stream) => stream.try_io(Interest::WRITABLE, action),
        };
        match result {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }
}
