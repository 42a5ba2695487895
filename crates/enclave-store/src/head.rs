//! The head: which state of the store is the present one.

use alloc::vec::Vec;
use sha2::{Digest, Sha256};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::cipher::{Cipher, OVERHEAD, TAG};
use crate::{Counted, File, StoreId};

const KIND: &[u8] = b"enclave-store 1, head of ";

/// A state of the store.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct Head {
    pub(crate) id: StoreId,
    /// Of the log; it says which of the two files it is.
    pub(crate) generation: u64,
    /// Commits so far.
    pub(crate) commits: u64,
    /// Bytes of the log.
    pub(crate) len: u64,
    /// Hash over the tags of its records.
    pub(crate) chain: [u8; 32],
}

impl Head {
    /// Bytes of it in a file.
    pub(crate) const SEALED: usize = size_of::<Self>() + OVERHEAD;

    /// A store with nothing in it.
    pub(crate) fn new(id: StoreId) -> Self {
        Self { id, generation: 0, commits: 0, len: 0, chain: [0; 32] }
    }

    pub(crate) fn seal(&self, cipher: &Cipher, name: &[u8]) -> Vec<u8> {
        cipher.seal(&[KIND, name].concat(), self.as_bytes())
    }

    pub(crate) fn open(cipher: &Cipher, name: &[u8], sealed: &[u8]) -> Option<Self> {
        let plain = cipher.open(&[KIND, name].concat(), sealed)?;
        Self::read_from_bytes(&plain).ok()
    }

    /// What a counter is told of it.
    pub(crate) fn counted(&self) -> Counted {
        Counted { number: self.commits, state: Sha256::digest(self.as_bytes()).into() }
    }

    /// The log's file.
    pub(crate) fn log(&self) -> File {
        if self.generation.is_multiple_of(2) { File::LogA } else { File::LogB }
    }

    /// Adds a record of `len` bytes to the log.
    pub(crate) fn append(&mut self, len: usize, tag: &[u8; TAG]) {
        self.len += len as u64;
        self.chain = Sha256::new().chain_update(self.chain).chain_update(tag).finalize().into();
    }
}
