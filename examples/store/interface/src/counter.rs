//! How the enclave and its counter talk, through the host's hands: one request, one answer,
//! which is signed together with the request. Numbers are little-endian, as on the only
//! processors that this is for.

use alloc::vec::Vec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a counter has of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Counted {
    /// Commits.
    pub number: u64,
    /// Hash of the state that the last of them has made.
    pub state: [u8; 32],
}

/// What the enclave asks.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Request {
    /// Random: no answer to another request fits.
    pub nonce: [u8; 32],
    /// Which store.
    pub store: [u8; 16],
    /// What to count on to, if that is the next number; all zeros to ask only.
    pub to: Counted,
}

/// What the counter answers.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Answer {
    /// What it has of the store now.
    pub last: Counted,
    /// ECDSA on P-256 with SHA-256 over [`signed`].
    pub signature: [u8; 64],
}

/// What the counter signs.
pub fn signed(request: &Request, last: &Counted) -> Vec<u8> {
    [&b"examples/store, counter 1\0"[..], request.as_bytes(), last.as_bytes()].concat()
}

impl Counted {
    /// Whether `to` is the next.
    pub fn leads_to(&self, to: &Self) -> bool {
        self.number.checked_add(1) == Some(to.number)
    }
}
