//! Where an enclave answers: a port of TCP, or a Unix socket that leads to a machine's vsock.

use crate::exit::Error;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// HOST:PORT.
    Tcp(String),
    /// The path of a socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// Reads it: what ends in a port and has no slash is no path.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.rsplit_once(':') {
            Some((host, port)) if !text.contains('/') => {
                let named = !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0);
                let told = "is no HOST:PORT, such as 127.0.0.1:7000; a path of a socket with a colon in it needs a ./ before it";
                named.then(|| Self::Tcp(text.to_owned())).ok_or_else(|| told.to_owned())
            }
            _ if text.is_empty() => Err("is empty: give HOST:PORT or the path of a Unix socket".to_owned()),
            _ => Ok(Self::Unix(text.into())),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A connection with an end to all patience.
pub(crate) struct Stream {
    socket: Socket,
    until: Instant,
    patience: Duration,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Connects; all that is done with the stream is to end within this time, but for what the
    /// system takes to look up a name.
    ///
    /// # Errors
    /// Nobody is there.
    pub(crate) fn connect(endpoint: &Endpoint, patience: Duration) -> Result<Self, Error> {
        let until = Instant::now() + patience;
        let socket = match endpoint {
            Endpoint::Tcp(address) => connect(address, until).map(Socket::Tcp),
            Endpoint::Unix(path) => UnixStream::connect(path).map(Socket::Unix),
        };
        let socket = socket.map_err(|e| {
            let remedy = "see whether the machine runs, with --publish or --vsock-listen for this endpoint";
            Error::bad(format!("{endpoint}: nobody can be reached: {e}: {remedy}"))
        })?;
        Ok(Self { socket, until, patience })
    }

    /// Gives the socket what time is left.
    fn timed(&mut self) -> io::Result<&mut Socket> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self.late());
        }
        match &self.socket {
            Socket::Tcp(tcp) => tcp.set_read_timeout(Some(left)).and(tcp.set_write_timeout(Some(left))),
            Socket::Unix(unix) => unix.set_read_timeout(Some(left)).and(unix.set_write_timeout(Some(left))),
        }?;
        Ok(&mut self.socket)
    }

    /// A socket's timeout is an error of another name.
    fn in_time<T>(&self, done: io::Result<T>) -> io::Result<T> {
        done.map_err(|e| if e.kind() == ErrorKind::WouldBlock { self.late() } else { e })
    }

    fn late(&self) -> io::Error {
        let told = format!("it has not finished a handshake within {:?}", self.patience);
        io::Error::new(ErrorKind::TimedOut, told)
    }
}

fn connect(address: &str, until: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the name has no address");
    for address in address.to_socket_addrs()? {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(e) => last = e,
        }
    }
    Err(last)
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = match self.timed()? {
            Socket::Tcp(tcp) => tcp.read(buf),
            Socket::Unix(unix) => unix.read(buf),
        };
        self.in_time(read)
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = match self.timed()? {
            Socket::Tcp(tcp) => tcp.write(buf),
            Socket::Unix(unix) => unix.write(buf),
        };
        self.in_time(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_paths_are_told_apart() {
        for tcp in ["127.0.0.1:7000", "[::1]:443", "enclave.example:65535"] {
            assert_eq!(Endpoint::parse(tcp), Ok(Endpoint::Tcp(tcp.into())));
        }
        for path in ["/tmp/guest", "guest", "./guest:7000", "a/b:7000"] {
            assert_eq!(Endpoint::parse(path), Ok(Endpoint::Unix(path.into())));
        }
        for bad in ["", ":7000", "host:", "host:0", "host:65536", "host:https"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
