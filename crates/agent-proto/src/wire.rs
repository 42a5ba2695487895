//! Bounded reading and writing of a payload's fields, all little-endian.

use alloc::vec::Vec;
use core::fmt;

/// A message that cannot be put into a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The payload would have `len` bytes, more than
    /// [`MAX_PAYLOAD`](crate::MAX_PAYLOAD).
    TooLong {
        /// Length the payload would have, in bytes.
        len: usize,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { len } => write!(
                f,
                "the command's arguments and environment take {len} bytes, more than the {} \
                 that can be sent to the guest; shorten them or pass the data on standard input",
                crate::MAX_PAYLOAD
            ),
        }
    }
}

impl core::error::Error for EncodeError {}

/// Why a payload is not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Malformed {
    /// No message has this type.
    UnknownType(u8),
    /// The payload ends within a field.
    Truncated,
    /// Bytes follow the last field.
    TrailingBytes(usize),
    /// A field has a value that it cannot have.
    BadValue(&'static str),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownType(t) => write!(f, "unknown message type {t:#04x}"),
            Self::Truncated => write!(f, "message ends within a field"),
            Self::TrailingBytes(n) => write!(f, "{n} bytes follow the message"),
            Self::BadValue(field) => write!(f, "invalid {field}"),
        }
    }
}

impl core::error::Error for Malformed {}

/// Reads fields off the front of a payload.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(Malformed::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.0.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count of elements of at least `each` bytes, no more than can still
    /// follow: what is allocated for them is bounded by the payload.
    pub(crate) fn count(&mut self, each: usize) -> Result<usize, Malformed> {
        let n = self.u32()? as usize;
        if n > self.0.len() / each {
            return Err(Malformed::Truncated);
        }
        Ok(n)
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, Malformed> {
        let len = self.count(1)?;
        self.take(len).map(<[u8]>::to_vec)
    }

    /// A string for the kernel, which ends them with a zero byte: none within.
    pub(crate) fn c_string(&mut self, field: &'static str) -> Result<Vec<u8>, Malformed> {
        let s = self.bytes()?;
        if s.contains(&0) {
            return Err(Malformed::BadValue(field));
        }
        Ok(s)
    }

    pub(crate) fn finish(self) -> Result<(), Malformed> {
        match self.0.len() {
            0 => Ok(()),
            n => Err(Malformed::TrailingBytes(n)),
        }
    }
}

/// Appends a field of counted bytes. The caller checks the whole payload's
/// length afterwards, which also covers a length that this cast would cut.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

pub(crate) fn put_count(out: &mut Vec<u8>, n: usize) {
    out.extend_from_slice(&u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes());
}
