//! Carrying bytes from one descriptor to another through a bounded buffer:
//! nothing is read before what was read is written, so a slow reader slows the
//! writer down.

use rustix::io::Errno;
use std::os::fd::BorrowedFd;

/// Bytes held at most, per direction: what a pipe holds.
const CAPACITY: usize = 64 << 10;

/// What one attempt to move bytes came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// This many bytes moved.
    Moved(usize),
    /// Nothing can move now.
    Blocked,
    /// Nothing will move any more: end of file, or the other side is gone.
    End,
}

/// A buffer between two non-blocking descriptors.
#[derive(Debug)]
pub struct Pump {
    buf: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Default for Pump {
    fn default() -> Self {
        Self { buf: vec![0; CAPACITY].into_boxed_slice(), start: 0, end: 0 }
    }
}

impl Pump {
    /// Whether all that was read has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Throws away what is held.
    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// The last byte that was read, if any was since the last clearing.
    #[must_use]
    pub fn last(&self) -> Option<u8> {
        self.end.checked_sub(1).map(|at| self.buf[at])
    }

    /// Replaces what is held by a text of ours, cut to the buffer.
    pub fn set(&mut self, text: &[u8]) {
        let len = text.len().min(self.buf.len());
        self.buf[..len].copy_from_slice(&text[..len]);
        (self.start, self.end) = (0, len);
    }

    /// Reads up to `limit` bytes into the empty buffer; into one that is not
    /// empty it reads nothing.
    pub fn fill(&mut self, from: BorrowedFd<'_>, limit: u64) -> Flow {
        if !self.is_empty() || limit == 0 {
            return Flow::Blocked;
        }
        let want = self.buf.len().min(usize::try_from(limit).unwrap_or(usize::MAX));
        match rustix::io::read(from, &mut self.buf[..want]) {
            Ok(0) => Flow::End,
            Ok(n) => {
                (self.start, self.end) = (0, n);
                Flow::Moved(n)
            }
            Err(Errno::AGAIN | Errno::INTR) => Flow::Blocked,
            // EIO is how a terminal says that its other side is closed
            Err(_) => Flow::End,
        }
    }

    /// Writes what is held as far as it goes now.
    pub fn drain(&mut self, to: BorrowedFd<'_>) -> Flow {
        if self.is_empty() {
            return Flow::Blocked;
        }
        match rustix::io::write(to, &self.buf[self.start..self.end]) {
            Ok(0) | Err(Errno::AGAIN | Errno::INTR) => Flow::Blocked,
            Ok(n) => {
                self.start += n;
                Flow::Moved(n)
            }
            Err(_) => Flow::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::os::fd::AsFd;

    #[test]
    fn bytes_pass_in_order_and_never_more_than_the_limit() {
        let (r1, w1) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        let (r2, w2) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        rustix::io::write(&w1, b"hello world").unwrap();
        let mut pump = Pump::default();
        assert_eq!(pump.fill(r1.as_fd(), 5), Flow::Moved(5));
        assert_eq!(pump.fill(r1.as_fd(), 5), Flow::Blocked, "full: no more");
        assert_eq!(pump.drain(w2.as_fd()), Flow::Moved(5));
        let mut buf = [0; 32];
        assert_eq!(rustix::io::read(&r2, &mut buf).unwrap(), 5);
        assert_eq!(&buf[..5], b"hello");
        assert_eq!(pump.last(), Some(b'o'));
        drop(w1);
        assert_eq!(pump.fill(r1.as_fd(), 100), Flow::Moved(6));
        drop(r2);
        assert_eq!(pump.drain(w2.as_fd()), Flow::End, "reader gone");
        pump.clear();
        assert_eq!(pump.fill(r1.as_fd(), 100), Flow::End);
    }
}
