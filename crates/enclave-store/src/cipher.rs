//! Bytes that are sealed for one place: only there are they opened.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use alloc::vec::Vec;
use zeroize::Zeroizing;

/// Bytes of a nonce, before the ciphertext.
const NONCE: usize = 12;
/// Bytes of a tag, after it.
pub(crate) const TAG: usize = 16;
/// Bytes that sealing adds.
pub(crate) const OVERHEAD: usize = NONCE + TAG;

/// The secret of a store, e.g. from `enclave::random`, kept by `enclave::sealing`.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; 32]>);

impl Key {
    /// A secret that nobody else knows.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

pub(crate) struct Cipher(Aes256Gcm);

impl Cipher {
    pub(crate) fn new(key: &Key) -> Self {
        Self(Aes256Gcm::new((&*key.0).into()))
    }

    /// Nonce, ciphertext and tag.
    pub(crate) fn seal(&self, place: &[u8], plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE] = random();
        let sealed = self.0.encrypt(&Nonce::from(nonce), Payload { msg: plain, aad: place });
        // more than 64 GiB: no limit allows that
        let sealed = sealed.expect("a record is short");
        [&nonce[..], &sealed].concat()
    }

    /// What was sealed for this place by this key, or nothing.
    pub(crate) fn open(&self, place: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
        let plain = self.0.decrypt(&Nonce::from(*nonce), Payload { msg: sealed, aad: place });
        plain.ok().map(Zeroizing::new)
    }
}

/// Random bytes.
///
/// # Panics
/// There are none: nothing can be sealed then.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the processor has random numbers");
    bytes
}
