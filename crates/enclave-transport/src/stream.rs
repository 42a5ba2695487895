//! Streams of all kinds, and messages on them that come in time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use crate::{Endpoint, frame, vsock};

/// A connection, which is read and written as far as a time allows ([`Stream::until`]).
#[derive(Debug)]
pub struct Stream(Socket);

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    /// Of a vsock too, which is used as a Unix one.
    Unix(UnixStream),
}

impl Stream {
    /// Connects, as far as `until` allows.
    ///
    /// # Errors
    /// Nobody listens there, or not in time.
    pub fn connect(endpoint: &Endpoint, until: Instant) -> io::Result<Self> {
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
            Endpoint::Unix(path) => Self::of_unix(UnixStream::connect(path)?),
            Endpoint::Vsock { cid, port } => Self::of_unix(vsock::connect(*cid, *port)?),
        })
    }

    fn of(stream: TcpStream) -> io::Result<Self> {
        // a message is written as a whole: nothing is to be waited for
        stream.set_nodelay(true)?;
        Ok(Self(Socket::Tcp(stream)))
    }

    fn of_unix(stream: UnixStream) -> Self {
        Self(Socket::Unix(stream))
    }

    /// The stream until then.
    pub fn until(&mut self, until: Instant) -> Timed<'_> {
        Timed { stream: self, until }
    }

    /// Reads a frame, for which so long is waited.
    pub(crate) fn read_frame(&mut self, limit: usize, patience: Duration) -> io::Result<Option<Vec<u8>>> {
        frame::read(&mut self.until(Instant::now() + patience), limit)
    }

    /// Writes a frame, which is to be taken as soon.
    pub(crate) fn write_frame(&mut self, frame: &[u8], patience: Duration) -> io::Result<()> {
        frame::write(&mut self.until(Instant::now() + patience), frame)
    }
}

fn remaining(until: Instant) -> io::Result<Duration> {
    let remaining = until.saturating_duration_since(Instant::now());
    if remaining.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(remaining) }
}

/// A stream with an end in time: later, reading and writing fail with
/// [`ErrorKind::TimedOut`].
#[derive(Debug)]
pub struct Timed<'a> {
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
        match &mut self.stream.0 {
            Socket::Tcp(stream) => stream.set_read_timeout(timeout).and_then(|()| stream.read(to)),
            Socket::Unix(stream) => stream.set_read_timeout(timeout).and_then(|()| stream.read(to)),
        }
        .map_err(timed)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let timeout = Some(remaining(self.until)?);
        match &mut self.stream.0 {
            Socket::Tcp(stream) => stream.set_write_timeout(timeout).and_then(|()| stream.write(from)),
            Socket::Unix(stream) => stream.set_write_timeout(timeout).and_then(|()| stream.write(from)),
        }
        .map_err(timed)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where connections come in: for what a [`crate::Server`] does not speak.
#[derive(Debug)]
pub struct Listener(Door);

#[derive(Debug)]
enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
    Vsock(OwnedFd),
}

impl Listener {
    /// Listens there.
    ///
    /// # Errors
    /// It cannot, e.g. because somebody else does.
    pub fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        let door = match endpoint {
            Endpoint::Tcp(address) => TcpListener::bind(address).map(Door::Tcp),
            Endpoint::Unix(path) => UnixListener::bind(path).map(Door::Unix),
            Endpoint::Vsock { port, .. } => vsock::listen(*port).map(Door::Vsock),
        };
        let cannot = |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on {endpoint}: {e}"));
        door.map(Self).map_err(cannot)
    }

    /// The address in use, if it is one of TCP.
    ///
    /// # Errors
    /// The system does not tell.
    pub(crate) fn tcp_address(&self) -> io::Result<Option<SocketAddr>> {
        match &self.0 {
            Door::Tcp(listener) => listener.local_addr().map(Some),
            _ => Ok(None),
        }
    }

    /// The next connection; waits for it.
    ///
    /// # Errors
    /// The system's, of which some pass.
    pub fn accept(&self) -> io::Result<Stream> {
        match &self.0 {
            Door::Tcp(listener) => Stream::of(listener.accept()?.0),
            Door::Unix(listener) => Ok(Stream::of_unix(listener.accept()?.0)),
            Door::Vsock(listener) => Ok(Stream::of_unix(vsock::accept(listener)?)),
        }
    }
}
