//! Streams of all kinds, and messages on them that come in time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use crate::{Endpoint, frame, vsock};

/// A connection; of a vsock too, which is used as a Unix one.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Connects, as far as `until` allows.
    pub(crate) fn connect(endpoint: &Endpoint, until: Instant) -> io::Result<Self> {
        Ok(match endpoint {
            Endpoint::Tcp(address) => {
                let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
                for address in address.to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, remaining(until)?) {
                        Ok(stream) => return Self::of(stream),
                        Err(e) => last = e,
                    }
                }
                return Err(last);
            }
            Endpoint::Unix(path) => Self::Unix(UnixStream::connect(path)?),
            Endpoint::Vsock { cid, port } => Self::Unix(vsock::connect(*cid, *port)?),
        })
    }

    fn of(stream: TcpStream) -> io::Result<Self> {
        // a message is written as a whole: nothing is to be waited for
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    /// The stream until then; later, reading and writing fail with
    /// [`ErrorKind::TimedOut`].
    pub(crate) fn until(&mut self, until: Instant) -> Timed<'_> {
        Timed { stream: self, until }
    }

    /// Reads a frame, for which so long is waited.
    pub(crate) fn read(&mut self, limit: usize, patience: Duration) -> io::Result<Option<Vec<u8>>> {
        frame::read(&mut self.until(Instant::now() + patience), limit)
    }

    /// Writes a frame, which is to be taken as soon.
    pub(crate) fn write(&mut self, frame: &[u8], patience: Duration) -> io::Result<()> {
        frame::write(&mut self.until(Instant::now() + patience), frame)
    }
}

fn remaining(until: Instant) -> io::Result<Duration> {
    let remaining = until.saturating_duration_since(Instant::now());
    if remaining.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(remaining) }
}

/// A stream with an end in time.
pub(crate) struct Timed<'a> {
    stream: &'a mut Stream,
    until: Instant,
}

/// A time-out of the socket's is told as `WouldBlock`.
fn timed(e: io::Error) -> io::Error {
    if e.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { e }
}

impl Read for Timed<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let timeout = Some(remaining(self.until)?);
        match self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(timeout).and_then(|()| stream.read(to)),
            Stream::Unix(stream) => stream.set_read_timeout(timeout).and_then(|()| stream.read(to)),
        }
        .map_err(timed)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let timeout = Some(remaining(self.until)?);
        match self.stream {
            Stream::Tcp(stream) => stream.set_write_timeout(timeout).and_then(|()| stream.write(from)),
            Stream::Unix(stream) => stream.set_write_timeout(timeout).and_then(|()| stream.write(from)),
        }
        .map_err(timed)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where connections come in.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
    Vsock(OwnedFd),
}

impl Listener {
    pub(crate) fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        Ok(match endpoint {
            Endpoint::Tcp(address) => Self::Tcp(TcpListener::bind(address)?),
            Endpoint::Unix(path) => Self::Unix(UnixListener::bind(path)?),
            Endpoint::Vsock { port, .. } => Self::Vsock(vsock::listen(*port)?),
        })
    }

    pub(crate) fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => Stream::of(listener.accept()?.0),
            Self::Unix(listener) => Ok(Stream::Unix(listener.accept()?.0)),
            Self::Vsock(listener) => Ok(Stream::Unix(vsock::accept(listener)?)),
        }
    }
}
