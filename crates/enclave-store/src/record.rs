//! Records of the log: each a change of one key.
//!
//! ```text
//! length of what follows (4)   nonce (12)   [ kind (1)   length of the key (2)   key   value ]   tag (16)
//! ```

use alloc::vec::Vec;
use zeroize::Zeroizing;

use crate::Change;
use crate::cipher::{Cipher, OVERHEAD, TAG};
use crate::head::Head;

const KIND: &[u8] = b"enclave-store 1, record of ";
const PUT: u8 = 1;
const REMOVE: u8 = 2;
/// Bytes of the length before a record.
pub(crate) const PREFIX: usize = 4;
/// Bytes of a record beside key and value.
pub(crate) const EXTRA: usize = PREFIX + OVERHEAD + 3;

/// Where a record is, and which.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) at: u64,
    /// Bytes, the length before it included.
    pub(crate) len: u32,
    pub(crate) tag: [u8; TAG],
}

/// Seals a change for the end of a log, and adds it to `head` and `out`.
pub(crate) fn append(cipher: &Cipher, head: &mut Head, change: &Change<'_>, out: &mut Vec<u8>) -> Entry {
    let (kind, key, value) = match *change {
        Change::Put(key, value) => (PUT, key, value),
        Change::Remove(key) => (REMOVE, key, &[][..]),
    };
    let mut plain = Zeroizing::new(Vec::with_capacity(3 + key.len() + value.len()));
    plain.push(kind);
    // limits keep both lengths far below what their fields hold
    plain.extend_from_slice(&(key.len() as u16).to_le_bytes());
    plain.extend_from_slice(key);
    plain.extend_from_slice(value);
    let sealed = cipher.seal(&place(head, head.len), &plain);
    let entry = Entry { at: head.len, len: (PREFIX + sealed.len()) as u32, tag: tag(&sealed) };
    out.extend_from_slice(&(sealed.len() as u32).to_le_bytes());
    out.extend_from_slice(&sealed);
    head.append(entry.len as usize, &entry.tag);
    entry
}

/// A change as it is in the log.
pub(crate) struct Opened {
    plain: Zeroizing<Vec<u8>>,
    key: usize,
}

impl Opened {
    /// Opens what is sealed at `at`, the length before it not included.
    pub(crate) fn new(cipher: &Cipher, head: &Head, at: u64, sealed: &[u8]) -> Option<Self> {
        let plain = cipher.open(&place(head, at), sealed)?;
        let [PUT | REMOVE, low, high, rest @ ..] = &plain[..] else { return None };
        let key = usize::from(u16::from_le_bytes([*low, *high]));
        (key <= rest.len()).then_some(Self { plain, key })
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.plain[3..3 + self.key]
    }

    /// The value; `None` if the key was removed.
    pub(crate) fn value(&self) -> Option<&[u8]> {
        (self.plain[0] == PUT).then(|| &self.plain[3 + self.key..])
    }
}

/// The tag of something sealed: its last bytes.
pub(crate) fn tag(sealed: &[u8]) -> [u8; TAG] {
    sealed.last_chunk().copied().unwrap_or_default()
}

/// What a record is sealed for.
fn place(head: &Head, at: u64) -> Vec<u8> {
    [KIND, &head.id, &head.generation.to_le_bytes(), &at.to_le_bytes()].concat()
}
