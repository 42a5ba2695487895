//! Frames: finding them in a stream of bytes, and making them.

use crate::wire::{EncodeError, Malformed};
use alloc::vec::Vec;
use core::fmt;

/// Length of a frame's header in bytes: u32 payload length, u8 type.
pub const HEADER_LEN: usize = 5;

/// The longest payload, in bytes: room for the arguments and environment that
/// Linux itself would take of one command at its usual limit of 2 MiB.
pub const MAX_PAYLOAD: usize = 2 << 20;

/// What is wrong with a frame. The decoder is past it already: call
/// [`Decoder::next_frame`] again for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// The header claims a payload longer than [`MAX_PAYLOAD`]; that many
    /// bytes are skipped.
    Oversized {
        /// Claimed length of the payload in bytes.
        len: u32,
    },
    /// The payload is not a message.
    Malformed(Malformed),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Oversized { len } => {
                write!(f, "frame claims {len} bytes, the longest has {MAX_PAYLOAD}")
            }
            Self::Malformed(why) => why.fmt(f),
        }
    }
}

impl core::error::Error for FrameError {}

impl From<Malformed> for FrameError {
    fn from(why: Malformed) -> Self {
        Self::Malformed(why)
    }
}

/// Splits a stream of bytes into frames, however the bytes arrive.
///
/// It holds at most one unfinished frame and what was pushed since, so a caller
/// that takes all frames after each push bounds its memory by
/// [`MAX_PAYLOAD`] plus one push.
#[derive(Debug, Default)]
pub struct Decoder {
    buf: Vec<u8>,
    /// Bytes at the front of `buf` that were taken already.
    taken: usize,
    /// Bytes of an oversized frame still to be thrown away.
    skip: u32,
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is left of a frame that has begun: the stream stands
    /// between two.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taken == self.buf.len() && self.skip == 0
    }

    /// Takes bytes as they came from the port.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buf.drain(..self.taken);
        self.taken = 0;
        let skipped = bytes.len().min(self.skip as usize);
        self.skip -= skipped as u32;
        self.buf.extend_from_slice(&bytes[skipped..]);
    }

    /// The next whole frame as its type and payload, or `None` when more bytes
    /// are needed.
    ///
    /// # Errors
    /// [`FrameError::Oversized`], once for each such frame.
    pub fn next_frame(&mut self) -> Result<Option<(u8, &[u8])>, FrameError> {
        let rest = &self.buf[self.taken..];
        let Some((&[a, b, c, d, kind], body)) = rest.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let len = u32::from_le_bytes([a, b, c, d]);
        if len as usize > MAX_PAYLOAD {
            let here = body.len().min(len as usize);
            self.taken += HEADER_LEN + here;
            self.skip = len - here as u32;
            return Err(FrameError::Oversized { len });
        }
        match body.get(..len as usize) {
            None => Ok(None),
            Some(payload) => {
                self.taken += HEADER_LEN + payload.len();
                Ok(Some((kind, payload)))
            }
        }
    }
}

/// Appends a frame to `out`, its payload written by `body`. On error `out` is
/// as it was.
pub(crate) fn put_frame(
    out: &mut Vec<u8>,
    kind: u8,
    body: impl FnOnce(&mut Vec<u8>),
) -> Result<(), EncodeError> {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind]);
    body(out);
    let len = out.len() - start - HEADER_LEN;
    if len > MAX_PAYLOAD {
        out.truncate(start);
        return Err(EncodeError::TooLong { len });
    }
    out[start..start + 4].copy_from_slice(&(len as u32).to_le_bytes());
    Ok(())
}
