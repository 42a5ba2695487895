//! Fields one after another in bytes that anybody may have written.

use crate::error::{Refusal, Rule, refuse};

/// What is left of a structure; `what` names it in messages.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { rest: bytes, what }
    }

    pub(crate) fn bytes(&mut self, length: usize, field: &str) -> Result<&'a [u8], Refusal> {
        match self.rest.split_at_checked(length) {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => {
                let what = format!("needs {length} bytes; {} are left", self.rest.len());
                refuse(Rule::Truncated, format!("{}: {field}", self.what), what)
            }
        }
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N], Refusal> {
        Ok(self.bytes(N, field)?.try_into().expect("of that length"))
    }

    pub(crate) fn u16(&mut self, field: &str) -> Result<u16, Refusal> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &str) -> Result<u32, Refusal> {
        self.array(field).map(u32::from_le_bytes)
    }

    /// A u16 length and so many bytes.
    pub(crate) fn prefixed16(&mut self, field: &str) -> Result<&'a [u8], Refusal> {
        let length = self.u16(&format!("{field} size"))?;
        self.bytes(usize::from(length), field)
    }

    /// A u32 length and so many bytes.
    pub(crate) fn prefixed32(&mut self, field: &str) -> Result<&'a [u8], Refusal> {
        let length = self.u32(&format!("{field} size"))?;
        self.bytes(length as usize, field)
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), Refusal> {
        match self.rest.len() {
            0 => Ok(()),
            left => refuse(Rule::Trailing, self.what, format!("has {left} bytes after its last field")),
        }
    }

    /// Nothing but the zeros of a buffer that was larger may be left.
    pub(crate) fn end_of_buffer(mut self) -> Result<(), Refusal> {
        if self.rest.iter().all(|&byte| byte == 0) {
            self.rest = &[];
        }
        self.end()
    }
}
