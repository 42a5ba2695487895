//! Messages on the stream: a little-endian length of 32 bits, then as many bytes of protocol
//! buffers. Each has to arrive or to be taken as a whole within a time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// The longest request that is read, in bytes. Requests for quotes have about 1700; an EPID
/// revocation list may be of some hundred thousand.
pub const MAX_REQUEST: usize = 1 << 20;

/// Reads a message of at most `limit` bytes.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if it says to be longer; what the stream says, its end and
/// its slowness included.
pub fn read(from: &mut impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if usize::try_from(length).map_or(true, |length| length > limit) {
        let text = format!("a message of {length} bytes; at most {limit} are taken");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    // memory is taken as bytes come, not as they are announced
    let mut message = Vec::new();
    from.take(length.into()).read_to_end(&mut message)?;
    if message.len() < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(message)
}

/// Writes a message.
///
/// # Errors
/// What the stream says; [`io::ErrorKind::InvalidInput`] if the message is longer than a
/// length can say.
pub fn write(to: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    to.write_all(&[&length.to_le_bytes(), message].concat())
}

/// A stream that has until a moment for all that is read or written: a peer that sends a
/// byte now and then does not hold it for longer.
#[derive(Debug)]
pub struct Until<'a> {
    stream: &'a UnixStream,
    end: Instant,
}

impl<'a> Until<'a> {
    /// From now on for as long.
    pub fn within(stream: &'a UnixStream, time: Duration) -> Self {
        Self { stream, end: Instant::now() + time }
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for message in [&[][..], &[7], &[9; 5000]] {
            let mut stream = Vec::new();
            write(&mut stream, message).expect("a vector takes all");
            assert_eq!(stream.len(), 4 + message.len());
            assert_eq!(read(&mut &stream[..], 5000).expect("whole"), message);
            for end in 0..stream.len() {
                let cut = read(&mut &stream[..end], 5000).expect_err("cut short");
                assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
            }
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_anything_is_read() {
        for length in [6, u32::MAX] {
            let stream = [&length.to_le_bytes()[..], &[1; 6]].concat();
            let mut rest = &stream[..];
            let refused = read(&mut rest, 5).expect_err("too long");
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
            assert_eq!(rest.len(), 6);
        }
    }

    #[test]
    fn a_peer_that_drips_does_not_hold_a_stream() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let dripping = std::thread::spawn(move || {
            let mut theirs = theirs;
            // until nobody listens any more
            while theirs.write_all(&[1]).is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let error = read(&mut Until::within(&ours, Duration::from_millis(60)), 1 << 30).expect_err("late");
        // which of the two it is depends on whether the end came in a read or between two
        assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{error}");
        drop(ours);
        dripping.join().expect("ended");
    }
}
